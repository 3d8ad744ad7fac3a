//! `mainstay:host/index`: documents of typed fields that the host filters and orders.
//!
//! Reads see the newest durable state. The limits of names, fields, filters and pages are the store's.

use mainstay_bindings::Failure;
use mainstay_bindings::mainstay::host::index::{Comparison, Field, FilterNode, Host, OrderKey, Query, Selection, Term};
use mainstay_bindings::mainstay::host::keys::Transaction as Handle;
use mainstay_store as store;
use wasmtime::component::Resource;

use super::values::to_store;
use crate::capabilities::INDEX;
use crate::state::State;

type Answer<T> = Result<T, Failure>;

impl Host for State {
    fn set_fields(&mut self, tx: Resource<Handle>, index: String, document: String, fields: Vec<Field>) -> Answer<()> {
        let _host = self.enter(INDEX)?;
        let fields = fields.into_iter().map(field).collect();
        Ok(self.transactions.get(&tx)?.set_fields(&self.plugin.space, &index, &document, fields)?)
    }

    fn remove_document(&mut self, tx: Resource<Handle>, index: String, document: String) -> Answer<()> {
        let _host = self.enter(INDEX)?;
        Ok(self.transactions.get(&tx)?.remove_document(&self.plugin.space, &index, &document)?)
    }

    fn document(&mut self, index: String, document: String) -> Answer<Option<Vec<u8>>> {
        let _host = self.enter(INDEX)?;
        Ok(self.plugin.services.store.document(&self.plugin.space, &index, &document)?)
    }

    fn select(&mut self, index: String, asked: Query) -> Answer<Selection> {
        let _host = self.enter(INDEX)?;
        let found = self.plugin.services.store.select(&self.plugin.space, &index, &query(asked))?;
        let store::Selection { documents, count, matched, next } = found;
        Ok(Selection { documents, count, matched, next })
    }
}

fn field(field: Field) -> store::FieldWrite {
    store::FieldWrite { name: field.name, value: field.value.map(to_store), rank: field.rank }
}

fn query(query: Query) -> store::Query {
    store::Query {
        filter: query.filter.into_iter().map(filter_node).collect(),
        order: query.order.into_iter().map(order_key).collect(),
        after: query.after,
        limit: query.limit,
        fields: query.fields,
    }
}

fn order_key(key: OrderKey) -> store::OrderKey {
    store::OrderKey { field: key.field, descending: key.descending }
}

fn filter_node(node: FilterNode) -> store::FilterNode {
    match node {
        FilterNode::Term(term) => store::FilterNode::Term(leaf(term)),
        FilterNode::OneOf((field, values)) => {
            store::FilterNode::OneOf(field, values.into_iter().map(to_store).collect())
        }
        FilterNode::All(count) => store::FilterNode::All(count),
        FilterNode::Any(count) => store::FilterNode::Any(count),
        FilterNode::Negate => store::FilterNode::Negate,
    }
}

fn leaf(term: Term) -> store::Term {
    let comparison = match term.comparison {
        Comparison::Equal => store::Comparison::Equal,
        Comparison::NotEqual => store::Comparison::NotEqual,
        Comparison::Less => store::Comparison::Less,
        Comparison::LessOrEqual => store::Comparison::LessOrEqual,
        Comparison::Greater => store::Comparison::Greater,
        Comparison::GreaterOrEqual => store::Comparison::GreaterOrEqual,
        Comparison::Like => store::Comparison::Like,
        Comparison::Ilike => store::Comparison::Ilike,
        Comparison::Exists => store::Comparison::Exists,
    };
    store::Term { field: term.field, comparison, operand: to_store(term.operand) }
}

//! The index against a naive reference: documents as maps, every question answered by going through all of them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use mainstay_base::ErrorKind;
use proptest::prelude::*;

use super::*;
use crate::value::{Rank, Value};

const SPACE: &str = "space";
const INDEX: &str = "runs";

type Fields = BTreeMap<String, (Value, Option<Rank>)>;

/// What the index must be, written to be obviously right.
#[derive(Clone, Default)]
struct Reference {
    documents: BTreeMap<String, Fields>,
}

#[derive(Clone, Debug)]
enum Write {
    Set(String, Vec<FieldWrite>),
    Remove(String),
}

impl Reference {
    fn apply(&mut self, write: &Write) {
        match write {
            Write::Remove(id) => {
                self.documents.remove(id);
            }
            Write::Set(id, writes) => {
                let fields = self.documents.entry(id.clone()).or_default();
                for write in writes {
                    Reference::write(fields, write);
                }
                self.documents.retain(|_, fields| !fields.is_empty());
            }
        }
    }

    fn write(fields: &mut Fields, write: &FieldWrite) {
        let Some(value) = &write.value else {
            fields.remove(&write.name);
            return;
        };
        if let (Some(new), Some((held, Some(old)))) = (write.rank, fields.get(&write.name))
            && new.cmp(old).then(value.total_cmp(held)).is_le()
        {
            return;
        }
        fields.insert(write.name.clone(), (value.clone(), write.rank));
    }

    fn select(&self, query: &Query) -> (Vec<Unpacked>, u64) {
        let mut rows: Vec<(&String, &Fields)> =
            self.documents.iter().filter(|(id, fields)| Reference::matches(query, id, fields)).collect();
        let matched = rows.len() as u64;
        rows.sort_by(|a, b| Reference::compare(query, a, b));
        let unpack = |(id, fields): (&String, &Fields)| Unpacked {
            id: id.clone(),
            fields: fields
                .iter()
                .filter(|(name, _)| query.fields.as_ref().is_none_or(|wanted| wanted.contains(name)))
                .map(|(name, (value, rank))| FieldWrite { name: name.clone(), value: Some(value.clone()), rank: *rank })
                .collect(),
        };
        (rows.into_iter().map(unpack).collect(), matched)
    }

    fn matches(query: &Query, id: &str, fields: &Fields) -> bool {
        let mut stack = Vec::new();
        for node in &query.filter {
            let result = match node {
                FilterNode::Term(term) => {
                    Reference::get(&term.field, id, fields).is_some_and(|value| Reference::holds(term, &value))
                }
                FilterNode::OneOf(field, values) => Reference::get(field, id, fields).is_some_and(|value| {
                    values.iter().any(|operand| {
                        let (field, operand) = (field.clone(), operand.clone());
                        Reference::holds(&Term { field, comparison: Comparison::Equal, operand }, &value)
                    })
                }),
                FilterNode::All(count) => {
                    let from = stack.len() - *count as usize;
                    stack.drain(from..).all(|result| result)
                }
                FilterNode::Any(count) => {
                    let from = stack.len() - *count as usize;
                    stack.drain(from..).any(|result| result)
                }
                FilterNode::Negate => !stack.pop().unwrap(),
            };
            stack.push(result);
        }
        stack.pop().unwrap_or(true)
    }

    fn get(field: &str, id: &str, fields: &Fields) -> Option<Value> {
        if field == "@id" { Some(Value::Text(id.into())) } else { fields.get(field).map(|(value, _)| value.clone()) }
    }

    fn holds(term: &Term, value: &Value) -> bool {
        if term.comparison == Comparison::Exists {
            return true;
        }
        match (value, &term.operand) {
            (Value::Texts(texts), operand) => texts.iter().any(|text| {
                Reference::holds(&Term { operand: operand.clone(), ..term.clone() }, &Value::Text(text.clone()))
            }),
            (Value::Text(text), Value::Text(operand)) => match term.comparison {
                Comparison::Like => like(operand, text),
                Comparison::Ilike => like(&operand.to_lowercase(), &text.to_lowercase()),
                comparison => filter::holds(comparison, Some(text.cmp(operand))),
            },
            (Value::Boolean(boolean), Value::Boolean(operand)) => {
                filter::holds(term.comparison, Some(boolean.cmp(operand)))
            }
            (a, b) if is_number(a) && is_number(b) => filter::holds(term.comparison, numeric(a, b)),
            _ => false,
        }
    }

    fn compare(query: &Query, a: &(&String, &Fields), b: &(&String, &Fields)) -> Ordering {
        for key in &query.order {
            let (left, right) = (Reference::get(&key.field, a.0, a.1), Reference::get(&key.field, b.0, b.1));
            let (left, right) = (sortable(left), sortable(right));
            let order = left.0.cmp(&right.0).then_with(|| {
                let order = in_order(&left.1, &right.1);
                if key.descending { order.reverse() } else { order }
            });
            if order.is_ne() {
                return order;
            }
        }
        a.0.cmp(b.0)
    }
}

fn is_number(value: &Value) -> bool {
    matches!(value, Value::Integer(_) | Value::Real(_))
}

/// Group (values, NaN, missing) and value.
fn sortable(value: Option<Value>) -> (u8, Option<Value>) {
    match value {
        Some(Value::Real(real)) if real.is_nan() => (1, None),
        None | Some(Value::Bytes(_)) => (2, None),
        Some(Value::Texts(texts)) => match texts.into_iter().next() {
            Some(text) => (0, Some(Value::Text(text))),
            None => (2, None),
        },
        value => (0, value),
    }
}

fn in_order(a: &Option<Value>, b: &Option<Value>) -> Ordering {
    let class = |value: &Option<Value>| match value {
        None => 0,
        Some(Value::Boolean(_)) => 1,
        Some(Value::Integer(_) | Value::Real(_)) => 2,
        Some(_) => 3,
    };
    class(a).cmp(&class(b)).then_with(|| match (a, b) {
        (Some(Value::Boolean(a)), Some(Value::Boolean(b))) => a.cmp(b),
        (Some(Value::Text(a)), Some(Value::Text(b))) => a.cmp(b),
        (Some(a), Some(b)) => numeric(a, b).expect("NaN has a group of its own"),
        _ => Ordering::Equal,
    })
}

fn numeric(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Integer(a), Value::Integer(b)) => Some(a.cmp(b)),
        (Value::Real(a), Value::Real(b)) => a.partial_cmp(b),
        (Value::Integer(a), Value::Real(b)) => {
            if b.is_nan() {
                None
            } else if *b >= 9.3e18 {
                Some(Ordering::Less)
            } else if *b <= -9.3e18 {
                Some(Ordering::Greater)
            } else {
                let whole = b.floor();
                Some((*a as i128).cmp(&(whole as i128)).then(if *b > whole { Ordering::Less } else { Ordering::Equal }))
            }
        }
        (Value::Real(_), Value::Integer(_)) => numeric(b, a).map(Ordering::reverse),
        _ => None,
    }
}

fn like(pattern: &str, text: &str) -> bool {
    fn recurse(pattern: &[char], text: &[char]) -> bool {
        match pattern.first() {
            None => text.is_empty(),
            Some('%') => (0..=text.len()).any(|skipped| recurse(&pattern[1..], &text[skipped..])),
            Some('_') => !text.is_empty() && recurse(&pattern[1..], &text[1..]),
            Some(c) => text.first() == Some(c) && recurse(&pattern[1..], &text[1..]),
        }
    }
    recurse(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>())
}

fn apply(set: &mut IndexSet<&'static str>, write: &Write) {
    match write {
        Write::Set(id, fields) => set.apply_set(&SPACE, INDEX, id, fields),
        Write::Remove(id) => set.apply_remove(&SPACE, INDEX, id),
    }
}

/// Bitwise equality, so that NaN equals NaN.
fn shown(documents: &[Unpacked]) -> String {
    format!("{documents:?}")
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        "[abA]{0,3}".prop_map(Value::Text),
        Just(Value::Text("a long text whose beginning is shared, 1".into())),
        Just(Value::Text("a long text whose beginning is shared, 2".into())),
        (-3i64..3).prop_map(Value::Integer),
        prop::sample::select(vec![i64::MAX, i64::MAX - 1, (1 << 53) + 1, i64::MIN]).prop_map(Value::Integer),
        prop::sample::select(vec![
            f64::NAN,
            -f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -0.0,
            0.0,
            1.5,
            -2.0,
            9_007_199_254_740_992.0,
            9_223_372_036_854_775_807.0
        ])
        .prop_map(|real| Value::Real(if real.is_nan() { f64::NAN } else { real })),
        any::<bool>().prop_map(Value::Boolean),
        prop::collection::vec("[ab]{0,2}", 0..3).prop_map(Value::Texts),
        prop::collection::vec(any::<u8>(), 0..3).prop_map(Value::Bytes),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "metric"]).prop_map(str::to_owned)
}

fn id() -> impl Strategy<Value = String> {
    prop_oneof!["[a-d]{1,2}", (0..9).prop_map(|n| format!("an id with a long common beginning {n}"))]
}

fn field_write() -> impl Strategy<Value = FieldWrite> {
    (name(), prop::option::weighted(0.8, value()), prop::option::of((0i64..3, 0i64..2))).prop_map(
        |(name, value, rank)| {
            let rank = rank.filter(|_| value.is_some());
            FieldWrite { name, value, rank }
        },
    )
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        6 => (id(), prop::collection::vec(field_write(), 0..5)).prop_map(|(id, fields)| Write::Set(id, fields)),
        1 => id().prop_map(Write::Remove),
    ]
}

fn comparison() -> impl Strategy<Value = Comparison> {
    use Comparison::*;
    prop::sample::select(vec![Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual, Like, Ilike, Exists])
}

fn filter_field() -> impl Strategy<Value = String> {
    prop_oneof![6 => name(), 1 => Just("@id".to_owned()), 1 => Just("nobody".to_owned())]
}

fn leaf() -> impl Strategy<Value = Vec<FilterNode>> {
    let term =
        (filter_field(), comparison(), value(), "[abA%_]{0,4}").prop_map(|(field, comparison, operand, pattern)| {
            let operand = match (comparison, operand) {
                (Comparison::Exists, operand) => operand,
                (Comparison::Like | Comparison::Ilike, _) => Value::Text(pattern),
                (_, Value::Texts(_) | Value::Bytes(_)) => Value::Integer(0),
                (_, operand) => operand,
            };
            vec![FilterNode::Term(Term { field, comparison, operand })]
        });
    let one_of = (filter_field(), prop::collection::vec(value(), 0..5)).prop_map(|(field, values)| {
        let values = values.into_iter().filter(|value| !matches!(value, Value::Texts(_) | Value::Bytes(_))).collect();
        vec![FilterNode::OneOf(field, values)]
    });
    prop_oneof![3 => term, 1 => one_of]
}

fn filter() -> impl Strategy<Value = Vec<FilterNode>> {
    let tree = leaf().prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|mut nodes| {
                nodes.push(FilterNode::Negate);
                nodes
            }),
            (prop::collection::vec(inner, 0..4), any::<bool>()).prop_map(|(parts, is_all)| {
                let count = parts.len() as u32;
                let mut nodes: Vec<FilterNode> = parts.into_iter().flatten().collect();
                nodes.push(if is_all { FilterNode::All(count) } else { FilterNode::Any(count) });
                nodes
            }),
        ]
    });
    prop_oneof![1 => Just(Vec::new()), 8 => tree]
}

fn query() -> impl Strategy<Value = Query> {
    let order_key = (filter_field(), any::<bool>()).prop_map(|(field, descending)| OrderKey { field, descending });
    let fields = prop::option::of(prop::collection::vec(name(), 0..3));
    (filter(), prop::collection::vec(order_key, 0..4), 1u32..6, fields)
        .prop_map(|(filter, order, limit, fields)| Query { filter, order, after: None, limit, fields })
}

/// All pages of a query.
fn pages(set: &IndexSet<&'static str>, query: &Query) -> Vec<Unpacked> {
    let mut query = query.clone();
    let mut all = Vec::new();
    loop {
        let page = set.select(&SPACE, INDEX, &query).unwrap();
        let documents = unpack_documents(&page.documents).unwrap();
        assert_eq!(documents.len(), page.count as usize);
        assert!(documents.len() <= query.limit as usize);
        all.extend(documents);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return all,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn selects_what_the_reference_selects(
        writes in prop::collection::vec(write(), 0..60),
        queries in prop::collection::vec(query(), 1..6),
    ) {
        let (mut set, mut reference) = (IndexSet::default(), Reference::default());
        for write in &writes {
            apply(&mut set, write);
            reference.apply(write);
        }
        for query in &queries {
            let (expect, matched) = reference.select(query);
            prop_assert_eq!(set.select(&SPACE, INDEX, query).unwrap().matched, matched);
            prop_assert_eq!(shown(&pages(&set, query)), shown(&expect), "{:?}", query);
        }
        prop_assert_eq!(set.documents(&SPACE, INDEX), reference.documents.len());
    }

    #[test]
    fn rows_bring_documents_back(writes in prop::collection::vec(write(), 0..60)) {
        let (mut set, mut reference) = (IndexSet::default(), Reference::default());
        for write in &writes {
            apply(&mut set, write);
            reference.apply(write);
        }
        let mut again = IndexSet::default();
        for id in reference.documents.keys() {
            let row = set.encode_row(&SPACE, INDEX, id).unwrap();
            again.load_row(&SPACE, INDEX, id, &row).unwrap();
            prop_assert_eq!(again.encode_row(&SPACE, INDEX, id).unwrap(), row);
            prop_assert_eq!(again.document(&SPACE, INDEX, id), set.document(&SPACE, INDEX, id));
        }
        let query = Query { limit: LIMIT_MAX, ..Query::default() };
        prop_assert_eq!(shown(&pages(&again, &query)), shown(&reference.select(&query).0));
    }

    /// What recovery does: rows of a newer state, then the writes that led there once more.
    #[test]
    fn applying_again_changes_nothing(writes in prop::collection::vec(write(), 1..40), from in any::<prop::sample::Index>()) {
        let mut set = IndexSet::default();
        writes.iter().for_each(|write| apply(&mut set, write));
        let query = Query { limit: LIMIT_MAX, ..Query::default() };
        let expect = pages(&set, &query);
        writes[from.index(writes.len())..].iter().for_each(|write| apply(&mut set, write));
        prop_assert_eq!(shown(&pages(&set, &query)), shown(&expect));
    }

    #[test]
    fn ranked_writes_commute(
        writes in prop::collection::vec((value(), (0i64..3, 0i64..2)), 1..12),
        seed in any::<u64>(),
    ) {
        let write = |(value, rank): &(Value, Rank)| {
            let field = FieldWrite { name: "a".into(), value: Some(value.clone()), rank: Some(*rank) };
            Write::Set("d".into(), vec![field])
        };
        let (mut forward, mut shuffled) = (IndexSet::default(), IndexSet::default());
        writes.iter().for_each(|one| apply(&mut forward, &write(one)));
        let mut order: Vec<usize> = (0..writes.len()).chain(0..writes.len() / 2).collect();
        order.sort_by_key(|at| (*at as u64 ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        order.iter().for_each(|&at| apply(&mut shuffled, &write(&writes[at])));
        prop_assert_eq!(shuffled.document(&SPACE, INDEX, "d"), forward.document(&SPACE, INDEX, "d"));
    }

    /// Documents that stay untouched are seen exactly once, whatever comes and goes between the pages.
    #[test]
    fn pages_neither_repeat_nor_hide(
        before in prop::collection::vec(write(), 1..40),
        between in prop::collection::vec(write(), 0..20),
        query in query(),
    ) {
        let (mut set, mut reference) = (IndexSet::default(), Reference::default());
        for write in &before {
            apply(&mut set, write);
            reference.apply(write);
        }
        let touched: BTreeSet<&str> =
            between.iter().map(|write| match write { Write::Set(id, _) | Write::Remove(id) => id.as_str() }).collect();
        let expect: Vec<String> =
            reference.select(&query).0.into_iter().map(|d| d.id).filter(|id| !touched.contains(id.as_str())).collect();

        let mut query = query;
        let mut seen = Vec::new();
        let mut between = between.iter();
        loop {
            let page = set.select(&SPACE, INDEX, &query).unwrap();
            seen.extend(unpack_documents(&page.documents).unwrap().into_iter().map(|d| d.id));
            between.by_ref().take(3).for_each(|write| apply(&mut set, write));
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        seen.retain(|id| !touched.contains(id.as_str()));
        prop_assert_eq!(seen, expect);
    }

    #[test]
    fn damaged_rows_are_refused_or_read(writes in prop::collection::vec(write(), 1..9), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut set = IndexSet::default();
        writes.iter().for_each(|write| apply(&mut set, write));
        for document in unpack_documents(&set.select(&SPACE, INDEX, &Query { limit: 9, ..Query::default() }).unwrap().documents).unwrap() {
            let mut row = set.encode_row(&SPACE, INDEX, &document.id).unwrap();
            let cut = at.index(row.len());
            prop_assert!(decode_row(&row[..cut]).is_err());
            row[cut] ^= byte;
            // A flipped bit inside a value gives another value: checksums are the store's. It must not panic.
            let _ = decode_row(&row);
        }
    }

    #[test]
    fn garbage_is_no_cursor(bytes in prop::collection::vec(any::<u8>(), 0..80), order in query().prop_map(|query| query.order)) {
        let query = Query { after: Some(bytes), order, limit: 1, ..Query::default() };
        let error = IndexSet::default().select(&SPACE, INDEX, &query).unwrap_err();
        prop_assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

fn set_one(set: &mut IndexSet<&'static str>, id: &str, name: &str, value: Value) {
    let field = FieldWrite { name: name.into(), value: Some(value), rank: None };
    set.apply_set(&SPACE, INDEX, id, &[field]);
}

fn ids(set: &IndexSet<&'static str>, query: &Query) -> Vec<String> {
    pages(set, query).into_iter().map(|document| document.id).collect()
}

/// Wide columns take the dense form and narrow ones the sparse; both answer alike, and one becomes the other.
#[test]
fn dense_and_sparse_columns_answer_alike() {
    const DOCUMENTS: i64 = 1_000;
    let mut set = IndexSet::default();
    for n in 0..DOCUMENTS {
        set_one(&mut set, &format!("d{n:04}"), "all", Value::Integer(n % 7));
        if n % 100 == 3 {
            set_one(&mut set, &format!("d{n:04}"), "few", Value::Integer(n));
        }
    }
    let query = |field: &str, operand| Query {
        filter: vec![FilterNode::Term(Term {
            field: field.into(),
            comparison: Comparison::Equal,
            operand: Value::Integer(operand),
        })],
        limit: 300,
        ..Query::default()
    };
    let expect = |of: i64| (0..DOCUMENTS).filter(|n| n % 7 == of).map(|n| format!("d{n:04}")).collect::<Vec<_>>();
    assert_eq!(ids(&set, &query("all", 3)), expect(3));
    assert_eq!(ids(&set, &query("few", 203)), ["d0203"]);

    for n in 0..DOCUMENTS {
        if n % 100 != 3 {
            set.apply_set(
                &SPACE,
                INDEX,
                &format!("d{n:04}"),
                &[FieldWrite { name: "all".into(), value: None, rank: None }],
            );
        }
    }
    assert_eq!(set.documents(&SPACE, INDEX), 10);
    assert_eq!(ids(&set, &query("all", 203 % 7)), ["d0203", "d0903"]);
    // Ordinals and field numbers are used again, and nothing of their former owners shows.
    set.apply_remove(&SPACE, INDEX, "d0203");
    set_one(&mut set, "new", "other", Value::Boolean(true));
    let document = unpack_documents(&set.document(&SPACE, INDEX, "new").unwrap()).unwrap();
    assert_eq!(document[0].fields.len(), 1);
    assert_eq!(ids(&set, &query("few", 203)), [""; 0]);
}

#[test]
fn the_packed_form_is_the_documented_one() {
    let mut set = IndexSet::default();
    let field = |name: &str, value, rank| FieldWrite { name: name.into(), value: Some(value), rank };
    let fields = [
        field("t", Value::Text("é".into()), None),
        field("i", Value::Integer(-2), Some((7, -1))),
        field("b", Value::Boolean(true), None),
        field("x", Value::Bytes(vec![9]), None),
        field("r", Value::Real(0.5), None),
        field("s", Value::Texts(vec!["p".into(), "".into()]), None),
    ];
    set.apply_set(&SPACE, INDEX, "id", &fields);
    let mut expect = vec![2, 0, 0, 0, b'i', b'd', 6, 0, 0, 0];
    expect.extend([1, 0, 0, 0, b'b', 3, 0, 1]);
    expect.extend([1, 0, 0, 0, b'i', 1, 1]);
    expect.extend(7i64.to_le_bytes());
    expect.extend((-1i64).to_le_bytes());
    expect.extend((-2i64).to_le_bytes());
    expect.extend([1, 0, 0, 0, b'r', 2, 0]);
    expect.extend(0.5f64.to_le_bytes());
    expect.extend([1, 0, 0, 0, b's', 4, 0, 2, 0, 0, 0, 1, 0, 0, 0, b'p', 0, 0, 0, 0]);
    expect.extend([1, 0, 0, 0, b't', 0, 0, 2, 0, 0, 0, 0xC3, 0xA9]);
    expect.extend([1, 0, 0, 0, b'x', 5, 0, 1, 0, 0, 0, 9]);
    assert_eq!(set.document(&SPACE, INDEX, "id").unwrap(), expect);
}

#[test]
fn bad_questions_are_refused_with_their_limit() {
    fn check(query: Query, expect: &str) {
        let mut set = IndexSet::default();
        set_one(&mut set, "d", "a", Value::Integer(1));
        for set in [set, IndexSet::default()] {
            let error = set.select(&SPACE, INDEX, &query).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains(expect), "`{error}` does not say `{expect}`");
        }
    }
    let term = |comparison, operand| FilterNode::Term(Term { field: "a".into(), comparison, operand });
    let query = |filter| Query { filter, limit: 1, ..Query::default() };
    let truth = || term(Comparison::Exists, Value::Boolean(true));
    check(Query::default(), "limit is 0");
    check(Query { limit: LIMIT_MAX + 1, ..Query::default() }, "50000");
    check(query(vec![truth(), truth()]), "leaves 2 results");
    check(query(vec![truth(), FilterNode::All(2)]), "node 1 of the filter: `all` takes 2 results, but only 1");
    check(query(vec![FilterNode::Negate]), "`negate` takes 1");
    check(query(vec![FilterNode::Any(u32::MAX)]), "`any` takes 4294967295");
    check(query(vec![term(Comparison::Like, Value::Integer(1))]), "a pattern is text");
    check(query(vec![term(Comparison::Less, Value::Bytes(vec![]))]), "cannot be filtered");
    check(query(vec![term(Comparison::Equal, Value::Texts(vec![]))]), "one-of");
    check(query(vec![FilterNode::OneOf("a".into(), vec![Value::Bytes(vec![])])]), "`one-of` lists");
    check(query(vec![FilterNode::OneOf("a".into(), vec![Value::Integer(1); ONE_OF_VALUES_MAX + 1])]), "100000");
    check(query(vec![FilterNode::Negate; FILTER_NODES_MAX + 1]), "1000");
    let key = OrderKey { field: "a".into(), descending: false };
    check(Query { order: vec![key; ORDER_KEYS_MAX + 1], limit: 1, ..Query::default() }, "16");
    let long = "f".repeat(FIELD_NAME_BYTES_MAX + 1);
    check(Query { order: vec![OrderKey { field: long, descending: false }], limit: 1, ..Query::default() }, "512");
}

#[test]
fn a_deep_filter_does_not_overflow_the_stack() {
    let truth =
        || FilterNode::Term(Term { field: "a".into(), comparison: Comparison::Exists, operand: Value::Boolean(true) });
    let mut filter = vec![truth()];
    while filter.len() + 3 <= FILTER_NODES_MAX {
        filter.extend([truth(), FilterNode::All(2), FilterNode::Negate]);
    }
    let run = move || {
        let mut set = IndexSet::default();
        set_one(&mut set, "d", "a", Value::Integer(1));
        set.select(&SPACE, INDEX, &Query { filter, limit: 1, ..Query::default() }).unwrap().matched
    };
    // A quarter of what a plugin's call has.
    let matched = std::thread::Builder::new().stack_size(512 << 10).spawn(run).unwrap().join().unwrap();
    assert_eq!(matched, 0);
}

#[test]
fn cursors_are_bound_to_their_order() {
    let mut set = IndexSet::default();
    for n in 0..5 {
        set_one(&mut set, &format!("d{n}"), "a", Value::Integer(n));
    }
    let order = |descending| vec![OrderKey { field: "a".into(), descending }];
    let mut query = Query { order: order(false), limit: 2, ..Query::default() };
    query.after = set.select(&SPACE, INDEX, &query).unwrap().next;
    assert_eq!(ids(&set, &query), ["d2", "d3", "d4"]);

    let other = Query { order: order(true), ..query.clone() };
    let error = set.select(&SPACE, INDEX, &other).unwrap_err();
    assert!(error.message().contains("another order"), "{error}");
    for at in 0..query.after.as_ref().unwrap().len() {
        let mut damaged = query.clone();
        damaged.after.as_mut().unwrap()[at] ^= 1;
        assert_eq!(set.select(&SPACE, INDEX, &damaged).unwrap_err().kind(), ErrorKind::Invalid);
    }
    // The place outlives the document that it was made of.
    set.apply_remove(&SPACE, INDEX, "d1");
    assert_eq!(ids(&set, &query), ["d2", "d3", "d4"]);
}

#[test]
fn a_page_ends_when_it_is_full() {
    let mut set = IndexSet::default();
    for n in 0..5 {
        set_one(&mut set, &format!("d{n}"), "a", Value::Bytes(vec![0; PAGE_BYTES_MAX / 2]));
    }
    let query = Query { limit: 5, ..Query::default() };
    let page = set.select(&SPACE, INDEX, &query).unwrap();
    assert_eq!((page.count, page.matched, page.next.is_some()), (2, 5, true));
    assert_eq!(ids(&set, &query).len(), 5);
}

#[test]
fn writes_are_checked() {
    fn check(index: &str, document: &str, field: FieldWrite, expect: Option<&str>) {
        match (check_write(index, document, &[field]), expect) {
            (Ok(()), None) => {}
            (Err(error), Some(expect)) => assert!(error.message().contains(expect), "`{error}` lacks `{expect}`"),
            (result, expect) => panic!("{result:?}, not {expect:?}"),
        }
    }
    let field = |name: &str, value, rank| FieldWrite { name: name.into(), value, rank };
    let good = || field("a", Some(Value::Integer(1)), Some((1, 1)));
    check("runs-2", "d", good(), None);
    check("", "d", good(), Some("cannot name an index"));
    check("Runs", "d", good(), Some("cannot name an index"));
    check(&"r".repeat(INDEX_NAME_BYTES_MAX), "d", good(), None);
    check(&"r".repeat(INDEX_NAME_BYTES_MAX + 1), "d", good(), Some("64"));
    check("r", "", good(), Some("0 bytes"));
    check("r", &"d".repeat(DOCUMENT_ID_BYTES_MAX + 1), good(), Some("1025 bytes"));
    check("r", "d", field("", None, None), Some("0 bytes"));
    check("r", "d", field(&"f".repeat(FIELD_NAME_BYTES_MAX), None, None), None);
    check("r", "d", field(&"f".repeat(FIELD_NAME_BYTES_MAX + 1), None, None), Some("513 bytes"));
    check("r", "d", field("@id", Some(Value::Integer(1)), None), Some("@id"));
    check("r", "d", field("a", None, Some((1, 1))), Some("removal"));
    let many = vec![good(); FIELDS_PER_WRITE_MAX + 1];
    assert!(check_write("r", "d", &many[1..]).is_ok());
    assert!(check_write("r", "d", &many).unwrap_err().message().contains("10000"));
}

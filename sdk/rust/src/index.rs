//! Documents of typed fields that the host keeps in memory, filters and orders.
//!
//! Owns [`Query`] and its [`Filter`]s, and [`Selection`], whose documents are decoded one by one from the host's buffer;
//! changes are made through [`Transaction::index`](crate::Transaction::index). Reads see the newest durable state, not the
//! call's view. Bounded by: 1,000 filter nodes, 16 order keys, 50,000 documents a selection. On failure: the host's typed
//! error; a filter that is too large is refused by the host.

use crate::packed::Reader;
pub use crate::value::{Texts, Value, ValueRef};
use crate::{Result, sys};

/// The pseudo field that holds a document's id.
pub const ID: &str = "@id";

/// One field of one document, to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub(crate) name: String,
    pub(crate) value: Option<Value>,
    pub(crate) rank: Option<(i64, i64)>,
}

impl Field {
    /// Set a field.
    pub fn new(name: impl Into<String>, value: impl Into<Value>) -> Field {
        Field { name: name.into(), value: Some(value.into()), rank: None }
    }

    /// Remove a field.
    pub fn removed(name: impl Into<String>) -> Field {
        Field { name: name.into(), value: None, rank: None }
    }

    /// Take effect only if (rank, value) is greater than what the field holds: keeps the newest value of a series, in any
    /// order of arrival, twice or once.
    pub fn rank(mut self, first: i64, second: i64) -> Field {
        self.rank = Some((first, second));
        self
    }
}

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// The same value.
    Equal,
    /// Another value; a document without the field does not match.
    NotEqual,
    /// Smaller.
    Less,
    /// Smaller or the same.
    LessOrEqual,
    /// Greater.
    Greater,
    /// Greater or the same.
    GreaterOrEqual,
    /// SQL LIKE over the whole text, case-sensitive.
    Like,
    /// SQL LIKE without regard to case.
    Ilike,
    /// The field exists; the operand is ignored.
    Exists,
}

/// One node of a filter in postfix order.
#[derive(Clone, Debug, PartialEq)]
#[doc(hidden)]
pub enum FilterNode {
    Term { field: String, comparison: Comparison, operand: Value },
    OneOf(String, Vec<Value>),
    All(u32),
    Any(u32),
    Negate,
}

/// Which documents match. Combine with `&`, `|` and `!`, or [`Filter::all`] and [`Filter::any`].
///
/// ```
/// use mainstay_sdk::index::{Filter, field};
/// let filter = field("status").equal("done") & (field("loss").less(0.5) | !field("tags").exists());
/// assert_ne!(filter, Filter::everything());
/// assert_eq!(filter.clone() & Filter::everything(), filter);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(State);

/// Postfix lists are kept flat, so that no filter, however deep, recurses.
#[derive(Clone, Debug, PartialEq)]
enum State {
    Everything,
    Nothing,
    Nodes(Vec<FilterNode>),
}

impl Default for Filter {
    fn default() -> Filter {
        Filter::everything()
    }
}

impl Filter {
    /// Every document.
    pub fn everything() -> Filter {
        Filter(State::Everything)
    }

    /// No document.
    pub fn nothing() -> Filter {
        Filter(State::Nothing)
    }

    /// Documents that match all of these; every document if there are none.
    pub fn all(filters: impl IntoIterator<Item = Filter>) -> Filter {
        Filter::combine(filters, State::Everything, State::Nothing, FilterNode::All)
    }

    /// Documents that match one of these at least; no document if there are none.
    pub fn any(filters: impl IntoIterator<Item = Filter>) -> Filter {
        Filter::combine(filters, State::Nothing, State::Everything, FilterNode::Any)
    }

    /// `neutral` parts are left out, one `absorbing` part decides.
    fn combine(
        filters: impl IntoIterator<Item = Filter>,
        neutral: State,
        absorbing: State,
        node: fn(u32) -> FilterNode,
    ) -> Filter {
        let (mut nodes, mut count) = (Vec::new(), 0);
        for Filter(state) in filters {
            match state {
                State::Nodes(part) => {
                    count += 1;
                    match nodes.is_empty() {
                        true => nodes = part,
                        false => nodes.extend(part),
                    }
                }
                state if state == absorbing => return Filter(absorbing),
                _ => {}
            }
        }
        match count {
            0 => Filter(neutral),
            1 => Filter(State::Nodes(nodes)),
            _ => {
                nodes.push(node(count));
                Filter(State::Nodes(nodes))
            }
        }
    }

    fn leaf(node: FilterNode) -> Filter {
        Filter(State::Nodes(vec![node]))
    }

    /// The list that the host takes.
    pub(crate) fn into_nodes(self) -> Vec<FilterNode> {
        match self.0 {
            State::Everything => Vec::new(),
            State::Nothing => vec![FilterNode::OneOf(ID.to_owned(), Vec::new())],
            State::Nodes(nodes) => nodes,
        }
    }
}

impl std::ops::BitAnd for Filter {
    type Output = Filter;

    fn bitand(self, other: Filter) -> Filter {
        Filter::all([self, other])
    }
}

impl std::ops::BitOr for Filter {
    type Output = Filter;

    fn bitor(self, other: Filter) -> Filter {
        Filter::any([self, other])
    }
}

impl std::ops::Not for Filter {
    type Output = Filter;

    fn not(self) -> Filter {
        match self.0 {
            State::Everything => Filter::nothing(),
            State::Nothing => Filter::everything(),
            State::Nodes(mut nodes) => {
                nodes.push(FilterNode::Negate);
                Filter(State::Nodes(nodes))
            }
        }
    }
}

/// Start a filter on a field.
pub fn field(name: impl Into<String>) -> FieldFilter {
    FieldFilter(name.into())
}

/// Start a filter on the documents' ids.
pub fn id() -> FieldFilter {
    field(ID)
}

/// A field waiting for what it is compared with; see [`field`].
#[derive(Clone, Debug)]
#[must_use = "says nothing yet"]
pub struct FieldFilter(String);

macro_rules! comparisons {
    ($($(#[$doc:meta])* $name:ident => $comparison:ident),* $(,)?) => {
        impl FieldFilter {
            $($(#[$doc])* pub fn $name(self, operand: impl Into<Value>) -> Filter {
                self.compare(Comparison::$comparison, operand)
            })*
        }
    };
}

comparisons! {
    /// The field equals this value.
    equal => Equal,
    /// The field exists and does not equal this value.
    not_equal => NotEqual,
    /// The field is less than this value.
    less => Less,
    /// The field is less than or equal to this value.
    less_or_equal => LessOrEqual,
    /// The field is greater than this value.
    greater => Greater,
    /// The field is greater than or equal to this value.
    greater_or_equal => GreaterOrEqual,
    /// The text matches this pattern of SQL LIKE.
    like => Like,
    /// The text matches this pattern of SQL LIKE, without regard to case.
    ilike => Ilike,
}

impl FieldFilter {
    /// The field compares so with this value.
    pub fn compare(self, comparison: Comparison, operand: impl Into<Value>) -> Filter {
        Filter::leaf(FilterNode::Term { field: self.0, comparison, operand: operand.into() })
    }

    /// The field exists, whatever its type.
    pub fn exists(self) -> Filter {
        self.compare(Comparison::Exists, true)
    }

    /// The field equals one of these values. Any number of them costs the same.
    pub fn one_of<V: Into<Value>>(self, values: impl IntoIterator<Item = V>) -> Filter {
        Filter::leaf(FilterNode::OneOf(self.0, values.into_iter().map(Into::into).collect()))
    }
}

/// In which direction an order key sorts. Documents with the field come first, then NaN, then those without it, in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// A question to an index.
///
/// ```
/// # use mainstay_sdk::{transact, index::{self, Field, Order, Query, field}, testing::Host};
/// # let host = Host::new();
/// # host.enter(|| {
/// transact(|tx, _| {
///     for (id, score) in [("a", 0.5), ("b", 0.9), ("c", 0.7)] {
///         tx.index("games").set(id, [Field::new("score", score), Field::new("player", id.to_uppercase())])?;
///     }
///     Ok(())
/// })?;
/// let query = Query::new().filter(field("score").greater(0.6)).order_by("score", Order::Descending).limit(10);
/// let best = index::select("games", &query)?;
/// assert_eq!(best.iter().map(|game| game.id()).collect::<Vec<_>>(), ["b", "c"]);
/// assert_eq!(best.iter().next().unwrap().text("player"), Some("B"));
/// # Ok::<(), mainstay_sdk::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "a query does nothing until it is selected"]
pub struct Query {
    pub(crate) filter: Filter,
    pub(crate) order: Vec<(String, Order)>,
    pub(crate) after: Option<Vec<u8>>,
    pub(crate) limit: Option<u32>,
    pub(crate) fields: Option<Vec<String>>,
}

impl Query {
    /// Documents a selection holds unless [`Query::limit`] says otherwise.
    pub const LIMIT_DEFAULT: u32 = 1_000;

    /// Every document, by id.
    pub fn new() -> Query {
        Query::default()
    }

    /// Only documents that match; several filters must all match.
    pub fn filter(mut self, filter: Filter) -> Query {
        self.filter = self.filter & filter;
        self
    }

    /// Order by this field, after those given before. The id, ascending, always comes last.
    pub fn order_by(mut self, field: impl Into<String>, order: Order) -> Query {
        self.order.push((field.into(), order));
        self
    }

    /// Go on behind a selection: its [`Selection::next`], with the same filter and order.
    pub fn after(mut self, next: Option<Vec<u8>>) -> Query {
        self.after = next;
        self
    }

    /// At most so many documents, 1 to 50,000.
    pub fn limit(mut self, documents: u32) -> Query {
        self.limit = Some(documents);
        self
    }

    /// Return only these fields; none at all returns only ids.
    pub fn fields<F: Into<String>>(mut self, fields: impl IntoIterator<Item = F>) -> Query {
        self.fields = Some(fields.into_iter().map(Into::into).collect());
        self
    }
}

/// Documents that match, ordered.
pub fn select(index: &str, query: &Query) -> Result<Selection> {
    sys::index_select(index, query.clone())
}

/// One document, or none.
pub fn document(index: &str, id: &str) -> Result<Option<Document>> {
    Ok(sys::index_document(index, id)?.map(Document))
}

/// Answer to a query: documents in one buffer.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub(crate) documents: Vec<u8>,
    pub(crate) count: u32,
    pub(crate) matched: u64,
    pub(crate) next: Option<Vec<u8>>,
}

impl Selection {
    /// How many documents it holds.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many documents match in all, this page and those before it included.
    pub fn matched(&self) -> u64 {
        self.matched
    }

    /// Where to go on, if there is more.
    pub fn next(&self) -> Option<&[u8]> {
        self.next.as_deref()
    }

    /// The documents, decoded one by one as they are asked for.
    pub fn iter(&self) -> impl Iterator<Item = DocumentRef<'_>> {
        let mut reader = Reader(&self.documents);
        (0..self.count).map(move |_| DocumentRef::read(&mut reader))
    }
}

/// One document that owns its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document(Vec<u8>);

impl Document {
    /// Read it in place.
    pub fn as_ref(&self) -> DocumentRef<'_> {
        DocumentRef::read(&mut Reader(&self.0))
    }
}

/// One document, read in place.
#[derive(Clone, Copy, Debug)]
pub struct DocumentRef<'a> {
    id: &'a str,
    packed: &'a [u8],
    count: u32,
}

/// One field of a document, read in place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FieldRef<'a> {
    /// The field's name.
    pub name: &'a str,
    /// Its value.
    pub value: ValueRef<'a>,
    /// The rank under which it was written, if any.
    pub rank: Option<(i64, i64)>,
}

impl<'a> DocumentRef<'a> {
    fn read(reader: &mut Reader<'a>) -> DocumentRef<'a> {
        let id = reader.text();
        let count = reader.u32();
        let start = reader.0;
        (0..count).for_each(|_| skip_field(reader));
        DocumentRef { id, packed: &start[..start.len() - reader.0.len()], count }
    }

    /// The document's id.
    pub fn id(&self) -> &'a str {
        self.id
    }

    /// Its fields, in the order of their names.
    pub fn fields(&self) -> impl Iterator<Item = FieldRef<'a>> + use<'a> {
        let mut reader = Reader(self.packed);
        (0..self.count).map(move |_| read_field(&mut reader))
    }

    /// Fields whose names start with `prefix`, which is cut off.
    pub fn fields_under(&self, prefix: &'a str) -> impl Iterator<Item = FieldRef<'a>> + use<'a> {
        self.fields().filter_map(move |field| Some(FieldRef { name: field.name.strip_prefix(prefix)?, ..field }))
    }

    /// The field of this name. Reads from the first field on: to use many fields, iterate over [`fields`](Self::fields).
    pub fn field(&self, name: &str) -> Option<FieldRef<'a>> {
        self.fields().find(|field| field.name == name)
    }

    /// The value of the field of this name.
    pub fn get(&self, name: &str) -> Option<ValueRef<'a>> {
        self.field(name).map(|field| field.value)
    }

    /// The text under this name.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name)?.as_text()
    }

    /// The whole number under this name.
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.get(name)?.as_integer()
    }

    /// The number under this name, whole or real.
    pub fn real(&self, name: &str) -> Option<f64> {
        self.get(name)?.as_real()
    }

    /// True or false under this name.
    pub fn boolean(&self, name: &str) -> Option<bool> {
        self.get(name)?.as_boolean()
    }

    /// The bytes under this name.
    pub fn bytes(&self, name: &str) -> Option<&'a [u8]> {
        self.get(name)?.as_bytes()
    }
}

fn skip_field(reader: &mut Reader<'_>) {
    read_field(reader);
}

fn read_field<'a>(reader: &mut Reader<'a>) -> FieldRef<'a> {
    let name = reader.text();
    let kind = reader.u8();
    let rank = (reader.u8() == 1).then(|| (reader.i64(), reader.i64()));
    let value = match kind {
        0 => ValueRef::Text(reader.text()),
        1 => ValueRef::Integer(reader.i64()),
        2 => ValueRef::Real(reader.f64()),
        3 => ValueRef::Boolean(reader.u8() == 1),
        4 => read_texts(reader),
        5 => ValueRef::Bytes(reader.bytes()),
        unknown => panic!("the host packed a value of unknown type {unknown}; build the plugin with a newer SDK"),
    };
    FieldRef { name, value, rank }
}

fn read_texts<'a>(reader: &mut Reader<'a>) -> ValueRef<'a> {
    let left = reader.u32();
    let texts = Texts { packed: reader.0, left };
    (0..left).for_each(|_| {
        reader.text();
    });
    ValueRef::Texts(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filter: Filter, expect: &str) {
        let shown: Vec<String> = filter
            .into_nodes()
            .into_iter()
            .map(|node| match node {
                FilterNode::Term { field, .. } => field,
                FilterNode::OneOf(field, values) => format!("{field}:{}", values.len()),
                FilterNode::All(count) => format!("all{count}"),
                FilterNode::Any(count) => format!("any{count}"),
                FilterNode::Negate => "not".to_owned(),
            })
            .collect();
        assert_eq!(shown.join(" "), expect);
    }

    fn leaf(name: &str) -> Filter {
        field(name).equal(1_i64)
    }

    #[test]
    fn filters_compile_to_postfix() {
        check(Filter::everything(), "");
        check(Filter::nothing(), "@id:0");
        check(leaf("a") & leaf("b"), "a b all2");
        check(leaf("a") & (leaf("b") | !leaf("c")), "a b c not any2 all2");
        check(Filter::all([leaf("a"), Filter::everything(), leaf("b"), leaf("c")]), "a b c all3");
        check(Filter::any([leaf("a"), Filter::nothing()]), "a");
        check(Filter::any([leaf("a"), Filter::everything()]), "");
        check(Filter::all([leaf("a"), Filter::nothing()]), "@id:0");
        check(Filter::all([]), "");
        check(!Filter::any([]), "");
        check(id().one_of(["x", "y"]), "@id:2");
    }

    #[test]
    fn very_deep_filters_do_not_recurse() {
        let deep = (0..100_000).fold(leaf("a"), |filter, _| !filter);
        assert_eq!(deep.into_nodes().len(), 100_001);
    }

    #[test]
    fn documents_decode_from_the_packed_form() {
        let mut packed = Vec::new();
        let text = |packed: &mut Vec<u8>, text: &[u8]| {
            packed.extend((text.len() as u32).to_le_bytes());
            packed.extend(text);
        };
        text(&mut packed, b"doc");
        packed.extend(3_u32.to_le_bytes());
        text(&mut packed, b"loss");
        packed.extend([2, 1]);
        packed.extend(7_i64.to_le_bytes());
        packed.extend((-8_i64).to_le_bytes());
        packed.extend(0.25_f64.to_le_bytes());
        text(&mut packed, b"name");
        packed.extend([0, 0]);
        text(&mut packed, "é".as_bytes());
        text(&mut packed, b"tags");
        packed.extend([4, 0]);
        packed.extend(2_u32.to_le_bytes());
        text(&mut packed, b"x");
        text(&mut packed, b"y");

        let document = Document(packed);
        let document = document.as_ref();
        assert_eq!(document.id(), "doc");
        assert_eq!(document.field("loss").unwrap().rank, Some((7, -8)));
        assert_eq!(document.real("loss"), Some(0.25));
        assert_eq!(document.text("name"), Some("é"));
        assert_eq!(document.get("tags").unwrap().to_value(), Value::Texts(vec!["x".into(), "y".into()]));
        assert_eq!(document.fields_under("na").next().unwrap().name, "me");
        assert_eq!(document.get("absent"), None);
    }
}

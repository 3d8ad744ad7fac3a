//! What the store must do, in the simplest words: a sorted map for every commit there ever was.

use std::collections::BTreeMap;

use mainstay_base::ErrorKind;
use mainstay_store::index::IndexSet;
use mainstay_store::{FieldWrite, Space, Value};
use proptest::collection::vec;
use proptest::prelude::*;

pub type Key = (u8, Vec<u8>);

pub const INDEX: &str = "things";

/// The spaces of the tests; each is a prefix of the next one's name.
pub fn space(number: u8) -> Space {
    [Space::plugin("t"), Space::plugin("tt"), Space::host("t")][number as usize].clone()
}

#[derive(Clone, Debug)]
pub enum Expect {
    Absent,
    Present,
    /// What the key holds just now, or this when it holds nothing.
    Current(Vec<u8>),
    Value(Vec<u8>),
    Unchanged,
}

#[derive(Clone, Debug)]
pub enum Op {
    Put(Key, Vec<u8>),
    Delete(Key),
    DeleteRange(u8, Vec<u8>, Option<Vec<u8>>),
    Append(Key, Vec<u8>),
    Add(Key, i64),
    SetFields(u8, String, Vec<FieldWrite>),
    RemoveDocument(u8, String),
}

#[derive(Clone, Debug)]
pub struct Scan {
    pub space: u8,
    pub ranges: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub reverse: bool,
    pub keys_only: bool,
    pub limit: u32,
}

#[derive(Clone, Debug)]
pub enum Step {
    Commit { view: prop::sample::Index, guards: Vec<(Key, Expect)>, ops: Vec<Op> },
    TakeView,
    DropView(prop::sample::Index),
    Get(prop::sample::Index, Key),
    Scan(prop::sample::Index, Scan),
    Checkpoint,
    Reopen,
    Crash(u64),
}

/// The state after one commit.
#[derive(Clone, Default)]
pub struct Moment {
    pub sequence: u64,
    pub entries: BTreeMap<Key, Vec<u8>>,
    /// The commit that last wrote a key.
    written: BTreeMap<Key, u64>,
}

pub struct Model {
    pub now: Moment,
    pub index: IndexSet<u8>,
}

impl Model {
    pub fn new() -> Model {
        Model { now: Moment::default(), index: IndexSet::default() }
    }

    pub fn commit(&mut self, begun: u64, guards: &[(Key, Expect)], ops: &[Op]) -> Result<Vec<i64>, ErrorKind> {
        if !guards.iter().all(|(key, expect)| self.now.holds(begun, key, expect)) {
            return Err(ErrorKind::Conflict);
        }
        let mut next = self.now.clone();
        next.sequence += 1;
        let mut counters = Vec::new();
        for (number, op) in ops.iter().enumerate() {
            next.apply(number, op, &mut counters)?;
        }
        for op in ops {
            match op {
                Op::SetFields(space, document, fields) => self.index.apply_set(space, INDEX, document, fields),
                Op::RemoveDocument(space, document) => self.index.apply_remove(space, INDEX, document),
                _ => {}
            }
        }
        self.now = next;
        Ok(counters)
    }
}

fn inside(key: &[u8], start: &[u8], end: Option<&[u8]>) -> bool {
    start <= key && end.is_none_or(|end| key < end)
}

impl Moment {
    fn holds(&self, begun: u64, key: &Key, expect: &Expect) -> bool {
        let value = self.entries.get(key);
        match expect {
            Expect::Absent => value.is_none(),
            Expect::Present => value.is_some(),
            Expect::Current(_) => value.is_some(),
            Expect::Value(expected) => value == Some(expected),
            Expect::Unchanged => self.written.get(key).is_none_or(|sequence| *sequence <= begun),
        }
    }

    fn set(&mut self, key: Key, value: Option<Vec<u8>>) {
        self.written.insert(key.clone(), self.sequence);
        match value {
            Some(value) => self.entries.insert(key, value),
            None => self.entries.remove(&key),
        };
    }

    fn apply(&mut self, number: usize, op: &Op, counters: &mut Vec<i64>) -> Result<(), ErrorKind> {
        match op {
            Op::Put(key, value) => self.set(key.clone(), Some(value.clone())),
            Op::Delete(key) => self.set(key.clone(), None),
            Op::DeleteRange(space, start, end) => {
                let gone = self.entries.keys().filter(|(of, key)| of == space && inside(key, start, end.as_deref()));
                for key in gone.cloned().collect::<Vec<_>>() {
                    self.set(key, None);
                }
            }
            Op::Append((space, key), fragment) => {
                let key = [&key[..], &self.sequence.to_be_bytes(), &(number as u16).to_be_bytes()].concat();
                self.set((*space, key), Some(fragment.clone()));
            }
            Op::Add(key, amount) => {
                let now = match self.entries.get(key) {
                    None => 0,
                    Some(value) => i64::from_le_bytes(value[..].try_into().map_err(|_| ErrorKind::Invalid)?),
                };
                let sum = now.checked_add(*amount).ok_or(ErrorKind::Invalid)?;
                counters.push(sum);
                self.set(key.clone(), Some(sum.to_le_bytes().to_vec()));
            }
            Op::SetFields(..) | Op::RemoveDocument(..) => {}
        }
        Ok(())
    }

    pub fn scan(&self, scan: &Scan) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        for (start, end) in &scan.ranges {
            let inside = |key: &Key| key.0 == scan.space && inside(&key.1, start, end.as_deref());
            let mut part: Vec<_> = self.entries.iter().filter(|(key, _)| inside(key)).collect();
            if scan.reverse {
                part.reverse();
            }
            let value = |value: &Vec<u8>| if scan.keys_only { Vec::new() } else { value.clone() };
            found.extend(part.into_iter().map(|((_, key), found)| (key.clone(), value(found))));
        }
        found
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(prop::sample::select(vec![0, 1, b'a', 0xfe, 0xff]), 1..4)
}

fn key() -> impl Strategy<Value = Key> {
    (0..3u8, bytes())
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => vec(any::<u8>(), 0..12), 1 => (-3i64..3).prop_map(|n| n.to_le_bytes().to_vec()), 1 => Just(vec![7; 3_000])]
}

fn end() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::weighted(0.7, bytes())
}

fn start() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![1 => Just(Vec::new()), 2 => bytes()]
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        1 => Just(Expect::Absent),
        1 => Just(Expect::Present),
        1 => value().prop_map(Expect::Current),
        1 => value().prop_map(Expect::Value),
        3 => Just(Expect::Unchanged),
    ]
}

fn field() -> impl Strategy<Value = FieldWrite> {
    let value = prop_oneof![
        (0i64..4).prop_map(Value::Integer),
        Just(Value::Real(f64::NAN)),
        (0..3i64).prop_map(|n| Value::Real(n as f64)),
        "[a-c]{0,2}".prop_map(Value::Text),
    ];
    let rank = prop::option::of((0i64..3, 0i64..3));
    ("[a-c]", prop::option::weighted(0.8, value), rank).prop_map(|(name, value, rank)| {
        // A removal takes no rank.
        let rank = rank.filter(|_| value.is_some());
        FieldWrite { name, value, rank }
    })
}

pub fn document() -> impl Strategy<Value = String> {
    "[ab\0é]{1,2}"
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (key(), value()).prop_map(|(key, value)| Op::Put(key, value)),
        3 => key().prop_map(Op::Delete),
        1 => (0..3u8, start(), end()).prop_map(|(space, start, end)| Op::DeleteRange(space, start, end)),
        2 => (key(), value()).prop_map(|(key, value)| Op::Append(key, value)),
        2 => (key(), prop_oneof![-5i64..5, Just(i64::MAX)]).prop_map(|(key, amount)| Op::Add(key, amount)),
        3 => (0..3u8, document(), vec(field(), 1..4)).prop_map(|(space, id, fields)| Op::SetFields(space, id, fields)),
        1 => (0..3u8, document()).prop_map(|(space, id)| Op::RemoveDocument(space, id)),
    ]
}

fn scan() -> impl Strategy<Value = Scan> {
    let ranges = prop_oneof![Just(vec![(Vec::new(), None)]), vec((start(), end()), 0..4)];
    (0..3u8, ranges, any::<bool>(), any::<bool>(), prop_oneof![1..4u32, Just(1_000)])
        .prop_map(|(space, ranges, reverse, keys_only, limit)| Scan { space, ranges, reverse, keys_only, limit })
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let commit = (any::<prop::sample::Index>(), vec((key(), expect()), 0..3), vec(op(), 0..8))
        .prop_map(|(view, guards, ops)| Step::Commit { view, guards, ops });
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        12 => commit,
        3 => Just(Step::TakeView),
        3 => index().prop_map(Step::DropView),
        6 => (index(), key()).prop_map(|(view, key)| Step::Get(view, key)),
        8 => (index(), scan()).prop_map(|(view, scan)| Step::Scan(view, scan)),
        3 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
        1 => any::<u64>().prop_map(Step::Crash),
    ];
    vec(step, 1..60)
}

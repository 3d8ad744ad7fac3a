//! The directory as plugins see it: ownership, removal, races, evidence, and a property test against plain maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mainstay_base::{ErrorKind, Result, VirtualClock};
use mainstay_store::blobs::{BlobBackend, Blobs};
use mainstay_store::{Store, Transaction};
use proptest::prelude::*;

use crate::limits::*;
use crate::*;

const OWNER: &str = "tracking";
const NOW_MS: i64 = 1_700_000_000_000;

struct Fixture {
    store: Store,
    directory: Directory,
}

impl Fixture {
    fn new(rules: Vec<ProtectionRule>) -> Fixture {
        let store = Store::in_memory();
        let directory = Directory::new(store.clone(), rules, Arc::new(VirtualClock::new(NOW_MS))).unwrap();
        Fixture { store, directory }
    }

    fn begin(&self) -> Transaction {
        self.store.begin(&self.store.view())
    }

    fn commit(&self, change: impl FnOnce(&Directory, &mut Transaction) -> Result<()>) -> Result<()> {
        let mut tx = self.begin();
        change(&self.directory, &mut tx)?;
        self.store.commit_blocking(tx).map(drop)
    }

    /// Create subjects and versions that belong to [`OWNER`].
    fn create(&self, nodes: &[Node]) {
        self.commit(|directory, tx| nodes.iter().try_for_each(|node| directory.create(tx, OWNER, node, &[], &[])))
            .unwrap();
    }

    fn connect(&self, by: &str, source: &Node, relation: &str, target: &Node) {
        self.commit(|directory, tx| directory.connect(tx, by, &edge(source, relation, target))).unwrap();
    }

    fn label(&self, by: &str, node: &Node, key: &str, value: &str) -> Result<()> {
        self.commit(|directory, tx| directory.set_labels(tx, by, node, &[label(key, value)]))
    }

    fn point(&self, pointer: &str, version: Option<u64>) -> Result<()> {
        self.commit(|directory, tx| directory.move_pointer(tx, OWNER, "model", "iris", pointer, version))
    }
}

fn model() -> Node {
    Node::subject("model", "iris")
}

fn version(number: u64) -> Node {
    Node::version("model", "iris", number)
}

fn label(key: &str, value: &str) -> Label {
    Label { key: key.into(), value: value.into() }
}

fn edge(source: &Node, relation: &str, target: &Node) -> Edge {
    Edge { source: source.clone(), relation: relation.into(), target: target.clone() }
}

#[track_caller]
fn expect_error<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind, words: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(words), "`{error}` does not say `{words}`");
}

#[test]
fn what_was_created_is_described_and_listed() {
    let fixture = Fixture::new(vec![]);
    // All of it in one transaction.
    let create = |directory: &Directory, tx: &mut Transaction| {
        directory.create(tx, OWNER, &model(), &[label("b", "2"), label("a", "1"), label("gone", "")], &[])?;
        directory.create(tx, OWNER, &version(2), &[], &[])?;
        directory.create(tx, OWNER, &version(10), &[], &[])?;
        directory.set_labels(tx, OWNER, &version(2), &[label("stage", "new")])?;
        directory.connect(tx, OWNER, &edge(&version(2), "produced-by", &Node::external("git://x")))?;
        directory.move_pointer(tx, OWNER, "model", "iris", "latest", Some(10))
    };
    fixture.commit(create).unwrap();
    let directory = &fixture.directory;
    let described = directory.describe(&model()).unwrap().unwrap();
    assert_eq!(described.labels, [label("a", "1"), label("b", "2")]);
    assert_eq!((described.owner.as_str(), described.created_ms), (OWNER, NOW_MS));
    assert_eq!(directory.describe(&version(2)).unwrap().unwrap().labels, [label("stage", "new")]);
    assert_eq!(directory.describe(&version(3)).unwrap(), None);
    assert_eq!(directory.describe(&Node::external("git://x")).unwrap(), None);
    assert_eq!(directory.versions("model", "iris").unwrap(), [2, 10]);
    assert_eq!(directory.resolve("model", "iris", "latest").unwrap(), Some(10));
    assert_eq!(directory.resolve("model", "iris", "later").unwrap(), None);
    let found = directory.edges(&version(2), true).unwrap();
    assert_eq!(found.len(), 1);
    assert!(!found[0].is_broken);
    assert_eq!(directory.edges(&Node::external("git://x"), false).unwrap(), found);

    fixture.create(&[Node::subject("model", "a"), Node::subject("model", "z"), Node::subject("modem", "x")]);
    assert_eq!(directory.subjects("model", None, 10).unwrap(), ["a", "iris", "z"]);
    assert_eq!(directory.subjects("model", Some("a"), 1).unwrap(), ["iris"]);
    assert_eq!(directory.subjects("model", Some("j"), 10).unwrap(), ["z"]);
    assert_eq!(directory.subjects("mode", None, 10).unwrap(), [""; 0]);
}

#[test]
fn what_is_there_is_not_created_again() {
    let fixture = Fixture::new(vec![]);
    let create = |node: Node| fixture.commit(move |directory, tx| directory.create(tx, OWNER, &node, &[], &[]));
    expect_error(create(version(1)), ErrorKind::NotFound, "there is no model `iris`");
    create(model()).unwrap();
    expect_error(create(model()), ErrorKind::Conflict, "model `iris` is there already");
    create(version(1)).unwrap();
    expect_error(create(version(1)), ErrorKind::Conflict, "version 1 is there already");
    expect_error(create(Node::external("s3://x")), ErrorKind::Invalid, "lies outside");
    // Two that do not see each other.
    let (mut one, mut other) = (fixture.begin(), fixture.begin());
    for tx in [&mut one, &mut other] {
        fixture.directory.create(tx, OWNER, &version(2), &[], &[]).unwrap();
    }
    fixture.store.commit_blocking(one).unwrap();
    expect_error(fixture.store.commit_blocking(other), ErrorKind::Conflict, "there already");
    // Twice in one transaction, and anew after a removal in the same.
    let twice = |directory: &Directory, tx: &mut Transaction| {
        directory.create(tx, OWNER, &version(3), &[], &[])?;
        directory.create(tx, OWNER, &version(3), &[], &[])
    };
    expect_error(fixture.commit(twice), ErrorKind::Conflict, "there already");
    let anew = |directory: &Directory, tx: &mut Transaction| {
        directory.remove(tx, OWNER, &version(1))?;
        directory.create(tx, OWNER, &version(1), &[label("new", "yes")], &[])
    };
    fixture.commit(anew).unwrap();
    assert_eq!(fixture.directory.describe(&version(1)).unwrap().unwrap().labels, [label("new", "yes")]);
}

#[test]
fn others_may_add_edges_and_labels_of_their_own() {
    let fixture = Fixture::new(vec![]);
    fixture.create(&[model(), version(1)]);
    let denied = |change: &dyn Fn(&Directory, &mut Transaction) -> Result<()>| {
        expect_error(fixture.commit(change), ErrorKind::Denied, "belongs to `tracking`");
    };
    denied(&|directory, tx| directory.create(tx, "other", &version(2), &[], &[]));
    denied(&|directory, tx| directory.remove(tx, "other", &version(1)));
    denied(&|directory, tx| directory.remove(tx, "other", &model()));
    denied(&|directory, tx| directory.move_pointer(tx, "other", "model", "iris", "p", Some(1)));
    denied(&|directory, tx| directory.move_pointer(tx, "other", "model", "iris", "p", None));
    for key in ["x", "otherwise", "tracking.x", "other", "Other.x"] {
        denied(&|directory, tx| {
            directory.set_labels(tx, "other", &version(1), &[label("other.fine", "1"), label(key, "1")])
        });
    }
    assert_eq!(fixture.directory.describe(&version(1)).unwrap().unwrap().labels, []);
    for key in ["other.x", "other/x", "other:x"] {
        fixture.label("other", &version(1), key, "1").unwrap();
    }
    fixture.connect("other", &version(1), "judged-by", &Node::external("report:1"));
    assert_eq!(fixture.directory.describe(&version(1)).unwrap().unwrap().labels.len(), 3);
    expect_error(fixture.label("other", &version(9), "other.x", "1"), ErrorKind::NotFound, "version 9");
    let from_nowhere = edge(&version(9), "produced-by", &version(1));
    expect_error(
        fixture.commit(|directory, tx| directory.connect(tx, "other", &from_nowhere)),
        ErrorKind::NotFound,
        "version 9",
    );
}

#[test]
fn a_subject_that_changed_hands_is_not_written_by_its_former_owner() {
    let fixture = Fixture::new(vec![]);
    fixture.create(&[model()]);
    let mut late = fixture.begin();
    fixture.directory.create(&mut late, OWNER, &version(1), &[], &[]).unwrap();
    fixture.commit(|directory, tx| directory.remove(tx, OWNER, &model())).unwrap();
    fixture.commit(|directory, tx| directory.create(tx, "other", &model(), &[], &[])).unwrap();
    expect_error(fixture.store.commit_blocking(late), ErrorKind::Conflict, "");
    assert_eq!(fixture.directory.versions("model", "iris").unwrap(), [0; 0]);
}

#[test]
fn removal_takes_what_lies_below_and_leaves_edges_broken() {
    let fixture = Fixture::new(vec![]);
    let neighbour = Node::version("model", "iris2", 1);
    fixture.create(&[model(), version(1), version(2), neighbour.to_subject(), neighbour.clone()]);
    fixture.label(OWNER, &version(1), "k", "v").unwrap();
    fixture.label(OWNER, &neighbour, "k", "v").unwrap();
    fixture.connect(OWNER, &neighbour, "derived-from", &version(1));
    fixture.point("one", Some(1)).unwrap();
    fixture.point("two", Some(2)).unwrap();

    fixture.commit(|directory, tx| directory.remove(tx, OWNER, &version(1))).unwrap();
    let directory = &fixture.directory;
    assert_eq!(directory.describe(&version(1)).unwrap(), None);
    let pointers: Vec<_> =
        directory.pointers("model", "iris").unwrap().into_iter().map(|p| (p.name, p.version)).collect();
    assert_eq!(pointers, [("two".to_owned(), 2)]);
    assert!(directory.edges(&neighbour, true).unwrap()[0].is_broken);
    assert!(directory.edges(&version(1), false).unwrap()[0].is_broken);
    // Nothing of the former version shows in a new one, and the edge is whole again.
    fixture.create(&[version(1)]);
    assert_eq!(directory.describe(&version(1)).unwrap().unwrap().labels, []);
    assert!(!directory.edges(&neighbour, true).unwrap()[0].is_broken);

    fixture.commit(|directory, tx| directory.remove(tx, OWNER, &model())).unwrap();
    assert_eq!(directory.versions("model", "iris").unwrap(), [0; 0]);
    assert_eq!(directory.pointers("model", "iris").unwrap(), []);
    assert_eq!(directory.describe(&neighbour).unwrap().unwrap().labels.len(), 1);
    expect_error(
        fixture.commit(|directory, tx| directory.remove(tx, OWNER, &model())),
        ErrorKind::NotFound,
        "no model `iris`",
    );
}

#[test]
fn a_pointer_never_dangles() {
    let fixture = Fixture::new(vec![]);
    fixture.create(&[model(), version(1), version(2)]);
    expect_error(fixture.point("p", Some(3)), ErrorKind::NotFound, "version 3");
    let moving = || {
        let mut tx = fixture.begin();
        fixture.directory.move_pointer(&mut tx, OWNER, "model", "iris", "p", Some(1)).unwrap();
        tx
    };
    let removing = || {
        let mut tx = fixture.begin();
        fixture.directory.remove(&mut tx, OWNER, &version(1)).unwrap();
        tx
    };
    // Whoever comes second loses.
    let (moved, removed) = (moving(), removing());
    fixture.store.commit_blocking(moved).unwrap();
    expect_error(fixture.store.commit_blocking(removed), ErrorKind::Conflict, "");
    fixture.point("p", None).unwrap();
    let (moved, removed) = (moving(), removing());
    fixture.store.commit_blocking(removed).unwrap();
    expect_error(fixture.store.commit_blocking(moved), ErrorKind::Conflict, "");
    assert_eq!(fixture.directory.pointers("model", "iris").unwrap(), []);
    // Moved away and removed, or moved there and removed, in one transaction.
    fixture.point("p", Some(2)).unwrap();
    let both = |directory: &Directory, tx: &mut Transaction| {
        directory.create(tx, OWNER, &version(5), &[], &[])?;
        directory.move_pointer(tx, OWNER, "model", "iris", "p", Some(5))?;
        directory.move_pointer(tx, OWNER, "model", "iris", "q", Some(2))?;
        directory.remove(tx, OWNER, &version(2))
    };
    fixture.commit(both).unwrap();
    let pointers = fixture.directory.pointers("model", "iris").unwrap();
    assert_eq!(pointers, [Pointer { name: "p".into(), version: 5, is_protected: false, moved_ms: NOW_MS }]);
}

fn rule(requires: Vec<Evidence>) -> ProtectionRule {
    ProtectionRule { kind: "model".into(), name_pattern: "ir*".into(), pointer: "champion".into(), requires }
}

fn by_path(path: &[&str]) -> Evidence {
    Evidence { path: path.iter().map(|relation| (*relation).to_owned()).collect(), label: None }
}

fn with_label(path: &[&str], key: &str, value: Option<&str>, set_by: Option<&str>) -> Evidence {
    let label = LabelEvidence { key: key.into(), value: value.map(str::to_owned), set_by: set_by.map(str::to_owned) };
    Evidence { label: Some(label), ..by_path(path) }
}

#[test]
fn a_protected_pointer_moves_only_with_evidence() {
    let fixture = Fixture::new(vec![
        rule(vec![by_path(&["produced-by"]), with_label(&["produced-by", "trained-on"], "sha256", None, None)]),
        rule(vec![with_label(&[], "gate.passed", Some("true"), Some("gate"))]),
    ]);
    let (run, data) = (Node::subject("run", "r"), Node::version("dataset", "census", 4));
    fixture.create(&[model(), version(1), run.clone(), data.to_subject(), data.clone()]);
    let missing = || fixture.directory.missing_evidence("model", "iris", "champion", 1).unwrap();
    assert_eq!(
        missing(),
        [
            "an edge `produced-by` from model `iris` version 1",
            "the label `sha256` where `produced-by` then `trained-on` leads from model `iris` version 1",
            "the label `gate.passed` = `true` set by `gate` on model `iris` version 1",
        ]
    );
    expect_error(fixture.point("champion", Some(1)), ErrorKind::Denied, "it lacks an edge `produced-by`");
    // Other pointers, and other subjects, are free.
    fixture.point("challenger", Some(1)).unwrap();
    assert_eq!(fixture.directory.missing_evidence("model", "iris", "challenger", 1).unwrap(), [""; 0]);
    expect_error(fixture.directory.missing_evidence("model", "iris", "champion", 7), ErrorKind::NotFound, "version 7");

    fixture.connect(OWNER, &version(1), "produced-by", &run);
    assert!(missing()[0].ends_with("(no `trained-on` behind `produced-by`)"), "{:?}", missing());
    fixture.connect(OWNER, &run, "trained-on", &data);
    assert_eq!(missing().len(), 2);
    fixture.label(OWNER, &data, "sha256", "abc").unwrap();
    // The owner cannot say what the gate has to say, and the gate has to say the right thing.
    fixture.label(OWNER, &version(1), "gate.passed", "true").unwrap();
    assert_eq!(missing().len(), 1);
    fixture.label("gate", &version(1), "gate.passed", "false").unwrap();
    assert_eq!(missing().len(), 1);
    expect_error(fixture.point("champion", Some(1)), ErrorKind::Denied, "gate.passed");
    fixture.label("gate", &version(1), "gate.passed", "true").unwrap();
    assert_eq!(missing(), [""; 0]);
    fixture.point("champion", Some(1)).unwrap();
    let pointers = fixture.directory.pointers("model", "iris").unwrap();
    assert_eq!(pointers.iter().map(|p| p.is_protected).collect::<Vec<_>>(), [false, true]);
    // Taking it away needs nothing.
    fixture.point("champion", None).unwrap();

    // An edge to what was removed is no evidence.
    fixture.commit(|directory, tx| directory.remove(tx, OWNER, &run)).unwrap();
    assert_eq!(missing().len(), 2);
    expect_error(fixture.point("champion", Some(1)), ErrorKind::Denied, "produced-by");
}

#[test]
fn evidence_that_goes_away_before_the_commit_is_a_conflict() {
    type Change = fn(&Directory, &mut Transaction) -> Result<()>;
    let takes_away: [Change; 5] = [
        |directory, tx| directory.remove(tx, OWNER, &Node::subject("run", "r")),
        |directory, tx| directory.remove(tx, OWNER, &Node::version("dataset", "census", 4)),
        |directory, tx| directory.remove(tx, OWNER, &Node::subject("dataset", "census")),
        |directory, tx| directory.set_labels(tx, OWNER, &Node::version("dataset", "census", 4), &[label("sha256", "")]),
        |directory, tx| directory.remove(tx, OWNER, &version(1)),
    ];
    for take_away in takes_away {
        let evidence = with_label(&["produced-by", "trained-on"], "sha256", None, None);
        let fixture = Fixture::new(vec![rule(vec![evidence])]);
        let (run, data) = (Node::subject("run", "r"), Node::version("dataset", "census", 4));
        fixture.create(&[model(), version(1), run.clone(), data.to_subject(), data.clone()]);
        fixture.connect(OWNER, &version(1), "produced-by", &run);
        fixture.connect(OWNER, &run, "trained-on", &data);
        fixture.label(OWNER, &data, "sha256", "abc").unwrap();
        let mut moving = fixture.begin();
        fixture.directory.move_pointer(&mut moving, OWNER, "model", "iris", "champion", Some(1)).unwrap();
        fixture.commit(take_away).unwrap();
        expect_error(fixture.store.commit_blocking(moving), ErrorKind::Conflict, "");
        assert_eq!(fixture.directory.resolve("model", "iris", "champion").unwrap(), None);
    }
}

#[test]
fn evidence_may_come_with_the_move() {
    let fixture = Fixture::new(vec![rule(vec![with_label(&["produced-by"], "commit", None, None)])]);
    fixture.create(&[model(), version(1)]);
    let run = Node::subject("run", "r");
    let with_evidence = |directory: &Directory, tx: &mut Transaction| {
        directory.create(tx, OWNER, &run, &[label("commit", "abc")], &[])?;
        directory.connect(tx, OWNER, &edge(&version(1), "produced-by", &run))?;
        directory.move_pointer(tx, OWNER, "model", "iris", "champion", Some(1))
    };
    fixture.commit(with_evidence).unwrap();
    fixture.create(&[version(2)]);
    fixture.connect(OWNER, &version(2), "produced-by", &run);
    // Evidence that the transaction itself takes away first is none.
    let without = |directory: &Directory, tx: &mut Transaction| {
        directory.set_labels(tx, OWNER, &run, &[label("commit", "")])?;
        directory.move_pointer(tx, OWNER, "model", "iris", "champion", Some(2))
    };
    expect_error(fixture.commit(without), ErrorKind::Denied, "`commit`");
    assert_eq!(fixture.directory.resolve("model", "iris", "champion").unwrap(), Some(1));
}

#[test]
fn an_edge_belongs_to_who_added_it_first() {
    let fixture = Fixture::new(vec![]);
    fixture.create(&[model(), version(1)]);
    let to = Node::external("s3://data");
    fixture.connect("first", &version(1), "trained-on", &to);
    let sequence = fixture.store.sequence();
    fixture.connect("second", &version(1), "trained-on", &to);
    assert!(fixture.store.sequence() <= sequence + 1);
    assert_eq!(fixture.directory.edges(&version(1), true).unwrap().len(), 1);
    let stored =
        fixture.store.view().get(&crate::keys::space(), &crate::keys::edge(&edge(&version(1), "trained-on", &to))[0]);
    let record: crate::keys::EdgeRecord = crate::keys::decode(&stored.unwrap().unwrap()).unwrap();
    assert_eq!(record.by, "first");
}

#[tokio::test]
async fn attachments_keep_blobs_alive() {
    let fixture = Fixture::new(vec![]);
    let folder = tempfile::tempdir().unwrap();
    let backend = BlobBackend::Local { folder: folder.path().to_owned() };
    let blobs = Blobs::open(fixture.store.clone(), backend, Arc::new(VirtualClock::new(0)), Duration::ZERO).unwrap();
    let mut attachments = Vec::new();
    for path in ["model.onnx", "data/sample.csv"] {
        let info = blobs.put_bytes(path.into()).await.unwrap();
        attachments.push(Attachment { path: path.into(), sha256: info.sha256 });
    }
    let create = |node: Node, attachments: Vec<Attachment>| {
        fixture.commit(move |directory, tx| directory.create(tx, OWNER, &node, &[], &attachments))
    };
    create(model(), vec![]).unwrap();
    create(version(1), attachments.clone()).unwrap();
    create(version(2), attachments[..1].to_vec()).unwrap();
    let kept = async || {
        for _ in 0..2 {
            blobs.collect_garbage().await.unwrap();
        }
        attachments.iter().filter(|attachment| blobs.stat(&attachment.sha256).unwrap().is_some()).count()
    };
    assert_eq!(kept().await, 2);
    assert_eq!(fixture.directory.describe(&version(1)).unwrap().unwrap().attachments, attachments);
    fixture.commit(|directory, tx| directory.remove(tx, OWNER, &version(1))).unwrap();
    assert_eq!(kept().await, 1);
    fixture.commit(|directory, tx| directory.remove(tx, OWNER, &model())).unwrap();
    assert_eq!(kept().await, 0);

    let missing = Attachment { path: "a".into(), sha256: "00".repeat(32) };
    create(model(), vec![]).unwrap();
    expect_error(create(version(1), vec![missing.clone()]), ErrorKind::NotFound, "there is no blob");
    expect_error(create(version(1), vec![missing.clone(), missing]), ErrorKind::Invalid, "two attachments");
    let climbing = Attachment { path: "../a".into(), sha256: "00".repeat(32) };
    expect_error(create(version(1), vec![climbing]), ErrorKind::Invalid, "cannot name a blob");
}

#[test]
fn limits_hold() {
    let fixture = Fixture::new(vec![]);
    fixture.create(&[model(), version(1)]);
    let directory = &fixture.directory;
    let create = |node: Node| fixture.commit(move |directory, tx| directory.create(tx, OWNER, &node, &[], &[]));
    create(Node::subject("k".repeat(WORD_BYTES_MAX), "n".repeat(NAME_BYTES_MAX))).unwrap();
    for (kind, name, words) in [
        ("", "n", "1 to 64"),
        ("Kind", "n", "1 to 64"),
        (&"k".repeat(WORD_BYTES_MAX + 1), "n", "1 to 64"),
        ("k", "", "1 to 512"),
        ("k", "a\0b", "NUL"),
        ("k", &"n".repeat(NAME_BYTES_MAX + 1), "1 to 512"),
    ] {
        expect_error(create(Node::subject(kind, name)), ErrorKind::Invalid, words);
        expect_error(directory.describe(&Node::subject(kind, name)), ErrorKind::Invalid, words);
    }
    let key = |length: usize| "k".repeat(length);
    fixture.label(OWNER, &model(), &key(KEY_BYTES_MAX), &"v".repeat(LABEL_VALUE_BYTES_MAX)).unwrap();
    expect_error(fixture.label(OWNER, &model(), &key(KEY_BYTES_MAX + 1), "v"), ErrorKind::Invalid, "1 to 256");
    expect_error(fixture.label(OWNER, &model(), "", "v"), ErrorKind::Invalid, "1 to 256");
    let long = "v".repeat(LABEL_VALUE_BYTES_MAX + 1);
    expect_error(fixture.label(OWNER, &model(), "k", &long), ErrorKind::Invalid, "8192");
    let many: Vec<_> = (0..=LABELS_PER_CALL_MAX).map(|n| label(&n.to_string(), "v")).collect();
    let set = |labels: &[Label]| fixture.commit(|directory, tx| directory.set_labels(tx, OWNER, &model(), labels));
    set(&many[1..]).unwrap();
    expect_error(set(&many), ErrorKind::Invalid, "1000");
    fixture.point(&key(KEY_BYTES_MAX), Some(1)).unwrap();
    expect_error(fixture.point(&key(KEY_BYTES_MAX + 1), Some(1)), ErrorKind::Invalid, "1 to 256");
    expect_error(directory.subjects("model", None, 0), ErrorKind::Invalid, "1 to 10000");
    expect_error(directory.subjects("model", None, SUBJECTS_LIMIT_MAX + 1), ErrorKind::Invalid, "1 to 10000");
    let external = Node { version: Some(1), ..Node::external("x") };
    expect_error(directory.edges(&external, true), ErrorKind::Invalid, "no versions");
    let relation = edge(&version(1), "Produced By", &model());
    expect_error(
        fixture.commit(|directory, tx| directory.connect(tx, OWNER, &relation)),
        ErrorKind::Invalid,
        "relation",
    );
}

/// What the directory must be, in plain maps.
#[derive(Clone, Default)]
struct Reference {
    nodes: BTreeMap<Node, BTreeMap<String, String>>,
    edges: BTreeSet<Edge>,
    pointers: BTreeMap<(String, String), u64>,
}

#[derive(Clone, Debug)]
enum Step {
    Create(Node),
    Label(Node, String, String),
    Remove(Node),
    Connect(Edge),
    Point(String, String, Option<u64>),
}

impl Reference {
    /// Whether the step is allowed; if so, it is done.
    fn apply(&mut self, step: &Step) -> bool {
        match step {
            Step::Create(node) => {
                let has_subject = node.version.is_none() || self.nodes.contains_key(&node.to_subject());
                if !has_subject || self.nodes.contains_key(node) {
                    return false;
                }
                self.nodes.insert(node.clone(), BTreeMap::new());
            }
            Step::Label(node, key, value) => {
                let Some(labels) = self.nodes.get_mut(node) else { return false };
                labels.remove(key);
                if !value.is_empty() {
                    labels.insert(key.clone(), value.clone());
                }
            }
            Step::Remove(node) => {
                if !self.nodes.contains_key(&node.to_subject()) {
                    return false;
                }
                self.nodes.retain(|other, _| match node.version {
                    None => other.to_subject() != *node,
                    Some(_) => other != node,
                });
                self.pointers.retain(|(name, _), version| {
                    *name != node.name || node.version.is_some_and(|removed| removed != *version)
                });
            }
            Step::Connect(edge) => {
                if !self.nodes.contains_key(&edge.source) {
                    return false;
                }
                self.edges.insert(edge.clone());
            }
            Step::Point(name, pointer, None) => {
                if !self.nodes.contains_key(&Node::subject("k", name.clone())) {
                    return false;
                }
                self.pointers.remove(&(name.clone(), pointer.clone()));
            }
            Step::Point(name, pointer, Some(version)) => {
                if !self.nodes.contains_key(&Node::version("k", name.clone(), *version)) {
                    return false;
                }
                self.pointers.insert((name.clone(), pointer.clone()), *version);
            }
        }
        true
    }

    fn check(&self, directory: &Directory) {
        let names: BTreeSet<String> = self.nodes.keys().map(|node| node.name.clone()).collect();
        assert_eq!(directory.subjects("k", None, 100).unwrap(), names.iter().cloned().collect::<Vec<_>>());
        for name in ["a", "b", "ab"] {
            let versions: Vec<u64> =
                self.nodes.keys().filter(|node| node.name == name).filter_map(|node| node.version).collect();
            assert_eq!(directory.versions("k", name).unwrap(), versions);
            let pointers: Vec<_> = directory
                .pointers("k", name)
                .unwrap()
                .into_iter()
                .map(|p| ((name.to_owned(), p.name), p.version))
                .collect();
            let expect: Vec<_> =
                self.pointers.iter().filter(|((of, _), _)| of == name).map(|(key, v)| (key.clone(), *v)).collect();
            assert_eq!(pointers, expect);
            for version in [None, Some(1), Some(2)] {
                self.check_node(directory, &Node { kind: "k".into(), name: name.into(), version });
            }
        }
    }

    fn check_node(&self, directory: &Directory, node: &Node) {
        let labels = directory.describe(node).unwrap().map(|found| found.labels);
        let expect = self.nodes.get(node).map(|labels| labels.iter().map(|(k, v)| label(k, v)).collect::<Vec<_>>());
        assert_eq!(labels, expect, "{node}");
        for outgoing in [true, false] {
            let mut found = directory.edges(node, outgoing).unwrap();
            found.sort();
            let expect: Vec<_> = self
                .edges
                .iter()
                .filter(|edge| if outgoing { edge.source == *node } else { edge.target == *node })
                .map(|edge| FoundEdge {
                    edge: edge.clone(),
                    is_broken: !(self.nodes.contains_key(&edge.source) && self.nodes.contains_key(&edge.target)),
                })
                .collect();
            assert_eq!(found, expect, "{node}");
        }
    }
}

fn node() -> impl Strategy<Value = Node> {
    (prop::sample::select(vec!["a", "b", "ab"]), prop::option::weighted(0.6, 1u64..3))
        .prop_map(|(name, version)| Node { kind: "k".into(), name: name.into(), version })
}

fn step() -> impl Strategy<Value = Step> {
    let word = || prop::sample::select(vec!["x", "y"]).prop_map(str::to_owned);
    prop_oneof![
        4 => node().prop_map(Step::Create),
        2 => (node(), word(), "[v]{0,1}").prop_map(|(node, key, value)| Step::Label(node, key, value)),
        1 => node().prop_map(Step::Remove),
        3 => (node(), word(), node()).prop_map(|(source, relation, target)| Step::Connect(Edge { source, relation, target })),
        2 => (node(), word(), any::<bool>()).prop_map(|(node, pointer, clears)| {
            Step::Point(node.name, pointer, if clears { None } else { Some(node.version.unwrap_or(1)) })
        }),
    ]
}

fn perform(directory: &Directory, tx: &mut Transaction, step: &Step) -> Result<()> {
    match step {
        Step::Create(node) => directory.create(tx, OWNER, node, &[], &[]),
        Step::Label(node, key, value) => directory.set_labels(tx, OWNER, node, &[label(key, value)]),
        Step::Remove(node) => directory.remove(tx, OWNER, node),
        Step::Connect(edge) => directory.connect(tx, OWNER, edge),
        Step::Point(name, pointer, version) => directory.move_pointer(tx, OWNER, "k", name, pointer, *version),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Steps in transactions of several: what they refuse and what they leave is what plain maps say.
    #[test]
    fn behaves_as_plain_maps(transactions in prop::collection::vec(prop::collection::vec(step(), 1..5), 1..25)) {
        let fixture = Fixture::new(vec![]);
        let mut reference = Reference::default();
        for steps in &transactions {
            let mut tx = fixture.begin();
            let mut after = reference.clone();
            // A transaction with one impossible step is given up as a whole.
            let mut is_possible = true;
            for step in steps {
                is_possible = after.apply(step);
                let done = perform(&fixture.directory, &mut tx, step);
                // That something is there already shows at the commit, unless the transaction itself created it.
                let is_late = !is_possible && done.is_ok() && matches!(step, Step::Create(_));
                prop_assert!(done.is_ok() == is_possible || is_late, "{step:?}: {done:?}");
                if !is_possible {
                    break;
                }
            }
            let committed = if is_possible { fixture.store.commit_blocking(tx).map(drop) } else { Ok(()) };
            prop_assert!(committed.is_ok(), "{steps:?}: {committed:?}");
            if is_possible {
                reference = after;
            }
            reference.check(&fixture.directory);
        }
    }
}

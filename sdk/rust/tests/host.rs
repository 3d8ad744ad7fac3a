//! What a plugin may rely on, held on the host in memory.

use mainstay_sdk::directory::{self, Edge, Label, Node};
use mainstay_sdk::http::{Reply, Request};
use mainstay_sdk::index::{self, Field, Filter, Order, Query, field};
use mainstay_sdk::testing::Host;
use mainstay_sdk::{
    ATTEMPTS_MAX, Api, ErrorKind, Key, KeyRange, Result, Transaction, Value, blobs, clock, keys, log, metric, random,
    transact,
};

fn inside(act: impl FnOnce() -> Result<()>) {
    Host::new().enter(act).unwrap();
}

#[test]
fn a_call_reads_one_view_until_it_renews() {
    let host = Host::new();
    host.enter(|| -> Result<()> {
        assert_eq!(keys::get("a")?, None);
        // Somebody else commits meanwhile.
        host.enter(|| transact(|tx, _| tx.put("a", "1")))?;
        assert_eq!(keys::get("a")?, None);
        keys::renew()?;
        assert_eq!(keys::get("a")?.as_deref(), Some(&b"1"[..]));
        Ok(())
    })
    .unwrap();
}

#[test]
fn transact_tries_again_with_what_others_committed() {
    let host = Host::new();
    let attempts = host.enter(|| -> Result<u32> {
        let (attempt, _) = transact(|tx, attempt| {
            let count = keys::get("n")?.map_or(0, |bytes| bytes[0]);
            if attempt < 3 {
                host.enter(|| transact(|tx, _| tx.put("n", [count + 1])))?;
            }
            tx.expect_unchanged("n")?;
            tx.put("n", [count + 10])?;
            Ok(attempt)
        })?;
        assert_eq!(keys::get("n")?, Some(vec![13]), "three others before us, none lost");
        Ok(attempt)
    });
    assert_eq!(attempts.unwrap(), 3);
}

#[test]
fn transact_gives_up_and_says_conflict() {
    inside(|| {
        let mut tries = 0;
        let error = transact(|tx, attempt| {
            tries = attempt + 1;
            tx.expect_present("never there")
        });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(tries, ATTEMPTS_MAX);
        Ok(())
    });
}

#[test]
fn scans_page_without_losing_or_repeating() {
    inside(|| {
        transact(|tx, _| (0..25_u64).try_for_each(|n| tx.put(Key::new().text("row").u64(n), n.to_le_bytes())))?;
        transact(|tx, _| tx.put(Key::new().text("rows"), "a sibling"))?;
        let range = || Key::new().text("row").prefix();
        for page_entries in [1, 7, 25, 26] {
            let keys: Vec<_> =
                keys::scan(range()).page_entries(page_entries).into_iter().map(|entry| entry.unwrap().key).collect();
            assert_eq!(keys.len(), 25);
            assert!(keys.is_sorted());
            let pages = keys::scan(range()).page_entries(page_entries).pages().count();
            assert!(pages >= 25_usize.div_ceil(page_entries as usize), "{pages} pages of {page_entries}");
        }
        assert_eq!(keys::scan(range()).count()?, 25);
        let last = keys::scan(range()).reverse().first()?.unwrap();
        assert_eq!(last.value, 24_u64.to_le_bytes());
        let few = range().starting_at(Key::new().text("row").u64(3)).ending_before(Key::new().text("row").u64(5));
        assert_eq!(keys::scan(few).count()?, 2);
        let entries = keys::scan_ranges(vec![KeyRange::prefix("none"), range()]).keys_only();
        assert!(entries.into_iter().all(|entry| entry.unwrap().value.is_empty()));
        Ok(())
    });
}

#[test]
fn fragments_come_back_in_order_and_counters_add() {
    inside(|| {
        for part in ["a", "b", "c"] {
            let (_, receipt) = transact(|tx, _| {
                tx.append("history", part)?;
                tx.add("parts", 1)
            })?;
            assert_eq!(receipt.counters.len(), 1);
        }
        let parts: Vec<_> = keys::fragments("history").into_iter().map(|entry| entry.unwrap().value).collect();
        assert_eq!(parts.concat(), b"abc");
        assert_eq!(keys::counter("parts")?, 3);
        assert_eq!(keys::counter("nothing")?, 0);
        Ok(())
    });
}

#[test]
fn get_many_asks_in_the_order_given_whatever_the_length() {
    inside(|| {
        transact(|tx, _| tx.put("5", "five"))?;
        let asked: Vec<String> = (0..10_050).map(|n| (n % 10).to_string()).collect();
        let values = keys::get_many(&asked)?;
        assert_eq!(values.len(), 10_050);
        assert_eq!(values.iter().flatten().count(), 1_005);
        assert_eq!(values[10_045].as_deref(), Some(&b"five"[..]));
        Ok(())
    });
}

#[test]
fn queries_filter_order_and_page() {
    inside(|| {
        transact(|tx, _| {
            (0..10_i64).try_for_each(|n| {
                let kind = if n % 2 == 0 { "even" } else { "odd" };
                tx.index("numbers").set(
                    &format!("n{n}"),
                    [Field::new("n", n), Field::new("kind", kind), Field::new("half", n as f64 / 2.0)],
                )
            })
        })?;
        fn check(filter: Filter, expect: &[&str]) {
            let found = index::select("numbers", &Query::new().filter(filter).fields(["n"])).unwrap();
            assert_eq!(found.iter().map(|number| number.id()).collect::<Vec<_>>(), expect);
        }
        check(field("n").less(2_i64), &["n0", "n1"]);
        check(field("kind").like("od%") & field("half").greater(3.0), &["n7", "n9"]);
        check(!field("n").greater(0_i64), &["n0"]);
        check(index::id().one_of(["n3", "n4", "none"]) | field("n").equal(9_i64), &["n3", "n4", "n9"]);
        check(Filter::nothing(), &[]);
        check(field("absent").exists(), &[]);

        let query = Query::new().order_by("kind", Order::Descending).order_by("n", Order::Descending).limit(4);
        let (mut next, mut seen) = (None, Vec::new());
        loop {
            let page = index::select("numbers", &query.clone().after(next))?;
            assert_eq!(page.matched(), 10);
            seen.extend(page.iter().map(|number| number.integer("n").unwrap()));
            match page.next() {
                Some(place) => next = Some(place.to_vec()),
                None => break,
            }
        }
        assert_eq!(seen, [9, 7, 5, 3, 1, 8, 6, 4, 2, 0]);
        let one = index::document("numbers", "n3")?.unwrap();
        assert_eq!(one.as_ref().get("half").unwrap().to_value(), Value::Real(1.5));
        transact(|tx, _| tx.index("numbers").remove("n3"))?;
        assert_eq!(index::document("numbers", "n3")?, None);
        Ok(())
    });
}

#[test]
fn ranked_fields_keep_the_newest_in_any_order_of_arrival() {
    inside(|| {
        for (rank, value) in [(5, 0.5), (9, 0.9), (7, 0.7), (9, 0.8)] {
            transact(|tx, _| tx.index("series").set("a", [Field::new("last", value).rank(rank, 0)]))?;
        }
        let document = index::document("series", "a")?.unwrap();
        let last = document.as_ref().field("last").unwrap();
        assert_eq!((last.value.as_real(), last.rank), (Some(0.9), Some((9, 0))));
        Ok(())
    });
}

#[test]
fn blobs_are_named_read_and_listed() {
    inside(|| {
        let info = blobs::put(b"hello, world")?;
        assert_eq!(blobs::read(&info.sha256, 0, 5).unwrap_err().kind(), ErrorKind::NotFound, "no name, no reading");
        let (_, receipt) = transact(|tx, _| {
            tx.blobs().link("greetings/one", &info.sha256)?;
            tx.add("links", 1)
        })?;
        assert_eq!(receipt.counters, [1], "only the counters that the plugin added to");
        assert_eq!(blobs::read_all(&info)?, b"hello, world");
        assert_eq!(blobs::read(&info.sha256, 7, 100)?, b"world");
        assert_eq!(blobs::lookup("greetings/one")?, Some(info.clone()));
        assert_eq!(blobs::names("greetings/").all()?.len(), 1);
        transact(|tx, _| tx.blobs().unlink("greetings/one"))?;
        assert_eq!(blobs::lookup("greetings/one")?, None);
        assert_eq!(blobs::stat(&"0".repeat(64))?, None);
        let error = transact(|tx, _| tx.blobs().link("x", &"0".repeat(64))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        Ok(())
    });
}

#[test]
fn the_directory_is_shared_connected_and_protected() {
    let host = Host::new().protect(serde_json::json!([{
        "kind": "model", "name-pattern": "*", "pointer": "live", "requires": [{"label": {"key": "approved"}}]
    }]));
    let (model, run) = (Node::version("model", "a", 1), Node::subject("run", "r"));
    host.enter(|| -> Result<()> {
        transact(|tx, _| {
            let directory = tx.directory();
            directory.create(&run, &[Label::new("who", "ada")], &[])?;
            directory.create(&Node::subject("model", "a"), &[], &[])?;
            directory.create(&model, &[], &[])?;
            directory.connect(&Edge::new(model.clone(), "produced-by", run.clone()))
        })?;
        assert_eq!(directory::describe(&run)?.unwrap().label("who"), Some("ada"));
        assert_eq!(directory::describe(&Node::subject("run", "none"))?, None);
        assert_eq!(directory::subjects("model", None, 10)?, ["a"]);
        assert_eq!(directory::versions("model", "a")?, [1]);
        assert_eq!(directory::edges_from(&model)?, directory::edges_to(&run)?);

        let denied = transact(|tx, _| tx.directory().move_pointer("model", "a", "live", Some(1))).unwrap_err();
        assert_eq!(denied.kind(), ErrorKind::Denied, "{denied}");
        assert_eq!(directory::missing_evidence("model", "a", "live", 1)?.len(), 1);
        transact(|tx, _| tx.directory().set_labels(&model, &[Label::new("approved", "yes")]))?;
        transact(|tx, _| tx.directory().move_pointer("model", "a", "live", Some(1)))?;
        let pointer = directory::pointer("model", "a", "live")?.unwrap();
        assert_eq!((pointer.version, pointer.is_protected), (1, true));
        transact(|tx, _| tx.directory().remove(&model))?;
        assert_eq!(directory::pointers("model", "a")?, []);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_transaction_that_is_dropped_does_nothing() {
    inside(|| {
        let tx = Transaction::begin()?;
        tx.put("a", "1")?;
        drop(tx);
        keys::renew()?;
        assert_eq!(keys::get("a")?, None);
        Ok(())
    });
}

#[test]
fn what_is_told_and_taken_from_around() {
    let host = Host::new();
    host.advance_ms(1_500);
    host.enter(|| {
        log::error!("{} of {}", 1, 2; cause = "test");
        metric::add("things", 2.0, &[("kind", "a")]);
        assert_eq!(clock::now_ms(), mainstay_sdk::testing::START_MS + 1_500);
        let uuid = random::uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(uuid.as_bytes()[14], b'4');
        assert!(matches!(uuid.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{uuid}");
        assert_eq!(random::bytes(33).len(), 33);
    });
    assert_eq!(host.log()[0].message, "1 of 2");
    assert_eq!(host.log()[0].fields, [("cause".to_owned(), "test".to_owned())]);
    assert_eq!(host.metrics()[0].value, 2.0);
}

#[test]
#[should_panic(expected = "make a `testing::Host`")]
fn outside_a_host_the_remedy_is_named() {
    let _ = keys::get("a");
}

struct Files;

impl Api for Files {
    fn handle(request: &Request) -> Result<Reply> {
        match request.method() {
            "PUT" => Ok(Reply::receive(10, request.header("X-Digest"))),
            "POST" => Ok(Reply::status(99)),
            _ => Ok(Reply::send(request.query().get("sha256").unwrap_or_default()).header("x-kind", "file")),
        }
    }

    fn received(request: &Request, blob: blobs::BlobInfo) -> Result<Reply> {
        assert_eq!(request.bytes()?, b"");
        transact(|tx, _| tx.blobs().link(&request.path()[1..], &blob.sha256))?;
        Reply::json(&blob.sha256)
    }
}

#[test]
fn bodies_are_received_and_sent_as_by_the_host() {
    let host = Host::new();
    let stored = host.call::<Files>(Request::put("/a").waiting("0123456789"));
    let sha256: String = stored.json();
    let sent = host.call::<Files>(Request::get("/").query("sha256", &sha256));
    assert_eq!((sent.text(), sent.header("X-Kind")), ("0123456789", Some("file")));

    fn check(host: &Host, request: mainstay_sdk::testing::RequestBuilder, status: u16) {
        let shown = format!("{request:?}");
        assert_eq!(host.call::<Files>(request).status, status, "{shown}");
    }
    check(&host, Request::put("/a").waiting("0123456789+"), 413);
    check(&host, Request::put("/a").body("0123456789").header("x-digest", &sha256), 200);
    check(&host, Request::put("/a").body("other").header("x-digest", &sha256), 400);
    check(&host, Request::get("/").query("sha256", "0".repeat(64)), 404);
    check(&host, Request::post("/"), 400);
}

#[test]
fn targets_are_decoded_as_the_host_does() {
    let request = Request::get("/a%20b/%C3%A9?x=1+2&x=%26&flag").build();
    assert_eq!(request.path(), "/a b/é");
    assert_eq!(request.query().all("x").collect::<Vec<_>>(), ["1 2", "&"]);
    assert_eq!(request.query().get("flag"), Some(""));
    let error = request.query().parse::<u64>("x").unwrap_err();
    assert!(error.message().contains("`x` is `1 2`"), "{error}");
}

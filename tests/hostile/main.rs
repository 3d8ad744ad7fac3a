//! A hostile plugin, built with the SDK and packed as any other, in a real host beside a well-behaved one.
//!
//! The same limits are held with guests in WebAssembly text by the tests of `interfaces`; here they meet what the Rust
//! compiler makes: its allocator, its panics, its stack.

use mainstay_testing::{Answer, Install, TestHost};
use std::path::PathBuf;

/// What `cargo xtask plugins` packed.
fn package(name: &str) -> PathBuf {
    let file = format!("../registry-data/examples/{name}-0.1.0.mainstay");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    assert!(path.exists(), "{} is not there: run `cargo xtask plugins` first", path.display());
    path
}

fn hosts() -> TestHost {
    TestHost::new().install(package("hostile")).unwrap().install(package("hello")).unwrap()
}

fn ask(host: &TestHost, how: &str) -> Answer {
    host.call("GET", &format!("/hostile/{how}"), "")
}

fn neighbour_answers(host: &TestHost) {
    assert_eq!(host.call("GET", "/hello/guests", "").status, 200, "the neighbour answers");
}

#[test]
fn each_misbehaviour_has_its_own_answer_and_the_neighbour_none_of_it() {
    let host = hosts();
    let check = |how: &str, status: u16, words: &[&str]| {
        let answer = ask(&host, how);
        assert_eq!(answer.status, status, "{how}: {answer:?}");
        for word in words {
            assert!(answer.as_text().contains(word), "{how}: `{word}` is missing: {}", answer.as_text());
        }
        neighbour_answers(&host);
        // A good call between two bad ones keeps the plugin out of quarantine.
        assert_eq!(ask(&host, "well").status, 200);
    };
    check("loop", 422, &["`hostile`", "300 ms", "call-cpu-ms"]);
    check("allocate", 422, &["`hostile`", "16777216", "memory-mib"]);
    check("panic", 500, &["`hostile`", "fault of its own"]);
    check("recurse", 500, &["`hostile`", "fault of its own"]);
    check("call-flood", 422, &["`hostile`", "20000", "host-calls"]);
    check("big-answer", 422, &["`hostile`", "1048576", "output-kib"]);
    check("random-flood", 500, &["`hostile`"]);
    check("log-flood", 200, &["logged"]);
    check("fitting-answer", 200, &[]);
    check("column-hoard", 400, &["8192 columns"]);
    check("value-hoard", 507, &["array-mib"]);
    check("endless-resampling", 400, &["rows times resamples", "2147483648"]);
    check("endless-discrepancy", 400, &["rows times rows times dimensions"]);
    check("peek", 403, &["arrays.read"]);
    check("foreign-topic", 400, &["no topic of an event"]);
    check("endless-event", 400, &["no topic of an event"]);
    check("free-command", 404, &["no job `anything`", "an operator defines jobs"]);
    check("metadata", 403, &["granted no host"]);
    check("loopback", 403, &["granted no host"]);
    check("nonsense", 404, &["no such misbehaviour"]);
    let stats = host.plugin("hostile").unwrap().stats();
    assert_eq!((stats.timeouts, stats.out_of_memory, stats.traps), (1, 1, 3), "{stats:?}");
    assert_eq!((stats.host_call_floods, stats.output_too_large), (1, 1), "{stats:?}");
    assert!(stats.log_cut_bytes > 9_000_000, "{stats:?}");
    let neighbour = host.plugin("hello").unwrap().stats();
    assert_eq!((neighbour.failed, neighbour.traps, neighbour.timeouts), (0, 0, 0));
}

#[test]
fn rows_cannot_be_read_through_aggregates() {
    let host = hosts();
    assert_eq!(ask(&host, "fill?rows=1000").as_text(), "1000");
    // Count and mean are told, the smallest and the greatest are not: sum of 0..999 over 1,000.
    assert_eq!(ask(&host, "window-mean").as_text(), "1000 499.5 NaN NaN");
    let check = |how: &str, status: u16, words: &str| {
        let answer = ask(&host, how);
        assert_eq!(answer.status, status, "{how}: {answer:?}");
        assert!(answer.as_text().contains(words), "{how}: `{words}` is missing: {}", answer.as_text());
        assert_eq!(ask(&host, "well").status, 200);
    };
    check("window-open", 403, "must have ended");
    check("window-read", 403, "arrays.read");
    check("window-slice", 403, "cannot pick rows");
    check("window-threshold", 403, "compare values with its own");
    check("window-edges", 403, "edges of its own");
    check("window-extreme", 403, "0.05 to 0.95");
    check("window-census", 403, "range of its own");
    check("window-join", 403, "join rows by keys");
    check("window-groups", 200, "3");
    check("window-budget", 507, "2000 columns an hour");
    // A group of 20 of 1,000 may be told of, one of 19 may not; and so with all rows.
    let check = |rows: usize, how: &str, status: u16| {
        let host = hosts();
        assert_eq!(ask(&host, &format!("fill?rows={rows}")).status, 200);
        assert_eq!(ask(&host, how).status, status, "{rows} rows, {how}");
    };
    check(1_000, "window-groups", 200);
    check(950, "window-groups", 403);
    check(20, "window-mean", 200);
    check(19, "window-mean", 403);
}

#[test]
fn values_are_not_read_back_though_the_plugin_may_read_other_columns() {
    let all = ["keys", "arrays", "arrays.read", "tables.append", "tables.aggregate"].map(str::to_owned).to_vec();
    let more = Install { grants: Some(all), ..Install::default() };
    let host = TestHost::new().install_with(package("hostile"), more).unwrap();
    assert_eq!(ask(&host, "peek").status, 200, "its own columns it may read");
    assert_eq!(ask(&host, "fill?rows=100").status, 200);
    for how in ["window-read", "window-copy"] {
        let answer = ask(&host, how);
        assert_eq!(answer.status, 403, "{how}: {answer:?}");
        assert!(answer.as_text().contains("cannot read values"), "{how}: {answer:?}");
    }
    assert_eq!(ask(&host, "peek").status, 200, "and in the next call again");
}

#[test]
fn what_http_forbids_is_the_plugins_fault() {
    let host = hosts();
    for how in ["bad-header", "bad-status", "bad-send"] {
        let answer = ask(&host, how);
        assert!((400..=500).contains(&answer.status), "{how}: {answer:?}");
        assert!(answer.headers.is_empty(), "{how}: {answer:?}");
        neighbour_answers(&host);
    }
}

#[test]
fn a_denial_that_the_plugin_does_not_handle_is_reported_as_one() {
    let nothing = Install { grants: Some(Vec::new()), ..Install::default() };
    let host = TestHost::new().install_with(package("hostile"), nothing).unwrap();
    let answer = ask(&host, "unwrap-a-denial");
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.as_text().contains("`keys`"), "{answer:?}");
    let stats = host.plugin("hostile").unwrap().stats();
    assert_eq!((stats.denied, stats.traps, stats.failures_in_row), (1, 0, 0), "{stats:?}");
}

#[test]
fn columns_of_a_call_that_failed_are_given_back() {
    let host = hosts();
    for how in ["column-hoard", "value-hoard", "peek"] {
        assert!(ask(&host, how).status >= 400, "{how}");
        assert_eq!(host.plugin("hostile").unwrap().array_bytes(), 0, "{how}");
    }
}

#[test]
fn what_was_committed_outlives_every_misbehaviour() {
    let host = hosts();
    assert_eq!(ask(&host, "count").as_text(), "1");
    for how in ["loop", "allocate", "panic", "call-flood"] {
        assert!(ask(&host, how).status >= 400, "{how}");
    }
    assert_eq!(ask(&host, "count").as_text(), "2");
}

#[test]
fn a_plugin_that_only_fails_is_left_alone_and_its_neighbour_is_not() {
    let host = hosts();
    let quarantined = (0..20).map(|_| ask(&host, "panic")).find(|answer| answer.status == 503);
    let answer = quarantined.expect("the plugin is in quarantine after failures in a row");
    assert!(answer.as_text().contains("times in a row"), "{answer:?}");
    assert!(host.plugin("hostile").unwrap().stats().quarantine_left_ms > 0);
    neighbour_answers(&host);
}

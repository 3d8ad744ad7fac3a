//! Artifacts: round trips, listings, quotas, what is refused.

use crate::Server;
use mainstay_sdk::http::Request;
use serde_json::{Value, json};

const ROOT: &str = "/api/2.0/mlflow-artifacts/artifacts";

fn list(server: &Server, path: &str) -> Value {
    server.call(Request::get(ROOT).query("path", path)).json()
}

#[test]
fn files_come_back() {
    let server = Server::new();
    let run = server.run("0");
    let base = format!("{ROOT}/0/{run}/artifacts");
    let put = |path: &str, body: &[u8]| server.call(Request::put(format!("{base}/{path}")).body(body));
    assert_eq!((put("a.txt", b"hello").status, put("a.txt", b"hello").text().to_owned()), (200, "{}".into()));
    put("dir/%C3%BC%20x.bin", b"\0\xff");
    put("dir/deep/empty", b"");
    let big = vec![7u8; 300_000];
    let answer = server.call(Request::put(format!("{base}/big.bin")).waiting(big.clone()));
    assert_eq!((answer.status, answer.text()), (200, "{}"));

    let got = server.call(Request::get(format!("{base}/big.bin")));
    assert_eq!((got.status, got.body.as_slice()), (200, big.as_slice()));
    assert!(got.header("content-disposition").unwrap().starts_with("attachment; filename=\"big.bin\""));
    assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(server.call(Request::get(format!("{base}/dir/%C3%BC%20x.bin"))).body, b"\0\xff");
    let missing = server.call(Request::get(format!("{base}/none")));
    assert_eq!(
        (missing.status, missing.json::<Value>()["error_code"].clone()),
        (404, "RESOURCE_DOES_NOT_EXIST".into())
    );

    let below = format!("0/{run}/artifacts");
    assert_eq!(
        list(&server, &below),
        json!({"files": [
            {"path": "a.txt", "is_dir": false, "file_size": 5},
            {"path": "big.bin", "is_dir": false, "file_size": 300_000},
            {"path": "dir", "is_dir": true},
        ]})
    );
    assert_eq!(list(&server, &format!("{below}/dir/deep")), json!({"files": [{"path": "empty", "is_dir": false}]}));
    assert_eq!(list(&server, &format!("{below}/none")), json!({}));
    assert_eq!(list(&server, &format!("{below}/a.txt")), json!({}));
    let of_run = server.get("artifacts/list", &[("run_id", &run), ("path", "dir")]);
    assert_eq!(of_run["root_uri"], format!("mlflow-artifacts:/{below}"));
    assert_eq!(of_run["files"][0], json!({"path": "dir/deep", "is_dir": true}));
    assert_eq!(of_run["files"][1]["path"], "dir/ü x.bin");

    assert_eq!(server.call(Request::delete(format!("{base}/dir"))).status, 200);
    assert_eq!(list(&server, &format!("{below}/dir")), json!({}));
    assert_eq!(server.call(Request::get(format!("{base}/a.txt"))).body, b"hello");
}

#[test]
fn unsafe_names_are_refused() {
    let server = Server::new();
    for path in ["a/%252e%252e/b", "%25%32%65%25%32%65/b", "a%23b", "C%3A/x", "x/%2500"] {
        for request in [
            Request::put(format!("{ROOT}/{path}")).body("x"),
            Request::get(format!("{ROOT}/{path}")),
            Request::delete(format!("{ROOT}/{path}")),
        ] {
            assert_eq!(server.call(request).status, 400, "{path}");
        }
    }
    assert_eq!(server.call(Request::get(ROOT).query("path", "../x")).status, 400);
}

#[test]
fn a_name_is_a_file_or_a_folder() {
    let server = Server::new();
    let put = |path: &str| server.call(Request::put(format!("{ROOT}/1/r/artifacts/{path}")).body("x"));
    let refused = |path: &str, names: &str| {
        for request in [
            Request::put(format!("{ROOT}/1/r/artifacts/{path}")).body("x"),
            Request::put(format!("{ROOT}/1/r/artifacts/{path}")).waiting("x"),
        ] {
            let answer = server.call(request);
            let body: Value = answer.json();
            assert_eq!(
                (answer.status, &body["error_code"]),
                (400, &"INVALID_PARAMETER_VALUE".into()),
                "{path}: {body}"
            );
            assert!(body["message"].as_str().unwrap().contains(&format!("'{names}")), "{path}: {body}");
        }
    };
    assert_eq!(put("a").status, 200);
    refused("a/b", "1/r/artifacts/a'");
    refused("a/b/c/d", "1/r/artifacts/a'");
    assert_eq!(put("a").status, 200, "again");
    assert_eq!(put("deep/er/file").status, 200);
    refused("deep", "1/r/artifacts/deep/er/file'");
    refused("deep/er", "1/r/artifacts/deep/er/file'");
    assert_eq!(put("deep/er/other").status, 200);
    assert_eq!(put("deepest").status, 200, "a prefix is no folder");
    for path in ["", "deep/", "new/"] {
        let answer = put(path);
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.json::<Value>()["message"].as_str().unwrap().contains("names a directory"), "{path}");
    }
    assert_eq!(server.call(Request::get(format!("{ROOT}/1/r/artifacts"))).status, 404);
    // What is gone is not in the way.
    server.call(Request::delete(format!("{ROOT}/1/r/artifacts/a")));
    assert_eq!(put("a/b").status, 200);
    server.call(Request::delete(format!("{ROOT}/1/r/artifacts/deep")));
    assert_eq!(put("deep").status, 200);
}

/// Each of two uploads finds nothing in its way; their guards meet.
#[test]
fn a_file_and_one_below_it_cannot_both_be_uploaded_at_once() {
    use mainstay_sdk::{ErrorKind, Transaction, keys};
    use tracking::store::artifact_key;
    let server = Server::new();
    let put = |path: &str| assert_eq!(server.call(Request::put(format!("{ROOT}/{path}")).body("x")).status, 200);
    server.0.enter(|| {
        let guarded = |guard: &dyn Fn(&Transaction), meanwhile: &str| {
            keys::renew().unwrap();
            let tx = Transaction::begin().unwrap();
            guard(&tx);
            put(meanwhile);
            tx.commit().map(drop).map_err(|error| error.kind())
        };
        let as_file = |name: &'static str| move |tx: &Transaction| tx.expect_unchanged(artifact_key(name)).unwrap();
        let as_folder = |name: &'static str| move |tx: &Transaction| tx.expect_absent(artifact_key(name)).unwrap();
        assert_eq!(guarded(&as_file("1/a"), "1/a/b"), Err(ErrorKind::Conflict));
        assert_eq!(guarded(&as_folder("1/c"), "1/c"), Err(ErrorKind::Conflict));
        assert_eq!(guarded(&as_folder("1/d"), "1/d/e"), Ok(()), "siblings do not meet");
    });
}

#[test]
fn equal_content_counts_once_and_quotas_are_loud_before_they_refuse() {
    let server = Server::with(json!({"artifact-quota-bytes": 1_000, "artifact-bytes-max": 600}));
    let put = |path: &str, body: Vec<u8>| server.call(Request::put(format!("{ROOT}/{path}")).body(body));
    let used = || server.call(Request::get("/quotas/1")).json::<Value>()["used_bytes"].clone();
    for epoch in 0..10 {
        assert_eq!(put(&format!("1/r/artifacts/{epoch}.ckpt"), vec![1; 500]).status, 200);
    }
    assert_eq!(used(), 500, "a checkpoint logged every epoch costs its unique bytes");
    assert_eq!(put("2/r/artifacts/other", vec![1; 500]).status, 200, "another experiment has its own quota");
    let near = put("1/r/artifacts/b", vec![2; 400]);
    assert!(near.header("x-mainstay-warning").unwrap().contains("900 of 1000 bytes (90 %)"));
    assert!(server.0.log().iter().any(|line| line.message.contains("artifacts of experiment 1")));
    for refused in [
        put("1/r/artifacts/c", vec![3; 200]),
        server.call(Request::put(format!("{ROOT}/1/r/artifacts/c")).waiting(vec![3; 200])),
    ] {
        assert_eq!(refused.status, 413);
        let body: Value = refused.json();
        assert!(
            body["error_code"] == "RESOURCE_EXHAUSTED"
                && body["message"].as_str().unwrap().contains("leaves 100 bytes"),
            "{body}"
        );
    }
    // What is kept already costs nothing, also where it would not fit; what is only as long does not pass for it.
    let again = |path: &str, byte: u8| {
        server.call(Request::put(format!("{ROOT}/1/r/artifacts/{path}")).waiting(vec![byte; 500])).status
    };
    assert_eq!((again("more.ckpt", 1), again("other.ckpt", 9)), (200, 413));
    assert_eq!(put("1/r/artifacts/inline.ckpt", vec![1; 500]).status, 200);
    assert_eq!(used(), 900);
    assert_eq!(put("3/x", vec![0; 601]).status, 413);
    // Replacing and deleting gives back what nothing else refers to.
    assert_eq!(put("1/r/artifacts/b", vec![4; 50]).status, 200);
    assert_eq!(used(), 550);
    server.call(Request::delete(format!("{ROOT}/1/r/artifacts/0.ckpt")));
    assert_eq!(used(), 550);
    server.call(Request::delete(format!("{ROOT}/1/r")));
    assert_eq!(used(), 0);
}

#[test]
fn what_is_not_done_says_so() {
    let server = Server::new();
    let answer = server.call(Request::post("/api/2.0/mlflow-artifacts/mpu/create/0/x").body("{}"));
    assert_eq!(answer.status, 501);
    assert!(
        answer.json::<Value>()["message"]
            .as_str()
            .unwrap()
            .starts_with("Multipart upload is not supported for the current artifact repository")
    );
    assert_eq!(server.call(Request::get("/api/2.0/mlflow-artifacts/presigned/0/x")).status, 501);
}

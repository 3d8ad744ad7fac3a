//! The real server that unmodified clients of the protocol are tested against, as the upstream, in a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use futures::StreamExt;
use mainstay_base::ErrorKind;
use mainstay_inference::{Datatype, InferRequest, Parameter, RequestedOutput, Tensor};
use mainstay_traffic::Backend;
use mainstay_upstreams::{Upstream, UpstreamOptions, Upstreams};

use crate::support::*;

struct Known {
    process: Child,
    http: String,
    grpc: String,
}

impl Drop for Known {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn start() -> Known {
    // Built beside this test, from `examples/serve_known.rs` of the room of the protocol.
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples/known_upstream");
    let command = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut process = command.unwrap_or_else(|error| {
        panic!(
            "`{}` does not start: {error}; build it: cargo build --examples -p mainstay-upstreams",
            program.display()
        )
    });
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let addresses: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = |name: &str| addresses[name].as_str().unwrap().to_owned();
    Known { http: address("http"), grpc: address("grpc"), process }
}

/// Both ways to a model of it.
fn both(known: &Known, upstreams: &Upstreams, path: &str) -> [Arc<Upstream>; 2] {
    let open = |url: String| upstreams.open(&url, &UpstreamOptions::default()).unwrap();
    [open(format!("http://{}{path}", known.http)), open(format!("grpc://{}{path}", known.grpc))]
}

fn add_sub(left: &[i32; 16], right: &[i32; 16]) -> InferRequest {
    let tensor = |name: &str, values: &[i32; 16]| Tensor::int32(name, &[1, 16], values).unwrap();
    InferRequest { inputs: vec![tensor("INPUT0", left), tensor("INPUT1", right)], ..InferRequest::default() }
}

#[tokio::test]
async fn the_real_server_answers_over_both_protocols() {
    let (known, upstreams) = (start(), Upstreams::default());
    let (left, right) = (std::array::from_fn(|place| place as i32 * 3), [5; 16]);
    for upstream in both(&known, &upstreams, "/v2/models/add_sub/versions/1") {
        upstream.warm(in_ms(10_000)).await.unwrap();
        let answer = upstream.infer(&add_sub(&left, &right).into(), &ask()).await.unwrap();
        let outputs = ["OUTPUT0", "OUTPUT1"].map(|name| answer.output(name).unwrap().integers().unwrap());
        assert_eq!(outputs[0], (0..16).map(|place| place * 3 + 5).collect::<Vec<i64>>());
        assert_eq!(outputs[1], (0..16).map(|place| place * 3 - 5).collect::<Vec<i64>>());
        let only = RequestedOutput { name: "OUTPUT1".into(), parameters: vec![] };
        let request = InferRequest { outputs: vec![only], ..add_sub(&left, &right) };
        assert_eq!(upstream.infer(&request.into(), &ask()).await.unwrap().outputs.len(), 1);
        let metadata = upstream.metadata("", None, in_ms(10_000)).await.unwrap();
        assert_eq!((metadata.inputs.len(), &metadata.inputs[0].shape[..]), (2, &[-1, 16][..]));
        let wrong = InferRequest { inputs: vec![], ..add_sub(&left, &right) };
        let failure = upstream.infer(&wrong.into(), &ask()).await.unwrap_err();
        assert_eq!(seen(&failure), (ErrorKind::Invalid, false, false), "{failure}");
        assert!(failure.error.message().starts_with("expected 2 inputs"), "{failure}");
    }
}

#[tokio::test]
async fn the_real_server_gives_every_datatype_back() {
    let (known, upstreams) = (start(), Upstreams::default());
    for upstream in both(&known, &upstreams, "") {
        for datatype in Datatype::ALL {
            let data = match datatype.width() {
                Some(width) => vec![0; 4 * width].into(),
                None => Tensor::bytes("x", &[4], ["", "a", "ü", "\0"]).unwrap().data,
            };
            let model = format!("identity_{}", datatype.name().to_lowercase());
            let inputs = vec![Tensor::new("INPUT0", datatype, &[2, 2], data.clone()).unwrap()];
            let request = InferRequest { model, inputs, ..InferRequest::default() };
            let answer = upstream.infer(&request.into(), &ask()).await.unwrap();
            assert_eq!((answer.outputs[0].datatype, &answer.outputs[0].data), (datatype, &data));
        }
        let missing = InferRequest { model: "missing".into(), ..add_sub(&[0; 16], &[0; 16]) };
        let failure = upstream.infer(&missing.into(), &ask()).await.unwrap_err();
        assert_eq!(seen(&failure), (ErrorKind::NotFound, false, false), "{failure}");
        upstream.ready(in_ms(10_000)).await.unwrap();
    }
}

#[tokio::test]
async fn the_real_server_streams_over_both_protocols() {
    let (known, upstreams) = (start(), Upstreams::default());
    for upstream in both(&known, &upstreams, "/v2/models/tokens") {
        let parts = upstream.stream(&text("one two three"), &ask()).await.unwrap();
        let parts: Vec<_> = parts.map(Result::unwrap).collect().await;
        let words = parts.iter().map(|part| part.output("text_output").unwrap().strings().unwrap()[0].to_vec());
        assert_eq!(words.collect::<Vec<_>>(), [&b"one"[..], b"two", b"three"]);
        let mut failing = (*text("one two three")).clone();
        failing.parameters.push(("fail_after".into(), Parameter::Int64(2)));
        let parts: Vec<_> = upstream.stream(&failing.into(), &ask()).await.unwrap().collect().await;
        assert_eq!(parts.len(), 3);
        let failure = parts[2].as_ref().unwrap_err();
        assert!(failure.error.message().contains("asked to fail in the middle"), "{failure}");
    }
}

#[tokio::test]
async fn the_real_server_keeps_the_deadline_that_it_is_told() {
    let (known, upstreams) = (start(), Upstreams::default());
    for upstream in both(&known, &upstreams, "/v2/models/slow") {
        let inputs = vec![Tensor::fp32("INPUT0", &[1], &[1.0]).unwrap()];
        let request = Arc::new(InferRequest { inputs, ..InferRequest::default() });
        let failure = upstream.infer(&request, &ask_ms(100)).await.unwrap_err();
        assert_eq!(seen(&failure), (ErrorKind::Unavailable, false, true), "{failure}");
        // Told as the deadline, and not as a server that is too busy.
        assert_eq!(only_failure(&upstream.statistics()), mainstay_upstreams::FailureKind::Late);
    }
}

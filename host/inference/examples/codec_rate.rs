//! How long the protocol itself takes for a request of one row: `codec_rate [SECONDS]`.
//!
//! A row of 30 singles is read and the answer (a label, two shares) is written; nothing is computed between. Beside it: what the
//! whole front adds, and what a plain JSON reader takes that makes a tree of values.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::executor::block_on;
use http::Request;
use http_body_util::{BodyExt, Full};
use mainstay_base::Result;
use mainstay_inference::{
    AnswerForm, Answered, Asker, Front, HEADER_LENGTH, InferAnswer, InferRequest, Limits, ModelMetadata, Models,
    ServerMetadata, Tensor, decode_request, encode_answer, encode_request, message_of_answer, message_of_request,
    proto::ModelInferRequest, request_of_message,
};
use prost::Message;

struct Constant(InferAnswer);

#[async_trait::async_trait]
impl Models for Constant {
    async fn ready(&self) -> bool {
        true
    }

    async fn model_ready(&self, _: &Asker, _: &str, _: Option<&str>) -> Result<bool> {
        Ok(true)
    }

    async fn server(&self) -> Result<ServerMetadata> {
        Ok(ServerMetadata::default())
    }

    async fn metadata(&self, _: &Asker, _: &str, _: Option<&str>) -> Result<ModelMetadata> {
        Ok(ModelMetadata::default())
    }

    async fn infer(&self, _: Asker, _: InferRequest) -> Result<Answered> {
        Ok(self.0.clone().into())
    }
}

fn main() {
    let time = Duration::from_secs_f64(std::env::args().nth(1).map_or(1.0, |text| text.parse().expect("seconds")));
    let values: Vec<f32> = (0..30).map(|place| (place as f32 * 0.7).sin() * 100.0).collect();
    let row = Tensor::fp32("input", &[1, 30], &values).expect("a row");
    let request = InferRequest { model: "tree".into(), inputs: vec![row], ..InferRequest::default() };
    let answer = InferAnswer {
        model: "tree".into(),
        version: "1".into(),
        parameters: Vec::new(),
        outputs: vec![
            Tensor::int64("label", &[1], &[1]).expect("a label"),
            Tensor::fp32("probabilities", &[1, 2], &[0.25, 0.75]).expect("shares"),
        ],
    };

    println!("one row of 30 singles, {:.1} s each", time.as_secs_f64());
    for (name, binary) in [("binary", true), ("JSON", false)] {
        let encoded = encode_request(&request, binary).expect("encoded");
        let (length, body) = (encoded.header_length, Bytes::from(encoded.pieces.concat()));
        let form = AnswerForm { binary, outputs: Vec::new() };
        let read = measure(time, || drop(decode_request("tree", None, body.clone(), length).expect("read")));
        let written = measure(time, || drop(encode_answer(None, &answer, &form).expect("written")));
        println!("{name:<6} read {read}, write {written}, together {:>6.2} us", read.us() + written.us());
        let front = Front::new(Arc::new(Constant(answer.clone())), Limits::default());
        let whole = measure(time, || {
            let mut asked = Request::post("/v2/models/tree/infer");
            if let Some(length) = length {
                asked = asked.header(HEADER_LENGTH, length);
            }
            let asked = asked.body(Full::<Bytes>::new(body.clone())).expect("a request");
            let answered: std::result::Result<_, Infallible> =
                block_on(async { front.answer(asked, Asker::default()).await.into_body().collect().await });
            drop(answered);
        });
        println!("{name:<6} whole front {whole}");
        if !binary {
            let tree = measure(time, || drop(serde_json::from_slice::<serde_json::Value>(&body).expect("JSON")));
            println!("       a tree of values of the same body {tree}");
        }
    }
    let message = Bytes::from(message_of_request(&request).encode_to_vec());
    let grpc = measure(time, || {
        let message = ModelInferRequest::decode(message.clone()).expect("a message");
        request_of_message(message).expect("a request");
        drop(message_of_answer(None, answer.clone()).encode_to_vec());
    });
    println!("gRPC   read and write {grpc}");
}

/// Nanoseconds of one call, over the whole time.
struct Took(f64);

impl Took {
    fn us(&self) -> f64 {
        self.0 / 1000.0
    }
}

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>6.2} us", self.us())
    }
}

fn measure(time: Duration, mut work: impl FnMut()) -> Took {
    let (start, mut calls) = (Instant::now(), 0_u32);
    while start.elapsed() < time {
        (0..100).for_each(|_| work());
        calls += 100;
    }
    Took(start.elapsed().as_nanos() as f64 / f64::from(calls))
}

//! Whatever arrives is answered or refused; nothing panics, and each limit holds at its number and not one beyond it.

use bytes::Bytes;
use mainstay_base::ErrorKind;
use mainstay_inference::*;
use proptest::prelude::*;
use prost::Message;
use serde_json::json;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_are_refused(body in prop::collection::vec(any::<u8>(), 0..200), length in prop::option::of(0_usize..300)) {
        let _ = decode_request("m", None, body.clone().into(), length);
        let _ = decode_answer(body.clone().into(), length);
        if let Ok(message) = proto::ModelInferRequest::decode(&body[..]) {
            let _ = request_of_message(message);
        }
        let _ = raw_request("m", None, "x", Datatype::Fp32, &[-1, 3, -1], length.is_some(), body.clone().into());
        let _ = read_config(&String::from_utf8_lossy(&body));
    }

    #[test]
    fn requests_with_a_byte_changed_are_read_or_refused(at in 0_usize..400, byte: u8, cut in 0_usize..400) {
        let body = json!({
            "id": "1",
            "parameters": {"binary_data_output": true, "timeout": 5},
            "inputs": [
                {"name": "a", "shape": [2, 2], "datatype": "FP32", "data": [[0.5, -1e3], [2, "NaN"]]},
                {"name": "b", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}},
            ],
            "outputs": [{"name": "c", "parameters": {"binary_data": false}}],
        });
        let mut body = body.to_string().into_bytes();
        let length = body.len();
        body.extend_from_slice(&[1, 0, 0, 0, 65]);
        prop_assert!(decode_request("m", None, body.clone().into(), Some(length)).is_ok());
        let at = at % body.len();
        body[at] = byte;
        let _ = decode_request("m", None, body.clone().into(), Some(length));
        body.truncate(cut % body.len());
        let _ = decode_request("m", None, body.into(), Some(length));
    }

    #[test]
    fn configurations_with_a_byte_changed_are_read_or_refused(at in 0_usize..4000, byte: u8) {
        let mut text = include_str!("config/full.pbtxt").as_bytes().to_vec();
        let at = at % text.len();
        text[at] = byte;
        let _ = read_config(&String::from_utf8_lossy(&text));
    }
}

/// Reads a request; the words of the refusal, or none.
fn refusal(body: serde_json::Value) -> Option<String> {
    let error = decode_request("m", None, body.to_string().into(), None).err()?;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    Some(error.message().to_owned())
}

#[test]
fn each_limit_of_a_request_holds_at_its_number() {
    /// What is built for a number is read at the limit, and refused with these words one beyond it.
    fn check(limit: usize, words: &str, body: impl Fn(usize) -> serde_json::Value) {
        assert_eq!(refusal(body(limit)), None, "{words}");
        let refused = refusal(body(limit + 1)).expect(words);
        assert!(refused.contains(words), "{refused}");
    }
    let tensor =
        |name: &str, shape: serde_json::Value| json!({"name": name, "shape": shape, "datatype": "FP32", "data": []});
    let many = |count: usize| (0..count).map(|place| place.to_string()).collect::<Vec<_>>();
    check(
        limits::TENSORS_MAX,
        "more than 1024 tensors",
        |count| json!({"inputs": many(count).iter().map(|name| tensor(name, json!([0]))).collect::<Vec<_>>()}),
    );
    check(
        limits::TENSORS_MAX,
        "more than 1024 outputs",
        |count| json!({"inputs": [], "outputs": many(count).iter().map(|name| json!({"name": name})).collect::<Vec<_>>()}),
    );
    check(
        limits::DIMENSIONS_MAX,
        "more than 32 dimensions",
        |count| json!({"inputs": [tensor("x", json!(vec![0; count]))]}),
    );
    check(limits::DIMENSIONS_MAX, "more than 32 levels of lists", |count| {
        let nested = (0..count).fold(json!(1), |inner, _| json!([inner]));
        json!({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": nested}]})
    });
    let named = |count| many(count).into_iter().map(|name| (name, json!(1))).collect::<serde_json::Map<_, _>>();
    check(
        limits::PARAMETERS_MAX,
        "more than 256 parameters",
        |count| json!({"inputs": [], "parameters": named(count)}),
    );
    check(
        limits::PARAMETERS_MAX,
        "more than 256 parameters",
        |count| json!({"inputs": [], "outputs": [{"name": "x", "parameters": named(count)}]}),
    );
    check(
        limits::NAME_BYTES_MAX,
        "1025 bytes in a name",
        |count| json!({"inputs": [tensor(&"n".repeat(count), json!([0]))]}),
    );
    check(
        limits::NAME_BYTES_MAX,
        "1025 bytes in a name",
        |count| json!({"inputs": [], "parameters": {"n".repeat(count): 1}}),
    );
}

#[test]
fn the_limits_hold_over_grpc_too() {
    let message = |count: usize| proto::ModelInferRequest {
        inputs: (0..count)
            .map(|place| proto::model_infer_request::InferInputTensor {
                name: place.to_string(),
                datatype: "FP32".to_owned(),
                shape: vec![0],
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    assert!(request_of_message(message(limits::TENSORS_MAX)).is_ok());
    let error = request_of_message(message(limits::TENSORS_MAX + 1)).expect_err("one too many");
    assert!(error.message().contains("1025 inputs; 1024 are the most"), "{error}");
}

#[test]
fn each_limit_of_a_configuration_holds_at_its_number() {
    let padded = |bytes: usize| read_config(&" ".repeat(bytes));
    assert!(padded(limits::CONFIG_BYTES_MAX).is_ok() && padded(limits::CONFIG_BYTES_MAX + 1).is_err());

    let nested = |depth: usize| read_config(&format!("unknown {}1{}", "{ a: ".repeat(depth), "}".repeat(depth)));
    assert!(nested(limits::CONFIG_DEPTH_MAX).is_ok(), "{:?}", nested(limits::CONFIG_DEPTH_MAX));
    assert!(nested(limits::CONFIG_DEPTH_MAX + 1).expect_err("too deep").message().contains("nested more than 32 deep"));
    assert!(nested(100_000).is_err());

    let warned = |count: usize| read_config(&"new: 1\n".repeat(count)).expect("read").warnings.len();
    assert_eq!(warned(limits::CONFIG_WARNINGS_MAX), limits::CONFIG_WARNINGS_MAX);
    assert_eq!(warned(limits::CONFIG_WARNINGS_MAX + 1), limits::CONFIG_WARNINGS_MAX);
}

#[test]
fn a_raw_body_takes_the_shape_that_its_model_leaves_open() {
    fn check(shape: &[i64], batched: bool, bytes: usize, expect: Option<&[u64]>) {
        let read = raw_request("m", None, "x", Datatype::Fp32, shape, batched, Bytes::from(vec![0; bytes]));
        assert_eq!(
            read.ok().map(|request| request.inputs[0].shape.to_vec()),
            expect.map(<[u64]>::to_vec),
            "{shape:?} {bytes}"
        );
    }
    check(&[-1, 30], true, 120, Some(&[1, 30]));
    check(&[-1, 30], true, 240, None);
    check(&[-1, 30], false, 240, Some(&[2, 30]));
    check(&[-1, -1], true, 12, Some(&[1, 3]));
    check(&[-1, 2, -1], true, 24, Some(&[1, 2, 3]));
    check(&[4], false, 15, None);
    check(&[4], false, 16, Some(&[4]));
    check(&[], false, 4, Some(&[]));
    check(&[0], false, 0, Some(&[0]));
    check(&[i64::MAX, i64::MAX], false, 16, None);
}

#[test]
fn a_request_that_contradicts_itself_is_refused_with_the_reason() {
    /// One tensor with these changes, and this behind the JSON.
    fn check(changes: serde_json::Value, tail: &'static [u8], words: &str) {
        let mut tensor = json!({"name": "x", "shape": [1, 2], "datatype": "FP32"});
        let tensor_fields = tensor.as_object_mut().expect("an object");
        tensor_fields.extend(changes.as_object().expect("an object").clone());
        let text = json!({ "inputs": [tensor] }).to_string();
        let length = (!tail.is_empty()).then_some(text.len());
        let body = [text.as_bytes(), tail].concat();
        let error = decode_request("m", None, body.into(), length).expect_err(words);
        assert!(error.message().contains(words), "{error}");
    }
    let raw = |bytes: i64| json!({"parameters": {"binary_data_size": bytes}});
    check(raw(8), &[0; 9], "1 of the 9 bytes behind the JSON belong to no tensor");
    check(raw(8), &[0; 7], "only 7 of the 7 bytes behind the JSON are left");
    check(raw(7), &[0; 7], "input byte size mismatch for input 'x' for model 'm'. Expected 8, got 7");
    check(raw(-1), &[0; 8], "Unable to parse 'binary_data_size'");
    check(
        json!({"data": [1, 2], "parameters": {"binary_data_size": 8}}),
        &[0; 8],
        "has both 'data' and 'binary_data_size'",
    );
    check(json!({}), &[], "has neither 'data' nor 'binary_data_size'");
    check(json!({"data": [1, 2]}), &[0; 8], "8 of the 8 bytes behind the JSON belong to no tensor");
    check(json!({"data": [1]}), &[], "Expected 2 elements, got 1");
    check(json!({"data": [[1], [2, 3]], "shape": [3]}), &[], "its lists differ in length");
    check(json!({"data": [1, [2]]}), &[], "its lists differ in length");
    check(json!({"data": [1e39, 0]}), &[], "is no element of FP32");
    check(json!({"data": [128, 0], "datatype": "INT8"}), &[], "128 is no element of INT8");
    check(json!({"data": [-1, 0], "datatype": "UINT64"}), &[], "-1 is no element of UINT64");
    check(json!({"data": [0.5, 0], "datatype": "INT64"}), &[], "0.5 is no element of INT64");
    check(json!({"data": [1, 0], "datatype": "BOOL"}), &[], "1 is no element of BOOL");
    check(json!({"data": [true, false]}), &[], "true is no element of FP32");
    check(json!({"data": ["nan", 0]}), &[], "a text is no element of FP32");
    check(json!({"data": [1, 0], "datatype": "FP16"}), &[], "receiving FP16 data via JSON is not supported");
    check(json!({"data": [1, 0], "datatype": "BF16"}), &[], "receiving BF16 data via JSON is not supported");
    check(json!({"data": [1, 0], "shape": [-1, 2]}), &[], "invalid value: integer `-1`");
    check(json!({"data": [1, 0], "shape": [u64::MAX, 3]}), &[], "too large");
    check(json!({"data": [1, 0], "datatype": "FP31"}), &[], "`FP31` is no datatype");
}

#[test]
fn what_is_not_finite_is_read_bare_and_as_a_text() {
    let text = r#"{"id":"NaN \" -Infinity","inputs":[{"name":"NaN","shape":[6],"datatype":"FP64",
        "data":[NaN,-Infinity,Infinity,"NaN","Infinity",-1]}]}"#;
    let (read, _) = decode_request("m", None, text.into(), None).expect("read");
    assert_eq!((read.id.as_deref(), read.inputs[0].name.as_str()), (Some("NaN \" -Infinity"), "NaN"));
    let numbers = read.inputs[0].numbers().expect("numbers");
    assert!(numbers[0].is_nan() && numbers[3].is_nan());
    assert_eq!(
        [numbers[1], numbers[2], numbers[4], numbers[5]],
        [f64::NEG_INFINITY, f64::INFINITY, f64::INFINITY, -1.0]
    );
    let answer = InferAnswer { outputs: read.inputs, ..InferAnswer::default() };
    let encoded = encode_answer(None, &answer, &AnswerForm::default()).expect("encoded");
    let written = String::from_utf8_lossy(&encoded.pieces[0]).into_owned();
    assert!(written.contains(r#""data":["NaN","-Infinity","Infinity","NaN","Infinity",-1.0]"#), "{written}");
}

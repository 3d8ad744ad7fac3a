//! What is written is read again as it was: as JSON, binary, mixed, and as messages of gRPC.

use bytes::Bytes;
use mainstay_inference::*;
use proptest::prelude::*;
use prost::Message;

/// A tensor of any datatype, with elements that fit its shape.
fn tensor(name: String) -> impl Strategy<Value = Tensor> {
    let shape = prop::collection::vec(0_u64..4, 0..4);
    (prop::sample::select(Datatype::ALL.to_vec()), shape).prop_flat_map(move |(datatype, shape)| {
        let (name, count) = (name.clone(), shape.iter().product::<u64>() as usize);
        let data = match datatype.width() {
            None => prop::collection::vec(".{0,8}", count)
                .prop_map(|texts| Tensor::bytes("", &[texts.len() as u64], texts).expect("framed").data)
                .boxed(),
            Some(width) => prop::collection::vec(any::<u8>(), count * width).prop_map(Bytes::from).boxed(),
        };
        data.prop_map(move |data| {
            // A truth is one bit of its byte; the others have no JSON form.
            let truths = datatype == Datatype::Bool;
            let data = if truths { data.iter().map(|byte| byte & 1).collect() } else { data };
            Tensor::new(name.clone(), datatype, &shape, data).expect("as many as the shape wants")
        })
    })
}

fn parameter() -> impl Strategy<Value = Parameter> {
    prop_oneof![
        any::<bool>().prop_map(Parameter::Bool),
        any::<i64>().prop_map(Parameter::Int64),
        (1_u64 << 63..).prop_map(Parameter::Uint64),
        (-1e300..1e300).prop_map(Parameter::Double),
        ".{0,12}".prop_map(Parameter::String),
    ]
}

fn parameters() -> impl Strategy<Value = Vec<(String, Parameter)>> {
    prop::collection::btree_map("p.{0,8}", parameter(), 0..4).prop_map(|map| map.into_iter().collect())
}

prop_compose! {
    fn request()(
        model in "[a-z]{1,8}",
        version in prop::option::of("[0-9]{1,3}"),
        id in prop::option::of(".{1,12}"),
        parameters in parameters(),
        inputs in (tensor("first".into()), tensor("ü \"2\"".into())).prop_map(|(first, second)| vec![first, second]),
        outputs in prop::collection::btree_map("o.{0,8}", parameters(), 0..3),
    ) -> InferRequest {
        let outputs = outputs.into_iter().map(|(name, parameters)| RequestedOutput { name, parameters }).collect();
        InferRequest { model, version, id, parameters, inputs, outputs }
    }
}

fn whole(encoded: &Encoded) -> Bytes {
    encoded.pieces.concat().into()
}

/// Whether every number of it is one that JSON keeps: bits of a NaN are not.
fn has_json_form(tensors: &[Tensor]) -> bool {
    tensors.iter().all(|tensor| match tensor.datatype {
        Datatype::Fp16 | Datatype::Bf16 => false,
        Datatype::Bytes => true,
        _ => tensor.numbers().expect("checked").iter().all(|number| !number.is_nan()),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_request_is_read_as_it_was_written(request in request()) {
        for binary in [true, false] {
            if !binary && !has_json_form(&request.inputs) {
                continue;
            }
            let encoded = encode_request(&request, binary).expect("encoded");
            prop_assert_eq!(encoded.header_length.is_some(), binary);
            let (model, version) = (&request.model, request.version.as_deref());
            let read = decode_request(model, version, whole(&encoded), encoded.header_length);
            let (read, form) = read.expect("decoded");
            prop_assert_eq!(&read, &request);
            prop_assert_eq!(form.binary, binary);
        }
        let message = message_of_request(&request).encode_to_vec();
        let message = proto::ModelInferRequest::decode(&message[..]).expect("a message");
        prop_assert_eq!(request_of_message(message).expect("read"), request);
    }

    #[test]
    fn an_answer_is_read_as_it_was_written(request in request(), binary: bool, other: bool) {
        let InferRequest { model, version, id, parameters, inputs: outputs, .. } = request;
        let answer = InferAnswer { model, version: version.unwrap_or_default(), parameters, outputs };
        let form = AnswerForm { binary, outputs: vec![("first".into(), other)] };
        match encode_answer(id.as_deref(), &answer, &form) {
            Ok(encoded) if has_json_form(&answer.outputs) => {
                let (read_id, read) = decode_answer(whole(&encoded), encoded.header_length).expect("decoded");
                prop_assert_eq!((&read_id, &read), (&id, &answer));
            }
            Ok(encoded) => drop(decode_answer(whole(&encoded), encoded.header_length).expect("decoded")),
            // Only what has no JSON form cannot be written.
            Err(error) => prop_assert!(error.message().contains("via JSON is not supported"), "{}", error),
        }
        let message = message_of_answer(id.as_deref(), answer.clone()).encode_to_vec();
        let message = proto::ModelInferResponse::decode(&message[..]).expect("a message");
        prop_assert_eq!(answer_of_message(message).expect("read"), (id, answer));
    }

    #[test]
    fn nested_elements_are_the_flat_ones(rows in 1_usize..4, columns in 1_usize..4, seed: i64) {
        let value = |row, column| seed.wrapping_mul((row * 7 + column) as i64);
        let values: Vec<Vec<i64>> = (0..rows).map(|row| (0..columns).map(|column| value(row, column)).collect()).collect();
        let body = serde_json::json!({"inputs": [{"name": "x", "shape": [rows, columns], "datatype": "INT64", "data": values}]});
        let (read, _) = decode_request("m", None, body.to_string().into(), None).expect("decoded");
        prop_assert_eq!(read.inputs[0].integers().expect("numbers"), values.concat());
    }
}

#[test]
fn whole_numbers_are_exact_beyond_what_doubles_hold() {
    for number in [i64::MAX, i64::MIN, 9_007_199_254_740_993] {
        let tensor = Tensor::int64("x", &[1], &[number]).expect("a tensor");
        let answer = InferAnswer { outputs: vec![tensor], ..InferAnswer::default() };
        let encoded = encode_answer(None, &answer, &AnswerForm::default()).expect("encoded");
        assert!(String::from_utf8_lossy(&encoded.pieces[0]).contains(&format!("\"data\":[{number}]")));
        assert_eq!(
            decode_answer(whole(&encoded), None).expect("decoded").1.outputs[0].integers().expect("numbers"),
            [number]
        );
    }
}

#[test]
fn raw_tensors_are_slices_of_the_body() {
    let tensor = Tensor::fp32("x", &[1 << 16], &vec![1.5; 1 << 16]).expect("a tensor");
    let request = InferRequest { inputs: vec![tensor], ..InferRequest::default() };
    let encoded = encode_request(&request, true).expect("encoded");
    assert_eq!(encoded.pieces[1].as_ptr(), request.inputs[0].data.as_ptr());
    let body = whole(&encoded);
    let (read, _) = decode_request("m", None, body.clone(), encoded.header_length).expect("decoded");
    assert!(body.as_ptr_range().contains(&read.inputs[0].data.as_ptr()));
}

#[test]
fn every_reader_reads_what_its_datatype_holds() {
    /// Values as numpy and ml_dtypes print them for the same bits.
    fn check(datatype: Datatype, bits: &[u16], expect: &[f64]) {
        let data: Bytes = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let tensor = Tensor::new("x", datatype, &[bits.len() as u64], data).expect("a tensor");
        assert_eq!(tensor.numbers().expect("numbers"), expect);
    }
    check(
        Datatype::Fp16,
        &[0x0001, 0x03ff, 0x0400, 0x3555, 0x3c00, 0xbc00, 0x7bff, 0x7c00, 0xfc00, 0x8000],
        &[
            5.960464477539063e-08,
            6.097555160522461e-05,
            6.103515625e-05,
            0.333251953125,
            1.0,
            -1.0,
            65504.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            0.0,
        ],
    );
    check(
        Datatype::Bf16,
        &[0x3f80, 0xc000, 0x3eab, 0x7f80, 1],
        &[1.0, -2.0, 0.333984375, f64::INFINITY, 9.183549615799121e-41],
    );
    let nan = Tensor::new("x", Datatype::Fp16, &[1], Bytes::from_static(&[1, 0x7c])).expect("a tensor");
    assert!(nan.numbers().expect("numbers")[0].is_nan());

    assert_eq!(Tensor::bool("x", &[2], &[true, false]).expect("a tensor").numbers().expect("numbers"), [1.0, 0.0]);
    assert_eq!(Tensor::int8("x", &[1], &[-5]).expect("a tensor").integers().expect("numbers"), [-5]);
    assert_eq!(Tensor::uint16("x", &[1], &[65535]).expect("a tensor").singles().expect("numbers"), [65535.0]);
    assert_eq!(Tensor::fp64("x", &[1], &[-3.0]).expect("a tensor").integers().expect("numbers"), [-3]);
    for beyond in [0.5, 9_223_372_036_854_775_808.0, f64::NAN, f64::INFINITY] {
        assert!(Tensor::fp64("x", &[1], &[beyond]).expect("a tensor").integers().is_err(), "{beyond}");
    }
    assert!(Tensor::uint64("x", &[1], &[1 << 63]).expect("a tensor").integers().is_err());
    let texts = Tensor::bytes("x", &[2], ["a", ""]).expect("a tensor");
    assert_eq!(texts.strings().expect("texts"), [&b"a"[..], b""]);
    assert!(texts.numbers().is_err() && Tensor::fp32("x", &[0], &[]).expect("a tensor").strings().is_err());
}

#[test]
fn a_tensor_that_is_not_what_it_says_is_refused_by_name() {
    fn check(datatype: Datatype, shape: &[u64], data: &'static [u8], words: &str) {
        let error = Tensor::new("x", datatype, shape, Bytes::from_static(data)).expect_err("refused");
        assert!(error.message().contains("tensor `x`") && error.message().contains(words), "{error}");
    }
    check(Datatype::Fp32, &[2], &[0; 7], "has 7 bytes where FP32 and the shape [2] want 8");
    check(Datatype::Fp32, &[u64::MAX, 2], &[], "too large");
    check(Datatype::Fp64, &[u64::MAX], &[], "want more than there are");
    check(Datatype::Bytes, &[1], &[1, 0, 0], "ends after the data");
    check(Datatype::Bytes, &[1], &[2, 0, 0, 0, 7], "ends after the data");
    check(Datatype::Bytes, &[2], &[0; 4], "has 1 byte strings where the shape [2] wants 2");
}

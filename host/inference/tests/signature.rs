//! Whether a request fits a model, in the words that Triton has for what does not.

use mainstay_inference::*;

fn signature() -> Signature {
    Signature {
        inputs: vec![
            TensorSpec::new("a", Datatype::Fp32, &[30]),
            TensorSpec { optional: true, ..TensorSpec::new("b", Datatype::Int64, &[-1, 2]) },
        ],
        outputs: vec![TensorSpec::new("label", Datatype::Int64, &[])],
        max_batch: 4,
    }
}

fn request(rows: u64) -> InferRequest {
    let a = Tensor::fp32("a", &[rows, 30], &vec![0.0; rows as usize * 30]).expect("a tensor");
    InferRequest { model: "tree".into(), inputs: vec![a], ..InferRequest::default() }
}

#[test]
fn a_request_fits_or_is_told_why() {
    fn check(change: impl FnOnce(&mut InferRequest), words: Option<&str>) {
        let mut request = request(4);
        change(&mut request);
        let checked = signature().check(&request);
        assert_eq!(checked.err().map(|error| error.message().to_owned()).as_deref(), words);
    }
    let b = |rows: u64, columns: u64| {
        Tensor::int64("b", &[rows, 5, columns], &vec![0; (rows * 5 * columns) as usize]).expect("a tensor")
    };
    check(|_| {}, None);
    check(|request| request.inputs.push(b(4, 2)), None);
    check(|request| request.inputs.push(b(3, 2)), Some("input 'b' batch size does not match other inputs for 'tree'"));
    check(
        |request| request.inputs.push(b(4, 3)),
        Some("unexpected shape for input 'b' for model 'tree'. Expected [-1,-1,2], got [4,5,3]"),
    );
    check(
        |request| request.inputs.clear(),
        Some(
            "expected number of inputs between 1 and 2 but got 0 inputs for model 'tree'. Got input(s) [], but missing \
             required input(s) ['a']. Please provide all required input(s).",
        ),
    );
    check(|request| request.inputs[0].name = "c".into(), Some("unexpected inference input 'c' for model 'tree'"));
    check(
        |request| request.inputs[0] = Tensor::fp64("a", &[0, 30], &[]).expect("a tensor"),
        Some("inference input 'a' data-type is 'FP64', but model 'tree' expects 'FP32'"),
    );
    check(
        |request| request.inputs[0] = Tensor::fp32("a", &[], &[0.0]).expect("a tensor"),
        Some("input 'a' has no shape but model requires batch dimension for 'tree'"),
    );
    check(|request| request.inputs.push(request.inputs[0].clone()), Some("input 'a' already exists in request"));
    let output = |name: &str| RequestedOutput { name: name.into(), parameters: vec![] };
    check(|request| request.outputs.push(output("label")), None);
    check(|request| request.outputs.push(output("x")), Some("unexpected inference output 'x' for model 'tree'"));
    check(
        |request| request.outputs = vec![output("label"), output("label")],
        Some("output 'label' already exists in request"),
    );
}

#[test]
fn a_batch_may_have_as_many_rows_as_the_most_and_not_one_more() {
    assert!(signature().check(&request(4)).is_ok());
    let error = signature().check(&request(5)).expect_err("one too many");
    assert_eq!(error.message(), "inference request batch-size must be <= 4 for 'tree'");
}

#[test]
fn without_a_batch_shapes_are_the_whole_of_it() {
    let signature =
        Signature { max_batch: 0, inputs: vec![TensorSpec::new("a", Datatype::Fp32, &[-1, 30])], ..signature() };
    assert!(signature.check(&request(100)).is_ok());
    assert_eq!(signature.metadata("tree", vec![], "").inputs[0].shape, [-1, 30]);
}

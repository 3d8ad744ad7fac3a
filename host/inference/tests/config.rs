//! Configuration files, beside what protobuf's own reader makes of them (`tests/config/make.py`).

use mainstay_inference::*;
use prost::Message;

#[test]
fn a_configuration_is_read_as_protobuf_reads_it() {
    fn check(text: &str, encoded: &[u8], json: &str) {
        let read = read_config(text).expect("a configuration");
        assert!(read.warnings.is_empty(), "{:?}", read.warnings);
        assert_eq!(read.config, ModelConfig::decode(encoded).expect("a message"));
        let printed: serde_json::Value = serde_json::from_str(&config_json(&read.config)).expect("JSON");
        assert_eq!(printed, serde_json::from_str::<serde_json::Value>(json).expect("JSON"));
        assert_eq!(read_config_json(json).expect("a configuration"), read);
    }
    macro_rules! each {
        ($($name:literal),*) => {$(
            check(
                include_str!(concat!("config/", $name, ".pbtxt")),
                include_bytes!(concat!("config/", $name, ".bin")),
                include_str!(concat!("config/", $name, ".json")),
            );
        )*};
    }
    each!("empty", "ensemble", "full", "sequence");
}

#[test]
fn what_is_not_known_is_a_warning_that_names_it() {
    let text = r#"name: "x"
        new_thing { a: 1 b { c: "d" } e: [1, 2] }
        input { name: "i" newer: TYPE_X }
        [nvidia.extension]: 5"#;
    let read = read_config(text).expect("a configuration");
    assert_eq!(read.config.name, "x");
    assert_eq!(read.config.input[0].name, "i");
    assert_eq!(
        read.warnings,
        [
            "line 2: inference.ModelConfig has no field `new_thing` that is known here",
            "line 3: inference.ModelInput has no field `newer` that is known here",
            "line 4: inference.ModelConfig has no field `[nvidia.extension]` that is known here",
        ]
    );
}

#[test]
fn what_is_wrong_is_refused_with_its_line() {
    fn check(text: &str, words: &str) {
        let error = read_config(text).expect_err(text);
        assert_eq!(error.kind(), mainstay_base::ErrorKind::Invalid);
        assert!(error.message().contains(words), "{text:?}: {error}");
    }
    check("\n\nmax_batch_size: \"4\"", "line 3: `max_batch_size` takes a whole number, not `\"4\"`");
    check("max_batch_size: 2147483648", "takes a whole number, not `2147483648`");
    check("max_batch_size: 1.5", "not `1.5`");
    check("max_batch_size: 08", "not `08`");
    check("max_batch_size 4", "line 1: `max_batch_size` takes a value after a colon");
    check("name: full", "`name` takes a text in quotes, not `full`");
    check("name: \"a", "a text without its closing quote");
    check("name: \"a\nb\"", "line 1: a text without its closing quote");
    check("name: \"\\q\"", "`\\q` is no escape");
    check("name: \"\\400\"", "an escape beyond one byte");
    check("name: \"\\xff\"", "takes a text in UTF-8");
    check("name: \"a\"\nname: \"b\"", "line 2: `name` is there twice");
    check("input { data_type: TYPE_FP31 }", "`data_type` takes one of its names, not `TYPE_FP31`");
    check("input { dims: [ 1 2 ] }", "the values of `dims` are parted by commas");
    check("input { name: \"a\"", "the file ends where `}` should close inference.ModelInput");
    check("input < name: \"a\" }", "`}` where the name of a field");
    check("input: 5", "`input` takes fields in braces");
    check(
        "dynamic_batching { }\nsequence_batching { }",
        "line 2: `sequence_batching` beside `dynamic_batching`: only one of them can be",
    );
    check("dynamic_batching { preserve_ordering: yes }", "takes true or false, not `yes`");
    check("dynamic_batching { max_queue_delay_microseconds: -1 }", "takes a whole number without sign, not `-1`");
    check("name:", "the end of the file where a value should stand");
    check("}", "`}` where the name of a field");
    check("[open", "`[` without `]`");
}

#[test]
fn a_signature_is_what_a_configuration_declares() {
    let config = read_config(include_str!("config/full.pbtxt")).expect("a configuration").config;
    let signature = Signature::of_config(&config).expect("a signature");
    assert_eq!(signature.max_batch, 16);
    assert_eq!(signature.inputs[0], TensorSpec::new("image", Datatype::Fp32, &[3, -1, -1]));
    assert_eq!(signature.inputs[1], TensorSpec { optional: true, ..TensorSpec::new("mask", Datatype::Bool, &[1, 2]) });
    assert_eq!(signature.outputs, [TensorSpec::new("label", Datatype::Bytes, &[1])]);
    let metadata = signature.metadata("full", vec!["1".into()], "x");
    assert_eq!(metadata.inputs[0].shape, [-1, 3, -1, -1]);
    assert!(Signature::of_config(&ModelConfig { max_batch_size: -1, ..config.clone() }).is_err());
    let untyped = read_config("input { name: \"a\" }").expect("a configuration").config;
    assert!(
        Signature::of_config(&untyped).expect_err("no datatype").message().contains("`a` of model '' has no data_type")
    );
}

#[test]
fn a_configuration_in_json_is_read_with_the_same_care() {
    let read = read_config_json(
        r#"{"max_batch_size": 4, "newer": {"a": [1]}, "input": [{"name": "i", "dims": ["-1", 2], "data_type": 11}],
            "parameters": {"k": {"string_value": "v"}}, "dynamic_batching": {"priority_queue_policy": {"7": {}}}, "output": null}"#,
    );
    let read = read.expect("a configuration");
    let text = "max_batch_size: 4 input { name: \"i\" dims: [-1, 2] data_type: TYPE_FP32 }
        parameters { key: \"k\" value { string_value: \"v\" } } dynamic_batching { priority_queue_policy { key: 7 value {} } }";
    assert_eq!(read.config, read_config(text).expect("a configuration").config);
    assert_eq!(read.warnings, ["inference.ModelConfig has no field `newer` that is known here"]);

    fn check(text: &str, words: &str) {
        let error = read_config_json(text).expect_err(text);
        assert!(error.message().contains(words), "{text:?}: {error}");
    }
    check("{", "the configuration is not JSON");
    check("[]", "inference.ModelConfig takes an object");
    check(r#"{"max_batch_size": 4.5}"#, "`max_batch_size` takes a whole number, not `4.5`");
    check(r#"{"max_batch_size": 4294967296}"#, "`max_batch_size` takes a whole number");
    check(r#"{"name": 4}"#, "`name` takes a text in quotes, not `4`");
    check(r#"{"input": {"name": "i"}}"#, "`input` takes a list");
    check(r#"{"input": [{"data_type": "FP32"}]}"#, "`data_type` takes one of its names");
    check(r#"{"parameters": []}"#, "`parameters` takes an object");
    check(r#"{"dynamic_batching": {}, "sequence_batching": {}}"#, "only one of them can be");
}

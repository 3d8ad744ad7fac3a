"""The real client over HTTP, one call at a time."""

import numpy as np
import pytest
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException


def identity(client, name, datatype, array, binary_in=True, binary_out=True, **more):
    data = httpclient.InferInput("INPUT0", list(array.shape), datatype)
    data.set_data_from_numpy(array, binary_data=binary_in)
    wanted = [httpclient.InferRequestedOutput("OUTPUT0", binary_data=binary_out)]
    return client.infer(name, [data], outputs=wanted, **more)


def test_the_server_tells_of_itself(http):
    assert http.is_server_live() and http.is_server_ready()
    metadata = http.get_server_metadata()
    assert metadata["name"] and metadata["version"]
    assert "binary_tensor_data" in metadata["extensions"]


def test_a_model_tells_of_itself(http, needs):
    metadata = http.get_model_metadata(needs("add_sub"))
    assert metadata["name"] == "add_sub" and metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": f"INPUT{n}", "datatype": "INT32", "shape": [-1, 16]} for n in (0, 1)]
    assert [output["name"] for output in metadata["outputs"]] == ["OUTPUT0", "OUTPUT1"]
    assert http.get_model_metadata("add_sub", "1") == metadata


def test_a_configuration_has_its_names_and_its_numbers_are_numbers(http, needs):
    config = http.get_model_config(needs("add_sub"))
    assert config["max_batch_size"] == 8
    assert config["input"][0]["data_type"] == "TYPE_INT32" and config["input"][0]["dims"] == [16]
    assert config["dynamic_batching"]["preferred_batch_size"] == [4, 8]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 100
    assert config["version_policy"] == {"specific": {"versions": [1]}}


@pytest.mark.parametrize("model, version", [("nobody", ""), ("add_sub", "7")])
def test_what_is_not_there_is_not_ready_and_not_found(http, needs, model, version):
    needs("add_sub")
    assert not http.is_model_ready(model, version)
    with pytest.raises(InferenceServerException) as failed:
        http.get_model_metadata(model, version)
    assert failed.value.status() == "404"
    assert failed.value.message() == f"Request for unknown model: '{model}' is not found"


@pytest.mark.parametrize("binary_in", [True, False], ids=["raw-in", "json-in"])
@pytest.mark.parametrize("binary_out", [True, False], ids=["raw-out", "json-out"])
def test_every_datatype_comes_back_as_it_was_sent(http, needs, same, datatype, sample, binary_in, binary_out):
    model = needs(f"identity_{datatype.lower()}")
    if datatype in ("FP16", "BF16") and not (binary_in and binary_out):
        if not binary_in:
            with pytest.raises(InferenceServerException):
                identity(http, model, datatype, sample, binary_in, binary_out)
            return
        with pytest.raises(InferenceServerException, match=f"sending {datatype} data via JSON is not supported"):
            identity(http, model, datatype, sample, binary_in, binary_out)
        return
    result = identity(http, model, datatype, sample, binary_in, binary_out)
    got = result.as_numpy("OUTPUT0")
    # The client itself reads BF16 as a single.
    same(got.astype(sample.dtype) if datatype == "BF16" else got, sample)
    response = result.get_response()
    assert response["model_name"] == model and response["model_version"] == "1"
    output = response["outputs"][0]
    assert output["datatype"] == datatype and output["shape"] == list(sample.shape)
    assert ("data" in output) != binary_out


def test_bytes_that_are_no_text_travel_raw(http, needs):
    array = np.array([[b"\xff\x00\xfe", b""]], object)
    model = needs("identity_bytes")
    assert identity(http, model, "BYTES", array).as_numpy("OUTPUT0").tolist() == array.tolist()
    with pytest.raises(InferenceServerException, match="Please use the binary data format"):
        identity(http, model, "BYTES", array, binary_out=False)


def test_what_is_not_finite_travels_as_json(http, needs):
    array = np.array([[np.nan, np.inf, -np.inf, 1.0]], np.float32)
    result = identity(http, needs("identity_fp32"), "FP32", array, False, False)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_without_named_outputs_all_come_raw(http, needs):
    array = np.arange(4, dtype=np.float32).reshape(2, 2)
    data = httpclient.InferInput("INPUT0", [2, 2], "FP32").set_data_from_numpy(array)
    result = http.infer(needs("identity_fp32"), [data])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)
    assert result.get_response()["outputs"][0]["parameters"] == {"binary_data_size": 16}


def test_raw_and_json_mix_in_one_request(http, needs):
    left, right = np.arange(16, dtype=np.int32)[None], np.full((1, 16), 7, np.int32)
    inputs = [httpclient.InferInput(f"INPUT{n}", [1, 16], "INT32") for n in (0, 1)]
    inputs[0].set_data_from_numpy(left, binary_data=False)
    inputs[1].set_data_from_numpy(right, binary_data=True)
    wanted = [httpclient.InferRequestedOutput("OUTPUT1", binary_data=True),
              httpclient.InferRequestedOutput("OUTPUT0", binary_data=False)]
    result = http.infer(needs("add_sub"), inputs, outputs=wanted)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), left + right)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), left - right)


def test_only_the_outputs_that_are_wanted_come(http, needs):
    inputs = [httpclient.InferInput(f"INPUT{n}", [1, 16], "INT32").set_data_from_numpy(np.ones((1, 16), np.int32)) for n in (0, 1)]
    result = http.infer(needs("add_sub"), inputs, outputs=[httpclient.InferRequestedOutput("OUTPUT1")])
    assert [output["name"] for output in result.get_response()["outputs"]] == ["OUTPUT1"]


def test_an_output_comes_as_its_highest_classes(http, needs):
    data = httpclient.InferInput("INPUT0", [1, 4], "FP32").set_data_from_numpy(np.array([[0.1, 0.9, 0.5, -1]], np.float32))
    wanted = [httpclient.InferRequestedOutput("OUTPUT0", class_count=2)]
    got = http.infer(needs("identity_fp32"), [data], outputs=wanted).as_numpy("OUTPUT0")
    assert got.tolist() == [b"0.900000:1", b"0.500000:2"]


@pytest.mark.parametrize("id", ["7", "ü \"quoted\" \\ 🌍", "x" * 2000])
def test_an_id_comes_back_verbatim(http, needs, id):
    array = np.ones((1, 1), np.float32)
    model = needs("identity_fp32")
    assert identity(http, model, "FP32", array, request_id=id).get_response()["id"] == id
    assert "id" not in identity(http, model, "FP32", array).get_response()


def test_names_with_odd_characters_are_found(http, needs):
    data = httpclient.InferInput("INPUT0", [2], "FP32").set_data_from_numpy(np.ones(2, np.float32))
    assert http.infer(needs("odd name %?#"), [data]).as_numpy("OUTPUT0").tolist() == [1, 1]


def test_a_large_body_passes(http, needs):
    array = np.arange(10 << 20, dtype=np.float32).reshape(1024, -1)
    np.testing.assert_array_equal(identity(http, needs("identity_fp32"), "FP32", array).as_numpy("OUTPUT0"), array)


def test_a_large_json_body_passes(http, needs):
    array = np.linspace(0, 1, 1 << 20, dtype=np.float32).reshape(1024, -1)
    result = identity(http, needs("identity_fp32"), "FP32", array, False, False)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_an_empty_tensor_passes(http, needs):
    array = np.zeros((0, 30), np.float32)
    for binary in (True, False):
        assert identity(http, needs("identity_fp32"), "FP32", array, binary, binary).as_numpy("OUTPUT0").shape == (0, 30)


def test_calls_that_overlap_each_get_their_own_answer(http, needs):
    model = needs("identity_int64")
    calls = []
    for number in range(32):
        data = httpclient.InferInput("INPUT0", [1, 1], "INT64").set_data_from_numpy(np.array([[number]], np.int64))
        calls.append(http.async_infer(model, [data], request_id=str(number)))
    for number, call in enumerate(calls):
        result = call.get_result()
        assert result.as_numpy("OUTPUT0").item() == number and result.get_response()["id"] == str(number)


def test_the_raw_body_is_the_only_input(http, needs, raw):
    model = needs("identity_fp32")
    body, length = httpclient.InferenceServerClient.generate_request_body(
        [httpclient.InferInput("INPUT0", [1, 3], "FP32").set_data_from_numpy(np.array([[1, 2, 3]], np.float32))])
    whole = raw("POST", f"/v2/models/{model}/infer", body, inference_header_content_length=length)
    bare = raw("POST", f"/v2/models/{model}/infer", body[length:], inference_header_content_length=0)
    for status, headers, answer in (whole, bare):
        assert status == 200 and headers["content-type"] == "application/octet-stream"
        parsed = httpclient.InferenceServerClient.parse_response_body(
            answer, header_length=int(headers["inference-header-content-length"]))
        assert parsed.as_numpy("OUTPUT0").tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("shape, name, datatype, words", [
    ([1, 15], "INPUT0", "INT32", "unexpected shape for input 'INPUT0' for model 'add_sub'. Expected [-1,16], got [1,15]"),
    ([16], "INPUT0", "INT32", "unexpected shape for input 'INPUT0' for model 'add_sub'. Expected [-1,16], got [16]"),
    ([1, 16], "OTHER", "INT32", "unexpected inference input 'OTHER' for model 'add_sub'"),
    ([1, 16], "INPUT1", "INT32", "input 'INPUT1' already exists in request"),
    ([1, 16], "INPUT0", "INT64", "inference input 'INPUT0' data-type is 'INT64', but model 'add_sub' expects 'INT32'"),
    ([2, 16], "INPUT0", "INT32", "batch size does not match other inputs for 'add_sub'"),
])
def test_a_request_that_does_not_fit_is_told_why(http, needs, shape, name, datatype, words):
    dtype = np.int64 if datatype == "INT64" else np.int32
    inputs = [httpclient.InferInput(name, shape, datatype).set_data_from_numpy(np.ones(shape, dtype)),
              httpclient.InferInput("INPUT1", [1, 16], "INT32").set_data_from_numpy(np.ones((1, 16), np.int32))]
    with pytest.raises(InferenceServerException) as failed:
        http.infer(needs("add_sub"), inputs)
    assert failed.value.status() == "400" and words in failed.value.message()


def test_a_missing_input_an_unknown_output_and_a_batch_beyond_the_most(http, needs):
    model = needs("add_sub")
    one = lambda n, rows=1: httpclient.InferInput(f"INPUT{n}", [rows, 16], "INT32").set_data_from_numpy(np.ones((rows, 16), np.int32))
    for inputs, outputs, words in [
        ([one(0)], None, "expected 2 inputs but got 1 inputs for model 'add_sub'. Got input(s) ['INPUT0'], but missing required input(s) ['INPUT1']"),
        ([one(0), one(1)], [httpclient.InferRequestedOutput("OTHER")], "unexpected inference output 'OTHER' for model 'add_sub'"),
        ([one(0, 9), one(1, 9)], None, "inference request batch-size must be <= 8 for 'add_sub'"),
    ]:
        with pytest.raises(InferenceServerException) as failed:
            http.infer(model, inputs, outputs=outputs)
        assert failed.value.status() == "400" and words in failed.value.message()


@pytest.mark.parametrize("kind, status", [("invalid", "400"), ("denied", "403"), ("not_found", "404"), ("exhausted", "429"),
                                          ("internal", "500"), ("unavailable", "503")])
def test_failures_of_a_model_keep_their_kind(http, needs, kind, status):
    data = httpclient.InferInput("INPUT0", [1], "FP32").set_data_from_numpy(np.ones(1, np.float32))
    with pytest.raises(InferenceServerException) as failed:
        http.infer(needs("failing"), [data], parameters={"kind": kind})
    assert failed.value.status() == status and failed.value.message().startswith("asked to fail")


def test_a_request_that_may_not_take_long_is_given_up(http, needs):
    data = httpclient.InferInput("INPUT0", [1], "FP32").set_data_from_numpy(np.ones(1, np.float32))
    for more in ({"timeout": 20_000}, {"headers": {"Inference-Timeout-Ms": "20"}}):
        with pytest.raises(InferenceServerException) as failed:
            http.infer(needs("slow"), [data], parameters={"delay_ms": 10_000}, **more)
        assert failed.value.status() == "503" and "Request timeout expired" in failed.value.message()


def test_headers_of_who_answered_come_along(http, needs, raw):
    needs("identity_fp32")
    body = b'{"inputs":[{"name":"INPUT0","shape":[1,1],"datatype":"FP32","data":[1]}]}'
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    status, headers, _ = raw("POST", "/v2/models/identity_fp32/infer", body, traceparent=f"00-{trace}-00f067aa0ba902b7-01")
    assert status == 200 and headers["content-type"] == "application/json"
    assert headers["known-model"] == "identity_fp32" and headers["known-trace"] == trace


def test_statistics_count_rows_and_runs(http, needs):
    model = needs("add_sub")
    count = lambda: (lambda one: (one["inference_count"], one["execution_count"]))(http.get_inference_statistics(model)["model_stats"][0])
    rows, runs = count()
    inputs = [httpclient.InferInput(f"INPUT{n}", [3, 16], "INT32").set_data_from_numpy(np.ones((3, 16), np.int32)) for n in (0, 1)]
    http.infer(model, inputs)
    assert count() == (rows + 3, runs + 1)
    one = http.get_inference_statistics(model, "1")["model_stats"][0]
    assert set(one["inference_stats"]) == {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"}
    assert isinstance(one["inference_stats"]["success"]["ns"], int)
    assert model in {one["name"] for one in http.get_inference_statistics()["model_stats"]}


def test_the_repository_is_listed_and_models_come_and_go(http, needs):
    model = needs("identity_uint8")
    state = lambda: {one["name"]: one for one in http.get_model_repository_index()}[model]
    assert state() == {"name": model, "version": "1", "state": "READY"}
    http.unload_model(model)
    assert state() == {"name": model, "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
    assert not http.is_model_ready(model)
    http.load_model(model, config='{"max_batch_size": 4}', files={"file:1/model.bin": b"\x00\x01"})
    assert http.is_model_ready(model)
    http.unload_model("nobody", unload_dependents=True)
    with pytest.raises(InferenceServerException) as failed:
        http.load_model("nobody")
    assert failed.value.status() == "500"


def test_extensions_that_are_not_offered_say_so(http):
    calls = [http.get_trace_settings, http.get_log_settings, http.get_system_shared_memory_status,
             http.get_cuda_shared_memory_status, lambda: http.update_log_settings({"log_verbose_level": 1})]
    for call in calls:
        with pytest.raises(InferenceServerException) as failed:
            call()
        assert failed.value.status() == "501" and "not supported by this server" in failed.value.message()

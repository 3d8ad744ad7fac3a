"""The real client over gRPC, one call at a time; and messages that it would not write."""

import time

import grpc as grpc_library
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException


@pytest.fixture(scope="module")
def stub(addresses):
    with grpc_library.insecure_channel(addresses["grpc"]) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def identity(client, name, datatype, array, **more):
    data = grpcclient.InferInput("INPUT0", list(array.shape), datatype).set_data_from_numpy(array)
    return client.infer(name, [data], **more)


def pair(rows=1, left=1):
    inputs = [grpcclient.InferInput(f"INPUT{n}", [rows, 16], "INT32") for n in (0, 1)]
    inputs[0].set_data_from_numpy(np.full((rows, 16), left, np.int32))
    inputs[1].set_data_from_numpy(np.full((rows, 16), 2, np.int32))
    return inputs


def test_the_server_and_its_models_tell_of_themselves(grpc, needs):
    needs("add_sub")
    assert grpc.is_server_live() and grpc.is_server_ready() and grpc.is_model_ready("add_sub")
    assert not grpc.is_model_ready("nobody") and not grpc.is_model_ready("add_sub", "7")
    assert "binary_tensor_data" in grpc.get_server_metadata(as_json=True)["extensions"]
    metadata = grpc.get_model_metadata("add_sub", as_json=True)
    # Protobuf's own JSON writes 64-bit numbers as texts.
    assert metadata["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": ["-1", "16"]}
    config = grpc.get_model_config("add_sub").config
    assert config.max_batch_size == 8 and list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    assert list(config.version_policy.specific.versions) == [1]
    with pytest.raises(InferenceServerException) as failed:
        grpc.get_model_metadata("nobody")
    assert failed.value.status() == "StatusCode.NOT_FOUND"


def test_every_datatype_comes_back_as_it_was_sent(grpc, needs, same, datatype, sample):
    model = needs(f"identity_{datatype.lower()}")
    result = identity(grpc, model, datatype, sample, request_id="ü 7")
    got = result.as_numpy("OUTPUT0")
    same(got.astype(sample.dtype) if datatype == "BF16" else got, sample)
    response = result.get_response()
    assert response.id == "ü 7" and response.model_name == model and response.model_version == "1"
    assert response.outputs[0].datatype == datatype and list(response.outputs[0].shape) == list(sample.shape)


TYPED = {"BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
         "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
         "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"}


def typed(model, datatype, array):
    request = service_pb2.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="INPUT0", datatype=datatype, shape=array.shape)
    values = array.ravel().tolist()
    if datatype == "BYTES":
        values = [value.encode() for value in values]
    getattr(tensor.contents, TYPED.get(datatype, "fp32_contents")).extend(values)
    return request


def test_typed_contents_are_read_too(stub, needs, same, datatype, sample):
    request = typed(needs(f"identity_{datatype.lower()}"), datatype, sample)
    if datatype not in TYPED:
        with pytest.raises(grpc_library.RpcError) as failed:
            stub.ModelInfer(request)
        assert failed.value.code() == grpc_library.StatusCode.INVALID_ARGUMENT and "send it raw" in failed.value.details()
        return
    same(grpcclient.InferResult(stub.ModelInfer(request)).as_numpy("OUTPUT0"), sample)


def test_messages_that_contradict_themselves_are_refused(stub, needs):
    model = needs("identity_fp32")

    def refused(change, words, code=grpc_library.StatusCode.INVALID_ARGUMENT):
        request = typed(model, "FP32", np.array([[1, 2]], np.float32))
        change(request)
        with pytest.raises(grpc_library.RpcError) as failed:
            stub.ModelInfer(request)
        assert failed.value.code() == code and words in failed.value.details(), failed.value.details()

    refused(lambda one: one.raw_input_contents.append(b"\0" * 8), "contents field must not be specified when using raw_input_contents")
    refused(lambda one: one.inputs[0].contents.fp32_contents.append(3), "Expected 8, got 12")
    refused(lambda one: one.inputs[0].contents.int_contents.append(3), "contents of another type than FP32")
    refused(lambda one: one.inputs[0].shape.append(-1), "an extent is negative")
    refused(lambda one: one.inputs[0].shape.extend([1 << 62, 1 << 62]), "too large")
    refused(lambda one: setattr(one.inputs[0], "datatype", "FP31"), "`FP31` is no datatype")
    refused(lambda one: one.inputs.add(name="INPUT0", datatype="FP32", shape=[0]), "already exists in request")
    refused(lambda one: setattr(one, "model_name", "nobody"), "'nobody' is not found", grpc_library.StatusCode.NOT_FOUND)

    def raw(one, *entries):
        one.inputs[0].ClearField("contents")
        one.raw_input_contents.extend(entries)

    refused(lambda one: raw(one, b"\0" * 7), "Expected 8, got 7")
    refused(lambda one: raw(one, b"\0" * 8, b"\0" * 8), "expected 1 entries in raw_input_contents")

    def shared(one):
        one.inputs[0].parameters["shared_memory_region"].string_param = "x"

    refused(shared, "shared memory", grpc_library.StatusCode.UNIMPLEMENTED)


def test_wanted_outputs_and_parameters(grpc, needs):
    result = grpc.infer(needs("add_sub"), pair(), outputs=[grpcclient.InferRequestedOutput("OUTPUT1")], priority=1,
                        parameters={"text": "x", "whole": 1, "truth": True, "fraction": 0.5})
    assert [output.name for output in result.get_response().outputs] == ["OUTPUT1"]
    assert result.as_numpy("OUTPUT1").tolist() == [[-1] * 16]


def test_an_output_comes_as_its_highest_classes_row_by_row(grpc, needs):
    inputs = pair(2)
    inputs[0].set_data_from_numpy(np.arange(32, dtype=np.int32).reshape(2, 16) % 31)
    result = grpc.infer(needs("add_sub"), inputs, outputs=[grpcclient.InferRequestedOutput("OUTPUT0", class_count=2)])
    assert result.as_numpy("OUTPUT0").tolist() == [[b"17:15", b"16:14"], [b"32:14", b"31:13"]]


@pytest.mark.parametrize("kind, status", [("invalid", "INVALID_ARGUMENT"), ("denied", "PERMISSION_DENIED"), ("not_found", "NOT_FOUND"),
                                          ("exhausted", "RESOURCE_EXHAUSTED"), ("internal", "INTERNAL"), ("unavailable", "UNAVAILABLE")])
def test_failures_of_a_model_keep_their_kind(grpc, needs, kind, status):
    data = grpcclient.InferInput("INPUT0", [1], "FP32").set_data_from_numpy(np.ones(1, np.float32))
    with pytest.raises(InferenceServerException) as failed:
        grpc.infer(needs("failing"), [data], parameters={"kind": kind})
    assert failed.value.status() == f"StatusCode.{status}" and failed.value.message().startswith("asked to fail")


def test_a_request_that_does_not_fit_is_told_why(grpc, needs):
    for inputs, words in [(pair()[:1], "but missing required input(s) ['INPUT1']"), (pair(9), "batch-size must be <= 8")]:
        with pytest.raises(InferenceServerException) as failed:
            grpc.infer(needs("add_sub"), inputs)
        assert failed.value.status() == "StatusCode.INVALID_ARGUMENT" and words in failed.value.message()


def test_time_that_is_allowed_is_kept(grpc, needs):
    data = grpcclient.InferInput("INPUT0", [1], "FP32").set_data_from_numpy(np.ones(1, np.float32))
    with pytest.raises(InferenceServerException) as failed:
        grpc.infer(needs("slow"), [data], parameters={"delay_ms": 10_000}, timeout=20_000)
    assert failed.value.status() == "StatusCode.UNAVAILABLE" and "Request timeout expired" in failed.value.message()
    with pytest.raises(InferenceServerException) as failed:
        grpc.infer(needs("slow"), [data], parameters={"delay_ms": 10_000}, client_timeout=0.2)
    assert failed.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_large_messages_pass(grpc, needs):
    array = np.arange(10 << 20, dtype=np.float32).reshape(1024, -1)
    np.testing.assert_array_equal(identity(grpc, needs("identity_fp32"), "FP32", array).as_numpy("OUTPUT0"), array)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_messages_are_read(grpc, needs, algorithm):
    array = np.zeros((64, 64), np.float32)
    result = identity(grpc, needs("identity_fp32"), "FP32", array, compression_algorithm=algorithm)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_headers_of_who_answered_come_as_metadata(stub, needs):
    request = typed(needs("identity_fp32"), "FP32", np.array([[1]], np.float32))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    _, call = stub.ModelInfer.with_call(request, metadata=[("traceparent", f"00-{trace}-00f067aa0ba902b7-01")])
    metadata = dict(call.initial_metadata())
    assert metadata["known-model"] == "identity_fp32" and metadata["known-trace"] == trace


def test_a_cancelled_call_ends_the_work(grpc, needs):
    model = needs("slow")
    dropped = lambda: grpc.get_inference_statistics(model).model_stats[0].inference_stats.fail.count
    before = dropped()
    data = grpcclient.InferInput("INPUT0", [1], "FP32").set_data_from_numpy(np.ones(1, np.float32))
    seen = []
    call = grpc.async_infer(model, [data], lambda result, error: seen.append(error), parameters={"delay_ms": 60_000})
    time.sleep(0.3)
    call.cancel()
    end = time.monotonic() + 5
    while dropped() != before + 1 and time.monotonic() < end:
        time.sleep(0.05)
    assert dropped() == before + 1 and seen[0].status() == "StatusCode.CANCELLED"


def test_statistics_and_the_repository(grpc, needs):
    model = needs("add_sub")
    count = lambda: grpc.get_inference_statistics(model).model_stats[0].inference_count
    before = count()
    grpc.infer(model, pair(3))
    assert count() == before + 3
    other = needs("identity_uint16")
    state = lambda: {one.name: one.state for one in grpc.get_model_repository_index().models}[other]
    assert state() == "READY"
    grpc.unload_model(other)
    assert state() == "UNAVAILABLE" and not grpc.is_model_ready(other)
    grpc.load_model(other, config='{"max_batch_size": 4}', files={"file:1/model.bin": b"\0\1"})
    assert state() == "READY" and grpc.is_model_ready(other)
    with pytest.raises(InferenceServerException) as failed:
        grpc.load_model("nobody")
    assert failed.value.status() == "StatusCode.INTERNAL"


def test_extensions_that_are_not_offered_say_so(grpc):
    for call in (grpc.get_trace_settings, grpc.get_log_settings, grpc.get_system_shared_memory_status,
                 grpc.get_cuda_shared_memory_status, lambda: grpc.register_system_shared_memory("a", "b", 8)):
        with pytest.raises(InferenceServerException) as failed:
            call()
        assert failed.value.status() == "StatusCode.UNIMPLEMENTED"

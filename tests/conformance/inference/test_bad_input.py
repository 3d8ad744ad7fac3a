"""What no client should send: every answer is an error that says why, and the server goes on."""

import json
import socket
import struct

import pytest

PATH = "/v2/models/identity_fp32/infer"


def request(**changes):
    tensor = {"name": "INPUT0", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]} | changes
    return json.dumps({"inputs": [{name: value for name, value in tensor.items() if value is not None}]})


@pytest.fixture(autouse=True)
def offered(needs):
    needs("identity_fp32")


@pytest.mark.parametrize("body, words", [
    ("", "failed to parse the request JSON buffer"),
    ("{", "failed to parse the request JSON buffer"),
    ("[]", "failed to parse the request JSON buffer"),
    ("null", "failed to parse the request JSON buffer"),
    (b"\xff\xfe", "failed to parse the request JSON buffer"),
    ("{} {}", "trailing characters"),
    ("[" * 100_000, "failed to parse the request JSON buffer"),
    ("{}", "Unable to parse 'inputs'"),
    ('{"inputs":5}', "a list of tensors"),
    ('{"inputs":[5]}', "a tensor with"),
    ('{"inputs":[],"inputs":[]}', "two lists of tensors"),
    ('{"inputs":[],"id":7}', "invalid type"),
    ('{"inputs":[]}', "missing required input(s) ['INPUT0']"),
    (request(name=None), "missing field `name`"),
    (request(shape=None), "has no `shape`"),
    (request(datatype=None), "has no `datatype`"),
    (request(data=None), "has neither 'data' nor 'binary_data_size'"),
    (request(datatype="FP31"), "`FP31` is no datatype"),
    (request(datatype="fp32"), "`fp32` is no datatype"),
    (request(shape=[-1, 2]), "invalid value: integer `-1`"),
    (request(shape=[1.5, 2]), "invalid type"),
    (request(shape="1,2"), "a shape: a list of whole numbers"),
    (request(shape=[1] * 33), "more than 32 dimensions"),
    (request(shape=[1 << 63, 1 << 63]), "too large"),
    (request(shape=[1 << 60, 1]), "Expected 1152921504606846976 elements, got 2"),
    (request(data=[1]), "Shape does not match true shape of 'data' field of 'INPUT0' for model 'identity_fp32'. Expected 2 elements, got 1"),
    (request(data=[1, 2, 3]), "Expected 2 elements, got 3"),
    (request(data=[[1], [2, 3]], shape=[1, 3]), "its lists differ in length"),
    (request(data=[1, [2]]), "its lists differ in length"),
    (request(data=["a", "b"]), "a text is no element of FP32"),
    (request(data=[True, False]), "true is no element of FP32"),
    (request(data=[None, 1]), "invalid type: null"),
    (request(data=[1e39, 1]), "is no element of FP32"),
    (request(data={"a": 1}), "elements of FP32 or lists of them"),
    (request(data=[1, 2], parameters={"binary_data_size": 8}), "has both 'data' and 'binary_data_size'"),
    (request(data=None, parameters={"binary_data_size": 8}), "only 0 of the 0 bytes"),
    (request(data=None, parameters={"binary_data_size": -8}), "Unable to parse 'binary_data_size'"),
    (request(data=None, parameters={"binary_data_size": "8"}), "Unable to parse 'binary_data_size'"),
    (request(parameters={"a": [1]}), "a parameter: true or false"),
    (request(parameters={str(n): n for n in range(257)}), "more than 256 parameters"),
    (request(name="n" * 1025), "1025 bytes in a name"),
    (request().replace("[1, 2]}", "[1, 1e999]}"), "number out of range"),
    (json.dumps({"inputs": [{"name": str(n), "shape": [0], "datatype": "FP32", "data": []} for n in range(1025)]}), "more than 1024 tensors"),
    (json.dumps({"inputs": [], "parameters": {"binary_data_output": 1}}), "Unable to parse 'binary_data_output'"),
    (json.dumps({"inputs": [], "parameters": {"timeout": -1}}), "parameter `timeout` takes microseconds"),
])
def test_a_body_that_cannot_be_read_is_400(refused, body, words):
    refused(400, words, "POST", PATH, body)


@pytest.mark.parametrize("datatype, element", [("INT8", 128), ("UINT8", -1), ("INT16", 40000), ("UINT16", 65536), ("INT32", 1 << 31), ("UINT32", -1),
                                               ("INT64", 1 << 63), ("UINT64", -1), ("UINT64", 1 << 64), ("INT32", 1.5), ("BOOL", 1), ("BYTES", 1)])
def test_an_element_that_does_not_fit_is_400(refused, datatype, element):
    body = request(datatype=datatype, data=[element, element]).replace("18446744073709551616", "1.8446744073709552e19")
    refused(400, f"is no element of {datatype}", "POST", f"/v2/models/identity_{datatype.lower()}/infer", body)


HEADER = json.dumps({"inputs": [{"name": "INPUT0", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}]}).encode()


@pytest.mark.parametrize("tail, length, words", [
    (b"", len(HEADER), "only 0 of the 0 bytes"),
    (b"\0" * 7, len(HEADER), "only 7 of the 7 bytes"),
    (b"\0" * 9, len(HEADER), "1 of the 9 bytes behind the JSON belong to no tensor"),
    (b"\0" * 8, len(HEADER) + 9, "bytes are JSON, but the body has only"),
    (b"\0" * 8, len(HEADER) - 1, "failed to parse the request JSON buffer"),
    (b"\0" * 8, 1 << 63, "bytes are JSON, but the body has only"),
    (b"\0" * 8, 1 << 64, "Unable to parse inference-header-content-length"),
    (b"\0" * 8, -1, "Unable to parse inference-header-content-length"),
    (b"\0" * 8, "+4", "Unable to parse inference-header-content-length"),
    (b"\0" * 8, "many", "Unable to parse inference-header-content-length"),
    (b"\0" * 8, 0, "which its shape [-1, -1] of FP32 cannot hold"),
])
def test_lengths_that_lie_are_400(refused, tail, length, words):
    if words.startswith("which"):
        tail = b"\0" * (8 - (len(HEADER) % 4) + 1)
    refused(400, words, "POST", PATH, HEADER + tail, inference_header_content_length=length)


@pytest.mark.parametrize("size", [1 << 20, (1 << 63) - 1])
def test_a_size_that_is_not_there_takes_no_memory(refused, size):
    header = HEADER.replace(b'"binary_data_size": 8', b'"binary_data_size": %d' % size).replace(b"[1, 2]", b"[1, %d]" % (size // 4))
    refused(400, f"has a 'binary_data_size' of {size}, but only 8 of the 8 bytes", "POST", PATH, header + b"\0" * 8,
            inference_header_content_length=len(header))


@pytest.mark.parametrize("elements, words", [
    (struct.pack("<I", 5) + b"abc", "that ends after the data"),
    (b"\1\0\0", "that ends after the data"),
    (struct.pack("<I", 0xFFFFFFFF), "that ends after the data"),
    (struct.pack("<I", 0), "has 1 byte strings where the shape [1, 2] wants 2"),
    (struct.pack("<III", 0, 0, 0), "has 3 byte strings where the shape [1, 2] wants 2"),
])
def test_byte_strings_out_of_their_frames_are_400(refused, elements, words):
    header = json.dumps({"inputs": [{"name": "INPUT0", "shape": [1, 2], "datatype": "BYTES",
                                     "parameters": {"binary_data_size": len(elements)}}]}).encode()
    refused(400, words, "POST", "/v2/models/identity_bytes/infer", header + elements, inference_header_content_length=len(header))


@pytest.mark.parametrize("status, method, path", [
    (405, "GET", PATH), (405, "PUT", PATH), (405, "DELETE", "/v2"), (405, "POST", "/v2/health/live"), (405, "GET", "/v2/repository/index"),
    (404, "GET", "/v2/nothing"), (404, "GET", "/v2/models/identity_fp32/nothing"), (404, "GET", "/v2/models/nobody"),
    (404, "POST", "/v2/models/nobody/infer"), (404, "GET", "/v2/models/%ff"), (404, "GET", "/v2/models/identity_fp32/versions/9"),
    (501, "GET", "/v2/logging"), (501, "POST", "/v2/systemsharedmemory/region/x/register"), (501, "GET", "/v2/models/identity_fp32/trace/setting"),
])
def test_paths_and_methods(refused, status, method, path):
    body = request() if path.endswith("infer") and method == "POST" else ""
    refused(status, "", method, path, body)


def test_shared_memory_is_refused_by_name(refused):
    body = request(data=None, parameters={"shared_memory_region": "x", "shared_memory_byte_size": 8})
    refused(501, "shared memory, which 'INPUT0' asks for, is not supported", "POST", PATH, body)


def test_an_announced_body_beyond_the_limit_is_refused_before_it_is_sent(addresses):
    host, port = addresses["http"].rsplit(":", 1)
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {1 << 40}\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_repository_bodies_are_read_with_care(refused):
    refused(400, "failed to parse", "POST", "/v2/repository/index", "[1]")
    refused(400, "is not base64", "POST", "/v2/repository/models/identity_fp32/load", '{"parameters":{"file:1/a":"%"}}')
    refused(400, "unload_dependents", "POST", "/v2/repository/models/identity_fp32/unload", '{"parameters":{"unload_dependents":1}}')


def test_the_datatype_may_stand_behind_the_elements(raw):
    body = '{"inputs":[{"data":[[1.5,9007199254740993]],"datatype":"FP64","shape":[1,2],"name":"INPUT0"}]}'
    status, _, answer = raw("POST", "/v2/models/identity_fp64/infer", body)
    assert status == 200 and json.loads(answer)["outputs"][0]["data"] == [1.5, 9007199254740992]


def test_the_server_still_answers(http):
    assert http.is_server_live()

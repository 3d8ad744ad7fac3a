"""Compressed bodies over HTTP, both ways; and bodies that grow too large when they are inflated."""

import gzip
import json
import zlib

import numpy as np
import pytest
import tritonclient.http as httpclient

BODY = json.dumps({"inputs": [{"name": "INPUT0", "shape": [64, 64], "datatype": "FP32", "data": [0.5] * 4096}]}).encode()


@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
@pytest.mark.parametrize("wanted", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False], ids=["raw", "json"])
def test_the_real_client_compresses_both_ways(http, needs, sent, wanted, binary):
    array = np.full((64, 64), 0.5, np.float32)
    data = httpclient.InferInput("INPUT0", [64, 64], "FP32").set_data_from_numpy(array, binary_data=binary)
    result = http.infer(needs("identity_fp32"), [data], outputs=[httpclient.InferRequestedOutput("OUTPUT0", binary_data=binary)],
                        request_compression_algorithm=sent, response_compression_algorithm=wanted)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


@pytest.mark.parametrize("accepted, expect", [("gzip", "gzip"), ("deflate", "deflate"), ("gzip, deflate", "gzip"), ("gzip;q=0.1, deflate", "deflate"),
                                              ("gzip;q=0", None), ("*", "gzip"), ("br", None), ("", None)])
def test_an_answer_is_compressed_as_its_caller_accepts(raw, needs, accepted, expect):
    status, headers, answer = raw("POST", f"/v2/models/{needs('identity_fp32')}/infer", BODY, accept_encoding=accepted)
    assert status == 200 and headers["content-encoding"] == expect and int(headers["content-length"]) == len(answer)
    plain = {None: bytes, "gzip": gzip.decompress, "deflate": zlib.decompress}[expect](answer)
    assert json.loads(plain)["outputs"][0]["data"] == [0.5] * 4096


def test_small_answers_and_answers_that_are_no_inference_are_not_compressed(raw, needs):
    model = needs("identity_fp32")
    small = b'{"inputs":[{"name":"INPUT0","shape":[1,1],"datatype":"FP32","data":[1]}]}'
    for method, path, body in [("POST", f"/v2/models/{model}/infer", small), ("GET", f"/v2/models/{model}/config", b"")]:
        status, headers, _ = raw(method, path, body, accept_encoding="gzip")
        assert status == 200 and headers["content-encoding"] is None


def test_a_bomb_is_refused(refused, needs):
    path = f"/v2/models/{needs('identity_fp32')}/infer"
    bomb = gzip.compress(b"0" * (256 << 20))
    assert len(bomb) < 1 << 20
    refused(413, "which is the limit here", "POST", path, bomb, content_encoding="gzip")
    refused(413, "which is the limit here", "POST", path, zlib.compress(b"0" * (256 << 20)), content_encoding="deflate")


def test_bodies_that_are_not_what_they_say_are_refused(refused, needs):
    path = f"/v2/models/{needs('identity_fp32')}/infer"
    refused(400, "the body is not gzip", "POST", path, BODY, content_encoding="gzip")
    refused(400, "the body is not gzip", "POST", path, gzip.compress(BODY)[:-9], content_encoding="gzip")
    refused(400, "the body is not deflate", "POST", path, BODY, content_encoding="deflate")
    refused(415, "content encoding `br` is not known", "POST", path, BODY, content_encoding="br")

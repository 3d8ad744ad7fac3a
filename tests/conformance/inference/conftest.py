"""One server for the whole suite, and the real client of the Open Inference Protocol.

`MAINSTAY_HTTP` and `MAINSTAY_GRPC` name the addresses of a server that is running (`127.0.0.1:8000`); a test whose model that
server does not offer is skipped. Without them `MAINSTAY_KNOWN` names the example server with all these models (`serve_known`),
which is started, and nothing is skipped. With neither nothing is collected: other suites beside this one need other packages.
"""

import json
import os
import subprocess
from http.client import HTTPConnection

import pytest

if {"MAINSTAY_HTTP", "MAINSTAY_KNOWN"} & set(os.environ):
    import ml_dtypes
    import numpy as np
    import tritonclient.grpc as grpcclient
    import tritonclient.http as httpclient
else:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def addresses():
    if "MAINSTAY_HTTP" in os.environ:
        yield {"http": os.environ["MAINSTAY_HTTP"], "grpc": os.environ["MAINSTAY_GRPC"]}
        return
    process = subprocess.Popen([os.environ["MAINSTAY_KNOWN"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    yield json.loads(process.stdout.readline())
    process.stdin.close()
    assert process.wait(20) == 0


@pytest.fixture(scope="session")
def http(addresses):
    with httpclient.InferenceServerClient(addresses["http"], concurrency=4, network_timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def grpc(addresses):
    with grpcclient.InferenceServerClient(addresses["grpc"]) as client:
        yield client


@pytest.fixture(scope="session")
def needs(http):
    """Skips the test where a server that runs elsewhere does not offer the model."""

    def check(model):
        if not http.is_model_ready(model):
            assert "MAINSTAY_HTTP" in os.environ, f"the example server does not offer {model}"
            pytest.skip(f"this server does not offer {model}")
        return model

    return check


DATATYPES = ["BF16", "BOOL", "BYTES", "FP16", "FP32", "FP64", *(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))]


@pytest.fixture(params=DATATYPES)
def datatype(request):
    return request.param


@pytest.fixture
def sample(datatype):
    """A tensor of the datatype with the ends of its range."""
    if "INT" in datatype:
        dtype = np.dtype(datatype.lower())
        return np.array([[np.iinfo(dtype).min, 0, 1], [2, 3, np.iinfo(dtype).max]], dtype)
    return {
        "BOOL": lambda: np.array([[True, False, True]]),
        "FP16": lambda: np.array([[1.5, -0.25, np.inf, 6e-8]], np.float16),
        "BF16": lambda: np.array([[1.5, -2.0], [0.0078125, 3.0]], ml_dtypes.bfloat16),
        "FP32": lambda: np.array([[0.1, -1e-45, 3.4028235e38], [1 / 3, -0.0, 7]], np.float32),
        "FP64": lambda: np.array([[0.1, 5e-324, 1.7976931348623157e308], [1 / 3, -0.0, 7]], np.float64),
        "BYTES": lambda: np.array([["", "plain"], ["ümläut \"quoted\" \n 🌍", "x" * 3000]], object),
    }[datatype]()


@pytest.fixture(scope="session")
def same():
    """Whether an answer is what was sent, bit for bit."""

    def check(got, sent):
        assert got.shape == sent.shape
        if sent.dtype == object:
            text = lambda one: one.decode() if isinstance(one, bytes) else one
            assert [text(one) for one in got.ravel()] == [text(one) for one in sent.ravel()]
        else:
            assert got.dtype == sent.dtype
            assert got.tobytes() == sent.tobytes()

    return check


@pytest.fixture
def raw(addresses):
    """A call that the client would never make: status, headers, body."""

    def call(method, path, body=b"", **headers):
        connection = http_connection(addresses["http"])
        headers = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        answer = response.status, response.headers, response.read()
        connection.close()
        return answer

    return call


def http_connection(address):
    return HTTPConnection(address, timeout=60)


@pytest.fixture
def refused(raw):
    """A call that must fail with this status and a message that holds these words."""

    def call(status, words, method, path, body=b"", **headers):
        got, _, answer = raw(method, path, body, **headers)
        assert got == status, answer
        message = json.loads(answer)
        assert list(message) == ["error"] and words in message["error"], message

    return call

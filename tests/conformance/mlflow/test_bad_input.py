"""What a broken or hostile client sends: a clean error each time, and the server goes on."""

import json
import socket
import urllib.parse

import pytest


def raw(server, payload, wait_s=5):
    """Bytes in, status line out; None when the server just closed."""
    address = urllib.parse.urlparse(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=wait_s) as connection:
        connection.sendall(payload)
        answer = connection.recv(65536)
    return int(answer.split()[1]) if answer.startswith(b"HTTP/") else None


@pytest.fixture(autouse=True)
def still_alive(client):
    yield
    assert client.get_experiment("0").name == "Default"


def test_health_and_version(http):
    assert (http.get("/health").status_code, http.get("/health").text) == (200, "OK")
    assert http.get("/version").text == "3.17.2"
    info = http.get("/api/3.0/mlflow/server-info").json()
    assert info["store_type"] == "SqlStore"
    assert info["multipart_uploads_enabled"] is False if "multipart_uploads_enabled" in info else True


@pytest.mark.mainstay  # upstream answers 500 to JSON that is no object
@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b"5", b'"x"', b"\xff\xfe", b'{"name": "\xff"}', b"{'name': 1}", b""])
def test_malformed_json(http, body):
    answer = http.post("/api/2.0/mlflow/experiments/create", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error_code"] in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST")


@pytest.mark.mainstay
def test_deep_json(http):
    body = b'{"name":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    answer = http.post("/api/2.0/mlflow/experiments/create", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text


def test_unknown_endpoints(http):
    for method, path in (("GET", "/api/2.0/mlflow/nonsense"), ("POST", "/api/2.0/mlflow/runs/nonsense"), ("GET", "/no/such/page")):
        assert http.request(method, path).status_code in (404, 405), path


@pytest.mark.mainstay
def test_oversized_body(http, run):
    answer = http.post("/api/2.0/mlflow/runs/set-tag", headers={"Content-Type": "application/json"},
                       content=json.dumps({"run_id": run.info.run_id, "key": "k", "value": "x" * 20_000_000}))
    assert answer.status_code in (400, 413), answer.status_code


@pytest.mark.mainstay
def test_broken_http(server):
    assert raw(server, b"GARBAGE\r\n\r\n") in (400, None)
    assert raw(server, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"a: " + b"b" * 1_000_000 + b"\r\n\r\n") in (400, 431, None)
    assert raw(server, b"POST /api/2.0/mlflow/runs/create HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n") in (400, None)
    assert raw(server, b"GET /api/2.0/mlflow/experiments/get?experiment_id=%ff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") == 400
    assert raw(server, b"GET /api/2.0/mlflow/experiments/get?experiment_id=0%00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") in (400, 404)


@pytest.mark.mainstay
def test_no_mistake_is_answered_with_a_status_that_the_client_retries(http, experiment):
    """408, 429 and 5xx make the client repeat for minutes."""
    nasty = [None, True, -1, 2**70, 1.5, "", "x" * 5000, [], {}, [[]], {"key": None}, "\u0000", "💥"]
    calls = {
        "experiments/create": ["name", "artifact_location", "tags"],
        "experiments/search": ["max_results", "filter", "order_by", "page_token", "view_type"],
        "experiments/delete": ["experiment_id"],
        "experiments/set-experiment-tag": ["experiment_id", "key", "value"],
        "runs/create": ["experiment_id", "start_time", "tags", "run_name", "user_id"],
        "runs/update": ["run_id", "status", "end_time", "run_name"],
        "runs/log-metric": ["run_id", "key", "value", "timestamp", "step"],
        "runs/log-parameter": ["run_id", "key", "value"],
        "runs/log-batch": ["run_id", "metrics", "params", "tags"],
        "runs/log-inputs": ["run_id", "datasets", "models"],
        "runs/search": ["experiment_ids", "filter", "run_view_type", "max_results", "order_by", "page_token"],
        "runs/delete": ["run_id"],
        "logged-models": ["experiment_id", "name", "params", "tags", "source_run_id"],
        "logged-models/search": ["experiment_ids", "filter", "order_by", "max_results", "page_token"],
        "registered-models/create": ["name", "tags", "description"],
        "registered-models/alias": ["name", "alias", "version"],
        "model-versions/create": ["name", "source", "run_id", "tags"],
        "model-versions/transition-stage": ["name", "version", "stage", "archive_existing_versions"],
    }
    for path, fields in calls.items():
        for field in fields:
            for value in nasty:
                answer = http.post(f"/api/2.0/mlflow/{path}", json={field: value})
                assert answer.status_code < 500 and answer.status_code not in (408, 429), (path, field, value, answer.text)
                if answer.status_code >= 400:
                    assert set(answer.json()) >= {"error_code", "message"}, (path, field, value, answer.text)
    for path in ("experiments/get", "runs/get", "metrics/get-history", "registered-models/get", "registered-models/search",
                 "model-versions/search", "model-versions/get", "registered-models/alias", "artifacts/list"):
        for field in ("experiment_id", "run_id", "name", "filter", "max_results", "page_token", "metric_key", "version", "alias", "order_by"):
            for value in ("", "-1", "x" * 3000, "9" * 40, "\u0000", "💥", "'", "a = "):
                answer = http.get(f"/api/2.0/mlflow/{path}", params={field: value})
                assert answer.status_code < 500 and answer.status_code not in (408, 429), (path, field, value, answer.text)

"""Plugins around endpoints: those that stand in for a model, and MLflow's scoring interface."""

import json
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from conftest import Server
from test_endpoints import ONE, expected

DEAD = """
name = "dead"
variants = [{{ name = "gone", backend = "http://{address}/v2/models/before" }}]
[plan]
fallbacks = [{{ by = {{ named = "{plugin}" }}, timeout-ms = 2000 }}]
[plan.split]
shares = [{{ variant = "gone", percent = 100.0 }}]
[plan.retry]
retries = 0
"""


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path, plugins="fallback-static,fallback-rule,fallback-previous,invocations")
    yield server
    server.process.terminate()
    assert server.process.wait(20) == 0, (tmp_path / "server.log").read_text()[-4000:]


def send(server, method, path, body):
    request = urllib.request.Request(f"http://{server.http}{path}", json.dumps(body).encode(), method=method,
                                     headers={"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return answer.headers, json.loads(answer.read())


def ask(server, endpoint, rows):
    values = [[None if np.isnan(value) else float(value) for value in row] for row in rows]
    flat = [float("nan") if value is None else value for row in values for value in row]
    body = {"inputs": [{"name": "input__0", "shape": list(rows.shape), "datatype": "FP32",
                        "data": ["NaN" if value != value else value for value in flat]}]}
    headers, answer = send(server, "POST", f"/v2/models/{endpoint}/infer", body)
    return headers, answer["outputs"][0]


@pytest.mark.parametrize("plugin, config, values", [
    ("fallback-static", {"answers": [{"outputs": [{"name": "output__0", "datatype": "FP32", "row": 0.5}]}]}, [0.5, 0.5]),
    ("fallback-rule", {"rules": [{"outputs": [{"name": "output__0", "datatype": "FP32", "row": "row.input__0[3] > 8.0 ? 0.9 : 0.1"}]}]},
     [0.9, 0.1]),
    ("fallback-previous", {"endpoints": {"dead": "before"}}, None),
])
def test_a_plugin_stands_in_for_a_model_that_is_gone(server, tmp_path_factory, plugin, config, values):
    rows, scores = expected("lgb_binary.txt")
    rows, scores = rows[[0, 2]], scores[[0, 2]]
    server.import_model("before", "lgb_binary.txt")
    server.apply(ONE.format(name="before", backend="models:/before/1"))
    if config:
        send(server, "PUT", f"/-/plugins/{plugin}/config", config)
    upstream = Server(tmp_path_factory.mktemp("upstream"))
    try:
        upstream.import_model("before", "lgb_binary.txt")
        upstream.apply(ONE.format(name="before", backend="models:/before/1"))
        server.apply(DEAD.format(plugin=plugin, address=upstream.http))
        headers, output = ask(server, "dead", rows)
        assert headers["x-mainstay-fallback"] is None
    finally:
        upstream.kill()
    headers, output = ask(server, "dead", rows)
    assert headers["x-mainstay-fallback"].split("/")[0] == plugin and headers["x-mainstay-fallback-reason"] == "failed", dict(headers)
    np.testing.assert_allclose(np.array(output["data"]), values if values else scores.ravel(), atol=1e-6)
    took = []
    for _ in range(50):
        began = time.perf_counter()
        ask(server, "dead", rows)
        took.append(time.perf_counter() - began)
    assert sorted(took)[25] < 0.5


def test_the_scoring_interface_of_mlflow_answers_by_an_endpoint(server):
    rows, scores = expected("lgb_binary.txt")
    rows, scores = rows[:1], scores[:1]
    server.import_model("churn", "lgb_binary.txt")
    server.apply(ONE.format(name="churn", backend="models:/churn/1"))
    _, answer = send(server, "POST", "/serve/churn/invocations", {"inputs": {"input__0": rows.tolist()}})
    assert "predictions" in answer
    found = answer["predictions"]
    found = found["output__0"] if isinstance(found, dict) else found
    np.testing.assert_allclose(np.array(found, dtype=float).ravel(), scores.ravel(), atol=1e-6)
    with pytest.raises(urllib.error.HTTPError) as refused:
        send(server, "POST", "/serve/churn/invocations", {"nothing": 1})
    assert refused.value.code == 400 and json.loads(refused.value.read())["error_code"] == "BAD_REQUEST"

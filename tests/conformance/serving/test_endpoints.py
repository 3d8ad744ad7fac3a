"""Registered models behind endpoints, asked by the unmodified Triton client; expected scores are those of the models' libraries."""

import json
import time
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from conftest import MODELS, Server
from tritonclient.utils import InferenceServerException

SPLIT = """
name = "churn"
[[variants]]
name = "champion"
backend = "models:/churn/1"
[[variants]]
name = "challenger"
backend = "models:/churn/2"
[plan.split]
key = {{ header = "x-user" }}
shares = [{{ variant = "champion", percent = {champion} }}, {{ variant = "challenger", percent = {challenger} }}]
[plan.watch]
percent = 100.0
"""

ONE = """
name = "{name}"
variants = [{{ name = "only", backend = "{backend}" }}]
[plan.split]
shares = [{{ variant = "only", percent = 100.0 }}]
[plan.watch]
percent = 100.0
"""


def expected(file):
    case = json.loads((MODELS / f"{file.rsplit('.', 1)[0]}.expect.json").read_text())
    rows = np.array([[np.nan if value is None else value for value in row] for row in case["rows"]], dtype=np.float32)
    return rows, np.array(case["score"], dtype=np.float64)


def ask(client, module, model, rows, name="input__0", **options):
    tensor = module.InferInput(name, list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    return client.infer(model, [tensor], **options)


@pytest.mark.parametrize("file, name, output", [
    ("lgb_binary.txt", "input__0", "output__0"),
    ("xgb_binary_logistic.json", "input__0", "output__0"),
    ("skl_forest.onnx", None, None),
])
def test_a_model_answers_as_its_library_over_http_and_grpc(server, file, name, output):
    server.import_model("scored", file)
    server.apply(ONE.format(name="scored", backend="models:/scored/1"))
    rows, scores = expected(file)
    with httpclient.InferenceServerClient(server.http) as http, grpcclient.InferenceServerClient(server.grpc) as grpc:
        metadata = http.get_model_metadata("scored")
        assert metadata == grpc.get_model_metadata("scored", as_json=True) | {"inputs": metadata["inputs"], "outputs": metadata["outputs"]}
        name = name or metadata["inputs"][0]["name"]
        output = output or next(each["name"] for each in metadata["outputs"] if each["datatype"] == "FP32")
        assert metadata["inputs"][0]["shape"] == [-1, rows.shape[1]]
        assert metadata["versions"] == ["1"]
        for client, module in ((http, httpclient), (grpc, grpcclient)):
            assert client.is_server_ready() and client.is_model_ready("scored")
            answer = ask(client, module, "scored", rows, name)
            np.testing.assert_allclose(answer.as_numpy(output), scores, atol=1e-6)
            one = ask(client, module, "scored", rows[:1], name, request_id="mine", model_version="1")
            np.testing.assert_allclose(one.as_numpy(output), scores[:1], atol=1e-6)


def test_what_the_client_is_told_of_endpoints(server):
    server.import_model("churn", "lgb_binary.txt")
    server.apply(ONE.format(name="churn", backend="models:/churn/1"))
    rows, _ = expected("lgb_binary.txt")
    with httpclient.InferenceServerClient(server.http) as http:
        assert http.get_server_metadata()["name"] == "mainstay"
        config = http.get_model_config("churn")
        assert (config["name"], config["input"][0]["data_type"], config["input"][0]["dims"]) == ("churn", "TYPE_FP32", [rows.shape[1]])
        ask(http, httpclient, "churn", rows)
        stats = http.get_inference_statistics("churn")["model_stats"][0]
        assert (stats["inference_count"], stats["inference_stats"]["success"]["count"]) == (len(rows), 1)
        assert http.get_model_repository_index() == [{"name": "churn", "version": "1", "state": "READY"}]
        for model, version, message in (("other", "", "unknown model: 'other'"), ("churn", "9", "version 9 is not found")):
            with pytest.raises(InferenceServerException, match=message):
                ask(http, httpclient, model, rows, model_version=version)
        with pytest.raises(InferenceServerException, match=r"unexpected shape for input 'input__0'"):
            ask(http, httpclient, "churn", rows[:, :2])
        with pytest.raises(InferenceServerException, match="unexpected inference input 'wrong'"):
            ask(http, httpclient, "churn", rows, name="wrong")


def test_loading_makes_an_endpoint_and_unloading_ends_it(server):
    server.import_model("loaded", "lgb_binary.txt")
    rows, scores = expected("lgb_binary.txt")
    with httpclient.InferenceServerClient(server.http) as http:
        assert not http.is_model_ready("loaded")
        http.load_model("loaded")
        np.testing.assert_allclose(ask(http, httpclient, "loaded", rows).as_numpy("output__0"), scores, atol=1e-6)
        http.unload_model("loaded")
        assert not http.is_model_ready("loaded")
        http.unload_model("never there")
        with pytest.raises(InferenceServerException, match="failed to load 'never there'"):
            http.load_model("never there")
        server.apply(ONE.format(name="mine", backend="models:/loaded/1"))
        with pytest.raises(InferenceServerException, match="mainstay endpoint rm mine"):
            http.unload_model("mine")


def variants(http, rows, users):
    """Which variant each user gets, by the header of the answer."""
    got = {}
    for user in users:
        tensor = httpclient.InferInput("input__0", list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows)
        body, length = httpclient.InferenceServerClient.generate_request_body([tensor])
        request = urllib.request.Request(f"http://{http}/v2/models/churn/infer", data=body, headers={
            "inference-header-content-length": str(length), "x-user": user, "content-type": "application/octet-stream"})
        with urllib.request.urlopen(request) as answer:
            got[user] = answer.headers["x-mainstay-variant"]
            versions = {"champion": "1", "challenger": "2"}
            assert answer.headers["x-mainstay-version"] == versions[got[user]]
            assert answer.headers["x-mainstay-model"] == "churn" and answer.headers["x-mainstay-endpoint"] == "churn"
    return got


def test_a_growing_share_moves_nobody_out(server):
    server.import_model("churn", "lgb_binary.txt")
    server.import_model("churn", "lgb_dart.txt")
    rows, _ = expected("lgb_binary.txt")
    users = [f"user {number}" for number in range(300)]
    server.apply(SPLIT.format(champion=95.0, challenger=5.0))
    before = variants(server.http, rows[:1], users)
    shown = server.apply(SPLIT.format(champion=80.0, challenger=20.0))
    assert "95" in shown and "80" in shown, shown
    behind = variants(server.http, rows[:1], users)
    assert variants(server.http, rows[:1], users[:50]) == {user: behind[user] for user in users[:50]}
    challengers = [user for user in users if before[user] == "challenger"]
    assert challengers and all(behind[user] == "challenger" for user in challengers)
    # Five standard deviations around a fifth of three hundred.
    assert 25 <= sum(variant == "challenger" for variant in behind.values()) <= 95
    assert "plan 2" in server.cli("endpoint", "history", "churn")


def test_what_was_answered_is_in_the_log_and_survives_a_kill(server):
    server.import_model("churn", "lgb_binary.txt")
    server.apply(ONE.format(name="churn", backend="models:/churn/1"))
    rows, scores = expected("lgb_binary.txt")
    with httpclient.InferenceServerClient(server.http) as http:
        ask(http, httpclient, "churn", rows, request_id="first")
    query = 'SELECT id, version, variant, output_output__0 AS score FROM churn_predictions ORDER BY id'
    for _ in range(100):
        found = json.loads(server.cli("sql", "--format", "json", query)) if "churn_predictions" in server.cli("table", "list") else []
        if len(found) == len(rows):
            break
    assert {row["id"] for row in found} == {f"first/{row}" for row in range(len(rows))}
    assert {row["variant"] for row in found} == {"only"}
    server.kill()
    server.start()
    with httpclient.InferenceServerClient(server.http) as http:
        for _ in range(200):
            if http.is_model_ready("churn"):
                break
        np.testing.assert_allclose(ask(http, httpclient, "churn", rows).as_numpy("output__0"), scores, atol=1e-6)


def test_wrong_specifications_say_what_is_wrong(server):
    server.import_model("churn", "lgb_binary.txt")

    def refuse(text, words):
        path = server.folder / "wrong.toml"
        path.write_text(text)
        said = server.refused("endpoint", "apply", str(path))
        assert words in said, said

    refuse(ONE.format(name="churn", backend="s3://bucket/model.onnx"), "models:/NAME")
    refuse(ONE.format(name="churn", backend="models:/churn/7"), "has no version 7")
    refuse(ONE.format(name="churn", backend="models:/nothing/1"), "no registered model `nothing`")
    refuse(ONE.format(name="churn", backend="models:/churn@live"), "has no alias `live`")
    refuse(SPLIT.format(champion=50.0, challenger=20.0), "100")
    refuse("name = 3", "wrong.toml")
    said = server.refused("model", "import", "notes", str(MODELS / "README.md"))
    assert "no file that runs here" in said, said
    assert "There is no endpoint" in server.cli("endpoint", "list")


FALLING_BACK = """
name = "elsewhere"
variants = [{{ name = "remote", backend = "http://{address}/v2/models/churn" }}]
[plan]
answer = {{ outputs = [{{ name = "output__0", datatype = "FP32", shape = [1, 1], data = [0.5] }}] }}
[plan.split]
shares = [{{ variant = "remote", percent = 100.0 }}]
[plan.breaker]
consecutive = 3
open-ms = 1000
[plan.retry]
retries = 0
"""


def test_a_killed_server_elsewhere_is_stood_in_for_and_comes_back(server, tmp_path_factory):
    upstream = Server(tmp_path_factory.mktemp("upstream"))
    try:
        upstream.import_model("churn", "lgb_binary.txt")
        upstream.apply(ONE.format(name="churn", backend="models:/churn/1"))
        rows, scores = expected("lgb_binary.txt")
        server.apply(FALLING_BACK.format(address=upstream.http))

        def infer():
            tensor = httpclient.InferInput("input__0", [1, rows.shape[1]], "FP32")
            tensor.set_data_from_numpy(rows[:1])
            body, length = httpclient.InferenceServerClient.generate_request_body([tensor])
            request = urllib.request.Request(f"http://{server.http}/v2/models/elsewhere/infer", data=body, headers={
                "inference-header-content-length": str(length), "content-type": "application/octet-stream"})
            with urllib.request.urlopen(request) as answer:
                told = {name: answer.headers[f"x-mainstay-{name}"] for name in ("variant", "fallback", "fallback-reason")}
                length = answer.headers.get("inference-header-content-length")
                return told, httpclient.InferenceServerClient.parse_response_body(answer.read(), header_length=length and int(length))

        told, answer = infer()
        assert (told["variant"], told["fallback"]) == ("remote", None)
        np.testing.assert_allclose(answer.as_numpy("output__0"), scores[:1], atol=1e-6)
        address = upstream.http
        upstream.kill()
        reasons = []
        for _ in range(6):
            told, answer = infer()
            assert told["fallback"] and answer.as_numpy("output__0").tolist() == [[0.5]]
            reasons.append(told["fallback-reason"])
        assert reasons[0] == "failed" and reasons[-1] == "breaker-open", reasons
        upstream.listen = address
        upstream.start()
        end = time.monotonic() + 30
        while infer()[0]["fallback"]:
            assert time.monotonic() < end, server.cli("endpoint", "list")
            time.sleep(0.1)
        assert "breaker closed" in server.cli("endpoint", "list")
    finally:
        upstream.kill()

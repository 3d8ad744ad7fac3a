"""Beyond the upstream server: permanent removal (T3), quotas (T4), decisions and comments (T5), provenance and protected
promotion (T8)."""

import os
import warnings

import pytest
from mlflow.exceptions import MlflowException

pytestmark = pytest.mark.mainstay


@pytest.fixture
def provenance(http):
    """The provenance API lives under the plugin's mount point."""

    def ask(path, expect=200, **query):
        answer = http.get(f"/plugins/tracking/provenance/{path}", params=query)
        assert answer.status_code == expect, answer.text
        return answer.json()

    return ask


def test_a_version_leads_to_run_commit_and_data(client, experiment, unique, provenance):
    from mlflow.entities import Dataset, DatasetInput

    run = client.create_run(experiment, tags={"mlflow.source.git.commit": "deadbeef" * 5})
    client.log_inputs(run.info.run_id, [DatasetInput(Dataset("census", "d1gest", "local", "{}"), [])])
    name = unique("traced")
    client.create_registered_model(name)
    client.create_model_version(name, f"runs:/{run.info.run_id}/model", run_id=run.info.run_id)
    client.set_registered_model_alias(name, "champion", "1")
    chain = provenance(f"models/{name}/versions/1")
    assert chain["run"]["run_id"] == run.info.run_id
    assert chain["run"]["git_commit"] == "deadbeef" * 5
    assert [(d["name"], d["digest"]) for d in chain["run"]["datasets"]] == [("census", "d1gest")]
    assert chain["aliases"] == ["champion"]
    assert chain["missing"] == []
    bare = client.create_run(experiment)
    client.create_model_version(name, f"runs:/{bare.info.run_id}/model", run_id=bare.info.run_id)
    missing = provenance(f"models/{name}/versions/2")["missing"]
    assert len(missing) == 2 and "commit" in " ".join(missing) and "data" in " ".join(missing)
    models = provenance("datasets/census", digest="d1gest")["models"]
    assert {"name": name, "version": "1"} in [{"name": m["name"], "version": m["version"]} for m in models]
    provenance(f"models/{name}/versions/99", expect=404)


def test_permanent_removal_is_guarded(client, experiment, unique, http):
    run = client.create_run(experiment)
    id = run.info.run_id
    client.log_text(id, "x", "f.txt")
    client.log_metric(id, "m", 1.0)
    name = unique("keeps")
    client.create_registered_model(name)
    client.create_model_version(name, f"runs:/{id}/model", run_id=id)
    remove = lambda: http.delete(f"/plugins/tracking/runs/{id}", params={"permanent": "true"})
    assert remove().status_code == 409, "an active run is not removed"
    client.delete_run(id)
    refused = remove()
    assert refused.status_code == 409
    assert name in refused.json()["message"] and "1" in refused.json()["message"]
    client.delete_model_version(name, "1")
    assert remove().status_code == 200
    assert http.get("/api/2.0/mlflow/runs/get", params={"run_id": id}).status_code == 404
    assert http.get(f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{id}/artifacts/f.txt").status_code == 404
    assert client.search_runs([experiment], run_view_type=3) == []
    assert remove().status_code == 404


def test_a_protected_alias_says_what_is_missing_until_nothing_is(as_role, guarded_http, unique):
    """By the example of the configuration reference. What is added after the version was registered counts."""
    from mlflow.entities import Dataset, DatasetInput

    client = as_role("editor")
    run = client.create_run(client.create_experiment(unique("guarded")))
    name = unique("protected")
    client.create_registered_model(name)
    client.create_model_version(name, f"runs:/{run.info.run_id}/model", run_id=run.info.run_id)

    def refused():
        with pytest.raises(MlflowException) as raised:
            client.set_registered_model_alias(name, "production", "1")
        assert raised.value.error_code == "PERMISSION_DENIED"
        assert client.get_registered_model(name).aliases == {}, "nothing half-done"
        return raised.value.message

    message = refused()
    assert "source-commit" in message and "trained-on" in message
    assert "mlflow.source.git.commit" in message and "log_input" in message, "and what to do about it"
    client.set_tag(run.info.run_id, "mlflow.source.git.commit", "c0ffee" * 6)
    message = refused()
    assert "source-commit" not in message and "trained-on" in message and "log_input" in message
    client.log_inputs(run.info.run_id, [DatasetInput(Dataset("census", "d1gest", "local", "{}"), [])])
    client.set_registered_model_alias(name, "production", "1")
    assert client.get_model_version_by_alias(name, "production").version == "1"
    client.set_registered_model_alias(name, "candidate", "1")  # not protected
    decisions = guarded_http.get(f"/plugins/tracking/registry/{name}/decisions").json()["decisions"]
    assert [d["what"] for d in decisions] == ["alias", "alias", "registered", "created"], "refusals decide nothing"


def test_an_unprotected_promotion_warns_and_a_refused_one_does_not(http, guarded_http, guarded, client, run, unique):
    alias = lambda http, name: http.post("/api/2.0/mlflow/registered-models/alias",
                                         json={"name": name, "alias": "production", "version": "1"})
    name = unique("bare")
    client.create_registered_model(name)
    client.create_model_version(name, f"runs:/{run.info.run_id}/model", run_id=run.info.run_id)
    warned = alias(http, name)
    assert warned.status_code == 200 and "has no commit" in warned.headers["x-mainstay-warning"]
    guarded_http.post("/api/2.0/mlflow/registered-models/create", json={"name": name})
    guarded_http.post("/api/2.0/mlflow/model-versions/create", json={"name": name, "source": "s3://bucket/model"})
    assert alias(guarded_http, name).status_code == 403
    log = open(os.path.join(guarded.data, "server.log")).read()
    assert name not in log, "what did not happen is not reported as having happened"


def test_quotas_are_loud_before_they_refuse(as_role, guarded, guarded_http, unique, tmp_path):
    before = guarded_http.get("/-/plugins/tracking").json()["config"]
    configured = guarded_http.put("/-/plugins/tracking/config", json={"artifact-quota-bytes": 1_000_000})
    assert configured.status_code == 200, configured.text
    try:
        client = as_role("editor")
        experiment = client.create_experiment(unique("quota"))
        run = client.create_run(experiment)
        used = lambda: guarded_http.get(f"/plugins/tracking/quotas/{experiment}").json()
        checkpoint = tmp_path / "checkpoint.bin"
        checkpoint.write_bytes(os.urandom(700_000))
        for epoch in range(3):
            client.log_artifact(run.info.run_id, checkpoint, f"epoch-{epoch}")
        assert used() == {"experiment_id": experiment, "used_bytes": 700_000, "quota_bytes": 1_000_000}
        root = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run.info.run_id}/artifacts"
        loud = guarded_http.put(f"{root}/more.bin", content=os.urandom(200_000))
        assert loud.status_code == 200 and "900000 of 1000000 bytes (90 %)" in loud.headers["x-mainstay-warning"]
        assert f"artifacts of experiment {experiment} use 900000" in open(os.path.join(guarded.data, "server.log")).read()
        (line,) = [line for line in guarded_http.get("/metrics").text.splitlines()
                   if line.startswith("mainstay_plugin_tracking_artifact_quota_used_ratio{") and f'"{experiment}"' in line]
        assert float(line.split()[-1]) == 0.9
        with pytest.raises(Exception, match="artifact quota of experiment .* leaves 100000 bytes"):
            client.log_artifact(run.info.run_id, write(tmp_path / "too-much.bin", 200_000))
        assert used()["used_bytes"] == 900_000
        client.log_artifact(run.info.run_id, write(tmp_path / "fits.bin", 100_000))
        other = client.create_run(client.create_experiment(unique("other")))
        client.log_artifact(other.info.run_id, checkpoint)  # each experiment has its own
    finally:
        assert guarded_http.put("/-/plugins/tracking/config", json=before).status_code == 200


def write(path, bytes):
    path.write_bytes(os.urandom(bytes))
    return path


def test_decisions_say_who_what_when_and_why(as_role, guarded_http, unique):
    client = as_role("editor")
    name = unique("decided")
    client.create_registered_model(name)
    client.create_model_version(name, "s3://bucket/model")
    client.set_registered_model_alias(name, "challenger", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client.transition_model_version_stage(name, "1", "Staging")
    path = f"/plugins/tracking/registry/{name}/decisions"
    said = guarded_http.post(path, json={"comment": "holds up in review", "version": "1"})
    assert said.status_code == 200, said.text
    moved = guarded_http.post("/api/2.0/mlflow/model-versions/transition-stage",
                              json={"name": name, "version": "1", "stage": "Archived", "comment": "superseded"})
    assert moved.status_code == 200, moved.text
    client.delete_registered_model_alias(name, "challenger")
    decisions = guarded_http.get(path).json()["decisions"]
    seen = [(d["by"], d["what"], d.get("subject"), d.get("from"), d.get("to"), d.get("comment")) for d in decisions]
    assert seen == [
        ("the-editor", "alias", "challenger", "1", None, None),
        ("the-admin", "stage", None, "Staging", "Archived", "superseded"),
        ("the-admin", "comment", None, None, None, "holds up in review"),
        ("the-editor", "stage", None, "None", "Staging", None),
        ("the-editor", "alias", "challenger", None, "1", None),
        ("the-editor", "registered", None, None, None, None),
        ("the-editor", "created", None, None, None, None),
    ]
    times = [d["at_ms"] for d in decisions]
    assert times == sorted(times, reverse=True)
    assert guarded_http.post(path, json={"comment": "x", "version": "9"}).status_code == 404
    assert guarded_http.post(path, json={}).status_code == 400
    assert guarded_http.get("/plugins/tracking/registry/none/decisions").status_code == 404

"""Beyond the upstream server: provenance, permanent removal, quotas (T3, T4, T8)."""

import pytest

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

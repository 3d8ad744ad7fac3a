"""Tokens, as the real client sends them."""

import mlflow
import pytest
from mlflow.exceptions import MlflowException

pytestmark = pytest.mark.mainstay


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
def test_a_token_lets_the_real_client_in(as_role, guarded, unique, scheme, tmp_path):
    client = as_role("editor", scheme)
    run = client.create_run(client.create_experiment(unique(scheme)))
    client.log_metric(run.info.run_id, "m", 1.0)
    client.log_text(run.info.run_id, "some text", "notes/today.txt")
    assert client.get_run(run.info.run_id).data.metrics == {"m": 1.0}
    assert open(client.download_artifacts(run.info.run_id, "notes/today.txt", str(tmp_path))).read() == "some text"
    name = unique("model")
    client.create_registered_model(name)
    client.create_model_version(name, f"runs:/{run.info.run_id}/model", run_id=run.info.run_id)
    assert [m.name for m in client.search_registered_models(f"name = '{name}'")] == [name]


@pytest.mark.parametrize("role, scheme", [("nobody's token", "bearer"), ("nobody's token", "basic"), ("", "none")])
def test_without_a_token_nothing_is_answered(as_role, role, scheme):
    client = as_role(role, scheme)
    for call in (lambda: client.search_experiments(), lambda: client.create_experiment("x")):
        with pytest.raises(MlflowException) as raised:
            call()
        assert raised.value.get_http_status_code() == 401 or "401" in str(raised.value), raised.value


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
def test_a_viewer_reads_and_does_not_write(as_role, unique, scheme):
    editor = as_role("editor")
    id = editor.create_experiment(unique("shown"))
    run = editor.create_run(id)
    viewer = as_role("viewer", scheme)
    assert viewer.get_experiment(id).experiment_id == id
    assert [found.info.run_id for found in viewer.search_runs([id])] == [run.info.run_id], "a search that comes by POST"
    for call in (lambda: viewer.create_experiment(unique("x")), lambda: viewer.log_metric(run.info.run_id, "m", 1.0),
                 lambda: viewer.log_text(run.info.run_id, "x", "f.txt")):
        with pytest.raises(Exception, match="has not the right `write`"):  # artifacts raise another type
            call()


def test_the_fluent_client_finds_its_token_in_the_environment(as_role, guarded, unique):
    experiment = as_role("editor").create_experiment(unique("fluent"))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(guarded.url)
    try:
        with mlflow.start_run(experiment_id=experiment) as run:
            mlflow.log_params({"a": 1})
        assert mlflow.get_run(run.info.run_id).data.params == {"a": "1"}
    finally:
        mlflow.set_tracking_uri(before)

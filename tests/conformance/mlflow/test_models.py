"""Logged models, and the fluent path from training to loading back (T1, T5)."""

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException


def test_life_of_a_logged_model(client, experiment, run):
    model = client.create_logged_model(experiment, name="net", source_run_id=run.info.run_id, tags={"a": "b"},
                                       params={"lr": "0.1"}, model_type="agent")
    assert model.model_id.startswith("m-") and len(model.model_id) == 34
    assert (model.status, model.name, model.source_run_id) == (LoggedModelStatus.PENDING, "net", run.info.run_id)
    assert model.artifact_location.startswith("mlflow-artifacts:/")
    ready = client.finalize_logged_model(model.model_id, "READY")
    assert ready.status == LoggedModelStatus.READY
    client.set_logged_model_tags(model.model_id, {"c": "d", "a": "e"})
    client.delete_logged_model_tag(model.model_id, "c")
    client.log_model_params(model.model_id, {"depth": "3"})
    found = client.get_logged_model(model.model_id)
    assert (found.tags, found.params, found.model_type) == ({"a": "e"}, {"lr": "0.1", "depth": "3"}, "agent")
    client.delete_logged_model(model.model_id)
    with pytest.raises(MlflowException) as raised:
        client.get_logged_model(model.model_id)
    assert raised.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    with pytest.raises(MlflowException):
        client.get_logged_model("m-" + "0" * 32)


def test_search_logged_models(client, experiment, run):
    ids = {}
    for n in range(4):
        model = client.create_logged_model(experiment, name=f"n{n}", params={"p": str(n)}, tags={"t": "x" if n % 2 else "y"})
        client.log_metric(run.info.run_id, "auc", n / 10, model_id=model.model_id)
        ids[model.model_id] = str(n)

    def check(expect, **kwargs):
        found = client.search_logged_models([experiment], **kwargs)
        assert "".join(ids[m.model_id] for m in found) == expect, kwargs
        return found

    check("3210")
    check("2", filter_string="name = 'n2'")
    check("31", filter_string="tags.t = 'x'")
    check("2", filter_string="params.p = '2'")
    check("32", filter_string="metrics.auc > 0.1")
    check("0123", order_by=[{"field_name": "name", "ascending": True}])
    check("3210", order_by=[{"field_name": "metrics.auc", "ascending": False}])
    page = check("32", max_results=2)
    check("10", max_results=2, page_token=page.token)
    with pytest.raises(MlflowException) as raised:
        client.search_logged_models([experiment], filter_string="nonsense >")
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"


def test_train_register_load(tracking_uri, client, unique, tmp_path):
    """What most users do, through the fluent API."""
    from sklearn.linear_model import LogisticRegression

    name = unique("classifier")
    mlflow.set_experiment(unique("fluent"))
    X = pd.DataFrame({"a": np.linspace(-1, 1, 50), "b": np.linspace(1, 0, 50)})
    y = (X.a > 0).astype(int)
    with mlflow.start_run() as run:
        model = LogisticRegression().fit(X, y)
        mlflow.log_params({"C": 1.0, "penalty": "l2"})
        for step in range(5):
            mlflow.log_metrics({"loss": 1 / (step + 1), "acc": step / 5}, step=step)
        mlflow.log_input(mlflow.data.from_pandas(X, source="memory", name="toy"), context="training")
        mlflow.log_dict({"classes": [0, 1]}, "classes.json")
        info = mlflow.sklearn.log_model(model, name="model", registered_model_name=name, input_example=X[:2])
    found = client.get_run(run.info.run_id)
    assert (found.info.status, found.data.metrics["loss"], found.data.params["C"]) == ("FINISHED", 0.2, "1.0")
    assert [o.model_id for o in found.outputs.model_outputs] == [info.model_id]

    client.set_registered_model_alias(name, "champion", 1)
    for uri in (f"models:/{name}@champion", f"models:/{name}/1", info.model_uri, f"models:/{name}/latest", f"runs:/{run.info.run_id}/model"):
        back = mlflow.pyfunc.load_model(uri)
        assert (back.predict(X) == model.predict(X)).all(), uri
    version = client.get_model_version_by_alias(name, "champion")
    assert version.run_id == run.info.run_id
    client.transition_model_version_stage(name, "1", "Production")
    assert (mlflow.sklearn.load_model(f"models:/{name}/Production").predict(X) == model.predict(X)).all()


def test_nested_fluent_runs_and_search_as_a_frame(tracking_uri, unique):
    mlflow.set_experiment(unique("sweep"))
    with mlflow.start_run(run_name="sweep") as parent:
        for depth in (1, 2, 3):
            with mlflow.start_run(nested=True, run_name=f"depth {depth}"):
                mlflow.log_param("depth", depth)
                mlflow.log_metric("auc", depth / 10)
    frame = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'", order_by=["metrics.auc DESC"])
    assert list(frame["params.depth"]) == ["3", "2", "1"]
    assert mlflow.last_active_run().info.run_name == "sweep"


def test_async_logging(tracking_uri, client, unique):
    mlflow.set_experiment(unique("async"))
    with mlflow.start_run() as run:
        for step in range(300):
            mlflow.log_metric("m", step, step=step, synchronous=False)
        mlflow.flush_async_logging()
    assert [m.step for m in client.get_metric_history(run.info.run_id, "m")] == list(range(300))


def test_a_failed_run_says_so(tracking_uri, client, unique):
    mlflow.set_experiment(unique("fails"))
    with pytest.raises(ZeroDivisionError):
        with mlflow.start_run() as run:
            1 / 0
    assert client.get_run(run.info.run_id).info.status == "FAILED"


def test_tracing_degrades_cleanly(tracking_uri, unique):
    """Traces are not kept yet: a traced function must still run, at once."""
    import time

    mlflow.set_experiment(unique("traced"))

    @mlflow.trace
    def work(x):
        return x + 1

    start = time.monotonic()
    assert [work(n) for n in range(3)] == [1, 2, 3]
    mlflow.flush_trace_async_logging()
    assert time.monotonic() - start < 20

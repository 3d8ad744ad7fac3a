"""Runs: life, params, tags, inputs, nesting (T1, T3)."""

import time

import pytest
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException


def refused(call, code="INVALID_PARAMETER_VALUE"):
    with pytest.raises(MlflowException) as raised:
        call()
    assert raised.value.error_code == code, raised.value
    return str(raised.value)


def test_life_of_a_run(client, experiment):
    run = client.create_run(experiment, tags={"a": "b"}, run_name="first", start_time=1234)
    info = run.info
    assert len(info.run_id) == 32 and int(info.run_id, 16) >= 0
    assert (info.status, info.lifecycle_stage, info.start_time, info.end_time) == ("RUNNING", "active", 1234, None)
    assert info.artifact_uri == f"mlflow-artifacts:/{experiment}/{info.run_id}/artifacts"
    assert run.data.tags == {"a": "b", "mlflow.runName": "first"}
    client.set_terminated(info.run_id, "FINISHED", end_time=5678)
    again = client.get_run(info.run_id)
    assert (again.info.status, again.info.end_time, again.info.run_name) == ("FINISHED", 5678, "first")
    client.update_run(info.run_id, status="RUNNING", name="second")
    again = client.get_run(info.run_id)
    assert (again.info.status, again.info.run_name, again.data.tags["mlflow.runName"]) == ("RUNNING", "second", "second")
    client.set_tag(info.run_id, "mlflow.runName", "third")
    assert client.get_run(info.run_id).info.run_name == "third"


def test_every_status(client, experiment):
    for status in RunStatus.all_status():
        run = client.create_run(experiment)
        client.update_run(run.info.run_id, status=RunStatus.to_string(status))
        assert client.get_run(run.info.run_id).info.status == RunStatus.to_string(status)


def test_names_are_invented(client, experiment):
    names = {client.create_run(experiment).info.run_name for _ in range(20)}
    assert len(names) > 10
    assert all(len(name.split("-")) == 3 and name.split("-")[2].isdigit() for name in names)


def test_conflicting_names(client, experiment):
    refused(lambda: client.create_run(experiment, run_name="a", tags={"mlflow.runName": "b"}))
    assert client.create_run(experiment, tags={"mlflow.runName": "c"}).info.run_name == "c"


def test_params_are_written_once(client, run):
    id = run.info.run_id
    client.log_param(id, "lr", 0.1)
    client.log_param(id, "lr", 0.1)
    assert "lr" in refused(lambda: client.log_param(id, "lr", 0.2))
    client.log_batch(id, params=[Param("lr", "0.1"), Param("depth", "5")])
    refused(lambda: client.log_batch(id, params=[Param("new", "1"), Param("lr", "0.3")]))
    assert client.get_run(id).data.params == {"lr": "0.1", "depth": "5"}, "a refused batch leaves nothing behind"
    client.log_param(id, "empty", "")
    client.log_param(id, "ключ/with.dots - and:colon", "☃")
    assert client.get_run(id).data.params["ключ/with.dots - and:colon"] == "☃"
    assert client.get_run(id).data.params["empty"] == ""


def test_long_values(client, run):
    client.log_param(run.info.run_id, "long", "x" * 6000)
    client.set_tag(run.info.run_id, "long", "y" * 8000)
    data = client.get_run(run.info.run_id).data
    assert (len(data.params["long"]), len(data.tags["long"])) == (6000, 8000)


def test_server_truncates_long_values(client, run, api):
    id = run.info.run_id
    api("POST", "runs/log-parameter", 200, run_id=id, key="p", value="x" * 6001)
    api("POST", "runs/set-tag", 200, run_id=id, key="t", value="x" * 8001)
    data = client.get_run(id).data
    assert (len(data.params["p"]), len(data.tags["t"])) == (6000, 8000)


def test_tags(client, run):
    id = run.info.run_id
    client.set_tag(id, "a", "1")
    client.set_tag(id, "a", "2")
    client.log_batch(id, tags=[RunTag("b", "3"), RunTag("c", "")])
    tags = client.get_run(id).data.tags
    assert (tags["a"], tags["b"], tags["c"]) == ("2", "3", "")
    client.delete_tag(id, "a")
    assert "a" not in client.get_run(id).data.tags
    refused(lambda: client.delete_tag(id, "a"), "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize("key", ["../a", "/a", "a//b", "a/../b", ".", "", "x" * 251, "emoji☃\n", "semi;colon"])
def test_bad_keys(run, api, key):
    for path, value in (("log-parameter", "1"), ("log-metric", 1.0), ("set-tag", "1")):
        body = {"run_id": run.info.run_id, "key": key, "value": value, "timestamp": 1, "step": 0}
        answer = api("POST", f"runs/{path}", **body)
        assert answer.status_code == 400, (path, key, answer.text)


def test_missing_and_deleted_runs(client, run):
    id, ghost = run.info.run_id, "0" * 32
    for call in (lambda: client.get_run(ghost), lambda: client.log_param(ghost, "a", "b"), lambda: client.set_tag(ghost, "a", "b"),
                 lambda: client.log_metric(ghost, "a", 1.0), lambda: client.delete_run(ghost), lambda: client.set_terminated(ghost)):
        refused(call, "RESOURCE_DOES_NOT_EXIST")
    client.delete_run(id)
    assert client.get_run(id).info.lifecycle_stage == "deleted"
    for call in (lambda: client.log_param(id, "a", "b"), lambda: client.set_tag(id, "a", "b"), lambda: client.log_metric(id, "a", 1.0),
                 lambda: client.log_batch(id, metrics=[Metric("a", 1, 1, 1)]), lambda: client.update_run(id, status="FINISHED")):
        refused(call)
    client.restore_run(id)
    client.log_param(id, "a", "b")
    assert client.get_run(id).data.params == {"a": "b"}


def test_inputs(client, run):
    id = run.info.run_id
    dataset = Dataset("census", "abc123", "local", '{"uri": "x"}', schema='{"a": 1}', profile='{"rows": 2}')
    given = [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
    client.log_inputs(id, datasets=given)
    client.log_inputs(id, datasets=given)  # again is no error and no copy
    (found,) = client.get_run(id).inputs.dataset_inputs
    assert found.dataset.to_dictionary() == dataset.to_dictionary()
    assert [(t.key, t.value) for t in found.tags] == [("mlflow.data.context", "training")]


def test_nested_runs(client, experiment):
    parent = client.create_run(experiment)
    child = client.create_run(experiment, tags={"mlflow.parentRunId": parent.info.run_id})
    assert client.get_parent_run(child.info.run_id).info.run_id == parent.info.run_id
    found = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    assert [r.info.run_id for r in found] == [child.info.run_id]


def test_batch_limits(run, api):
    id = run.info.run_id
    metric = lambda n: {"key": f"m{n}", "value": 1.0, "timestamp": 1, "step": 0}
    pair = lambda n: {"key": f"k{n}", "value": "v"}

    def check(status, **body):
        answer = api("POST", "runs/log-batch", run_id=id, **body)
        assert answer.status_code == status, answer.text

    check(200, metrics=[metric(n) for n in range(1000)])
    check(400, metrics=[metric(n) for n in range(1001)])
    check(200, params=[pair(n) for n in range(100)])
    check(400, params=[pair(n) for n in range(101)])
    check(200, tags=[pair(n) for n in range(100)])
    check(400, tags=[pair(n) for n in range(101)])
    check(400, metrics=[metric(n) for n in range(950)], params=[pair(n) for n in range(60)])
    check(400, params=[{"key": "same", "value": "1"}, {"key": "same", "value": "2"}])
    check(400, metrics=[{"key": "a", "value": 1.0, "timestamp": -1, "step": 0}])
    check(400, metrics=[{"value": 1.0, "timestamp": 1, "step": 0}])
    check(400, metrics="nonsense")
    check(200)


@pytest.mark.mainstay
def test_a_batch_with_one_bad_metric_writes_nothing(client, run, api):
    """The upstream server takes the first two (and keeps what came before the third)."""
    good = {"key": "good", "value": 1.0, "timestamp": 1, "step": 0}
    for bad in ({"value": "not a number"}, {"step": 1.5}, {"timestamp": -1}, {"key": "../up"}):
        api("POST", "runs/log-batch", 400, run_id=run.info.run_id, metrics=[good, good | bad], tags=[{"key": "t", "value": "v"}])
    data = client.get_run(run.info.run_id).data
    assert (data.metrics, "t" in data.tags) == ({}, False)


def test_retries_are_idempotent(client, run, api):
    id = run.info.run_id
    for _ in range(3):
        api("POST", "runs/log-metric", 200, run_id=id, run_uuid=id, key="m", value=0.5, timestamp=7, step=1)
        api("POST", "runs/log-parameter", 200, run_id=id, key="p", value="v")
        api("POST", "runs/delete", 200, run_id=id)
        api("POST", "runs/restore", 200, run_id=id)
    assert len(client.get_metric_history(id, "m")) == 1


def test_bodies_like_protobuf_would_write_them(client, run, api):
    """int64 as strings, camel-free names, unknown fields, run_uuid alone."""
    id = run.info.run_id
    api("POST", "runs/log-metric", 200, run_uuid=id, run_id=id, key="m", value=1, timestamp="99", step="3", new_field={"a": [1]})
    (metric,) = client.get_metric_history(id, "m")
    assert (metric.timestamp, metric.step, metric.value) == (99, 3, 1.0)


def test_create_without_experiment(api):
    answer = api("POST", "runs/create", experiment_id="424242424", start_time=int(time.time() * 1000))
    assert answer.status_code == 404
    assert answer.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"

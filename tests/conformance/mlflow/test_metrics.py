"""Metrics: latest values, history, bulk reads, numbers that are none (T1)."""

import math

import pytest
from mlflow.entities import Metric


def test_latest_is_by_step_then_time_then_value(client, run):
    id = run.info.run_id
    for step, timestamp, value in [(1, 100, 1.0), (3, 50, 3.0), (2, 999, 2.0), (3, 60, 2.5), (3, 60, 2.75), (-5, 1000, 9.0)]:
        client.log_metric(id, "m", value, timestamp=timestamp, step=step)
    assert client.get_run(id).data.metrics == {"m": 2.75}
    history = [(m.timestamp, m.step, m.value) for m in client.get_metric_history(id, "m")]
    assert sorted(history) == sorted([(100, 1, 1.0), (50, 3, 3.0), (999, 2, 2.0), (60, 3, 2.5), (60, 3, 2.75), (1000, -5, 9.0)])


def test_not_numbers(client, run):
    id = run.info.run_id
    client.log_metric(id, "nan", math.nan)
    client.log_metric(id, "inf", math.inf)
    client.log_metric(id, "minus", -math.inf)
    metrics = client.get_run(id).data.metrics
    assert math.isnan(metrics["nan"])
    assert metrics["inf"] == 1.7976931348623157e308
    assert metrics["minus"] == -1.7976931348623157e308
    assert math.isnan(client.get_metric_history(id, "nan")[0].value)


def test_extreme_values_survive(client, run):
    id = run.info.run_id
    values = [5e-324, 1.7976931348623157e308, -0.0, 0.1 + 0.2, 1e16 + 1, 123456789.123456789]
    client.log_batch(id, metrics=[Metric(f"v{n}", v, 1, 2**62 + n) for n, v in enumerate(values)])
    metrics = client.get_run(id).data.metrics
    assert [metrics[f"v{n}"] for n in range(len(values))] == values
    assert client.get_metric_history(id, "v0")[0].step == 2**62


def test_long_history_pages(client, run, api):
    id = run.info.run_id
    for start in range(0, 5000, 1000):
        client.log_batch(id, metrics=[Metric("m", n * 0.5, n, n) for n in range(start, start + 1000)])
    client.log_batch(id, metrics=[Metric("m", 0.0, 0, 0), Metric("other", 1.0, 1, 1)])
    history = client.get_metric_history(id, "m")
    assert [m.step for m in history] == list(range(5000))
    assert [m.value for m in history[:3]] == [0.0, 0.5, 1.0]

    steps, token = [], None
    while True:
        body = {"run_id": id, "metric_key": "m", "max_results": 1700} | ({"page_token": token} if token else {})
        page = api("GET", "metrics/get-history", 200, **body).json()
        steps += [m["step"] for m in page["metrics"]]
        token = page.get("next_page_token")
        if not token:
            break
    assert steps == list(range(5000))
    assert api("GET", "metrics/get-history", run_id=id, metric_key="m", max_results=10, page_token="rubbish!").status_code == 400


def test_unknown_metric_has_an_empty_history(client, run):
    assert client.get_metric_history(run.info.run_id, "nothing") == []


def test_bulk_interval(client, experiment, http):
    runs = [client.create_run(experiment).info.run_id for _ in range(3)]
    for id in runs:
        client.log_batch(id, metrics=[Metric("m", float(n), n, n) for n in range(1000)])
    query = [("run_ids", id) for id in runs] + [("metric_key", "m"), ("start_step", 100), ("end_step", 899), ("max_results", 50)]
    answer = http.get("/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval", params=query)
    assert answer.status_code == 200, answer.text
    for id in runs:
        steps = [m["step"] for m in answer.json()["metrics"] if m["run_id"] == id]
        assert steps == sorted(steps) and steps[0] == 100 and steps[-1] == 899
        assert 10 <= len(steps) <= 60
    too_many = http.get("/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval",
                        params=[("run_ids", runs[0])] * 101 + [("metric_key", "m")])
    assert too_many.status_code == 400


def test_bulk(client, experiment, http):
    runs = [client.create_run(experiment).info.run_id for _ in range(2)]
    for id in runs:
        client.log_batch(id, metrics=[Metric("m", float(n), n, n) for n in range(10)])
    answer = http.get("/ajax-api/2.0/mlflow/metrics/get-history-bulk",
                      params=[("run_id", id) for id in runs] + [("metric_key", "m")])
    assert answer.status_code == 200, answer.text
    assert [m["step"] for m in answer.json()["metrics"] if m["run_id"] == runs[0]] == list(range(10))


def test_metric_of_a_logged_model(client, experiment, run):
    model = client.create_logged_model(experiment, name="m", source_run_id=run.info.run_id)
    client.log_metric(run.info.run_id, "auc", 0.9, step=1, model_id=model.model_id, dataset_name="d", dataset_digest="x")
    (metric,) = client.get_logged_model(model.model_id).metrics
    assert (metric.key, metric.value, metric.dataset_name) == ("auc", 0.9, "d")
    assert client.get_run(run.info.run_id).data.metrics == {"auc": 0.9}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", 1, 1.5, "2.5"])
def test_numbers_in_json(api, run, value):
    api("POST", "runs/log-metric", 200, run_id=run.info.run_id, key="m", value=value, timestamp=1)


@pytest.mark.parametrize("body", [{"key": "m", "value": "abc", "timestamp": 1}, {"key": "m", "timestamp": 1}, {"value": 1, "timestamp": 1}, {"key": "m", "value": 1},
                                  {"key": "m", "value": None, "timestamp": 1}, {"key": "m", "value": 1, "timestamp": "soon"},
                                  pytest.param({"key": "m", "value": 1, "timestamp": 1, "step": 1.5}, marks=pytest.mark.mainstay)])
def test_malformed_metrics(api, run, body):
    answer = api("POST", "runs/log-metric", run_id=run.info.run_id, **body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error_code"] in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")

"""Searching runs: the whole grammar, order, paging (T1)."""

import math

import pytest
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException


@pytest.fixture(scope="module")
def runs(client):
    """Ten runs r0..r9 whose values are chosen so that every clause can tell them apart."""
    import uuid

    experiment = client.create_experiment(f"search-{uuid.uuid4().hex[:8]}")
    ids = {}
    for n in range(10):
        run = client.create_run(experiment, run_name=f"Run {n}", start_time=1000 + n)
        id = run.info.run_id
        ids[id] = f"r{n}"
        metrics = [Metric("m", n / 10, 1, 0), Metric("with space", float(n), 1, 0)]
        if n == 7:
            metrics[0] = Metric("m", math.nan, 1, 0)
        if n == 8:
            metrics = metrics[1:]
        params = [Param("p", f"Value{n}"), Param("a.b", "x" if n % 2 else "y")] + ([Param("rare", "1")] if n == 3 else [])
        tags = [RunTag("t", "even" if n % 2 == 0 else "odd")] + ([RunTag("special", "it's")] if n == 4 else [])
        client.log_batch(id, metrics, params, tags)
        if n == 5:
            client.log_inputs(id, [DatasetInput(Dataset("train-set", "d1", "local", "{}"), [InputTag("mlflow.data.context", "train")]),
                                   DatasetInput(Dataset("eval-set", "d2", "local", "{}"), [InputTag("mlflow.data.context", "eval")])])
        if n == 9:
            client.set_terminated(id, "FAILED", end_time=5000)
    return client, experiment, ids


CASES = [
    # filter, expected runs in the default order (start time, newest first)
    ("", "9876543210"),
    ("metrics.m > 0.5", "96"),
    ("metrics.m >= 0.5 and metrics.m <= 0.6", "65"),
    ("metric.m = 0.1", "1"),
    ("metrics.m != 0.1", "97654320"),  # NaN is not 0.1
    ("metrics.m < 0.15", "10"),
    ("metrics.m > -1e3", "96543210"),
    ("metrics.`with space` > 7.5", "98"),
    ('metrics."with space" = 3', "3"),
    ("params.p = 'Value3'", "3"),
    ('param.p = "Value3"', "3"),
    ("parameters.p = 'value3'", ""),
    ("params.p LIKE 'Val%5'", "5"),
    ("params.p LIKE 'val%'", ""),
    ("params.p ILIKE 'val_e6'", "6"),
    ("params.p != 'Value0' AND params.p != 'Value9'", "87654321"),
    ("params.`a.b` = 'x'", "97531"),
    ("params.rare = '1'", "3"),
    ("params.rare != '2'", "3"),
    ("params.rare IS NULL AND metrics.m < 0.45", "4210"),
    ("params.rare IS NOT NULL", "3"),
    ("tags.t = 'odd'", "97531"),
    ("tag.t != 'odd'", "86420"),
    ('tags.special = "it\'s"', "4"),
    ("tags.special != 'x'", "4"),
    ("tags.special IS NULL AND tags.t = 'even'", "8620"),
    ("tags.mlflow.runName = 'Run 2'", "2"),
    ("attributes.status = 'FAILED'", "9"),
    ("status != 'FAILED'", "876543210"),
    ("attribute.start_time >= 1007", "987"),
    ("created < 1002", "10"),
    ("end_time > 0", "9"),
    ("run_name = 'Run 4'", "4"),
    ("attributes.`Run name` LIKE 'Run %' AND start_time < 1001", "0"),
    ("run_name ILIKE 'rUN 5'", "5"),
    ("dataset.name = 'train-set'", "5"),
    ("datasets.name LIKE '%-set'", "5"),
    ("dataset.digest IN ('d2', 'd9')", "5"),
    ("dataset.context = 'eval'", "5"),
    ("dataset.name = 'nothing'", ""),
    ("metrics.m > 0.1 AND params.`a.b` = 'x' AND tags.t = 'odd' AND status = 'RUNNING'", "53"),
]


@pytest.mark.parametrize("filter,expect", CASES, ids=[f or "everything" for f, _ in CASES])
def test_filter(runs, filter, expect):
    client, experiment, ids = runs
    found = client.search_runs([experiment], filter)
    assert "".join(ids[r.info.run_id][1:] for r in found) == expect


def test_run_id_lists(runs):
    client, experiment, ids = runs
    by_name = {name: id for id, name in ids.items()}
    some = f"('{by_name['r2']}', '{by_name['r4']}')"
    assert [ids[r.info.run_id] for r in client.search_runs([experiment], f"attributes.run_id IN {some}")] == ["r4", "r2"]
    assert len(client.search_runs([experiment], f"run_id NOT IN {some}")) == 8
    assert [ids[r.info.run_id] for r in client.search_runs([experiment], f"run_id = '{by_name['r1']}'")] == ["r1"]


ORDERS = [
    (["metrics.m"], "0123456978"),
    (["metrics.m DESC"], "9654321078"),
    (["params.p ASC"], "0123456789"),
    (["params.p DESC"], "9876543210"),
    (["params.`a.b` DESC", "metrics.`with space` DESC"], "8642097531"),
    (["tags.t DESC", "start_time ASC"], "1357902468"),
    (["attributes.start_time"], "0123456789"),
    (["end_time DESC"], "9876543210"),
    (["params.rare"], "3987654210"),
    (["params.rare DESC"], "3987654210"),
    (["status ASC", "run_name"], "9012345678"),
]


@pytest.mark.parametrize("order,expect", ORDERS, ids=[",".join(o) for o, _ in ORDERS])
def test_order(runs, order, expect):
    """Values, then NaN, then missing, in both directions; ties by start time, newest first."""
    client, experiment, ids = runs
    assert "".join(ids[r.info.run_id][1:] for r in client.search_runs([experiment], order_by=order)) == expect


def test_pages_have_the_whole_order(runs):
    client, experiment, ids = runs
    for size in (1, 3, 5, 10):
        seen, token = "", None
        while True:
            page = client.search_runs([experiment], max_results=size, order_by=["metrics.m DESC"], page_token=token)
            seen += "".join(ids[r.info.run_id][1:] for r in page)
            token = page.token
            if not token:
                break
        assert seen == "9654321078", size


def test_full_data_comes_back(runs):
    client, experiment, ids = runs
    (run,) = client.search_runs([experiment], "run_name = 'Run 5'")
    assert run.data.params == {"p": "Value5", "a.b": "x"}
    assert run.data.metrics == {"m": 0.5, "with space": 5.0}
    assert {d.dataset.name for d in run.inputs.dataset_inputs} == {"train-set", "eval-set"}


def test_views_and_several_experiments(client, unique):
    one, two = client.create_experiment(unique()), client.create_experiment(unique())
    kept, gone, other = client.create_run(one), client.create_run(one), client.create_run(two)
    client.delete_run(gone.info.run_id)
    ids = lambda found: {r.info.run_id for r in found}
    assert ids(client.search_runs([one])) == {kept.info.run_id}
    assert ids(client.search_runs([one], run_view_type=ViewType.DELETED_ONLY)) == {gone.info.run_id}
    assert ids(client.search_runs([one], run_view_type=ViewType.ALL)) == {kept.info.run_id, gone.info.run_id}
    assert ids(client.search_runs([one, two])) == {kept.info.run_id, other.info.run_id}
    assert ids(client.search_runs([])) == set()
    assert ids(client.search_runs(["987654321"])) == set()


def beyond(text):
    """Upstream lets these pass and answers something else than was asked."""
    return pytest.param(text, marks=pytest.mark.mainstay)


BAD = ["metrics.m", "metrics.m >", "metrics.m > 'abc'", "metrics.m LIKE 1", "params.p > 'a'", "params.p = 5", "params.p = abc",
       "tags.t = 'a' OR tags.t = 'b'", "(metrics.m > 1)", "nonsense.key = 1", "attributes.nonsense = '1'",
       "attributes.status > 'A'", "status IN ('FAILED')", "start_time = 'yesterday'", "start_time LIKE '1'",
       "params.p = 'open", beyond("metrics.m > 1 metrics.m < 2"), beyond("AND metrics.m > 1"), "dataset.nope = 'x'", "dataset.name > 'x'",
       "metrics.m = NULL", "run_id IN ()", beyond("metrics. > 1"), "= 5", "params.p IS 5", "💥", beyond("metrics.m > 1 AND AND metrics.m < 2")]


@pytest.mark.parametrize("filter", BAD)
def test_bad_filters(runs, filter):
    client, experiment, _ = runs
    with pytest.raises(MlflowException) as raised:
        client.search_runs([experiment], filter)
    assert raised.value.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"), raised.value


@pytest.mark.parametrize("order", ["metrics.m SIDEWAYS", "nonsense.x", "attributes.nope", "metrics.m ASC DESC", ""])
def test_bad_orders(runs, order):
    client, experiment, _ = runs
    with pytest.raises(MlflowException) as raised:
        client.search_runs([experiment], order_by=[order])
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE", raised.value


def test_bad_pages(runs, api):
    _, experiment, _ = runs
    for body in ({"max_results": 0}, {"max_results": 50_001}, {"max_results": -1}, {"page_token": "%%%"}, {"page_token": "AAAA"},
                 {"experiment_ids": "5"}, {"max_results": "many"}):
        answer = api("POST", "runs/search", **({"experiment_ids": [experiment], "max_results": 10} | body))
        assert answer.status_code == 400, (body, answer.text)


@pytest.mark.mainstay
def test_pages_neither_skip_nor_repeat_while_runs_arrive(client, unique):
    """Upstream's tokens are offsets; ours name a place."""
    experiment = client.create_experiment(unique())
    for n in range(1, 21):
        client.create_run(experiment, start_time=n)
    seen, token = [], None
    while True:
        page = client.search_runs([experiment], max_results=6, page_token=token)
        seen += [r.info.start_time for r in page]
        client.create_run(experiment, start_time=100 + len(seen))
        token = page.token
        if not token:
            break
    assert [s for s in seen if s < 100] == list(range(20, 0, -1))
    assert len(seen) == len(set(seen))

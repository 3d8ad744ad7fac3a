"""Experiments: create, find, rename, tag, delete, restore (T1, T3)."""

import threading

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException


def test_default_exists(client):
    default = client.get_experiment("0")
    assert (default.name, default.lifecycle_stage) == ("Default", "active")


def test_create_get_and_find_by_name(client, unique):
    name = unique("créé ☃ with spaces/and slashes")
    id = client.create_experiment(name, tags={"team": "risk", "empty": ""})
    found = client.get_experiment_by_name(name)
    assert found.experiment_id == id
    assert found.name == name
    assert found.tags == {"team": "risk", "empty": ""}
    assert found.artifact_location.startswith("mlflow-artifacts:/")
    assert found.creation_time == found.last_update_time > 1_700_000_000_000
    assert client.get_experiment(id).name == name
    assert client.get_experiment_by_name(unique("missing")) is None


def test_custom_artifact_location(client, unique):
    id = client.create_experiment(unique(), artifact_location="mlflow-artifacts:/elsewhere")
    assert client.get_experiment(id).artifact_location == "mlflow-artifacts:/elsewhere"
    run = client.create_run(id)
    assert run.info.artifact_uri == f"mlflow-artifacts:/elsewhere/{run.info.run_id}/artifacts"


def test_names_are_unique_also_against_deleted_ones(client, unique):
    name = unique()
    id = client.create_experiment(name)
    with pytest.raises(MlflowException) as raised:
        client.create_experiment(name)
    assert raised.value.error_code == "RESOURCE_ALREADY_EXISTS"
    client.delete_experiment(id)
    with pytest.raises(MlflowException) as raised:
        client.create_experiment(name)
    assert raised.value.error_code == "RESOURCE_ALREADY_EXISTS"


def test_concurrent_creation_has_one_winner(tracking_uri, unique):
    name, ids, errors = unique("race"), [], []

    def create():
        try:
            ids.append(MlflowClient(tracking_uri).create_experiment(name))
        except MlflowException as error:
            errors.append(error.error_code)

    threads = [threading.Thread(target=create) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(ids) == 1
    assert errors == ["RESOURCE_ALREADY_EXISTS"] * 7


def test_rename(client, unique):
    first, second = unique(), unique()
    id, other = client.create_experiment(first), client.create_experiment(second)
    renamed = unique("renamed")
    before = client.get_experiment(id).last_update_time
    client.rename_experiment(id, renamed)
    assert client.get_experiment(id).name == renamed
    assert client.get_experiment(id).last_update_time >= before
    assert client.get_experiment_by_name(first) is None
    client.create_experiment(first)  # the old name is free again
    with pytest.raises(MlflowException):
        client.rename_experiment(other, renamed)


def test_tags(client, experiment):
    client.set_experiment_tag(experiment, "a", "1")
    client.set_experiment_tag(experiment, "a", "2")
    client.set_experiment_tag(experiment, "b", "x" * 20_000)
    assert client.get_experiment(experiment).tags == {"a": "2", "b": "x" * 20_000}
    client.delete_experiment_tag(experiment, "a")
    assert set(client.get_experiment(experiment).tags) == {"b"}


def test_delete_cascades_and_restore_undoes_it(client, experiment):
    run = client.create_run(experiment)
    client.delete_experiment(experiment)
    assert client.get_experiment(experiment).lifecycle_stage == "deleted"
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "deleted"
    for attempt in (lambda: client.create_run(experiment), lambda: client.set_experiment_tag(experiment, "a", "b")):
        with pytest.raises(MlflowException) as raised:
            attempt()
        assert raised.value.error_code == "INVALID_PARAMETER_VALUE"
    client.restore_experiment(experiment)
    assert client.get_experiment(experiment).lifecycle_stage == "active"
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"


@pytest.mark.mainstay
def test_renaming_a_deleted_one_is_a_mistake_not_a_fault(client, experiment):
    """The upstream server answers 500, which its client retries for minutes."""
    client.delete_experiment(experiment)
    with pytest.raises(MlflowException) as raised:
        client.rename_experiment(experiment, "new name")
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"


def test_search(client, unique):
    stem = unique("search")
    ids = [client.create_experiment(f"{stem}-{n}", tags={"n": str(n), "stem": stem}) for n in range(5)]
    client.delete_experiment(ids[4])

    def check(expect, filter, **kwargs):
        found = client.search_experiments(filter_string=f"tags.stem = '{stem}' AND {filter}", **kwargs)
        assert [e.name.removeprefix(stem + "-") for e in found] == expect, (filter, kwargs)

    check(["3", "2", "1", "0"], "tags.stem LIKE '%'")
    check(["0", "1", "2", "3"], "tags.stem LIKE '%'", order_by=["name ASC"])
    check(["4"], "tags.stem LIKE '%'", view_type=ViewType.DELETED_ONLY)
    check(["4", "3", "2", "1", "0"], "tags.stem LIKE '%'", view_type=ViewType.ALL)
    check(["2"], "tags.n = '2'")
    check(["3", "1", "0"], "tag.n != '2'")
    check(["2"], f"name = '{stem}-2'")
    check(["2"], f"attribute.name ILIKE '{stem.upper()}-2'")
    check([], f"name LIKE '{stem.upper()}-2'")
    check(["1"], f"experiment_id IN ('{ids[1]}')")
    check(["3", "2", "1", "0"], "creation_time > 0")
    check([], "last_update_time < 0")
    check([], "tags.missing IS NOT NULL")
    check(["0"], "tags.missing IS NULL AND tags.n = '0'")

    pages, token = [], None
    while True:
        page = client.search_experiments(filter_string=f"tags.stem = '{stem}'", max_results=3, page_token=token)
        pages.append([e.name.removeprefix(stem + "-") for e in page])
        token = page.token
        if not token:
            break
    assert pages == [["3", "2", "1"], ["0"]]


@pytest.mark.parametrize("filter", ["name = 5", "nonsense", "name >", "tags.a = 'b' OR name = 'c'", "metrics.a > 1",
                                    pytest.param("name = 'a' AND", marks=pytest.mark.mainstay), "experiment_id > '3'"])
def test_bad_filters(client, filter):
    with pytest.raises(MlflowException) as raised:
        client.search_experiments(filter_string=filter)
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"


def test_bad_arguments(api):
    def check(path, body, code=400):
        answer = api("POST", path, **body)
        assert answer.status_code == code, answer.text
        assert set(answer.json()) >= {"error_code", "message"}
        return answer.json()

    assert "Missing value for required parameter 'name'" in check("experiments/create", {})["message"]
    assert "Invalid value 123 for parameter 'name' supplied" in check("experiments/create", {"name": 123})["message"]
    check("experiments/create", {"name": ""})
    check("experiments/create", {"name": "x" * 501})
    check("experiments/search", {"max_results": 0})
    check("experiments/search", {"max_results": 50_001})
    check("experiments/search", {"max_results": 5, "page_token": "garbage"})
    check("experiments/delete", {"experiment_id": "999999999"}, 404)
    check("experiments/update", {"experiment_id": "999999999", "new_name": "x"}, 404)
    assert api("GET", "experiments/get", experiment_id="999999999").status_code == 404
    assert api("GET", "experiments/get-by-name", experiment_name="no such").status_code == 404

"""Many clients at once: what does not depend on each other succeeds, and what does comes out as if one after the other.

The client does not repeat 409, so a conflict that the server could have settled would end somebody's training.
"""

import concurrent.futures
import json
import threading

import pytest

THREADS = 16
EACH = 12


@pytest.fixture
def storm(http):
    """`request(thread, number)` → method, endpoint, body; from all threads at once. Every answer must be 200."""
    import httpx

    def run(request, expect=(200,)):
        ready = threading.Barrier(THREADS)

        def work(thread):
            answers = []
            with httpx.Client(base_url=http.base_url, timeout=60) as mine:
                ready.wait()
                for number in range(EACH):
                    method, endpoint, body = request(thread, number)
                    answers.append(mine.request(method, f"/api/2.0/mlflow/{endpoint}", json=body))
            return answers

        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            answers = [answer for some in pool.map(work, range(THREADS)) for answer in some]
        odd = [f"{a.status_code}: {a.text}" for a in answers if a.status_code not in expect]
        assert not odd, f"{len(odd)} of {len(answers)}, for example {odd[0]}"
        return answers

    return run


@pytest.fixture
def model(client, unique):
    name = unique("busy")
    client.create_registered_model(name)
    client.create_model_version(name, "s3://bucket/model")
    return name


pytestmark = pytest.mark.mainstay  # upstream's sqlite answers such storms with "database is locked"


def test_experiments_with_names_of_their_own(storm, unique):
    stem = unique("storm")
    answers = storm(lambda t, n: ("POST", "experiments/create", {"name": f"{stem}-{t}-{n}"}))
    ids = [answer.json()["experiment_id"] for answer in answers]
    assert len(set(ids)) == THREADS * EACH, "no id is given twice"


def test_one_of_those_who_create_the_same_experiment_wins(storm, unique, client):
    stem = unique("race")
    answers = storm(lambda t, n: ("POST", "experiments/create", {"name": f"{stem}-{n}"}), expect=(200, 400))
    assert sum(answer.status_code == 200 for answer in answers) == EACH
    assert {a.json()["error_code"] for a in answers if a.status_code == 400} == {"RESOURCE_ALREADY_EXISTS"}
    assert len(client.search_experiments(filter_string=f"name LIKE '{stem}%'")) == EACH


def test_versions_of_one_model(storm, model, client, run):
    """Of one run, so that they share what the host knows of it, too."""
    source = {"source": f"runs:/{run.info.run_id}/model", "run_id": run.info.run_id}
    answers = storm(lambda t, n: ("POST", "model-versions/create", {"name": model, **source}))
    versions = sorted(int(answer.json()["model_version"]["version"]) for answer in answers)
    assert versions == list(range(2, THREADS * EACH + 2)), "no gaps and no twins"


def test_inputs_of_one_run(storm, run, client):
    def request(thread, number):
        dataset = {"name": "data", "digest": f"{thread}-{number}", "source_type": "local", "source": "{}"}
        return "POST", "runs/log-inputs", {"run_id": run.info.run_id, "datasets": [{"tags": [], "dataset": dataset}]}

    storm(request)
    assert len(client.get_run(run.info.run_id).inputs.dataset_inputs) == THREADS * EACH


def test_aliases_of_one_model(storm, model, client):
    storm(lambda t, n: ("POST", "registered-models/alias", {"name": model, "alias": f"a{t}-{n}", "version": "1"}))
    assert len(client.get_registered_model(model).aliases) == THREADS * EACH


def test_one_alias_that_all_move(storm, model, client):
    storm(lambda t, n: ("POST", "registered-models/alias", {"name": model, "alias": "best", "version": "1"}))
    assert client.get_registered_model(model).aliases == {"best": "1"}


@pytest.mark.parametrize("of", ["registered-models/set-tag", "model-versions/set-tag", "runs/set-tag",
                                "experiments/set-experiment-tag"])
def test_tags_of_one_thing(storm, model, run, experiment, client, of):
    body = {"registered-models/set-tag": {"name": model}, "model-versions/set-tag": {"name": model, "version": "1"},
            "runs/set-tag": {"run_id": run.info.run_id},
            "experiments/set-experiment-tag": {"experiment_id": experiment}}[of]
    storm(lambda t, n: ("POST", of, {**body, "key": f"k{t}-{n}", "value": "v"}))
    tags = {"registered-models/set-tag": lambda: client.get_registered_model(model).tags,
            "model-versions/set-tag": lambda: client.get_model_version(model, "1").tags,
            "runs/set-tag": lambda: client.get_run(run.info.run_id).data.tags,
            "experiments/set-experiment-tag": lambda: client.get_experiment(experiment).tags}[of]()
    assert sum(key.startswith("k") for key in tags) == THREADS * EACH


def test_everything_about_one_model_at_once(storm, model):
    def request(thread, number):
        return [
            ("POST", "model-versions/create", {"name": model, "source": "s3://bucket/model"}),
            ("POST", "registered-models/alias", {"name": model, "alias": f"a{thread}", "version": "1"}),
            ("POST", "model-versions/set-tag", {"name": model, "version": "1", "key": f"k{thread}", "value": str(number)}),
            ("PATCH", "registered-models/update", {"name": model, "description": f"{thread} {number}"}),
            ("POST", "model-versions/transition-stage", {"name": model, "version": "1", "stage": "Staging",
                                                         "archive_existing_versions": False}),
            ("POST", "registered-models/set-tag", {"name": model, "key": f"k{thread}", "value": str(number)}),
        ][(thread + number) % 6]

    storm(request)


def test_equal_files_of_one_experiment(http, experiment, client):
    """Their bytes are counted together."""
    root = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/r/artifacts"
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda n: http.put(f"{root}/{n}/model.bin", content=b"equal" * 1000), range(THREADS * 4)))
    assert {answer.status_code for answer in answers} == {200}, [a.text for a in answers if a.status_code != 200][:1]
    assert http.get(f"/plugins/tracking/quotas/{experiment}").json()["used_bytes"] == 5000


def test_the_real_client_trains_in_many_threads(client, experiment, model):
    from mlflow.entities import Dataset, DatasetInput, Metric, Param

    def train(number):
        run = client.create_run(experiment, run_name=f"r{number}")
        id = run.info.run_id
        client.log_batch(id, [Metric("loss", 1 / (step + 1), step, step) for step in range(20)], [Param("n", str(number))])
        client.log_inputs(id, [DatasetInput(Dataset("shared", "digest", "local", "{}"), [])])
        client.log_text(id, json.dumps(number), "out/n.json")
        version = client.create_model_version(model, f"runs:/{id}/model", run_id=id)
        client.set_model_version_tag(model, version.version, "n", str(number))
        client.set_registered_model_alias(model, f"n{number}", version.version)
        client.set_terminated(id)
        return int(version.version)

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        versions = list(pool.map(train, range(THREADS)))
    assert len(set(versions)) == THREADS
    aliases = client.get_registered_model(model).aliases
    assert {aliases[f"n{number}"] for number in range(THREADS)} == {str(version) for version in versions}

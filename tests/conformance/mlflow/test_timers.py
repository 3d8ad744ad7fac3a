"""Beyond the upstream server: what the plugin does by itself when its time comes. An operator asks for the time now."""

import tempfile
import time

import httpx
import pytest
from mlflow import MlflowClient

pytestmark = pytest.mark.mainstay


@pytest.fixture(scope="module")
def ticking(start_server):
    """A server of its own, and a way to let a timer's time come."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        server = start_server(folder)
        with httpx.Client(base_url=server.url, timeout=30) as http:

            def tick(timer):
                started = http.post(f"/-/jobs/plugin%2Ftracking%2Ftimer%2F{timer}/runs", json={})
                assert started.status_code < 300, started.text
                run, end = started.json()["run"], time.monotonic() + 30
                while True:
                    state = http.get(f"/-/runs/{run}").json()
                    if "ended" in str(state["state"]):
                        assert "success" in str(state["state"]), state
                        return
                    assert time.monotonic() < end, state
                    time.sleep(0.05)

            yield http, tick
        server.process.terminate()
        assert server.process.wait(20) == 0


def test_what_was_deleted_long_ago_goes_by_itself(ticking):
    http, tick = ticking
    client = MlflowClient(str(http.base_url), str(http.base_url))
    gone, kept = client.create_run("0").info.run_id, client.create_run("0").info.run_id
    client.create_registered_model("keeps")
    client.create_model_version("keeps", f"runs:/{kept}/model", run_id=kept)
    client.delete_run(gone)
    client.delete_run(kept)
    tick("remove-deleted")
    assert client.get_run(gone).info.lifecycle_stage == "deleted", "it can be restored for 30 days"
    assert http.put("/-/plugins/tracking/config", json={"retention-days": 0}).status_code == 200
    tick("remove-deleted")
    assert http.get("/api/2.0/mlflow/runs/get", params={"run_id": gone}).status_code == 404
    assert client.get_run(kept).info.lifecycle_stage == "deleted", "a version comes from it"


def test_a_run_at_work_is_left_alone(ticking):
    http, tick = ticking
    client = MlflowClient(str(http.base_url), str(http.base_url))
    run = client.create_run("0").info.run_id
    tick("close-stale-runs")
    assert client.get_run(run).info.status == "RUNNING"

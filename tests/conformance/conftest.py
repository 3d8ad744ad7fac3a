"""One server and one environment for the whole suite.

`MAINSTAY_BIN` names the binary to start on a fresh folder. `CONFORMANCE_URL` instead points the suite at a server that is
already running; with `CONFORMANCE_PEER=1` that server is the upstream one, and tests marked `mainstay` are skipped: so the
suite itself is checked against the reference.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import time
import uuid

import pytest

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # a retried mistake must show, not hide
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow  # noqa: E402  before any test module: a folder here has the same name

PEER = os.environ.get("CONFORMANCE_PEER") == "1"


def pytest_collection_modifyitems(items):
    if PEER:
        for item in items:
            if "mainstay" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="goes beyond the upstream server"))


class Server:
    """A running server: its address, and its process when the suite started it."""

    def __init__(self, url, process=None, data=None):
        self.url, self.process, self.data = url, process, data


def start(data, *flags, wait_s=60):
    """Start the binary on `data` and wait until it says that it is ready."""
    ready = pathlib.Path(data) / "ready.json"
    ready.unlink(missing_ok=True)
    log = open(pathlib.Path(data) / "server.log", "ab")
    process = subprocess.Popen(
        [os.environ["MAINSTAY_BIN"], "serve", "--data", str(pathlib.Path(data) / "data"), "--listen", "127.0.0.1:0",
         "--grpc", "127.0.0.1:0", "--ready-file", str(ready), *flags],
        stdout=log, stderr=log)
    end = time.monotonic() + wait_s
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise RuntimeError(f"the server did not start:\n{(pathlib.Path(data) / 'server.log').read_text()[-4000:]}")
        time.sleep(0.02)
    return Server(json.loads(ready.read_text())["http"], process, data)


@pytest.fixture(scope="session")
def server():
    if url := os.environ.get("CONFORMANCE_URL"):
        yield Server(url)
        return
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        server = start(folder)
        yield server
        server.process.terminate()
        assert server.process.wait(20) == 0


@pytest.fixture(scope="session")
def start_server():
    """For tests that need a server of their own: `start`."""
    if "MAINSTAY_BIN" not in os.environ:
        pytest.skip("needs a server of its own: set MAINSTAY_BIN")
    return start


ROLES = ("viewer", "editor", "admin")


@pytest.fixture(scope="session")
def guarded():
    """A second server, which wants tokens and protects pointers by the example of the configuration reference, as it is
    printed there. `tokens` has one for each role."""
    if "MAINSTAY_BIN" not in os.environ:
        pytest.skip("needs a server of its own: set MAINSTAY_BIN")
    reference = pathlib.Path(__file__).parents[2] / "docs/reference/config.md"
    example = reference.read_text().split("For example:\n\n```toml\n")[1].split("```")[0]
    assert example.count("[[protect]]") == 1
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        config = pathlib.Path(folder) / "mainstay.toml"
        config.write_text(f'[auth]\nrequired = "always"\n\n{example}')
        # Before the start: it refuses to serve where tokens are wanted and there is none.
        create = [os.environ["MAINSTAY_BIN"], "token", "create", "--data", str(pathlib.Path(folder) / "data"), "--role"]
        tokens = {role: subprocess.check_output([*create, role, f"the-{role}"], text=True).strip() for role in ROLES}
        server = start(folder, "--config", str(config))
        server.tokens = tokens
        yield server
        server.process.terminate()
        assert server.process.wait(20) == 0


@pytest.fixture
def as_role(guarded, monkeypatch):
    """The real client of the guarded server, with the token of a role: as a bearer token, or as a password."""
    from mlflow import MlflowClient

    def client(role, scheme="bearer"):
        for name in ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            monkeypatch.delenv(name, raising=False)
        if scheme == "bearer":
            monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", guarded.tokens.get(role, role))
        elif scheme == "basic":
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anybody")
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", guarded.tokens.get(role, role))
        return MlflowClient(guarded.url, guarded.url)

    return client


@pytest.fixture
def guarded_http(guarded):
    """Raw calls to the guarded server, as admin."""
    import httpx

    with httpx.Client(base_url=guarded.url, timeout=30, headers={"authorization": f"Bearer {guarded.tokens['admin']}"}) as http:
        yield http


@pytest.fixture(scope="session")
def tracking_uri(server):
    mlflow.set_tracking_uri(server.url)
    mlflow.set_registry_uri(server.url)
    return server.url


@pytest.fixture(scope="session")
def client(tracking_uri):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri)


@pytest.fixture
def unique():
    """A name nobody used yet: tests share one server."""
    return lambda stem="name": f"{stem}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def experiment(client, unique):
    return client.create_experiment(unique("experiment"))


@pytest.fixture
def run(client, experiment):
    return client.create_run(experiment)


@pytest.fixture(scope="session")
def http(server):
    import httpx

    with httpx.Client(base_url=server.url, timeout=30) as http:
        yield http


@pytest.fixture
def api(http):
    """A raw call, for what the client would never send."""

    def call(method, endpoint, expect=None, **body):
        url = f"/api/2.0/mlflow/{endpoint}"
        answer = http.request(method, url, params=body) if method == "GET" else http.request(method, url, json=body)
        if expect is not None:
            assert answer.status_code == expect, f"{answer.status_code}: {answer.text}"
        return answer

    return call

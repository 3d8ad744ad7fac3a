"""The real binary with endpoints, and the real client of the Open Inference Protocol.

`MAINSTAY_BIN` names the binary, which is started on a fresh folder. Without it, or without the client,
nothing is collected: other suites beside this one need other packages.
"""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import time

import pytest

MODELS = pathlib.Path(__file__).parents[3] / "host" / "models" / "tests" / "data"

if "MAINSTAY_BIN" not in os.environ or importlib.util.find_spec("tritonclient") is None:
    collect_ignore_glob = ["test_*.py"]


class Server:
    """A running server on a folder."""

    def __init__(self, folder, plugins="none"):
        self.folder = pathlib.Path(folder)
        self.listen, self.plugins = "127.0.0.1:0", plugins
        self.environment = os.environ | {"MAINSTAY_DATA": str(self.folder / "data")}
        self.start()

    def start(self):
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                [os.environ["MAINSTAY_BIN"], "serve", "--listen", self.listen, "--grpc", "127.0.0.1:0", "--plugins", self.plugins,
                 "--ready-file", str(ready)], env=self.environment, stdout=log, stderr=log)
        end = time.monotonic() + 60
        while not ready.exists():
            assert self.process.poll() is None and time.monotonic() < end, (self.folder / "server.log").read_text()[-4000:]
            time.sleep(0.02)
        told = json.loads(ready.read_text())
        self.http, self.grpc = told["http"].removeprefix("http://"), told["grpc"].removeprefix("http://")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def cli(self, *arguments):
        """What a command prints; it must succeed."""
        done = subprocess.run([os.environ["MAINSTAY_BIN"], *arguments], env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def refused(self, *arguments):
        """What a command says that must not succeed."""
        done = subprocess.run([os.environ["MAINSTAY_BIN"], *arguments], env=self.environment, capture_output=True, text=True)
        assert done.returncode != 0, f"{arguments}: {done.stdout}"
        return done.stdout + done.stderr

    def import_model(self, name, file):
        """A version of a model out of a file of the importers' tests."""
        folder = self.folder / f"{name}-{time.monotonic_ns()}"
        folder.mkdir()
        path = folder / f"model{pathlib.Path(file).suffix}"
        shutil.copy(MODELS / file, path)
        return self.cli("model", "import", name, str(path))

    def apply(self, text):
        path = self.folder / f"endpoint-{time.monotonic_ns()}.toml"
        path.write_text(text)
        return self.cli("endpoint", "apply", str(path))


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.process.terminate()
    assert server.process.wait(20) == 0, (tmp_path / "server.log").read_text()[-4000:]

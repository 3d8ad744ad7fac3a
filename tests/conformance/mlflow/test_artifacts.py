"""Artifacts by the proxied scheme (T1, T4)."""

import hashlib
import os

import mlflow
import pytest
from mlflow.exceptions import MlflowException

PROXY = "/api/2.0/mlflow-artifacts/artifacts"


def path_of(run):
    return f"{PROXY}/{run.info.artifact_uri.removeprefix('mlflow-artifacts:/')}"


def test_round_trip(client, run, tmp_path):
    id = run.info.run_id
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "a.txt").write_text("hello")
    (tmp_path / "folder" / "deep" / "ünï cödé +&%.bin").write_bytes(os.urandom(3_000_000))
    (tmp_path / "folder" / "empty").write_bytes(b"")
    client.log_artifacts(id, tmp_path / "folder", "out")
    client.log_artifact(id, tmp_path / "folder" / "a.txt")
    client.log_text(id, "some text", "notes/today.txt")
    client.log_dict(id, {"a": 1}, "d.json")

    listed = {f.path: (f.is_dir, f.file_size) for f in client.list_artifacts(id)}
    assert listed == {"a.txt": (False, 5), "d.json": (False, listed["d.json"][1]), "notes": (True, None), "out": (True, None)}
    assert {f.path for f in client.list_artifacts(id, "out")} == {"out/a.txt", "out/deep", "out/empty"}
    assert client.list_artifacts(id, "nothing") == []
    assert client.list_artifacts(id, "a.txt") == []

    back = client.download_artifacts(id, "out", tmp_path / "back" if (tmp_path / "back").mkdir() is None else None)
    for name in ("a.txt", "deep/ünï cödé +&%.bin", "empty"):
        assert open(os.path.join(back, name), "rb").read() == (tmp_path / "folder" / name).read_bytes(), name
    assert mlflow.artifacts.load_text(f"runs:/{id}/notes/today.txt") == "some text"


def test_overwrite_and_delete(client, run, http):
    id = run.info.run_id
    client.log_text(id, "one", "f.txt")
    client.log_text(id, "two", "f.txt")
    assert mlflow.artifacts.load_text(f"runs:/{id}/f.txt") == "two"
    assert http.delete(f"{path_of(run)}/f.txt").status_code == 200
    assert client.list_artifacts(id) == []
    assert http.get(f"{path_of(run)}/f.txt").status_code == 404


def test_raw_put_and_get(run, http):
    body = os.urandom(100_000)
    put = http.put(f"{path_of(run)}/x/raw.bin", content=body, headers={"Content-Type": "application/octet-stream"})
    assert put.status_code == 200
    got = http.get(f"{path_of(run)}/x/raw.bin")
    assert got.content == body
    listed = http.get(PROXY, params={"path": path_of(run).removeprefix(PROXY + "/") + "/x"}).json()
    assert listed == {"files": [{"path": "raw.bin", "is_dir": False, "file_size": 100_000}]}
    assert http.get(PROXY, params={"path": path_of(run).removeprefix(PROXY + "/") + "/none"}).json() == {}


def test_artifacts_list(client, run, api):
    client.log_text(run.info.run_id, "x", "a/b.txt")
    answer = api("GET", "artifacts/list", 200, run_id=run.info.run_id, path="a").json()
    assert answer["root_uri"] == run.info.artifact_uri
    assert answer["files"] == [{"path": "a/b.txt", "is_dir": False, "file_size": 1}]


@pytest.mark.parametrize("path", ["../../secret", "%2e%2e/secret", "a/..%2f..%2fsecret", "%2e%2e%2fsecret"])
def test_traversal_is_refused(run, server, path):
    """With a bare socket: client libraries would clean the path first."""
    import http.client
    import urllib.parse

    for method in ("GET", "PUT", "DELETE"):
        connection = http.client.HTTPConnection(urllib.parse.urlparse(server.url).netloc)
        connection.putrequest(method, f"{path_of(run)}/{path}", skip_accept_encoding=True)
        connection.putheader("Content-Length", "1" if method == "PUT" else "0")
        connection.endheaders(b"x" if method == "PUT" else None)
        assert connection.getresponse().status in (400, 404), (method, path)


def test_missing_artifact(client, run, tmp_path):
    with pytest.raises(MlflowException):
        client.download_artifacts(run.info.run_id, "nothing.txt", tmp_path)


def test_multipart_falls_back(run, http):
    """The client tries this for large files when told to, and falls back on 501 with this text."""
    answer = http.post("/api/2.0/mlflow-artifacts/mpu/create/0/x/artifacts", json={"path": "big", "num_parts": 2})
    assert answer.status_code == 501
    assert answer.json()["message"].startswith("Multipart upload is not supported for the current artifact repository")


@pytest.mark.mainstay
def test_stored_once_by_content(client, experiment, http, server, tmp_path):
    """The same checkpoint logged every epoch costs its unique bytes."""
    checkpoint = tmp_path / "checkpoint.bin"
    checkpoint.write_bytes(os.urandom(4_000_000))
    before = stored_bytes(server)
    for epoch in range(5):
        run = client.create_run(experiment)
        client.log_artifact(run.info.run_id, checkpoint, f"epoch-{epoch}")
    if before is not None:
        assert stored_bytes(server) - before == 4_000_000
    etag = http.get(f"{path_of(run)}/epoch-4/checkpoint.bin").headers["etag"]
    assert hashlib.sha256(checkpoint.read_bytes()).hexdigest() in etag


def stored_bytes(server):
    if server.data is None:
        return None
    blobs = os.path.join(server.data, "data", "blobs")
    return sum(os.path.getsize(os.path.join(folder, f)) for folder, _, files in os.walk(blobs) for f in files)


@pytest.mark.mainstay  # upstream fails with 500, which clients repeat
def test_a_name_is_a_file_or_a_directory(client, run, http, tmp_path):
    """Or what was logged could not be downloaded."""
    id = run.info.run_id
    client.log_text(id, "x", "a")
    client.log_text(id, "x", "deep/er/file")
    for path, names in (("a/b", "a"), ("a/b/c", "a"), ("deep", "deep/er/file"), ("deep/er", "deep/er/file")):
        with pytest.raises(Exception, match=f"400.*'[^']*/artifacts/{names}'"):
            client.log_text(id, "x", path)
    for slashed in ("", "new/", "deep/"):
        assert http.put(f"{path_of(run)}/{slashed}", content=b"x").status_code == 400, slashed
    assert {f.path for f in client.list_artifacts(id)} == {"a", "deep"}
    back = client.download_artifacts(id, "", str(tmp_path))
    assert sorted(os.path.relpath(os.path.join(at, f), back) for at, _, files in os.walk(back) for f in files) == [
        "a", "deep/er/file"]


@pytest.mark.mainstay
def test_parts_of_an_artifact(run, http):
    http.put(f"{path_of(run)}/f.bin", content=bytes(range(100)))
    part = http.get(f"{path_of(run)}/f.bin", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    assert part.headers["content-range"] == "bytes 10-19/100"
    whole = http.get(f"{path_of(run)}/f.bin")
    assert http.get(f"{path_of(run)}/f.bin", headers={"If-None-Match": whole.headers["etag"]}).status_code == 304


def test_large_file(client, run, tmp_path):
    """Streams: 200 MB neither fit in a plugin nor need to."""
    big = tmp_path / "big.bin"
    chunk = os.urandom(1_000_000)
    with open(big, "wb") as file:
        for _ in range(200):
            file.write(chunk)
    client.log_artifact(run.info.run_id, big)
    back = client.download_artifacts(run.info.run_id, "big.bin", str(tmp_path))
    digest = lambda p: hashlib.file_digest(open(p, "rb"), "sha256").hexdigest()
    assert digest(back) == digest(big)

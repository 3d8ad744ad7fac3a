"""The main job, told once from end to end with the unmodified client.

A data scientist predicts from census data who is employed: trains a small sweep with nested runs, logs each model in its
sklearn and ONNX form, registers the best with an alias and the tags that make its lineage, loads it back by alias, and
compares. Then its predictions are kept, labels arrive late, and a scheduled job judges them; and the model's ONNX form answers
Triton's client behind an endpoint. `MLFLOW_TRACKING_URI` says where the server is; nothing else here knows which server it is.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

warnings.filterwarnings("ignore", category=UserWarning)

import mlflow  # noqa: E402
import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import pandas as pd  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from skl2onnx import to_onnx  # noqa: E402
from skl2onnx.common.data_types import FloatTensorType  # noqa: E402
from sklearn.ensemble import GradientBoostingClassifier  # noqa: E402
from sklearn.metrics import log_loss, roc_auc_score  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data" / "employment_2015.parquet"
MODEL = "employment"
SWEEP = [{"max_depth": 2, "n_estimators": 40}, {"max_depth": 3, "n_estimators": 60}, {"max_depth": 4, "n_estimators": 60}]


def main():
    started = time.monotonic()
    client = MlflowClient()
    say(1, f"Server: {mlflow.get_tracking_uri()}")

    frame, digest = load()
    features = [c for c in frame.columns if c not in ("id", "year", "employed")]
    X, y = frame[features].astype("float32"), frame["employed"]
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=7, stratify=y)
    say(2, f"Data: {len(frame):,} people, {len(features)} features, sha256 {digest[:12]}…")

    experiment = mlflow.set_experiment("employment")
    with mlflow.start_run(run_name="sweep", tags=lineage(digest)) as sweep:
        mlflow.log_input(mlflow.data.from_pandas(frame, source=str(DATA.name), name="census-2015", digest=digest[:36]), context="training")
        say(3, f"Training {len(SWEEP)} candidates as nested runs of {sweep.info.run_name!r}")
        for params in SWEEP:
            train(params, digest, frame, X_train, X_test, y_train, y_test)

    best = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{sweep.info.run_id}'",
                              order_by=["metrics.auc DESC"], max_results=1)[0]
    auc = best.data.metrics["auc"]
    say(4, f"Best: {best.info.run_name}, AUC {auc:.4f}")

    registered = mlflow.register_model(f"runs:/{best.info.run_id}/model", MODEL)
    client.set_model_version_tag(MODEL, registered.version, "data-sha256", digest)
    client.update_model_version(MODEL, registered.version, f"Best of {len(SWEEP)} by AUC on the held-out 30 %.")
    client.set_registered_model_alias(MODEL, "champion", registered.version)
    say(5, f"Registered: models:/{MODEL}@champion is version {registered.version}")

    champion = mlflow.sklearn.load_model(f"models:/{MODEL}@champion")
    loaded_auc = roc_auc_score(y_test, champion.predict_proba(X_test)[:, 1])
    labels = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion").predict(X_test)
    onnx = mlflow.onnx.load_model(f"runs:/{best.info.run_id}/model-onnx")
    if abs(loaded_auc - auc) > 1e-12 or (labels != champion.predict(X_test)).any():
        sys.exit(f"The model that came back is not the one that was logged: AUC {loaded_auc} instead of {auc}.")
    session = onnxruntime.InferenceSession(onnx.SerializeToString())
    onnx_labels = session.run(None, {"input": X_test.to_numpy(np.float32)})[0]
    agree = (onnx_labels == labels).mean()
    say(6, f"Loaded back by alias: AUC {loaded_auc:.4f}, the same labels on all {len(X_test):,} held-out rows; "
           f"the ONNX form agrees on {agree:.2%}")

    apart = predicted_by_us(onnx, X_test, champion.predict_proba(X_test))
    say(7, f"Predicted in process, without Python: at most {apart:.1e} from sklearn's probabilities on the same rows")

    version = client.get_model_version_by_alias(MODEL, "champion")
    run = client.get_run(version.run_id)
    say(8, f"Lineage: version {version.version} ← run {run.info.run_id[:8]} ← commit {run.data.tags['mlflow.source.git.commit'][:10]}"
           f" ← data {run.data.tags['data-sha256'][:12]}")
    watch(version, run, X_test, y_test, champion.predict_proba(X_test)[:, 1], auc)
    serve(client, best, X_test, champion.predict_proba(X_test))
    summary = {"model": MODEL, "version": str(version.version), "auc": auc, "run_id": run.info.run_id,
               "seconds": round(time.monotonic() - started, 1)}
    print(json.dumps(summary))


def predicted_by_us(onnx, rows, expected):
    """The ONNX form through the host's own kernels; how far its probabilities are from sklearn's, at most."""
    with tempfile.TemporaryDirectory() as folder:
        model, table = pathlib.Path(folder, "model.onnx"), pathlib.Path(folder, "rows.csv")
        model.write_bytes(onnx.SerializeToString())
        rows.to_csv(table, index=False)
        command = [os.environ["MAINSTAY_BIN"], "model", "predict", str(model), "--rows", str(table)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = np.array([[float(cell) for cell in line.split(",")] for line in printed.splitlines()])
    apart = np.abs(found - expected).max()
    if found.shape != expected.shape or apart > 1e-6:
        sys.exit(f"The model predicts something else in process: {found.shape} values, at most {apart} apart.")
    return apart


def watch(version, run, rows, truth, scores, expected):
    """The predictions land in a log, labels arrive later, and a scheduled job judges the one by the other."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        fields = [{"name": name, "kind": "real"} for name in rows.columns]
        write(folder / "log.json", {"features": fields, "outputs": [{"name": "score", "kind": "real"}], "keep-days": 400})
        mainstay("predictions", "apply", MODEL, folder / "log.json")
        made = [{"id": f"person-{at}", "model": MODEL, "version": str(version.version), "features": values, "outputs": {"score": score}}
                for at, values, score in zip(rows.index, rows.to_dict("records"), scores.tolist())]
        write_lines(folder / "predictions.jsonl", made)
        mainstay("predictions", "post", MODEL, folder / "predictions.jsonl")

        # Late, out of order, and a tenth of them twice; one in a hundred is wrong at first and corrected later.
        now = time.time_ns() // 1000
        labels = [{"id": f"person-{at}", "name": "label", "value": float(label), "time-us": now} for at, label in truth.items()]
        wrong = [{**label, "value": 1 - label["value"], "time-us": now - 1_000_000} for label in labels[::100]]
        order = np.random.default_rng(7).permutation(len(labels))
        write_lines(folder / "labels.jsonl", [labels[at] for at in order] + labels[::10] + wrong)
        mainstay("predictions", "outcomes", MODEL, folder / "labels.jsonl")

        job = {"name": "employment-auc", "action": {"kind": "plugin", "settings": {"plugin": "evaluation"}},
               "parameters": {"log": MODEL, "output": "score", "outcome": "label"},
               "triggers": [{"kind": "interval", "every-ms": 1000}], "attempt-timeout-ms": 60_000}
        write_toml(folder / "jobs.toml", job)
        mainstay("job", "apply", folder / "jobs.toml")
        ended = scheduled_run(job["name"])
        mainstay("job", "remove", job["name"])
    by_kernel = ended["state"]["result"]
    by_sql = json.loads(mainstay("sql", AUC_BY_SQL.format(log=MODEL), "--format", "json"))[0]
    if by_kernel["labelled"] != len(truth) or by_sql["labelled"] != len(truth):
        sys.exit(f"Of {len(truth)} labels the kernel has {by_kernel['labelled']} and SQL {by_sql['labelled']}.")
    apart = max(abs(by_kernel["auc"] - by_sql["auc"]), abs(by_kernel["auc"] - expected))
    if apart > 1e-9:
        sys.exit(f"AUC is {by_kernel['auc']} by kernel, {by_sql['auc']} by SQL, {expected} by sklearn.")
    say(9, f"Watched: {len(made):,} predictions in a table, {len(order) + len(labels[::10]) + len(wrong):,} labels posted late, twice or"
           f" wrong at first; a scheduled job says AUC {by_kernel['auc']:.4f} [{by_kernel['low']:.4f}, {by_kernel['high']:.4f}]"
           f" by kernel, SQL over the same tables says the same ({apart:.0e} apart)")


def serve(client, run, rows, expected):
    """The registered ONNX form behind an endpoint, asked by Triton's client, which knows nothing of this server either."""
    name = f"{MODEL}-onnx"
    version = mlflow.register_model(f"runs:/{run.info.run_id}/model-onnx", name)
    client.set_registered_model_alias(name, "champion", version.version)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "endpoint.toml").write_text(ENDPOINT.format(name=MODEL, backend=f"models:/{name}@champion"))
        mainstay("endpoint", "apply", folder / "endpoint.toml", "--why", "the demo")
        np.save(folder / "rows.npy", rows.to_numpy(np.float32))
        addresses = [os.environ[key].removeprefix("http://") for key in ("MAINSTAY_HTTP", "MAINSTAY_GRPC")]
        ask = [os.environ["TRITON_PYTHON"], ROOT / "demo" / "ask.py", *addresses, MODEL, folder / "rows.npy", folder / "scores.npy"]
        asked = subprocess.run(list(map(str, ask)), capture_output=True, text=True)
        if asked.returncode:
            sys.exit(f"The endpoint could not be asked: {asked.stderr.strip()}")
        who, scores = json.loads(asked.stdout), np.load(folder / "scores.npy")
    apart = np.abs(scores - expected).max()
    if scores.shape != expected.shape or apart > 1e-6:
        sys.exit(f"The endpoint predicts something else: {scores.shape} values, at most {apart} apart.")
    if (who["model"], who["version"], who["run"]) != (name, str(version.version), run.info.run_id):
        sys.exit(f"The answer names {who}, not version {version.version} of {name} by run {run.info.run_id}.")
    say(10, f"Served: tritonclient asks the endpoint {MODEL!r} for {len(rows):,} rows over HTTP and gRPC: at most {apart:.1e} from"
            f" sklearn's probabilities; each answer names version {who['version']} of {who['model']} and run {who['run'][:8]}")


ENDPOINT = """
name = "{name}"
variants = [{{ name = "champion", backend = "{backend}" }}]
[plan.split]
shares = [{{ variant = "champion", percent = 100.0 }}]
"""

# The rank sum of Mann and Whitney, with the mean rank for equal scores; each id counts once, with its latest label.
AUC_BY_SQL = """
WITH truth AS (SELECT id, last_value(value ORDER BY time, received) AS label FROM {log}_outcomes WHERE name = 'label' GROUP BY id),
     scored AS (SELECT output_score AS score, label FROM {log}_predictions JOIN truth USING (id)),
     ranked AS (SELECT label, rank() OVER (ORDER BY score) + (count(*) OVER (PARTITION BY score) - 1) / 2.0 AS place FROM scored),
     sums AS (SELECT sum(CASE WHEN label = 1 THEN place END) AS places, sum(CASE WHEN label = 1 THEN 1.0 ELSE 0.0 END) AS ones,
                     sum(CASE WHEN label = 1 THEN 0.0 ELSE 1.0 END) AS zeros FROM ranked)
SELECT (places - ones * (ones + 1) / 2) / (ones * zeros) AS auc, cast(ones + zeros AS bigint) AS labelled FROM sums
"""


def mainstay(*arguments):
    """A command of the server's own binary, on its data folder; what it prints."""
    command = [os.environ["MAINSTAY_BIN"], *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"`mainstay {' '.join(map(str, arguments[:2]))}` failed: {done.stderr.strip()}")
    return done.stdout


def scheduled_run(job):
    """The first run that the job's own trigger started and that has ended."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        runs = json.loads(mainstay("job", "list", job, "--json"))
        ended = [run for run in runs if run["state"]["kind"] == "ended"]
        if ended:
            if ended[-1]["state"]["end"] != "success" or ended[-1]["cause"]["kind"] != "trigger":
                sys.exit(f"The scheduled run did not succeed: {ended[-1]['state']}")
            return ended[-1]
        time.sleep(0.3)
    sys.exit(f"No run of `{job}` ended within 30 seconds.")


def write(path, value):
    path.write_text(json.dumps(value))


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_toml(path, job):
    """One job; JSON's values but for null are TOML's, inline tables apart."""
    def inline(value):
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{key} = {inline(inner)}" for key, inner in value.items()) + " }"
        if isinstance(value, list):
            return "[" + ", ".join(inline(inner) for inner in value) + "]"
        return json.dumps(value)
    path.write_text("[[jobs]]\n" + "".join(f"{key} = {inline(value)}\n" for key, value in job.items()))


def load():
    """The census rows, and the digest of the file they came from."""
    return pd.read_parquet(DATA).astype("float64"), hashlib.sha256(DATA.read_bytes()).hexdigest()


def lineage(digest):
    """What ties a run to its code and its data."""
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True)
    commit = head.stdout.strip() if head.returncode == 0 else "unversioned"
    return {"mlflow.source.git.commit": commit, "data-sha256": digest}


def train(params, digest, frame, X_train, X_test, y_train, y_test):
    """One candidate: its learning curve, its scores, its model in two forms."""
    name = f"depth {params['max_depth']}, {params['n_estimators']} trees"
    with mlflow.start_run(run_name=name, nested=True, tags=lineage(digest)) as run:
        mlflow.log_params(params)
        mlflow.log_input(mlflow.data.from_pandas(frame, source=str(DATA.name), name="census-2015", digest=digest[:36]), context="training")
        model = GradientBoostingClassifier(random_state=7, **params).fit(X_train, y_train)
        for step, scores in enumerate(model.staged_predict_proba(X_test), start=1):
            mlflow.log_metric("log_loss", log_loss(y_test, scores[:, 1]), step=step, synchronous=False)
        mlflow.flush_async_logging()
        auc = roc_auc_score(y_test, model.predict_proba(X_test)[:, 1])
        mlflow.log_metrics({"auc": auc, "accuracy": model.score(X_test, y_test)})
        mlflow.sklearn.log_model(model, name="model", input_example=X_test[:3], skops_trusted_types=["sklearn.tree._tree.Tree"])
        mlflow.onnx.log_model(to_onnx(model, initial_types=[("input", FloatTensorType([None, X_train.shape[1]]))]), name="model-onnx")
        print(f"      {name:<20} AUC {auc:.4f}   run {run.info.run_id[:8]}", flush=True)


def say(step, text):
    print(f"  {step}.  {text}", flush=True)


if __name__ == "__main__":
    main()

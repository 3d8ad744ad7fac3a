"""The main job, told once from end to end with the unmodified client.

A data scientist predicts from census data who is employed: trains a small sweep with nested runs, logs each model in its
sklearn and ONNX form, registers the best with an alias and the tags that make its lineage, loads it back by alias, and
compares. `MLFLOW_TRACKING_URI` says where the server is; nothing else here knows which server it is.
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

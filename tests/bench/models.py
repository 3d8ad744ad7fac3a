"""Predictions beside the libraries that made the models, in one run on one machine.

300 trees of depth 5 over 30 features, made by LightGBM, XGBoost and scikit-learn. Each round measures every contestant once,
so that what else the machine does hits all alike; the table has medians over rounds, and medians of the rounds' ratios. Every
contestant gets what it likes best (a prepared matrix or array) and one or two threads.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import time
import warnings

import numpy as np

import tables

warnings.filterwarnings("ignore")
ROWS, FEATURES, TREES, DEPTH = 8192, 30, 300, 5
BATCHES = [1, 64, 4096]
SECONDS = 0.5
WANTED = {"lleaves": "≥ 2×", "xgboost": "≥ 5×", "onnxruntime": "≥ 5×"}


def data():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    y = x[:, 0] + x[:, 1] * x[:, 2] + np.sin(3 * x[:, 3]) + 0.3 * x[:, 4:].sum(1) / 5 + rng.normal(size=ROWS)
    return x, (y > 0).astype(int)


def median_ns(predict, batch):
    """Median time of a row over batches that move through the rows."""
    predict(0)
    times, began, at = [], time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS or len(times) < 5:
        at = (at + batch) % (ROWS - batch + 1)
        started = time.perf_counter_ns()
        predict(at)
        times.append((time.perf_counter_ns() - started) / batch)
    return float(np.median(times))


def ours(binary, model, rows, kind):
    lines = subprocess.run([binary, model, rows, kind], check=True, capture_output=True, text=True).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    return {(each["batch"], each["threads"]): each["ns_per_row"] for each in found if "batch" in each}


def contestants(folder, x, y):
    """By model: its file, its rows' type, and for each library a function of the number of threads to a predictor."""
    import lightgbm as lgb
    import onnxruntime as ort
    import xgboost as xgb
    from skl2onnx import to_onnx
    from sklearn.ensemble import GradientBoostingClassifier

    params = {"objective": "binary", "num_leaves": 2**DEPTH, "max_depth": DEPTH, "verbose": -1, "num_threads": 2}
    light = lgb.train(params, lgb.Dataset(x.astype(np.float64), y), TREES)
    light.save_model(folder / "light.txt")
    boost = xgb.train({"objective": "binary:logistic", "max_depth": DEPTH, "nthread": 2}, xgb.DMatrix(x, y), TREES)
    boost.save_model(folder / "boost.json")
    learn = GradientBoostingClassifier(n_estimators=TREES, max_depth=DEPTH, subsample=0.3, max_features=6).fit(x[:2000], y[:2000])
    (folder / "learn.onnx").write_bytes(
        to_onnx(learn, x[:1], options={id(learn): {"zipmap": False}}).SerializeToString()
    )
    wide = x.astype(np.float64)

    def lightgbm(threads):
        return lambda batch: lambda at: light.predict(wide[at : at + batch], num_threads=threads)

    def lleaves(threads):
        import lleaves

        model = lleaves.Model(model_file=str(folder / "light.txt"))
        model.compile()
        return lambda batch: lambda at: model.predict(wide[at : at + batch], n_jobs=threads)

    def xgboost(threads):
        boost.set_param({"nthread": threads})
        return lambda batch: lambda at: boost.inplace_predict(x[at : at + batch])

    def onnxruntime(threads):
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = ort.InferenceSession(str(folder / "learn.onnx"), options, providers=["CPUExecutionProvider"])
        return lambda batch: lambda at: session.run(["probabilities"], {"X": x[at : at + batch]})

    return {
        "LightGBM": ("light.txt", "f64", {"lightgbm": lightgbm, "lleaves": lleaves}),
        "XGBoost": ("boost.json", "f32", {"xgboost": xgboost}),
        "scikit-learn ONNX": ("learn.onnx", "f32", {"onnxruntime": onnxruntime}),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    parser.add_argument("--binary", default=target / "debug/examples/predict_rate")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    arguments = parser.parse_args()
    x, y = data()
    lines = ["| model, peer | threads | batch | peer, ns a row | ours, ns a row | ratio | wanted |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        models = contestants(folder, x, y)
        for kind in ("f32", "f64"):
            x.astype({"f32": "<f4", "f64": "<f8"}[kind]).tofile(folder / kind)
        for model, (file, kind, peers) in models.items():
            lines += measure(arguments, folder, model, file, kind, peers)
    tables.show("models", lines, arguments.write)


def measure(arguments, folder, model, file, kind, peers):
    times = {}
    for _ in range(arguments.rounds):
        mine = ours(arguments.binary, folder / file, folder / kind, kind)
        for peer, make in peers.items():
            for threads in (1, 2):
                predictor = make(threads)
                for batch in BATCHES:
                    pair = (mine[batch, threads], median_ns(predictor(batch), batch))
                    times.setdefault((peer, threads, batch), []).append(pair)
    lines = []
    for (peer, threads, batch), pairs in times.items():
        us, them = (float(np.median([pair[at] for pair in pairs])) for at in (0, 1))
        ratio = float(np.median([pair[1] / pair[0] for pair in pairs]))
        wanted = "≤ 5 µs" if batch == 1 else WANTED.get(peer, "") if batch == 4096 else ""
        lines.append(f"| {model}, {peer} | {threads} | {batch:,} | {them:,.0f} | {us:,.0f} | {ratio:.1f}× | {wanted} |")
    return lines


if __name__ == "__main__":
    main()

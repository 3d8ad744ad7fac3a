"""Explanations beside the `shap` package (its C extension) and xgboost's `pred_contribs` in one run, on one thread each.

300 trees of depth 5 and 6 over 30 features. Peers and we take turns for several rounds; a ratio is the median of the rounds'
ratios. Writes a Markdown table to standard output and, with `--write`, into docs/performance.md between its markers. Needs
`shap`, `xgboost` and `scikit-learn`, and our side built: `cargo build -p mainstay-models --example shap_rate`.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

os.environ["OMP_NUM_THREADS"] = "1"  # before the libraries start their threads

import numpy as np
import shap
import xgboost
from sklearn.ensemble import GradientBoostingRegressor

import tables

HERE = pathlib.Path(__file__).resolve().parent
FEATURES, TREES, ROWS, BACKGROUND, WANTED = 30, 300, 4096, 100, 5


def main():
    arguments = argparse.ArgumentParser()
    target = os.environ.get("CARGO_TARGET_DIR", HERE.parent.parent / "target")
    arguments.add_argument("--ours", default=pathlib.Path(target) / "debug/examples/shap_rate", help="our side")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--depths", type=int, nargs="*", default=[5, 6])
    arguments.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = arguments.parse_args()
    random = np.random.default_rng(0)
    # Values that are exactly single precision, so that both sides compare the same.
    rows = random.normal(size=(ROWS, FEATURES)).astype(np.float32).astype(float)
    goal = rows @ random.normal(size=FEATURES) + np.sin(3 * rows[:, 0] * rows[:, 1]) + rows[:, 2] * rows[:, 3]
    lines = []
    for depth in options.depths:
        for name, prepare, count in (
            ("shap, along paths", sklearn_paths, 200),
            ("xgboost, along paths", xgboost_paths, 400),
            (f"shap, {BACKGROUND} background rows", sklearn_background, 8),
        ):
            with tempfile.TemporaryDirectory(prefix="shap-") as folder:
                lines.append(measure(name, depth, *prepare(rows, goal, depth, pathlib.Path(folder)), count, rows, folder, options))
    tables.show("explanations", [
        "| 300 trees, 30 features, a row on one thread | peer | batch 4,096 | batch 256 | batch 1 | ratio | wanted | prepared once | greatest difference |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", *lines], options.write)


def measure(name, depth, model, explain, background, count, rows, folder, options):
    folder = pathlib.Path(folder)
    (folder / "model.json").write_text(json.dumps(model))
    rows.astype("<f8").tofile(folder / "rows.f64")
    explain(rows[:count]).astype("<f8").tofile(folder / "expected.f64")
    if background is not None:
        background.astype("<f8").tofile(folder / "background.f64")
    peers, ours = [], []
    for _ in range(options.rounds):
        began = time.perf_counter()
        explain(rows[:count])
        peers.append((time.perf_counter() - began) * 1e6 / count)
        ours.append(json.loads(subprocess.run([options.ours, folder], check=True, capture_output=True).stdout))
    us = {batch: statistics.median(own["us_a_row"][batch] for own in ours) for batch in ("4096", "256", "1")}
    ratio = statistics.median(peer / own["us_a_row"]["4096"] for peer, own in zip(peers, ours))
    prepared = f'{statistics.median(own["prepare_ms"] for own in ours):.0f} ms, {ours[0]["table_mib"]:.1f} MiB'
    return (f'| depth {depth}, {name} | {statistics.median(peers):,.0f} µs | {us["4096"]:.1f} µs | {us["256"]:.1f} µs | '
            f'{us["1"]:.0f} µs | {ratio:.0f}× | ≥ {WANTED}× | {prepared} | {ours[0]["greatest_difference"]:.1e} |')


def sklearn_paths(rows, goal, depth, folder):
    model = boosted(rows, goal, depth)
    explainer = shap.TreeExplainer(model)
    return exported(model), lambda some: explainer.shap_values(some, check_additivity=False), None


def sklearn_background(rows, goal, depth, folder):
    model, background = boosted(rows, goal, depth), rows[-BACKGROUND:]
    explainer = shap.TreeExplainer(model, background, feature_perturbation="interventional")
    return exported(model), lambda some: explainer.shap_values(some, check_additivity=False), background


def boosted(rows, goal, depth):
    return GradientBoostingRegressor(n_estimators=TREES, max_depth=depth, max_features=0.3, random_state=0).fit(rows, goal)


def exported(model):
    """scikit-learn's trees in the form that our side reads."""
    trees = []
    for tree in (estimator[0].tree_ for estimator in model.estimators_):
        trees.append({
            "left": tree.children_left.tolist(), "right": tree.children_right.tolist(), "feature": tree.feature.tolist(),
            "threshold": tree.threshold.tolist(), "value": (tree.value[:, 0, 0] * model.learning_rate).tolist(),
            "cover": tree.weighted_n_node_samples.tolist(),
        })
    return {"features": FEATURES, "base": [float(model.init_.constant_[0, 0])], "compares_f32": True, "trees": trees}


def xgboost_paths(rows, goal, depth, folder):
    model = xgboost.train({"max_depth": depth, "nthread": 1, "eta": 0.1}, xgboost.DMatrix(rows, goal), TREES)
    model.save_model(folder / "xgboost.json")
    learner = json.loads((folder / "xgboost.json").read_text())["learner"]
    trees = []
    for tree in learner["gradient_booster"]["model"]["trees"]:
        trees.append({
            "left": tree["left_children"], "right": tree["right_children"], "feature": tree["split_indices"],
            # Its JSON has the shortest digits of single-precision numbers.
            "threshold": single(tree["split_conditions"]), "value": single(tree["split_conditions"]),
            "cover": single(tree["sum_hessian"]),
            "missing_left": [bool(left) for left in tree["default_left"]],
        })
    exported = {"features": FEATURES, "base": [0.0], "compares_f32": True, "strict": True, "trees": trees}
    return exported, lambda some: model.predict(xgboost.DMatrix(some), pred_contribs=True)[:, :-1].astype(float), None


def single(numbers):
    return np.array(numbers, dtype=np.float32).astype(float).tolist()


if __name__ == "__main__":
    main()

"""Mainstay's statistics beside numpy, scipy, scikit-learn and fairlearn, in one run on the same data, as ratios.

Both sides make their data by the same formula (a hash of the row's number), so nothing is written to disk. Peers run on one
thread, as they do by themselves for these functions. Runs the example `stat_rate`, then the peers, then the example again, and
takes the mean of its two medians: a Markdown table on standard output, with `--write` also in docs/performance.md between its
markers. Needs numpy, scipy, scikit-learn, fairlearn.
"""

import argparse
import json
import os
import subprocess
import time
import warnings

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np
import pandas as pd
from fairlearn import metrics as fm
from scipy import stats
from sklearn import metrics as sm

import tables

WANTED = {"jeffreys": 5, "ks": 5, "auc": 5, "bootstrap auc 1000000": 20, "bootstrap auc 100000": 20, "group rates": 20,
          "group rates, crossed": 20}
RESAMPLES = 100


def unit(rows, column):
    """SplitMix64's finalizer, as in the example."""
    with np.errstate(over="ignore"):
        z = (np.arange(rows, dtype=np.uint64) + np.uint64(column << 40)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2.0**53


def bell(rows, column):
    return sum(unit(rows, 4 * column + part) for part in range(4)) - 2.0


def jeffreys(a, b):
    breaks = np.unique(np.percentile(a, np.linspace(0, 100, 11)))
    breaks[0], breaks[-1] = -np.inf, np.inf
    r, c = np.histogram(a, breaks)[0] / len(a), np.histogram(b, breaks)[0] / len(b)
    r, c = np.where(r == 0, 1e-4, r), np.where(c == 0, 1e-4, c)
    return ((c - r) * np.log(c / r)).sum()


def bootstrap(y, s, resamples):
    generator = np.random.default_rng(1)
    found = []
    for _ in range(resamples):
        index = generator.integers(0, len(y), len(y))
        found.append(sm.roc_auc_score(y[index], s[index]))
    return np.quantile(found, [0.025, 0.975])


def rates(y, p, keys):
    frame = fm.MetricFrame(
        metrics={"rate": fm.selection_rate, "tpr": fm.true_positive_rate, "fpr": fm.false_positive_rate,
                 "accuracy": sm.accuracy_score}, y_true=y, y_pred=p, sensitive_features=keys)
    return frame.by_group, frame.difference(), frame.ratio()


def peers(rows):
    """What runs at the peer, and how much of it (a hundred resamples of a million rows are timed by ten)."""
    a, b = bell(rows, 0), bell(rows, 1) * 1.02 + 0.01
    y = (unit(rows, 9) < 0.5 + a / 8.0).astype(np.float64)
    edges = np.unique(np.percentile(a, np.linspace(0, 100, 11)))
    yield "moments", 1, lambda: (a.mean(), a.std(), stats.skew(a), stats.kurtosis(a), a.min(), a.max())
    yield "quantiles", 1, lambda: np.quantile(a, np.linspace(0, 1, 11))
    yield "histogram", 1, lambda: np.histogram(a, edges)
    yield "jeffreys", 1, lambda: jeffreys(a, b)
    yield "ks", 1, lambda: stats.ks_2samp(a, b)
    yield "wasserstein", 1, lambda: stats.wasserstein_distance(a, b)
    yield "auc", 1, lambda: sm.roc_auc_score(y, a)
    for part, done in ((1_000_000, 10), (100_000, 50)):
        part = min(part, rows)
        ones, scores = y[:part], a[:part]
        yield f"bootstrap auc {part}", RESAMPLES / done, lambda: bootstrap(ones, scores, done)
    part = min(1_000_000, rows)
    y, p = np.floor(unit(part, 9) * 2).astype(int), np.floor(unit(part, 10) * 2).astype(int)
    names = np.array([f"group {at:02}" for at in range(12)])[(unit(part, 11) * 12).astype(int)]
    keys = pd.DataFrame({"name": names, "age": (unit(part, 12) * 8).astype(int)})
    yield "group rates", 1, lambda: rates(y, p, keys[["name"]])
    yield "group rates, crossed", 1, lambda: rates(y, p, keys)


def ours(example, millions):
    found = {}
    output = subprocess.run([example, str(millions), "--json"], check=True, capture_output=True, text=True).stdout
    for line in output.splitlines():
        entry = json.loads(line)
        found[entry["what"], entry["threads"]] = entry["median_ms"], entry["bytes"]
    return found


def main():
    warnings.simplefilter("ignore")
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--example", required=True, help="the built example `stat_rate`")
    arguments.add_argument("--millions", type=float, default=10, help="rows of a column")
    arguments.add_argument("--runs", type=int, default=3, help="runs of each peer, of which the median counts")
    arguments.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = arguments.parse_args()
    before, theirs = ours(options.example, options.millions), {}
    for what, factor, run in peers(int(options.millions * 1e6)):
        seconds = []
        for _ in range(options.runs):
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
        theirs[what] = sorted(seconds)[len(seconds) // 2] * factor * 1e3
    after = ours(options.example, options.millions)
    lines = ["| statistic | peer, ms | one thread, ms | ratio | its input read | two threads, ms | ratio | wanted per core |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    millis = {key: (before[key][0] + after[key][0]) / 2 for key in before}
    ms_a_byte = millis["read once", 1] / before["read once", 1][1]
    for what, peer in theirs.items():
        one, two = millis[what, 1], millis[what, 2]
        reads = one / (before[what, 1][1] * ms_a_byte)
        lines.append(f"| {what} | {peer:,.0f} | {one:.1f} | {peer / one:.1f}× | {reads:.1f} times | {two:.1f} | "
                     f"{peer / two:.1f}× | {WANTED.get(what, '')} |")
    lines.append(f"| reading {before['read once', 1][1] / 1e6:.0f} MB once | | {millis['read once', 1]:.1f} | | | {millis['read once', 2]:.1f} | | |")
    tables.show("statistics", lines, options.write)


if __name__ == "__main__":
    main()

"""The as-of join beside polars' `join_asof`, in one run on one thread: 1e6 rows, 1e6 rows of history, ten features.

Both orders in which a history arrives are measured: by time, as logs have it, and shuffled. Polars wants its inputs sorted, so
sorting is part of its time where they are not. Prints a Markdown table, and with `--write` puts it into docs/performance.md.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

os.environ["POLARS_MAX_THREADS"] = "1"  # before the library starts its threads

import numpy as np
import polars as pl

import tables

ROWS, FEATURES, WANTED = 1_000_000, 10, 1
random = np.random.default_rng(5)


def side(keys, is_shuffled):
    time = np.sort(random.integers(0, 10**8, ROWS))
    table = {"key": random.integers(0, keys, ROWS), "time": random.permutation(time) if is_shuffled else time}
    return {name: column.astype(np.int64) for name, column in table.items()}


def polars(rows, history, is_shuffled):
    if is_shuffled:
        rows, history = rows.sort("time"), history.sort("time")
    return rows.join_asof(history, on="time", by="key", strategy="backward", check_sortedness=False)


def measure(keys, is_shuffled, options):
    rows, history = side(keys, is_shuffled), side(keys, is_shuffled)
    features = {f"f{at}": random.standard_normal(ROWS) for at in range(FEATURES)}
    left, right = pl.DataFrame(rows), pl.DataFrame(history | features)
    with tempfile.TemporaryDirectory(prefix="joins-") as name:
        folder = pathlib.Path(name)
        for prefix, columns in (("rows", rows), ("history", history)):
            for column, values in columns.items():
                values.astype("<i8").tofile(folder / f"{prefix}.{column}")
        for at in range(FEATURES):
            features[f"f{at}"].astype("<f8").tofile(folder / f"history.{at}")
        peers, ours = [], []
        for _ in range(options.rounds):
            began = time.perf_counter()
            joined = polars(left, right, is_shuffled)
            peers.append((time.perf_counter() - began) * 1e3)
            ours.append(json.loads(subprocess.run([options.ours, folder], check=True, capture_output=True).stdout))
    found = joined["f0"].count()
    assert found == ours[0]["found"], (found, ours[0])
    if keys == KEYS[-1]:  # with few keys, times coincide and each side may take another of equal rows
        total = sum(joined[f"f{at}"].sum() for at in range(FEATURES))
        assert abs(total - ours[0]["sum"]) < 1e-3 * FEATURES * ROWS**0.5, (total, ours[0])
    whole = lambda own: own["join_ms"] + own["take_ms"]
    ratio = statistics.median(peer / whole(own) for peer, own in zip(peers, ours))
    order = "shuffled" if is_shuffled else "by time"
    join, take = (statistics.median(own[name] for own in ours) for name in ("join_ms", "take_ms"))
    return f"| {keys:,} keys, {order} | {statistics.median(peers):.0f} ms | {join:.0f} + {take:.0f} ms | {ratio:.1f}× | ≥ {WANTED}× |"


KEYS = [100, 10_000, 500_000]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    arguments.add_argument("--ours", default=target / "debug/examples/join_rate", help="our side")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = arguments.parse_args()
    lines = ["| 1e6 rows, 1e6 rows of history | polars | mainstay, join + ten columns | ratio | wanted |", "| --- | ---: | ---: | ---: | ---: |"]
    lines += [measure(keys, is_shuffled, options) for is_shuffled in (False, True) for keys in KEYS]
    tables.show("joins", lines, options.write)


if __name__ == "__main__":
    main()

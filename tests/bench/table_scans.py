"""DuckDB over the Parquet files that `cargo run -p mainstay-sql --example ingest_rate -- FOLDER` left, for comparison.

    python tests/bench/table_scans.py FOLDER < output-of-the-example

reads the example's lines and prints, for each of its queries, our time, DuckDB's on the same files with as many threads, and
their ratio; the best of three rounds each.
"""

import json
import os
import pathlib
import sys
import time

import duckdb

folder = pathlib.Path(sys.argv[1])
connection = duckdb.connect()
connection.execute(f"SET threads = {os.cpu_count()}")
connection.execute(f"CREATE VIEW t AS SELECT * FROM read_parquet('{folder}/tables/t/*.parquet')")
print("| query | ours, s | CPU s | DuckDB, s | CPU s | ratio |\n| --- | --- | --- | --- | --- | --- |")
for line in sys.stdin:
    if not line.startswith('{"what": "sql"'):
        continue
    ours = json.loads(line)
    best = None
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        connection.execute(ours["query"]).fetchall()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        best = min(best or (wall, cpu), (wall, cpu))
    ratio = ours["s"] / best[0]
    print(f"| `{ours['query'][:60]}` | {ours['s']:.3f} | {ours['cpu_s']:.2f} | {best[0]:.3f} | {best[1]:.2f} | {ratio:.2f} |")

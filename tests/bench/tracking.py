"""Mainstay beside `mlflow server` (sqlite) in one run: the same requests by the same load generator, as ratios.

Both answer a write after it is on disk. Writes a Markdown table to standard output and, with `--write`, into
docs/performance.md between its markers. Needs `wrk` (Debian package) and the conformance environment.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import httpx

import tables

HERE = pathlib.Path(__file__).resolve().parent
CLIENTS = 8
LOADS = [  # kind, seconds for the peer, seconds for us, wanted ratio of throughput
    ("log-metric", 10, 10, 100), ("log-batch", 10, 10, 100), ("runs-get", 8, 8, 50),
    ("search-100", 10, 8, 50), ("search-1000", 15, 8, 50),
]


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--mainstay", default=os.environ.get("MAINSTAY_BIN"), help="the binary to measure")
    arguments.add_argument("--runs", type=int, default=2000, help="runs in the searched experiment")
    arguments.add_argument("--only", choices=["mainstay", "peer"], help="measure one side")
    arguments.add_argument("--kinds", nargs="*", help="only these kinds of load")
    arguments.add_argument("--flags", nargs="*", default=[], help="further flags for our server")
    arguments.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = arguments.parse_args()
    if not shutil.which("wrk"):
        sys.exit("`wrk` is missing: install Debian's package of that name (apt-get install wrk).")
    results = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name, start in (("peer", start_peer), ("mainstay", start_mainstay)):
            if options.only in (None, name):
                results[name] = measure(name, start, pathlib.Path(folder) / name, options)
    tables.show("tracking", render(results), options.write)


def start_peer(folder, port, options):
    mlflow = pathlib.Path(sys.executable).parent / "mlflow"
    return [mlflow, "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts",
            "--serve-artifacts", "--host", "127.0.0.1", "--port", str(port)]


def start_mainstay(folder, port, options):
    return [options.mainstay, "serve", "--data", f"{folder}/data", "--listen", f"127.0.0.1:{port}", "--grpc", "127.0.0.1:0"] + options.flags


def measure(name, command, folder, options):
    """Start one server, fill it, load it; every figure by name."""
    folder.mkdir()
    port = free_port()
    argv = [str(a) for a in command(folder, port, options)]
    if name == "mainstay":  # compile the plugins first, as an installation does; then time a start
        stop(*serve(argv, folder, port))
    process, ready_s = serve(argv, folder, port)
    figures = {"ready_s": ready_s}
    try:
        url = f"http://127.0.0.1:{port}"
        experiment, runs = seed(url, options.runs)
        (folder / "runs").write_text("\n".join(runs[:CLIENTS]))
        (folder / "experiment").write_text(experiment)
        figures["memory_idle_mib"] = memory_mib(process.pid)
        for kind, peer_s, own_s, _ in LOADS:
            if options.kinds and kind not in options.kinds:
                continue
            over = folder / ("experiment" if kind.startswith("search") else "runs")
            cpu = cpu_seconds(process.pid)
            figures[kind] = load(url, kind, over, peer_s if name == "peer" else own_s)
            figures[kind]["cpu_ms"] = (cpu_seconds(process.pid) - cpu) * 1000 / max(1, figures[kind]["requests"])
            print(f"  {name:<9} {kind:<12} {figures[kind]}", file=sys.stderr, flush=True)
        figures["memory_mib"] = memory_mib(process.pid)
    finally:
        stop(process, None)
    return figures


def serve(argv, folder, port):
    started = time.monotonic()
    log = open(folder / "log", "ab")
    process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).status_code == 200:
                return process, time.monotonic() - started
        except httpx.HTTPError:
            pass
        if process.poll() is not None or time.monotonic() - started > 120:
            sys.exit(f"did not start: {argv}\n{(folder / 'log').read_text()[-3000:]}")
        time.sleep(0.005)


def stop(process, _ready):
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def seed(url, count):
    """An experiment with `count` runs, each with metrics, params and tags."""
    with httpx.Client(base_url=f"{url}/api/2.0/mlflow", timeout=120) as http:
        post = lambda path, body: http.post(path, json=body).raise_for_status().json()
        experiment = post("/experiments/create", {"name": "bench"})["experiment_id"]

        def one(n):
            run = post("/runs/create", {"experiment_id": experiment, "start_time": 1_700_000_000_000 + n})["run"]["info"]["run_id"]
            metric = lambda key, value: {"key": key, "value": value, "timestamp": 1_700_000_000_000, "step": 0}
            post("/runs/log-batch", {"run_id": run, "metrics": [metric("acc", (n * 7919 % count) / count), metric("loss", (n * 104729 % count) / count)],
                                     "params": [{"key": f"p{k}", "value": str(n * k)} for k in range(8)],
                                     "tags": [{"key": f"t{k}", "value": f"value {n % (k + 2)}"} for k in range(4)]})
            return run

        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            return experiment, list(pool.map(one, range(count)))


def load(url, kind, over, seconds):
    out = subprocess.run(["wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "--timeout", "30s", "-s", HERE / "load.lua", url, "--", kind, over],
                         capture_output=True, text=True)
    found = re.search(r"RESULT (\{.*\})", out.stdout)
    if not found:
        sys.exit(f"wrk failed:\n{out.stdout}{out.stderr}")
    result = json.loads(found.group(1))
    if result["bad"] or result["socket_errors"]:
        sys.exit(f"{kind}: not every answer was 200: {result}")
    return result | {"per_s": result["requests"] / result["seconds"]}


def family(pid):
    """The process and all below it."""
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        except OSError:
            pass
    found, queue = [], [pid]
    while queue:
        found.append(queue.pop())
        queue += children.get(found[-1], [])
    return found


def memory_mib(pid):
    """Proportional set size of the whole family."""
    total = 0
    for member in family(pid):
        try:
            total += int(re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{member}/smaps_rollup").read_text(), re.M).group(1))
        except OSError:
            pass
    return total / 1024


def cpu_seconds(pid):
    ticks = 0
    for member in family(pid):
        try:
            fields = pathlib.Path(f"/proc/{member}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return ticks / os.sysconf("SC_CLK_TCK")


def render(results):
    """Markdown: one row a figure; the ratio and what was wanted."""
    peer, own = results.get("peer", {}), results.get("mainstay", {})
    rows = ["| at 8 clients | mlflow server | mainstay | ratio | wanted |", "| --- | ---: | ---: | ---: | ---: |"]

    def row(label, theirs, ours, better, wanted, unit):
        ratio = f"{better:.1f}×" if better else ""
        rows.append(f"| {label} | {number(theirs)} {unit} | {number(ours)} {unit} | {ratio} | {wanted} |")

    for kind, _, _, wanted in LOADS:
        theirs, ours = peer.get(kind), own.get(kind)
        if not (theirs or ours):
            continue
        get = lambda side, key: side[key] if side else None
        both = lambda key: (get(theirs, key), get(ours, key))
        a, b = both("per_s")
        row(kind, a, b, b / a if a and b else None, f"≥ {wanted}×", "req/s")
        a, b = both("p99_ms")
        row(f"{kind} p99", a, b, a / b if a and b else None, "≥ 20×" if kind.startswith("log") else "", "ms")
        a, b = both("cpu_ms")
        row(f"{kind} CPU a request", a, b, a / b if a and b else None, "", "ms")
    for key, label, wanted, unit in (("memory_mib", "memory after the load (PSS)", "≥ 10×", "MiB"), ("memory_idle_mib", "memory before it", "", "MiB"),
                                     ("ready_s", "start to ready", "≥ 20×", "s")):
        a, b = peer.get(key), own.get(key)
        row(label, a, b, a / b if a and b else None, wanted, unit)
    return rows


def number(value):
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()

"""The cost of the handle, next to the replicator in the process of the application.

    python -m benchmarks.handle [--runs N]

Each trial is an application in a process of its own: it opens its database, starts the replicator,
flushes lone commits, rests, and stops. The store is a directory, so that neither a network nor a
server is measured. The table goes to `results/handle.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from replicator import SqliteReplicator, SqliteReplicatorConfig

RESULT = Path(__file__).parent / "results" / "handle.md"
COMMITS = 50  # lone ones, each flushed
REST = 10.0  # seconds of rest
KINDS = ("handle", "second handle", "in-process")
ROWS = {
    "start": "imports and `start()`, ms",
    "flush": "a lone commit and `flush()`, ms",
    "stop": "`stop()` until it returned, ms",
    "application": "memory added to the application, MiB",
    "sidecar": "memory of the sidecar, MiB",
    "cpu_start": "CPU of the application and the sidecar until the start, s",
    "cpu_rest": f"CPU of both in {REST:.0f} s of rest, ms",
}


def memory(pid: int) -> float:
    """MiB of the resident set."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def cpu(pid: int) -> float:
    """Seconds, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def made(kind, config):
    """The replicator; the modules of the engine are imported where it runs."""
    if kind != "in-process":
        return SqliteReplicator(config)
    from replicator.engine.in_process import InProcessReplicator

    return InProcessReplicator(config)


def application(kind: str, directory: Path) -> None:
    """One trial, in this process; its figures go to standard output."""
    path = directory / "app.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (x)")
    config = SqliteReplicatorConfig(db_path=path, url=f"file://{directory}/bucket")
    first = SqliteReplicator(config)
    if kind == "second handle":
        first.start()
    before, used = memory(os.getpid()), resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    replicator = made(kind, config)
    replicator.start()
    figures = {"start": 1000 * (time.perf_counter() - began)}
    sidecar = int((config.cache / "lock").read_text().split()[0])
    both = {os.getpid(), sidecar}
    mine = resource.getrusage(resource.RUSAGE_SELF)
    figures["cpu_start"] = mine.ru_utime + mine.ru_stime - used.ru_utime - used.ru_stime
    if sidecar != os.getpid():
        figures["cpu_start"] += cpu(sidecar)
    latencies = []
    for number in range(COMMITS):
        began = time.perf_counter()
        connection.execute("INSERT INTO t VALUES (?)", (number,))
        replicator.flush(60)
        latencies.append(1000 * (time.perf_counter() - began))
    figures["flush"] = statistics.median(latencies)
    time.sleep(1)
    rest = sum(map(cpu, both))
    time.sleep(REST)
    figures["cpu_rest"] = 1000 * (sum(map(cpu, both)) - rest)
    figures["application"] = memory(os.getpid()) - before
    figures["sidecar"] = memory(sidecar) if sidecar != os.getpid() else 0.0
    began = time.perf_counter()
    replicator.stop()
    figures["stop"] = 1000 * (time.perf_counter() - began)
    first.stop()
    print(json.dumps(figures))


def trial(kind: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "bucket").mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.handle", "--trial", kind, name],
            check=True,
            capture_output=True,
            text=True,
        )
    return json.loads(done.stdout)


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """The medians."""
    lines = [f"| | {' | '.join(KINDS)} |", "|---|" + "---:|" * len(KINDS)]
    for name, title in ROWS.items():
        medians = [statistics.median(each[name] for each in results[kind]) for kind in KINDS]
        cells = [f"{figure:.2f}" if figure < 10 else f"{figure:.0f}" for figure in medians]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.handle", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="of each; default 5")
    parser.add_argument("--trial", nargs=2, metavar=("KIND", "DIR"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trial:
        application(args.trial[0], Path(args.trial[1]))
        return
    results: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(args.runs):
        for kind in KINDS:
            results[kind].append(trial(kind))
    text = f"# The handle\n\nMedians of {args.runs} runs.\n\n{table(results)}"
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

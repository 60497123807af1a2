"""Durable commits: a commit that returns once the bucket has it, next to Litestream's `sync -wait`.

    python -m benchmarks.durable [--seconds N] [--waiters N ...]

Both systems store in the same SeaweedFS, on loopback and without the proxy. The application is a
process with one thread for each waiter; each has a connection and commits one row at a time. The
transactions of both queue in the same way. Litestream gets its requests at its socket, because a
process for each would cost more than the upload: `own request` is one for each commit, `shared` is
our own group commit in front of it. The table goes to `results/durable.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.place import Place
from benchmarks.systems.base import System
from benchmarks.systems.litestream import Litestream
from benchmarks.systems.ours import Replicator
from replicator.app.durable import durable
from replicator.app.transaction import transaction

RESULT = Path(__file__).parent / "results" / "durable.md"
KINDS = ("replicator", "litestream, own request", "litestream, shared")
TIMEOUT = 60  # seconds of one wait

Commit = Callable[[sqlite3.Connection, int], None]


class SyncSocket(http.client.HTTPConnection):
    """One connection to Litestream's control socket."""

    def __init__(self, path: Path, database: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = str(path)
        self._body = json.dumps({"path": str(database), "wait": True, "timeout": TIMEOUT})

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)

    def sync(self) -> None:
        """POST /sync, which `litestream sync -wait` sends."""
        self.request("POST", "/sync", self._body, {"Content-Type": "application/json"})
        answer = self.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {text!r}")


class Shared:
    """Group commit by leader and followers: who comes during a request is in the next one."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._changed = threading.Condition()
        self._begun = self._done = 0
        self._running = False

    def wait(self) -> None:
        with self._changed:
            mine = self._begun + 1
            while self._done < mine:
                if not self._running:
                    self._lead()
                else:
                    self._changed.wait()

    def _lead(self) -> None:
        self._running = True
        self._begun += 1
        number = self._begun
        self._changed.release()
        try:
            self._sync()
        finally:
            self._changed.acquire()
            self._running = False
            self._done = number
            self._changed.notify_all()


def ways(kind: str, database: Path, sync_socket: Path) -> Callable[[], Commit]:
    """Makes the commit of one thread."""
    shared = Shared(SyncSocket(sync_socket, database).sync)

    def make() -> Commit:
        own = SyncSocket(sync_socket, database)

        def ours(connection: sqlite3.Connection, number: int) -> None:
            with durable(connection, TIMEOUT):
                connection.execute("INSERT INTO t VALUES (?)", (number,))

        def theirs(connection: sqlite3.Connection, number: int) -> None:
            with transaction(connection, database):
                connection.execute("INSERT INTO t VALUES (?)", (number,))
            shared.wait() if kind == KINDS[2] else own.sync()

        return ours if kind == KINDS[0] else theirs

    return make


def application(kind: str, waiters: int, seconds: float, database: Path, sync: Path) -> None:
    """One trial; its figures go to standard output."""
    make = ways(kind, database, sync)
    latencies: list[float] = []
    until = time.monotonic() + seconds

    def run() -> None:
        commit = make()
        connection = sqlite3.connect(database, timeout=TIMEOUT, isolation_level=None)
        connection.execute("PRAGMA synchronous=NORMAL")
        number = 0
        while (began := time.monotonic()) < until:
            commit(connection, number)
            latencies.append(time.monotonic() - began)
            number += 1

    threads = [threading.Thread(target=run) for _ in range(waiters)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    latencies.sort()
    figures = {
        "p50": 1000 * latencies[len(latencies) // 2],
        "p99": 1000 * latencies[len(latencies) * 99 // 100],
        "rate": len(latencies) / took,
    }
    print(json.dumps(figures))


def trial(place: Place, kind: str, waiters: int, seconds: float, number: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        database = directory / "app.db"
        connection = sqlite3.connect(database, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x)")
        kinds: dict[str, type[System]] = {"replicator": Replicator}
        system = kinds.get(kind, Litestream)(place, directory, f"durable-{number}")
        try:
            system.start([database])
            system.wait_ready()
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "benchmarks.durable", "--trial"),
                    *map(str, (kind, waiters, seconds, database, directory / "litestream.sock")),
                ],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            figures: dict[str, float] = json.loads(done.stdout)
            return figures
        finally:
            system.kill()
            connection.close()


def table(results: list[tuple[int, str, dict[str, float]]]) -> str:
    lines = [
        "| waiters | system | p50, ms | p99, ms | commits a second |",
        "|---:|---|---:|---:|---:|",
    ]
    for waiters, kind, figures in results:
        p50, p99, rate = (figures[name] for name in ("p50", "p99", "rate"))
        lines.append(f"| {waiters} | {kind} | {p50:.1f} | {p99:.0f} | {rate:,.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durable", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, metavar="N", help="of each trial")
    parser.add_argument("--waiters", type=int, nargs="+", default=[1, 16, 128], metavar="N")
    parser.add_argument("--trial", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trial:
        kind, waiters, seconds, database, sync = args.trial
        application(kind, int(waiters), float(seconds), Path(database), Path(sync))
        return
    results = []
    with contextlib.ExitStack() as held:
        place = held.enter_context(Place(Path(held.enter_context(tempfile.TemporaryDirectory()))))
        place.url = place.server.endpoint_url
        for waiters in args.waiters:
            for kind in KINDS:
                figures = trial(place, kind, waiters, args.seconds, len(results))
                results.append((waiters, kind, figures))
                print(waiters, kind, figures, f"load {os.getloadavg()[0]:.1f}", flush=True)
    load = f"Load of the machine at the end: {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores."
    text = f"# Durable commits\n\n{args.seconds:.0f} s for each row. {load}\n\n{table(results)}"
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

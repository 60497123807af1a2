"""Processes that run one capture–upload cycle, or one restore, and may be killed in it.

    python cycle.py      reads requests, one line of JSON each; forks a process for each, so that
                         no interpreter has to start again

A request is ``{"do": …, "place": DIRECTORY, "gate": ROLE or null}``. A role is one thread: its
name and a number among threads of that name. The thread of the ``gate`` answers its thread id and
waits for a byte from the FIFO ``go`` in the directory, so that strace can follow it from its first
step. The end is answered as ``{"code": …}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import sys
import threading
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

from replicator import SqliteReplicatorConfig
from replicator.engine.in_process import InProcessReplicator
from replicator.engine.limits import Limits
from replicator.errors import ReplicatorError
from replicator.recovery.api import restore  # in this process, whose calls are traced

MAIN = "MainThread 1"
SAID = 9  # the descriptor of the file ``said`` in the directory
PAGE = 4096
ROLL_OVER = 20  # frames
CACHE = 1 << 20  # the smallest; a quarter of it is kept once acknowledged, then trimmed
LONG = 60.0


class Gate:
    """Makes every thread record its role, and one of them wait."""

    def __init__(self, place, role):
        self.place, self.role = place, role
        self.seen = Counter()
        self.lock = threading.Lock()
        run = threading.Thread.run
        threading.Thread.run = lambda thread: (self.enter(thread.name), run(thread))

    def enter(self, name):
        with self.lock:
            self.seen[name] += 1
            role = f"{name} {self.seen[name]}"
        if self.role is None:
            append(self.place / "roles", role)
        elif role == self.role:
            fifo = os.open(self.place / "go", os.O_RDWR)  # stays, so that only a read is seen
            say({"tid": threading.get_native_id()})
            os.read(fifo, 1)


def append(path, line):
    with path.open("a") as file:
        file.write(line + "\n")


def announce(*words):
    """Reports a line to the outside; a line that cannot be written counts as not reported."""
    with contextlib.suppress(OSError):
        os.write(SAID, (" ".join(map(str, words)) + "\n").encode())


def say(value):
    os.write(1, json.dumps(value).encode() + b"\n")


class WriterThread:
    """The application in its own thread: commits numbered rows and reports them."""

    def __init__(self, place):
        self.place = place
        self.jobs, self.answers = SimpleQueue(), SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="app", daemon=True)
        self.thread.start()

    def commit(self, times=1, rows=1):
        """The number of the last row committed."""
        self.jobs.put((times, rows))
        return self.answers.get(timeout=LONG)

    def end(self):
        self.jobs.put(None)
        self.thread.join()

    def _run(self):
        try:
            self._serve(open_database(self.place / "app.db"))
        except sqlite3.Error as error:
            announce("app", error)
            self.answers.put(None)

    def _serve(self, db):
        last = db.execute("SELECT ifnull(max(seq), 0) FROM t").fetchone()[0]
        for times, rows in iter(self.jobs.get, None):
            for _ in range(times):
                db.execute("BEGIN IMMEDIATE")
                for _ in range(rows):
                    last += 1
                    db.execute("INSERT INTO t VALUES (?, ?)", (last, content(last)))
                db.execute("COMMIT")
                announce("committed", last)
            self.answers.put(last)
        db.close()


def open_database(path):
    db = sqlite3.connect(path, isolation_level=None, timeout=LONG)
    for pragma in (f"page_size={PAGE}", "journal_mode=WAL", "synchronous=NORMAL"):
        db.execute(f"PRAGMA {pragma}")
    db.execute("CREATE TABLE IF NOT EXISTS t(seq INTEGER PRIMARY KEY, body BLOB)")
    return db


def content(seq):
    """Incompressible bytes, so that few rows fill the cache."""
    return random.Random(seq).randbytes(30_000)


def replicator_of(place):
    config = SqliteReplicatorConfig(
        db_path=place / "app.db",
        url=f"file://{place}/store",
        cache_dir=place / "cache",
        sync_interval=0.0,
        max_cache_bytes=CACHE,
        poll_interval=0.2,
    )
    limits = Limits.of(config)
    short = replace(limits, capture=replace(limits.capture, roll_over_frames=ROLL_OVER))
    return InProcessReplicator(config, limits=short)


def cycle(place):
    """Join, commits, cuts, appends, a roll-over, trims, a snapshot, the end."""
    app = WriterThread(place)
    app.commit()
    with_replicator(place, app, ((0, 0), (2, 1), (3, 2), (1, 1), (1, 3)))
    app.end()


def restart(place):
    """A new start after a kill."""
    app = WriterThread(place)
    with_replicator(place, app, ((1, 1), (1, 1)))
    app.end()


def with_replicator(place, app, steps):
    mine = replicator_of(place)
    mine.start()
    try:
        for number, (times, rows) in enumerate(steps):
            last = app.commit(times, rows)
            if last is None:
                break
            mine.flush(LONG, snapshot=number == len(steps) - 1)
            announce("durable", last)
        announce("rolled", int(mine.metrics.get("roll_overs")))
    finally:
        mine.stop()


def back(place):
    report = restore(
        url=f"file://{place.parent}/store", prefix="app.db", output=place / "app.db", overwrite=True
    )
    announce("restored", report.txid)


ACTS = {"cycle": cycle, "go on": restart, "restore": back}


def child(request):
    place = Path(request["place"])
    gate = Gate(place, request["gate"])
    for name, descriptor in (("errors", 2), ("said", SAID)):
        os.dup2(os.open(place / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), descriptor)
    gate.enter("MainThread")
    try:
        ACTS[request["do"]](place)
    except ReplicatorError as error:
        announce("refused", error)
        return error.exit_code
    except BaseException:  # noqa: BLE001 - it must end as a process of its own would
        traceback.print_exc()
        return 99
    return 0


def main():
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            os._exit(child(request))
        say({"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})


if __name__ == "__main__":
    main()

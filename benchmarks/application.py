"""The kit of the application next to other libraries, on one mixed load of sixteen threads.

    python -m benchmarks.application [--runs N] [--seconds S]

Each trial is a process of its own with a new database: sixteen threads (for aiosqlite: tasks) read
single rows by their key and insert single rows, each in a transaction. All libraries use WAL mode,
`synchronous=NORMAL`, and a busy timeout of five seconds. The kinds take turns. The table has the
medians, and their ratios to the standard library; it goes to `results/application.md`.

Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "application.md"
THREADS = 16
ROWS = 10_000
READ = "SELECT body FROM t WHERE id = ?"
WRITE = "INSERT INTO t (body) VALUES (?)"
LOADS = {"reads only": 0.0, "one write in five": 0.2, "writes only": 1.0}  # share of writes


class Figures:
    """Latencies in seconds, and the operations that ended with a lock."""

    def __init__(self):
        self.reads, self.writes, self.locked = [], [], 0

    def add(self, other):
        self.reads += other.reads
        self.writes += other.writes
        self.locked += other.locked

    def summary(self, seconds):
        return {
            "reads/s": len(self.reads) / seconds,
            "writes/s": len(self.writes) / seconds,
            "read p99 ms": p99(self.reads),
            "write p99 ms": p99(self.writes),
            "locked": self.locked,
        }


def p99(latencies):
    return 1000 * sorted(latencies)[int(0.99 * len(latencies))] if latencies else 0.0


def is_locked(error):
    return "locked" in str(error)


def loop(read, write, share, seconds, seed):
    """The work of one thread."""
    figures, chance = Figures(), random.Random(seed)
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        writes = chance.random() < share
        try:
            write((f"row of {seed}",)) if writes else read((chance.randrange(1, ROWS),))
        except Exception as error:
            if not is_locked(error):
                raise
            figures.locked += 1
        (figures.writes if writes else figures.reads).append(time.perf_counter() - began)
    return figures


def threads(read, write, share, seconds):
    """The load by threads; ``read`` and ``write`` take parameters."""
    total, lock = Figures(), threading.Lock()

    def run(seed):
        figures = loop(read, write, share, seconds, seed)
        with lock:
            total.add(figures)

    workers = [threading.Thread(target=run, args=(seed,)) for seed in range(THREADS)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    return total


def pragmas(connection):
    connection.execute("PRAGMA synchronous=NORMAL").close()


# ------------------------------------------------------------------------------ kinds


def bare(path, *load):
    """sqlite3, with a connection for each thread."""
    mine = threading.local()

    def connection():
        if not hasattr(mine, "connection"):
            mine.connection = sqlite3.connect(path, isolation_level=None, timeout=5)
            pragmas(mine.connection)
        return mine.connection

    return threads(
        lambda values: connection().execute(READ, values).fetchone(),
        lambda values: connection().execute(WRITE, values),
        *load,
    )


def kit(path, *load):
    """replicator.app: fetch_one and execute."""
    from replicator.app import Database

    with Database.open(path) as db:
        return threads(
            lambda values: db.fetch_one(READ, values),
            lambda values: db.execute(WRITE, values),
            *load,
        )


def kit_queue(path, *load):
    """replicator.app: writes through the queue, each waits for its result."""
    from replicator.app import Database

    with Database.open(path) as db:
        return threads(
            lambda values: db.fetch_one(READ, values),
            lambda values: db.queue.execute(WRITE, values).result(),
            *load,
        )


def kit_post(path, *load):
    """replicator.app: writes are left to the queue; the time until all are written counts."""
    from replicator.app import Database

    with Database.open(path) as db:
        began = time.perf_counter()
        found = threads(
            lambda values: db.fetch_one(READ, values),
            lambda values: db.queue.post(WRITE, values),
            *load,
        )
        db.queue.drain()
        late = (time.perf_counter() - began) / load[-1]
        found.writes = random.Random(0).sample(found.writes, int(len(found.writes) / late))
        return found


def sqlalchemy(path, *load):
    """SQLAlchemy Core: a pool of sixteen connections."""
    from sqlalchemy import create_engine, event

    engine = create_engine(
        f"sqlite:///{path}", pool_size=THREADS, max_overflow=0, connect_args={"timeout": 5}
    )
    event.listen(engine, "connect", lambda connection, _: pragmas(connection))

    def read(values):
        with engine.connect() as connection:
            connection.exec_driver_sql(READ, values).fetchone()

    def write(values):
        with engine.begin() as connection:
            connection.exec_driver_sql(WRITE, values)

    return threads(read, write, *load)


def peewee(path, *load):
    """peewee's SqliteQueueDatabase: one thread writes, each write waits for its result."""
    from playhouse.sqliteq import SqliteQueueDatabase

    database = SqliteQueueDatabase(
        path, pragmas={"journal_mode": "wal", "synchronous": 1}, timeout=5
    )
    found = threads(
        lambda values: database.execute_sql(READ, values).fetchone(),
        lambda values: database.execute_sql(WRITE, values).lastrowid,
        *load,
    )
    database.stop()
    return found


def aiosqlite(path, share, seconds):
    """aiosqlite: sixteen tasks, each with a connection, which is a thread."""
    import aiosqlite as library

    async def task(seed):
        figures, chance = Figures(), random.Random(seed)
        async with library.connect(path, isolation_level=None, timeout=5) as connection:
            await connection.execute("PRAGMA synchronous=NORMAL")
            end = time.perf_counter() + seconds
            while (began := time.perf_counter()) < end:
                writes = chance.random() < share
                try:
                    if writes:
                        await connection.execute(WRITE, (f"row of {seed}",))
                    else:
                        async with connection.execute(READ, (chance.randrange(1, ROWS),)) as cursor:
                            await cursor.fetchone()
                except sqlite3.OperationalError as error:
                    if not is_locked(error):
                        raise
                    figures.locked += 1
                (figures.writes if writes else figures.reads).append(time.perf_counter() - began)
        return figures

    async def run():
        total = Figures()
        for figures in await asyncio.gather(*map(task, range(THREADS))):
            total.add(figures)
        return total

    return asyncio.run(run())


KINDS = {
    "sqlite3": bare,
    "kit": kit,
    "kit, queue": kit_queue,
    "kit, posted": kit_post,
    "SQLAlchemy": sqlalchemy,
    "peewee": peewee,
    "aiosqlite": aiosqlite,
}


# ------------------------------------------------------------------------------- runs


def prepare(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
        connection.execute("BEGIN")
        connection.executemany(WRITE, ((f"row {number}",) for number in range(ROWS)))
        connection.execute("COMMIT")


def trial(kind, load, seconds):
    """The figures of one trial, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        path = str(Path(name) / "app.db")
        prepare(path)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.application", "--seconds", str(seconds)),
                *("--trial", kind, load, path),
            ],
            check=True,
            capture_output=True,
            text=True,
        )
    return json.loads(done.stdout)


def median(trials, name):
    return statistics.median(each[name] for each in trials)


def table(results):
    """Of one load: the medians, and ratios to the standard library."""
    names = ("reads/s", "writes/s", "read p99 ms", "write p99 ms")
    lines = [f"| | {' | '.join(names)} | locked |", "|---|" + "---:|" * 5]
    for kind, trials in results.items():
        cells = []
        for name in names:
            figure, base = median(trials, name), median(results["sqlite3"], name)
            shown = f"{figure:.2f}" if figure < 10 else f"{figure:,.0f}"
            cells.append(f"{shown} ({figure / base:.2f}×)" if base else "")
        locked = sum(each["locked"] for each in trials)
        lines.append(f"| {kind} | {' | '.join(cells)} | {locked:.0f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.application", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="of each; default 5")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of a trial")
    parser.add_argument(
        "--trial", nargs=3, metavar=("KIND", "LOAD", "PATH"), help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    if args.trial:
        kind, load, path = args.trial
        figures = KINDS[kind](path, LOADS[load], args.seconds)
        print(json.dumps(figures.summary(args.seconds)))
        return
    results = {load: {kind: [] for kind in KINDS} for load in LOADS}
    for _ in range(args.runs):
        for load, found in results.items():
            for kind in KINDS:
                found[kind].append(trial(kind, load, args.seconds))
    text = f"# The kit of the application\n\nMedians of {args.runs} runs, sixteen threads."
    for load, found in results.items():
        text += f"\n\n## {load.capitalize()}\n\n{table(found)}"
    RESULT.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

"""A writer process with its own commit log, outside the database.

Each transaction stores its sequence number and a hash over its rows; after COMMIT has returned,
the number is appended to the log file. So a test compares each restore with the acknowledged
commits: exactly the transactions 1 … k of each writer, and k no smaller than the reported one.

    python workload.py DATABASE LOG [--writer N] [--rate TX/S] [--commits N] …
    python workload.py DATABASE LOG --large BYTES    one transaction of that size, then the end
    python workload.py DATABASE LOG --hold           a reader: prints its view twice
    python workload.py DATABASE LOG --service        until SIGTERM

``LOG.longest`` gets the seconds that the longest transaction took.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS done(writer INTEGER, seq INTEGER, digest TEXT, PRIMARY KEY(writer, seq));
CREATE TABLE IF NOT EXISTS item(id INTEGER PRIMARY KEY, writer INTEGER, seq INTEGER, body BLOB);
CREATE INDEX IF NOT EXISTS item_by_writer ON item(writer, seq);
CREATE TABLE IF NOT EXISTS filler(body BLOB);
"""

CHECKPOINTS = ("PASSIVE", "FULL", "RESTART", "TRUNCATE")


def open_database(
    path: str, *, page_size: int = 4096, autocheckpoint: int = 1000, timeout: float = 30.0
) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=timeout)
    connection.execute(f"PRAGMA page_size={page_size}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA wal_autocheckpoint={autocheckpoint}")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA cache_size=-2000")
    return connection


def transaction(
    connection: sqlite3.Connection, writer: int, seq: int, rng: random.Random, rows: int
) -> None:
    """One transaction: some rows, sometimes older ones removed, and its own receipt."""
    connection.execute("BEGIN IMMEDIATE")
    digest = hashlib.sha256()
    for _ in range(rng.randint(1, rows)):
        body = rng.randbytes(rng.choice((20, 200, 1500)))
        digest.update(body)
        connection.execute(
            "INSERT INTO item(writer, seq, body) VALUES (?, ?, ?)", (writer, seq, body)
        )
    if seq % 7 == 0:
        connection.execute(
            "UPDATE item SET body = body WHERE writer = ? AND seq = ?", (writer, seq - 5)
        )
    connection.execute("INSERT INTO done VALUES (?, ?, ?)", (writer, seq, digest.hexdigest()))
    connection.execute("COMMIT")


def large_transaction(
    connection: sqlite3.Connection, writer: int, seq: int, rng: random.Random, size: int
) -> None:
    """About ``size`` bytes in one transaction, far beyond the page cache: pages are spilled to
    the log before the commit, rewritten there, and partly rolled back to a savepoint."""
    bodies = [rng.randbytes(4000) for _ in range(size // 4000)]
    connection.execute("BEGIN IMMEDIATE")
    first = connection.execute("SELECT ifnull(max(id), 0) + 1 FROM item").fetchone()[0]
    connection.executemany(
        "INSERT INTO item(id, writer, seq, body) VALUES (?, ?, ?, ?)",
        ((first + n, writer, seq, body) for n, body in enumerate(bodies)),
    )
    for n in range(0, len(bodies), 10):
        bodies[n] = rng.randbytes(4000)
        connection.execute("UPDATE item SET body = ? WHERE id = ?", (bodies[n], first + n))
    connection.execute("SAVEPOINT undone")
    connection.execute(
        "UPDATE item SET body = zeroblob(3000) WHERE writer = ? AND seq = ?", (writer, seq)
    )
    connection.execute("ROLLBACK TO undone")
    digest = hashlib.sha256(b"".join(bodies)).hexdigest()
    connection.execute("INSERT INTO done VALUES (?, ?, ?)", (writer, seq, digest))
    connection.execute("COMMIT")


def fill(connection: sqlite3.Connection) -> None:
    """Pages that the next :func:`shrink` gives back."""
    connection.execute(
        "INSERT INTO filler WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "
        "SELECT i + 1 FROM n WHERE i < 200) SELECT randomblob(2000) FROM n"
    )


def shrink(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM filler")
    connection.execute("VACUUM")


def hold(path: str) -> None:
    """A long read transaction: the last receipt it sees, before and after a line on stdin."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30.0)
    connection.execute("BEGIN")
    for wait in (True, False):
        seen = connection.execute("SELECT count(*), max(rowid) FROM done").fetchone()
        print(*seen, flush=True)  # noqa: T201
        if wait:
            sys.stdin.readline()
    connection.execute("COMMIT")
    connection.close()


def violations(connection: sqlite3.Connection) -> list[str]:
    """Each contradiction to "exactly the transactions 1 … k of each writer"."""
    found = []
    for writer, count, highest in connection.execute(
        "SELECT writer, count(*), max(seq) FROM done GROUP BY writer"
    ):
        if count != highest:
            found.append(f"writer {writer}: {count} receipts, the highest is {highest}")
    rows: dict[tuple[int, int], list[bytes]] = {}
    for writer, seq, body in connection.execute("SELECT writer, seq, body FROM item ORDER BY id"):
        rows.setdefault((writer, seq), []).append(body)
    for writer, seq, digest in connection.execute("SELECT * FROM done"):
        if hashlib.sha256(b"".join(rows.pop((writer, seq), []))).hexdigest() != digest:
            found.append(f"writer {writer}, transaction {seq}: its rows are not those it wrote")
    return found + [f"rows of a transaction without receipt: {key}" for key in rows]


def last_committed(connection: sqlite3.Connection, writer: int) -> int:
    row = connection.execute("SELECT max(seq) FROM done WHERE writer = ?", (writer,)).fetchone()
    return row[0] or 0


def checkpoint(connection: sqlite3.Connection) -> None:
    """The application's own TRUNCATE checkpoint, which fails while a reader is active."""
    connection.execute("PRAGMA busy_timeout=5")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.execute("PRAGMA busy_timeout=30000")


def wait_for_checkpoint(connection: sqlite3.Connection, mode: str, patience: float) -> None:
    """The application's own checkpoint, with a busy timeout of ``patience`` seconds, which must
    not pass. A passive checkpoint of another process at the same instant is answered at once."""
    connection.execute(f"PRAGMA busy_timeout={int(1000 * patience)}")
    while True:
        began = time.monotonic()
        (busy, _, _) = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        if busy and time.monotonic() - began >= patience:
            raise TimeoutError(f"a {mode} checkpoint waited {patience} s in vain")
        if not busy:
            break
    connection.execute("PRAGMA busy_timeout=30000")


def end_of_service() -> list[int]:
    """Gets an element when SIGTERM arrives."""
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ending.append(number))
    return ending


def run(options: argparse.Namespace) -> None:
    rng = random.Random(options.seed + options.writer)
    connection = open_database(
        options.database, page_size=options.page_size, autocheckpoint=options.autocheckpoint
    )
    connection.executescript(SCHEMA)
    log = os.open(options.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    seq = last_committed(connection, options.writer)
    until = time.monotonic() + options.seconds if options.seconds else float("inf")
    commits = options.commits or bool(options.large)
    last = seq + commits if commits else sys.maxsize
    ending = end_of_service() if options.service else []
    longest = 0.0
    while seq < last and time.monotonic() < until and not ending:
        began = time.monotonic()
        seq += 1
        if options.large:
            large_transaction(connection, options.writer, seq, rng, options.large)
        else:
            transaction(connection, options.writer, seq, rng, options.rows)
        longest = max(longest, time.monotonic() - began)
        os.write(log, f"{options.writer} {seq}\n".encode())
        if options.truncate_every and seq % options.truncate_every == 0:
            checkpoint(connection)
        if options.checkpoint_every and rng.randrange(options.checkpoint_every) == 0:
            wait_for_checkpoint(connection, rng.choice(CHECKPOINTS), options.patience)
        if options.vacuum_every and seq % options.vacuum_every == 0:
            shrink(connection)
        elif options.vacuum_every and seq % options.vacuum_every == options.vacuum_every // 2:
            fill(connection)
        if options.reopen_every and seq % options.reopen_every == 0:
            connection.close()
            connection = open_database(options.database, autocheckpoint=options.autocheckpoint)
        if options.rate:
            time.sleep(max(0.0, 1 / options.rate - (time.monotonic() - began)))
    connection.close()
    Path(f"{options.log}.longest").write_text(str(longest))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("database")
    parser.add_argument("log")
    for name, default in (
        ("writer", 1),
        ("commits", 0),
        ("rows", 4),
        ("seed", 1),
        ("page-size", 4096),
        ("autocheckpoint", 1000),
        ("truncate-every", 0),
        ("checkpoint-every", 0),
        ("vacuum-every", 0),
        ("reopen-every", 0),
        ("large", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("rate", 0.0), ("seconds", 0.0), ("patience", 20.0)):
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--hold", action="store_true")
    parser.add_argument("--service", action="store_true")
    return parser.parse_args(arguments)


def main(options: argparse.Namespace) -> None:
    if options.hold:
        hold(options.database)
    else:
        run(options)


if __name__ == "__main__":
    main(parse(sys.argv[1:]))

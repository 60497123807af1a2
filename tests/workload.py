"""A writer process with its own commit log, outside the database.

Each transaction stores its sequence number and a hash over its rows; after COMMIT has returned,
the number is appended to the log file. So whatever a restore brings back can be held against
what was acknowledged: exactly the transactions 1 … k of each writer, and k no smaller than what
was reported durable.

    python workload.py DATABASE LOG [--writer N] [--rate TX/S] [--commits N] [--mode NAME] …
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sqlite3
import sys
import time

SCHEMA = """
CREATE TABLE IF NOT EXISTS done(writer INTEGER, seq INTEGER, digest TEXT, PRIMARY KEY(writer, seq));
CREATE TABLE IF NOT EXISTS item(id INTEGER PRIMARY KEY, writer INTEGER, seq INTEGER, body BLOB);
CREATE INDEX IF NOT EXISTS item_by_writer ON item(writer, seq);
"""


def open_database(path: str, *, page_size: int = 4096, autocheckpoint: int = 1000,
                  timeout: float = 30.0) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=timeout)
    connection.execute(f"PRAGMA page_size={page_size}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA wal_autocheckpoint={autocheckpoint}")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA cache_size=-2000")
    return connection


def transaction(connection: sqlite3.Connection, writer: int, seq: int,
                rng: random.Random, rows: int) -> None:
    """One transaction: some rows, sometimes older ones removed, and its own receipt."""
    connection.execute("BEGIN IMMEDIATE")
    digest = hashlib.sha256()
    for _ in range(rng.randint(1, rows)):
        body = rng.randbytes(rng.choice((20, 200, 1500)))
        digest.update(body)
        connection.execute("INSERT INTO item(writer, seq, body) VALUES (?, ?, ?)",
                           (writer, seq, body))
    if seq % 7 == 0:
        connection.execute("UPDATE item SET body = body WHERE writer = ? AND seq = ?",
                           (writer, seq - 5))
    connection.execute("INSERT INTO done VALUES (?, ?, ?)", (writer, seq, digest.hexdigest()))
    connection.execute("COMMIT")


def violations(connection: sqlite3.Connection) -> list[str]:
    """What contradicts "exactly the transactions 1 … k of each writer", empty if nothing."""
    found = []
    for writer, count, highest in connection.execute(
            "SELECT writer, count(*), max(seq) FROM done GROUP BY writer"):
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
    """The application's own TRUNCATE checkpoint, which gives up when somebody reads."""
    connection.execute("PRAGMA busy_timeout=5")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("PRAGMA busy_timeout=30000")


def run(options: argparse.Namespace) -> None:
    rng = random.Random(options.seed + options.writer)
    connection = open_database(options.database, page_size=options.page_size,
                               autocheckpoint=options.autocheckpoint)
    connection.executescript(SCHEMA)
    log = os.open(options.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    seq = last_committed(connection, options.writer)
    until = time.monotonic() + options.seconds if options.seconds else float("inf")
    last = seq + options.commits if options.commits else sys.maxsize
    while seq < last and time.monotonic() < until:
        began = time.monotonic()
        seq += 1
        transaction(connection, options.writer, seq, rng, options.rows)
        os.write(log, f"{options.writer} {seq}\n".encode())
        if options.truncate_every and seq % options.truncate_every == 0:
            checkpoint(connection)
        if options.vacuum_every and seq % options.vacuum_every == 0:
            connection.execute("DELETE FROM item WHERE id % 3 = 0 AND writer = -1")
            connection.execute("VACUUM")
        if options.reopen_every and seq % options.reopen_every == 0:
            connection.close()
            connection = open_database(options.database, autocheckpoint=options.autocheckpoint)
        if options.rate:
            time.sleep(max(0.0, 1 / options.rate - (time.monotonic() - began)))
    connection.close()


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("database")
    parser.add_argument("log")
    for name, default in (("writer", 1), ("commits", 0), ("rows", 4), ("seed", 1),
                          ("page-size", 4096), ("autocheckpoint", 1000), ("truncate-every", 0),
                          ("vacuum-every", 0), ("reopen-every", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name in ("rate", "seconds"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(parse(sys.argv[1:]))

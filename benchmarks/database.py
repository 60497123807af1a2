"""The databases of the benchmark: made of half-random rows or of orders as people write them,
changed by page, compared by content.

A restored database counts only if every row of every table of the application is the source's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

MIB = 1 << 20
ORDER = 200  # bytes of an order, about
ROW = 400  # bytes of a row: half of it random, half of it text that compresses
SCHEMA = """
CREATE TABLE item(id INTEGER PRIMARY KEY, owner INTEGER, balance INTEGER, body BLOB);
CREATE INDEX item_owner ON item(owner);
CREATE TABLE teller(id INTEGER PRIMARY KEY, balance INTEGER);
CREATE TABLE branch(id INTEGER PRIMARY KEY, balance INTEGER);
INSERT INTO branch VALUES (0, 0);
CREATE TABLE event(id INTEGER PRIMARY KEY, item INTEGER, teller INTEGER, amount INTEGER,
  at REAL, note TEXT);
CREATE TABLE file(id INTEGER PRIMARY KEY, body BLOB);
"""
INDEX = "CREATE INDEX item_owner ON item(owner)"
LARGE = 2_000_000_000  # bytes from which on SQLite itself makes the rows; Python takes minutes
ROWS = """
INSERT INTO item
  WITH RECURSIVE one(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM one WHERE id + 1 < :rows)
  SELECT id, abs(random()) % :rows, 0, CAST(randomblob(:half) || :text AS BLOB) FROM one
"""
TELLERS = 10
ARTICLES = tuple(
    f"{what} of {stuff}"
    for what in ("chair", "table", "lamp", "shelf", "box")
    for stuff in ("oak", "beech", "pine", "steel", "glass", "bamboo", "linen")
)
NOTES = (
    "",
    "",
    "please ring twice",
    "leave it with the neighbours on the second floor",
    "a present; no invoice in the parcel",
    "deliver after six in the evening",
)
NOTE = "the quick brown fox jumps over the lazy dog; "


def connect(path: Path) -> sqlite3.Connection:
    """As an application with ordinary settings does."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("PRAGMA journal_mode=WAL").fetchone()
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def make(path: Path, size: int, seed: int = 1, *, real: bool = False) -> Path:
    """A database of about ``size`` bytes, ``real``: of orders. The same seed gives the same rows,
    below LARGE."""
    rows = max(1, int(size / ((ORDER if real else ROW) + 30)))
    with contextlib.closing(connect(path)) as connection:
        connection.executescript(SCHEMA)
        connection.executemany("INSERT INTO teller VALUES (?, 0)", ((n,) for n in range(TELLERS)))
        if size < LARGE:
            _fill(connection, rows, random.Random(seed), order if real else body)
        else:
            _fill_fast(connection, rows)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return path


def _fill(
    connection: sqlite3.Connection,
    rows: int,
    chance: random.Random,
    content: Callable[[random.Random], bytes],
) -> None:
    for first in range(0, rows, 20_000):
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO item VALUES (?, ?, 0, ?)",
            (
                (n, chance.randrange(rows), content(chance))
                for n in range(first, min(first + 20_000, rows))
            ),
        )
        connection.execute("COMMIT")


def _fill_fast(connection: sqlite3.Connection, rows: int) -> None:
    """Without a log, and the index at the end; nobody follows yet, and nothing can be lost."""
    connection.execute("PRAGMA journal_mode=OFF").fetchone()
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("DROP INDEX item_owner")
    connection.execute(ROWS, {"rows": rows, "half": ROW // 2, "text": _text(ROW // 2)})
    connection.execute(INDEX)
    connection.execute("PRAGMA journal_mode=WAL").fetchone()


def body(chance: random.Random, size: int = ROW) -> bytes:
    """Half random, half text."""
    half = size // 2
    return chance.randbytes(half) + _text(half).encode()


def order(chance: random.Random) -> bytes:
    """What a shop keeps of an order: names, numbers, a reference nobody can compress."""
    return json.dumps(
        {
            "customer": chance.randrange(50_000),
            "article": chance.choice(ARTICLES),
            "pieces": chance.randrange(1, 9),
            "cents": chance.randrange(100, 50_000),
            "at": f"2026-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}T"
            f"{chance.randrange(24):02}:{chance.randrange(60):02}:{chance.randrange(60):02}Z",
            "state": chance.choice(("new", "paid", "sent", "returned")),
            "reference": f"{chance.getrandbits(64):016x}",
            "note": chance.choice(NOTES),
        }
    ).encode()


def _text(size: int) -> str:
    return (NOTE * (size // len(NOTE) + 1))[:size]


def change(path: Path, fraction: float, seed: int = 2) -> int:
    """Change one row in each of ``fraction`` of the pages of the table; how many rows."""
    chance = random.Random(seed)
    with contextlib.closing(connect(path)) as connection:
        rows = connection.execute("SELECT max(id) FROM item").fetchone()[0]
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        chosen = chance.sample(range(rows), max(1, int(pages * fraction)))
        connection.execute("BEGIN")
        connection.executemany(
            "UPDATE item SET body = ? WHERE id = ?", ((body(chance), n) for n in chosen)
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return len(chosen)


def digest(path: Path) -> str:
    """A hash of all rows of the application's tables."""
    total = hashlib.blake2b()
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        for table in ("item", "teller", "branch", "event", "file"):
            for row in connection.execute(f"SELECT * FROM {table} ORDER BY id"):
                for value in row:
                    total.update(value if isinstance(value, bytes) else str(value).encode())
    return total.hexdigest()


def size_of(path: Path) -> int:
    return path.stat().st_size

"""The application of the demo: knows SQLite and nothing of replication.

Run as its own process: ``write DATABASE COMMITS`` writes for ever and notes every commit in a
file of its own, after COMMIT has returned; ``image DATABASE`` folds the log into the database
file; ``count DATABASE`` prints how many orders it holds and whether they are the first n.
"""

from __future__ import annotations

import os
import random
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
  id INTEGER PRIMARY KEY, customer TEXT, item TEXT, amount INTEGER, note TEXT);
CREATE INDEX IF NOT EXISTS orders_by_customer ON orders (customer);
"""
_SEED_ROWS = 50_000
_CUSTOMERS = 2_000
_ITEMS = ("apple", "bolt", "candle", "drum", "easel", "flute", "globe", "harp")


def create(path: Path) -> int:
    """A database of ``_SEED_ROWS`` orders in WAL mode; the rows it holds."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.executescript(_SCHEMA)
    with database:
        database.executemany(
            "INSERT INTO orders VALUES (?, ?, ?, ?, ?)",
            (_order(number) for number in range(1, _SEED_ROWS + 1)),
        )
    database.close()
    return _SEED_ROWS


def write(path: Path, commits: Path) -> None:
    """One order a transaction, as fast as it goes, each noted once it is committed."""
    database = sqlite3.connect(path, timeout=30, isolation_level=None)
    database.execute("PRAGMA synchronous=NORMAL")
    number = database.execute("SELECT max(id) FROM orders").fetchone()[0]
    with commits.open("ab", buffering=0) as noted:
        while True:
            number += 1
            database.execute("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", _order(number))
            noted.write(b"%d\n" % number)


def image(path: Path) -> None:
    """Fold the log into the database file, so that its bytes are the whole state."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


def count(path: Path) -> int:
    """How many orders there are; -1 if they are not exactly the first so many."""
    database = sqlite3.connect(path)
    rows, last = database.execute("SELECT count(*), max(id) FROM orders").fetchone()
    intact = database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    database.close()
    return int(rows) if intact and rows == last else -1


def _order(number: int) -> tuple[int, str, str, int, str]:
    pick = random.Random(number)
    return (
        number,
        f"customer {pick.randrange(_CUSTOMERS)}",
        pick.choice(_ITEMS),
        pick.randrange(1, 100_000),
        f"order {number} " + os.urandom(24).hex(),
    )


def main(task: str, *paths: str) -> None:
    tasks: dict[str, Callable[..., int | None]] = {
        "create": create,
        "write": write,
        "image": image,
        "count": count,
    }
    answer = tasks[task](*map(Path, paths))
    if answer is not None:
        print(answer)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The application of the demo: uses SQLite, and knows nothing about replication.

It runs as its own process. ``write DATABASE COMMITS`` writes until it is killed, and records each
commit in a second file after COMMIT has returned; ``image DATABASE`` checkpoints the WAL into the
database file; ``count DATABASE`` prints the number of orders, or -1 if they are not the first n.
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
_CUSTOMERS = 2_000
_ITEMS = ("apple", "bolt", "candle", "drum", "easel", "flute", "globe", "harp")

Order = tuple[int, str, str, int, str]  # id, customer, item, amount, note


def _order(number: int) -> Order:
    pick = random.Random(number)
    return (
        number,
        f"customer {pick.randrange(_CUSTOMERS)}",
        pick.choice(_ITEMS),
        pick.randrange(1, 100_000),
        f"order {number} " + os.urandom(24).hex(),
    )


def create(path: Path, rows: int = 50_000) -> int:
    """Create a database of ``rows`` orders in WAL mode; returns their number."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.executescript(_SCHEMA)
    with database:
        database.executemany(
            "INSERT INTO orders VALUES (?, ?, ?, ?, ?)",
            (_order(number) for number in range(1, rows + 1)),
        )
    database.close()
    return rows


def write(path: Path, commits: Path, order: Callable[[int], Order] = _order) -> None:
    """Write one order per transaction at full speed, and record each after its commit."""
    database = sqlite3.connect(path, timeout=30, isolation_level=None)
    database.execute("PRAGMA synchronous=NORMAL")
    number = database.execute("SELECT max(id) FROM orders").fetchone()[0]
    with commits.open("ab", buffering=0) as recorded:
        while True:
            number += 1
            database.execute("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", order(number))
            recorded.write(b"%d\n" % number)


def image(path: Path) -> None:
    """Checkpoint the WAL into the database file, whose bytes are then the whole state."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


def count(path: Path) -> int:
    """The number of orders; -1 if they are not exactly the first n."""
    database = sqlite3.connect(path)
    rows, last = database.execute("SELECT count(*), max(id) FROM orders").fetchone()
    intact = database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    database.close()
    return int(rows) if intact and rows == last else -1


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

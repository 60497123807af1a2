"""The application: a process that writes and times each of its transactions.

    python -m benchmarks.writer DB steady --rate 200 --seconds 15

Prints one JSON document: ``latency`` (seconds of each transaction, BEGIN to COMMIT), ``commits``
(``time.monotonic`` when each COMMIT returned), ``seconds``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.database import MIB, NOTE, TELLERS, body, connect


def small(connection: sqlite3.Connection, chance: random.Random, rows: int) -> None:
    """TPC-B as pgbench has it: three balances change, one row is added."""
    item, teller = chance.randrange(rows), chance.randrange(TELLERS)
    amount = chance.randrange(-5000, 5000)
    connection.execute("UPDATE item SET balance = balance + ? WHERE id = ?", (amount, item))
    connection.execute("SELECT balance FROM item WHERE id = ?", (item,)).fetchone()
    connection.execute("UPDATE teller SET balance = balance + ? WHERE id = ?", (amount, teller))
    connection.execute("UPDATE branch SET balance = balance + ?", (amount,))
    connection.execute(
        "INSERT INTO event(item, teller, amount, at, note) VALUES (?, ?, ?, ?, ?)",
        (item, teller, amount, time.time(), NOTE),
    )


def blob(connection: sqlite3.Connection, chance: random.Random, _: int) -> None:
    """One MiB added."""
    connection.execute("INSERT INTO file(body) VALUES (?)", (body(chance, MIB),))


def evenly(rate: float, seconds: float) -> Iterator[None]:
    """``rate`` a second; late ones are not skipped."""
    began = time.monotonic()
    for n in range(int(rate * seconds)):
        time.sleep(max(0.0, began + n / rate - time.monotonic()))
        yield


def freely(seconds: float) -> Iterator[None]:
    """As fast as it goes."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield


def alone(count: int, gap: float) -> Iterator[None]:
    """Far apart, at uneven times, so that no timer of anybody is in step."""
    chance = random.Random(4)
    for _ in range(count):
        time.sleep(gap * (1 + chance.random()))
        yield


def bursts(count: int, gap: float) -> Iterator[None]:
    """Ten at once, ``count`` times, ``gap`` seconds apart."""
    for _ in range(count):
        time.sleep(gap)
        yield from (None for _ in range(10))


def times(args: argparse.Namespace) -> Iterator[None]:
    if args.load == "steady":
        return evenly(args.rate, args.seconds)
    if args.load == "saturated":
        return freely(args.seconds)
    if args.load == "lone":
        return alone(args.count, args.gap)
    if args.load == "bursts":
        return bursts(args.count, args.gap)
    return (None for _ in range(args.count))


def write(
    path: Path,
    args: argparse.Namespace,
    transaction: Callable[[sqlite3.Connection, random.Random, int], None],
) -> dict:
    chance = random.Random(args.seed)
    latency, commits = [], []
    with contextlib.closing(connect(path)) as connection:
        rows = connection.execute("SELECT max(id) + 1 FROM item").fetchone()[0]
        began = time.monotonic()
        for _ in times(args):
            start = time.monotonic()
            connection.execute("BEGIN IMMEDIATE")
            transaction(connection, chance, rows)
            connection.execute("COMMIT")
            commits.append(time.monotonic())
            latency.append(commits[-1] - start)
    return {"latency": latency, "commits": commits, "seconds": time.monotonic() - began}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("database", type=Path)
    parser.add_argument("load", choices=("steady", "saturated", "lone", "bursts", "count", "blobs"))
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--gap", type=float, default=1)
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    transaction = blob if args.load == "blobs" else small
    print(json.dumps(write(args.database, args, transaction)))


if __name__ == "__main__":
    main()

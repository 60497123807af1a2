"""Bytes of objects, measured: real transactions of a database of orders, one segment a second,
through this project's encoders and merges. ``month.py`` computes with them.
"""

from __future__ import annotations

import math
import random
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, linear_regression

import numpy as np

from replicator.archive.keys import Keys
from replicator.format.object_header import ObjectHeader
from replicator.format.page_hashes import HashChange, PageHashes
from replicator.format.segment import SegmentEncoder
from replicator.format.snapshot_blocks import SnapshotEncoder, compress_block
from replicator.format.wal import Rebaser, parse_header, scan
from replicator.model import Kind, WalPosition
from replicator.retention.merge import MergeSource, merge_all, merge_newest

RATE, PAGE, HOUR_S = 10, 4096, 3600
START_MS = 1_767_225_600_000  # the first of January 2026
SHARE = 0.9  # of the transactions insert an order; the others change any one
GENERATION, KEYS = "00000000-0000-4000-8000-000000000001", Keys("app.db")
HEADER = ObjectHeader(Kind.SEGMENT, GENERATION, 2, PAGE, GENERATION, START_MS, "month")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Mean bytes of one object at a size of the database; ``newest`` of the newest images of
    the pages of so many seconds."""

    rows: int
    segment: float
    five_minutes: float
    newest: dict[int, float]
    snapshot: float


class Shop:
    """A database of orders and its log, cut into one segment a second."""

    def __init__(self, path: Path, rows: int, *, steady: bool) -> None:
        self.path, self.rows, self.steady = path, rows, steady
        self.chance, self.txid = random.Random(rows), 1
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=OFF")
        self.db.execute("PRAGMA wal_autocheckpoint=0")
        self.db.execute(
            "CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INTEGER, "
            "cents INTEGER, at REAL, state TEXT, note TEXT)"
        )
        self.db.execute("BEGIN")
        self.db.executemany(
            "INSERT INTO orders VALUES (?,?,?,?,?,?)", (self.order(n) for n in range(rows))
        )
        self.db.execute("COMMIT")
        self.checkpoint()
        self.hashes = PageHashes(PAGE)
        self.hashes.extend(1, path.read_bytes())

    def order(self, number: int) -> tuple[object, ...]:
        chance = self.chance
        return (
            number,
            chance.randrange(50_000),
            chance.randrange(100, 50_000),
            START_MS / 1000 + number / RATE,
            "new",
            f"{chance.randrange(1, 9)} of article {chance.randrange(2000)}, "
            f"reference {chance.getrandbits(48):012x}",
        )

    def transact(self) -> None:
        if self.chance.random() < SHARE:
            self.db.execute("BEGIN")
            self.db.execute("INSERT INTO orders VALUES (?,?,?,?,?,?)", self.order(self.rows))
            if self.steady:
                self.db.execute("DELETE FROM orders WHERE id = (SELECT min(id) FROM orders)")
            self.db.execute("COMMIT")
            self.rows += 1
        else:
            self.db.execute(
                "UPDATE orders SET state = 'sent' WHERE id = (SELECT id FROM orders "
                "WHERE id >= ? LIMIT 1)",
                (self.chance.randrange(self.rows),),
            )

    def checkpoint(self) -> None:
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self.position: WalPosition | None = None

    def second(self, at: int) -> MergeSource:
        """Ten transactions as one segment."""
        for _ in range(RATE):
            self.transact()
        with self.path.with_name(self.path.name + "-wal").open("rb") as log:
            header = parse_header(log.read(32))
            assert header is not None
            base = self.position or header.start()
            log.seek(32 + base.frame * (PAGE + 24))
            data = log.read()
        frames = scan(data, base)
        rebaser = Rebaser(base)
        payload = rebaser.header + rebaser.feed(data, frames, frames.committed)
        before, first = self.hashes.checksum, self.txid + 1
        change = HashChange(self.hashes)
        change.add(frames, frames.committed, data)
        change.apply()
        ends = np.flatnonzero(frames.commits[: frames.committed]) + 1
        encoder = SegmentEncoder(replace(HEADER, first_txid=first), level=3)
        body = encoder.start() + encoder.write(payload)
        self.txid += len(ends)
        rest, _ = encoder.finish(
            last_txid=self.txid,
            state=self.hashes.state,
            before=before,
            commit_frames=np.diff(ends, prepend=0).tolist(),
            commit_times_ms=[START_MS + 1000 * at + 100 * n for n in range(len(ends))],
        )
        self.position = frames.position(base, frames.committed)
        whole = body + rest
        return MergeSource(KEYS.wal(first), first, self.txid, lambda: whole)

    def snapshot(self) -> int:
        """The bytes of one."""
        self.checkpoint()
        size = 0
        with self.path.open("rb") as file:
            while raw := file.read(SnapshotEncoder.BLOCK_BYTES):
                size += compress_block(raw, 3).size
        return size


def measure(rows: int, seconds: int, *, steady: bool) -> Sizes:
    """An hour, or as long as ``seconds`` (a multiple of 300), of a database of so many rows."""
    with tempfile.TemporaryDirectory() as directory:
        shop = Shop(Path(directory) / "shop.db", rows, steady=steady)
        snapshot = shop.snapshot()
        sources: list[MergeSource] = []
        for at in range(seconds):
            sources.append(shop.second(at))
            if at % 300 == 299:
                shop.checkpoint()
        shop.db.close()
    newest = {
        width: fmean(
            len(merge_newest(part, created_by="month", level=3).body)
            for part in _parts(sources, width)
        )
        for width in (1, 30, 300, HOUR_S)
    }
    merged = [
        len(merge_all(part, created_by="month", level=3).body) for part in _parts(sources, 300)
    ]
    return Sizes(
        rows, fmean(len(source.read()) for source in sources), fmean(merged), newest, snapshot
    )


def _parts(sources: Sequence[MergeSource], width: int) -> Iterator[Sequence[MergeSource]]:
    most = len(sources) if width > 1 else 300  # a sample of seconds is enough
    return (sources[at : at + width] for at in range(0, min(most, len(sources)), width))


def sizes_at(known: Sequence[Sizes], rows: float) -> Sizes:
    """Between measured sizes by the logarithm of the rows, as at the ends beyond them; snapshots
    by the straight line through all."""
    if len(known) == 1:
        return known[0]
    snapshot = linear_regression([k.rows for k in known], [k.snapshot for k in known])
    logs = [math.log(k.rows) for k in known]

    def between(values: list[float]) -> float:
        return float(np.interp(math.log(max(rows, 1)), logs, values))

    return Sizes(
        int(rows),
        between([k.segment for k in known]),
        between([k.five_minutes for k in known]),
        {width: between([k.newest[width] for k in known]) for width in known[0].newest},
        max(4096.0, snapshot.slope * rows + snapshot.intercept),
    )

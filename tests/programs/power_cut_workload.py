"""A process that goes through all work of a replicator while strace records it.

    python power_cut_workload.py DIRECTORY COMMITS

It appends ``durable TXID ROWS`` to the file ``said`` of the directory after each flush. The store
is a directory, ``store``, on which the power never fails.
"""

from __future__ import annotations

import os
import random
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

from replicator import SqliteReplicatorConfig
from replicator.cache.limits import CacheLimits
from replicator.engine import evidence
from replicator.engine.in_process import InProcessReplicator
from replicator.engine.limits import Limits
from replicator.errors import StoreUnavailable
from replicator.store.directory import DirectoryStore
from replicator.system.mailbox import Wanted

LONG = 60.0
SMALL, LARGE = 2_000, 30_000  # bytes of a row


class Away(DirectoryStore):
    """A directory that cannot be reached for a while."""

    away = False

    def put(self, key, body, **options):
        if self.away:
            raise StoreUnavailable("the store is away")
        super().put(key, body, **options)


def open_database(path):
    """As applications do: what they committed last may be gone after a power cut."""
    db = sqlite3.connect(path, isolation_level=None, timeout=LONG)
    db.execute("PRAGMA page_size=1024")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("CREATE TABLE IF NOT EXISTS t(seq INTEGER PRIMARY KEY, body BLOB)")
    return db


def body(seq, size):
    """Incompressible bytes; ``size`` distinguishes them from rows after a power cut."""
    return random.Random(seq * 100_003 + size).randbytes(size)


def rows(db):
    """The number of rows, which must be exactly 1 to that number."""
    if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        return 0
    found = db.execute("SELECT seq, body FROM t ORDER BY seq").fetchall()
    assert [seq for seq, _ in found] == list(range(1, len(found) + 1))
    assert all(text == body(seq, len(text)) for seq, text in found)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return len(found)


def commit(db, seq, size):
    db.execute("INSERT INTO t VALUES (?, ?)", (seq, body(seq, size)))


def replicator_of(place, store):
    """Its limits are so small that a few commits reach what usually takes a thousand."""
    config = SqliteReplicatorConfig(
        db_path=place / "app.db",
        url=f"file://{place}/store",
        prefix="app.db",
        cache_dir=place / "cache",
        sync_interval=0.0,
        max_cache_bytes=1 << 20,
        poll_interval=0.05,
        keep=False,
    )
    evidence.birth_of = lambda database: "1"  # the simulated disk makes every file anew
    limits = Limits.of(config)
    short = replace(
        limits,
        capture=replace(limits.capture, roll_over_frames=40),
        cache=CacheLimits(least_changes=400, keep_segments=12),
    )
    return InProcessReplicator(config, store=store, limits=short)


class PowerCutWorkload:
    def __init__(self, place, commits):
        self.commits = commits
        self.place = place
        self.store = Away(place / "store")
        self.said = os.open(place / "said", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.db = open_database(place / "app.db")
        self.seq = 0

    def commit(self, size=SMALL):
        self.seq += 1
        commit(self.db, self.seq, size)

    def flush(self, mine, **options):
        txid = mine.flush(LONG, **options).txid
        os.write(self.said, b"durable %d %d\n" % (txid, self.seq))

    def run(self):
        self.commit()
        self.live(self.first)
        self.live(self.outage)
        self.commit()  # while no replicator runs
        self.live(self.first)
        self.db.close()

    def live(self, act):
        mine = replicator_of(self.place, self.store)
        mine.start()
        act(mine)
        mine.stop()

    def first(self, mine):
        self.flush(mine)
        for number in range(self.commits):
            self.commit(LARGE if number % 6 == 5 else SMALL)
            self.flush(mine, snapshot=number == self.commits // 2)

    def outage(self, mine):
        """Pending segments are squashed during an outage, and all are uploaded after it."""
        self.store.away = True
        for _ in range(24):
            self.commit(LARGE)
            mine._engine.mailbox.ask(Wanted.CAPTURE).result(LONG)
        assert mine.metrics.snapshot()["squashes"]
        self.store.away = False
        self.flush(mine)


if __name__ == "__main__":
    PowerCutWorkload(Path(sys.argv[1]), int(sys.argv[2])).run()

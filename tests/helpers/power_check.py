"""Invariants of a disk after a power cut, before a replicator starts on it and after it has run."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import random
import shutil
import sqlite3
import tempfile
import traceback
from pathlib import Path

import pytest

from replicator import restore
from replicator.archive.keys import Keys
from replicator.archive.listing import list_segments
from replicator.archive.names import SegmentName, parse
from replicator.cache.cache import Cache
from replicator.capture.limits import CaptureLimits
from replicator.capture.reader import wal_contains
from replicator.engine import evidence
from replicator.engine.decide import Facts, LocalFacts, decide
from replicator.errors import DatabaseUnusable
from replicator.format.envelope import HEADER_LIMIT, read_header, read_tail
from replicator.model import Kind
from replicator.sqlite.local_file import FileState, examine_file
from replicator.sqlite.wal_file import WalFile
from replicator.store.directory import DirectoryStore
from replicator.system.files import Files
from replicator.system.paths import wal_path
from replicator.upload.fencing import facts_of
from replicator.verify.verify import verify
from tests.helpers.power_disk import write_tree
from tests.programs.power_cut_workload import LONG, commit, open_database, replicator_of, rows

OTHER_SIZE = 700  # bytes of a row that is committed after the power cut
EVERY_ONE = 0.05  # of the states, where each transaction is restored


class NoSync(Files):
    """Nothing has to survive these checks."""

    def system(self, call, /, *args, **kwargs):
        return 0 if call.__name__ == "fsync" else call(*args, **kwargs)


class StoredLog:
    """Reads the log of a store's tree from the objects themselves."""

    def __init__(self):
        self._known = {}

    def __call__(self, tree):
        """[(first txid, last txid, SHA-256)] in order; it has no hole."""
        found = []
        for path, data in sorted(tree.items()):
            name = parse(Keys("app.db"), path.removeprefix("store/"))
            if isinstance(name, SegmentName):
                found.append(self._facts(path, data))
        for before, after in itertools.pairwise(found):
            assert after[0] == before[1] + 1, "a hole in the log"
        return found

    def _facts(self, path, data):
        if path not in self._known:
            header, _ = read_header(data[:HEADER_LIMIT], path)
            trailer = read_tail(data, len(data), path).trailer
            sha256 = hashlib.sha256(data).hexdigest()
            self._known[path] = header.first_txid, trailer.last_txid, sha256
        return self._known[path]


def check_cache(place, log, reported):
    """The cache opens, knows every segment it ever sent, and reports nothing durable that is not
    stored. Returns how the replicator would continue."""
    stored = {first: sha256 for first, _, sha256 in log}
    end = log[-1][1] if log else 0
    assert not reported or reported[-1][0] <= end, "reported durable, yet not in the store"
    with Cache.open(place / "cache", NoSync()) as cache:
        assert not any("record" not in line for line in cache.recovered), cache.recovered
        records = cache.records()
        for record in records:
            if record.acknowledged:
                assert stored.get(record.first_txid, record.sha256) == record.sha256
                assert record.last_txid <= end, "acknowledged, yet not in the store"
            else:
                assert cache.intact(record)
                assert stored.get(record.first_txid) in (None, record.sha256), "it would fork"
        head, durable = cache.head(), cache.durable()
        assert (head.last_txid if head else 0) >= end, (
            "the store has a segment that the cache does not know"
        )
        assert (durable.last_txid if durable else 0) <= end
        return "first start" if head is None else _way(place, cache, head)


def _way(place, cache, head):
    hashes = cache.load_hashes(head.last_txid)
    assert hashes is None or hashes.state == head.state
    log = WalFile(wal_path(place / "app.db"))
    try:
        holds = wal_contains(log, head.end, CaptureLimits())
    finally:
        log.close()
    return decide(
        Facts(
            LocalFacts(
                same_page_size=True,
                same_file=True,
                wal_contains_position=holds,
                hashes_trusted=hashes is not None,
            )
        )
    ).way.value


def check_all(state, store, reported, identity, seed, scratch):
    """Starts a replicator on the state, writes, flushes and restores; runs in a subprocess.

    ``identity`` is the identity of the database file in the ledger. Returns None, or a traceback.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        place = Path(directory)
        write_tree(place, store, state)
        if (place / "app.db").exists():
            found = os.stat(place / "app.db")
            known = {(found.st_dev, found.st_ino): json.dumps(identity)}
            evidence.file_fact = lambda identity: known.get(identity, "another one")
        try:
            _check_all(place, reported, random.Random(seed))
        except BaseException:  # noqa: BLE001 - the caller reports it
            return traceback.format_exc()
    return None


def _check_all(place, reported, rng):
    if _is_no_database(place / "app.db"):
        assert not reported  # its creation was interrupted, before a replicator ran
        with pytest.raises(DatabaseUnusable):
            replicator_of(place, DirectoryStore(place / "store")).start()
        return
    # The application, or the replicator, comes first. A database without tables would be refused.
    early = rng.random() < 0.5 or examine_file(place / "app.db") is FileState.FRESH
    db, left = (open_database(place / "app.db"), None) if early else (None, 0)
    if db is not None:
        left = rows(db)
    mine = replicator_of(place, DirectoryStore(place / "store"))
    mine.start()
    try:
        if db is None:
            db = open_database(place / "app.db")
            left = rows(db)
        _continue(mine, db, left, rng)
        position = mine.flush(LONG)
        assert mine.status().durable_txid == position.txid
        assert mine.failed is None
        shrunk = mine.metrics.get("shrunk_starts") or mine.metrics.get("replaced_databases")
        assert shrunk or mine.status().last_error is None, mine.status().last_error
    finally:
        mine.stop()
    db.close()
    _check_store(place, position.txid, left, reported, rng)


def _is_no_database(path):
    """True if SQLite refuses the application's file after the power cut. SQLite opens a copy,
    because it would change the files on which the replicator starts."""
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        for file in path.parent.glob(f"{path.name}*"):
            shutil.copy(file, directory)
        with contextlib.closing(sqlite3.connect(Path(directory) / path.name)) as db:
            try:
                db.execute("SELECT count(*) FROM sqlite_schema")
            except sqlite3.DatabaseError as error:
                return error.sqlite_errorname == "SQLITE_NOTADB"
    return False


def _continue(mine, db, left, rng):
    """Commits rows; the last commits may be lost, so the same numbers now have other content."""
    for seq in range(left + 1, left + 3):
        if rng.random() < 0.7:
            mine.flush(LONG)
        commit(db, seq, OTHER_SIZE)


def _check_store(place, txid, left, reported, rng):
    store = DirectoryStore(place / "store")
    with contextlib.closing(sqlite3.connect(place / "app.db")) as db:
        assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    assert _restored(store, place) == (txid, left + 2)
    assert (place / "restored.db").read_bytes() == (place / "app.db").read_bytes()
    report = verify(store, "app.db", data=rng.random() < 0.2)
    assert report.findings == (), report.findings
    assert report.head_txid == txid
    assert report.restorable[-1].last_txid == txid
    for promised, count in rng.sample(reported, min(2, len(reported))):
        assert _restored(store, place, txid=promised) == (promised, count)
    points = _restore_points(store)
    for some in points if rng.random() < EVERY_ONE else rng.sample(points, min(3, len(points))):
        assert _restored(store, place, txid=some)[0] == some


def _restore_points(store):
    """Every txid but those that were squashed into a later one."""
    found = []
    for entry in list_segments(store, Keys("app.db"), 0):
        facts = facts_of(store, entry)
        whole = range(facts.first_txid, facts.last_txid + 1)
        found += whole if facts.kind is not Kind.MERGE_NEWEST else [facts.last_txid]
    return found


def _restored(store, place, **options):
    output = place / "restored.db"
    output.unlink(
        missing_ok=True
    )  # else the restore searches for processes that use it, which takes long
    report = restore(store=store, prefix="app.db", output=output, **options)
    with contextlib.closing(sqlite3.connect(output)) as db:
        return report.txid, rows(db)

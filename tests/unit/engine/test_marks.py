"""Marks: what is committed when one is asked for can be restored by its name, from the bucket."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from replicator.archive.index import PinnedPoint
from replicator.archive.keys import Keys
from replicator.archive.pins import list_pins
from replicator.engine.marks import Marker
from replicator.errors import Cancelled, ConfigError, NotDurable, StoreUnavailable
from replicator.model import Kind, Position, Retention
from replicator.retention.prune import Pruner, plan_prune
from replicator.store.directory import DirectoryStore
from tests.helpers.errors import raises
from tests.helpers.replication import LONG, HookedStore, replicating, restored, wait_for

KEYS = Keys("app.db")
DAY = 86_400_000
NOTHING = Retention(every_transaction=0, hourly=0, daily=0, snapshots=1)


def prune_all(store):
    """Deletes all that no pin and no other promise keeps, as after a day."""
    newest = max(info.modified_ms for info in store.list(""))
    plan = plan_prune(store, KEYS, NOTHING, newest + DAY)
    return Pruner(store, KEYS).apply(plan, plan.decision.deletions).deleted


def test_a_mark_is_restored_by_its_name_after_retention(path, app, store, out):
    """Later commits, snapshots and the strictest rules do not change what the name gives."""
    with replicating(path, store) as replicator:
        for _ in range(3):
            app.insert()
        position = replicator.mark("before-migration", LONG, note="why")
        image = app.image()
        for _ in range(3):
            app.insert(5)
            replicator.flush(LONG, snapshot=True)
        assert list_pins(store, KEYS) == (PinnedPoint(position.txid, "why", "before-migration"),)
    assert prune_all(store)
    report, data = restored(store, out, at="before-migration")
    assert (report.txid, report.generation) == (position.txid, position.generation)
    assert data == image


def test_a_mark_sends_few_requests(path, app, store):
    """Of an idle database: one look whether the name is free, the name, and its plain pin."""
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        store.calls.clear()
        replicator.mark("here")
        assert [call for call in store.calls if "/pins/" in call[1]] == store.calls
        assert [method for method, _ in store.calls] == ["get", "put", "put"]
        replicator.mark("here")  # nothing was committed since, so nothing changes
        with raises(ConfigError, "invalid_name"):
            replicator.mark("2026-01-31")
        app.insert()
        with raises(ConfigError, "name_taken"):
            replicator.mark("here", LONG)
        moved = replicator.mark("here", LONG, move=True)
        assert [point.txid for point in list_pins(store, KEYS)] == [moved.txid]


def test_with_the_store_away_nothing_is_marked(path, app, store):
    """The error comes at the deadline, and the bucket is as before."""
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        store.go_away()
        app.insert()
        with raises(NotDurable):
            replicator.mark("here", 0.3)
        store.come_back()
        assert list_pins(store, KEYS) == ()


def test_a_stop_ends_a_mark_without_a_deadline(path, app, store):
    """The thread that waits for the store gets an error, and no mark appears later."""
    failures = []

    def before(method, key):
        if "/pins/" in key:
            tried.set()
            raise StoreUnavailable("away")

    def mark():
        try:
            replicator.mark("here")
        except Cancelled as error:
            failures.append(error)

    tried = threading.Event()
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        store.before = before
        thread = threading.Thread(target=mark)
        thread.start()
        assert tried.wait(LONG)
    thread.join(LONG)
    assert len(failures) == 1


KILLED = """
import os, signal, sys
from replicator.store.directory import DirectoryStore
from tests.helpers.replication import HookedStore, replicator_for
path, bucket, when, key = sys.argv[1:]
def kill(method, at):
    if method == "put" and at.endswith(key):
        os.kill(os.getpid(), signal.SIGKILL)
store = HookedStore(DirectoryStore(bucket))
replicator = replicator_for(path, store)
replicator.start()
setattr(store, when, kill)
replicator.mark("here", 100)
"""


@pytest.mark.parametrize(
    ("when", "key", "there"),
    [
        ("before", "pins/here.json", False),
        ("after", "pins/here.json", True),
        ("after", "pins/0000000000000001.json", True),
    ],
)
def test_kill_9_between_flush_and_pin(tmp_path, out, when, key, there):
    """The name is there, and keeps its state, or nothing is; the next mark works in both cases."""
    path, bucket = tmp_path / "app.db", tmp_path / "bucket"
    bucket.mkdir()
    with sqlite3.connect(path, isolation_level=None) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
    db.close()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, path, bucket, when, key],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        timeout=LONG,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    store = DirectoryStore(bucket)
    assert [point.name for point in list_pins(store, KEYS)] == ["here"] * there
    with replicating(path, store) as replicator:
        position = replicator.mark("here", LONG)
    prune_all(store)
    assert restored(store, out, at="here")[0].txid == position.txid == 1
    assert json.loads(store.get(KEYS.pin(1)))["note"] == "here"


# ------------------------------------------------------------------- what a stub must bring about


class Stub:
    """A marker whose flush answers 10, then 11; ``changes`` happen after the first flush."""

    def __init__(self, kind=Kind.SEGMENT, store=None, **changes):
        self.flushes, self.count = 0, 0
        self.store = store or HookedStore()
        self.state = SimpleNamespace(numbering=0)
        self.record = SimpleNamespace(kind=kind, first_txid=8, last_txid=12, generation="g")
        self.changes = changes

    def flush(self, until):
        self.flushes += 1
        if self.flushes == 1:
            self.state.numbering += self.changes.get("numbering", 0)
            self.count += self.changes.get("listings", 0)
        return 9 + self.flushes

    def mark(self, until=None):
        marker = Marker(
            self.store,
            KEYS,
            SimpleNamespace(holding=lambda _: self.record),
            SimpleNamespace(state=self.state),
            self.flush,
            lambda: self.count,
            threading.Event().wait,
        )
        return marker.mark("here", until, note="", move=False)


def test_a_step_is_marked_at_its_end():
    """A full cache made one step of several transactions: a restore cannot stop inside."""
    assert Stub().mark() == Position("g", 10)
    assert Stub(Kind.MERGE_NEWEST).mark() == Position("g", 12)


def test_other_numbers_are_noticed():
    """The archive was taken over meanwhile: the name goes to the state as it is numbered now."""
    stub = Stub(numbering=1)
    assert stub.mark() == Position("g", 11)
    assert list_pins(stub.store, KEYS) == (PinnedPoint(11, "", "here"),)


@pytest.mark.parametrize("gone", [False, True])
def test_retention_that_listed_the_pins_before_is_noticed(empty_bucket, gone):
    """If it deleted the point, the present state is named instead."""
    for _ in range(11):
        empty_bucket.insert()
        empty_bucket.cut()
    if gone:
        empty_bucket.store.delete(KEYS.wal(10))
    stub = Stub(store=empty_bucket.store, listings=1)
    assert stub.mark() == Position("g", 10 + gone)
    assert [point.txid for point in list_pins(stub.store, KEYS)] == [10 + gone]


@pytest.mark.parametrize("fault", ["refused", "no answer"])
def test_a_store_that_leaves_after_the_flush(fault):
    """The commits are durable and the name is not there: not even if its request, which had no
    answer by the deadline, arrives later."""
    answer, stub = threading.Event(), Stub()

    def before(method, key):
        if method == "put" and fault == "refused":
            raise StoreUnavailable("away")
        if method == "put" and not answer.is_set():
            answer.wait(LONG)

    stub.store.before = before
    with raises(NotDurable, "not_named", txid=10):
        stub.mark(time.monotonic() + 0.2)
    answer.set()
    if fault == "no answer":
        wait_for(lambda: KEYS.named_pin("here") in stub.store.keys("delete"))
    assert list_pins(stub.store, KEYS) == ()

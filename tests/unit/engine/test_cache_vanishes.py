"""The cache directory is lost, in whole or in part, while the replicator runs: it goes on."""

import os
import shutil
import threading
from contextlib import suppress

import pytest

from replicator.errors import NotDurable, StoreUnavailable
from replicator.model import Cause, Incident
from tests.helpers.replication import HookedStore, replicating, restored, wait_for

LONG = 60.0


def remove(directory):
    """Removes a directory at once; a replicator that still writes into it cannot delay that."""
    removed = directory.with_name(f"removed-{directory.name}")
    directory.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def everything(cache):
    remove(cache)


def ledger(cache):
    (cache / "state.db").unlink()


def ledger_replaced_by_nothing_of_ours(cache):
    (cache / "other").write_bytes(b"not a ledger" * 1000)
    os.replace(cache / "other", cache / "state.db")


def ledger_overwritten(cache):
    for name in ("state.db", "state.db-wal"):
        size = os.path.getsize(cache / name)
        with open(cache / name, "r+b") as file:
            file.write(os.urandom(size))


def segments(cache):
    remove(cache / "segments")


def hashes(cache):
    (cache / "pages.xxh").unlink()


LOSSES = [
    everything,
    ledger,
    ledger_replaced_by_nothing_of_ours,
    ledger_overwritten,
    segments,
    hashes,
]


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("waiting", [False, True], ids=["all durable", "segments wait"])
def test_the_replicator_goes_on(app, store, tmp_path, lose, waiting):
    """Without a restart, and with nothing lost: every commit is durable in the end, and what was
    promised before can still be restored."""
    with replicating(app.path, store) as replicator:
        app.insert(20)
        promised, then = replicator.flush(LONG), app.image()
        if waiting:
            store.go_away("wal/")
            for _ in range(3):
                app.insert(5)
                with pytest.raises(NotDurable):
                    replicator.flush(0.05)
            wait_for(lambda: replicator.status().failed_uploads)
        lose(replicator._engine.cache.directory)
        app.insert(5)
        if waiting:
            with suppress(NotDurable):
                replicator.flush(0.3)
            store.come_back()
        replicator.flush(LONG)
        app.insert(5)
        last = replicator.flush(LONG)
        assert last.txid > promised.txid
        wait_for(lambda: replicator.status().healthy)
        assert replicator.failed is None
    assert restored(store, tmp_path)[1] == app.image()
    assert restored(store, tmp_path, txid=promised.txid)[1] == then


@pytest.mark.parametrize("lose", LOSSES)
def test_and_the_next_start_goes_on_too(app, store, tmp_path, lose):
    """What is left behind is a cache like any other."""
    with replicating(app.path, store) as replicator:
        app.insert(20)
        replicator.flush(LONG)
        lose(replicator._engine.cache.directory)
        app.insert(5)
        before = replicator.flush(LONG)
    with replicating(app.path, store) as replicator:
        app.insert(5)
        after = replicator.flush(LONG)
    if lose not in (hashes, ledger_overwritten):  # then a new snapshot, at worst
        assert after.generation == before.generation
    assert restored(store, tmp_path)[1] == app.image()


class BareStore(HookedStore):
    """A store that keeps no metadata."""

    def put(self, key, body, *, metadata=None, if_absent=True):
        super().put(key, body, if_absent=if_absent)


@pytest.fixture
def lossy(store, memory_store, request):
    """A store that loses the answer to the first append after ``lose_answer()``, and is away from
    then on; ``lost`` is set then."""
    store = BareStore(memory_store) if getattr(request, "param", "") == "bare" else store
    store.lost = threading.Event()

    def after(method, key):
        if method == "put" and "wal/" in key:
            store.after = lambda method, key: None
            store.go_away()
            store.lost.set()
            raise StoreUnavailable("the answer was lost")

    store.lose_answer = lambda: setattr(store, "after", after)
    return store


@pytest.mark.parametrize("lossy", ["metadata", "bare"], indirect=True)
def test_a_damaged_segment_that_had_arrived_is_durable(app, lossy, tmp_path):
    """The answer to its PUT was lost, then its file: the store is asked before its txid is used
    again, otherwise the replicator would take itself for another writer."""
    with replicating(app.path, lossy) as replicator:
        app.insert()
        first = replicator.flush(LONG)
        lossy.lose_answer()
        app.insert()
        assert lossy.lost.wait(LONG)
        segments(replicator._engine.cache.directory)
        app.insert()
        lossy.come_back()
        last = replicator.flush(LONG)
        assert last.generation == first.generation
        assert replicator.failed is None
    assert restored(lossy, tmp_path)[1] == app.image()


@pytest.mark.parametrize("lossy", ["metadata", "bare"], indirect=True)
def test_a_segment_damaged_between_two_runs_that_had_arrived_is_durable(app, lossy, tmp_path):
    """The same with a restart between the loss of the answer and the next attempt."""
    with replicating(app.path, lossy) as replicator:
        app.insert()
        first = replicator.flush(LONG)
        lossy.lose_answer()
        app.insert()
        assert lossy.lost.wait(LONG)
        wait_for(lambda: replicator.status().failed_uploads)
    for path in (replicator.config.cache / "segments").iterdir():
        path.write_bytes(b"damaged")
    lossy.come_back()
    app.insert()
    with replicating(app.path, lossy) as replicator:
        last = replicator.flush(LONG)
        assert last.generation == first.generation
        assert replicator.failed is None
    assert restored(lossy, tmp_path)[1] == app.image()


def test_a_second_report_of_the_same_damage_drops_nothing(app, store, tmp_path):
    """Each attempt of the uploader reports the damage; the segment captured again is intact."""
    with replicating(app.path, store) as replicator:
        app.insert()
        replicator.flush(LONG)
        store.go_away()
        app.insert()
        wait_for(lambda: replicator.status().failed_uploads)
        cache, mailbox = replicator._engine.cache, replicator._engine.mailbox
        waiting = cache.next_pending()
        mailbox.report(Incident(Cause.SEGMENT_DAMAGED, "reported again", waiting.first_txid))
        joins = replicator.metrics.snapshot()["wake_ups"]
        wait_for(lambda: replicator.metrics.snapshot()["wake_ups"] > joins + 1)
        assert cache.next_pending().file_name == waiting.file_name
        store.come_back()
        replicator.flush(LONG)
    assert restored(store, tmp_path)[1] == app.image()

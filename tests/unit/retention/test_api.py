"""Retention beside a real replicator, its cache and its log."""

from replicator.system.clock import now_ms
from tests.helpers.replication import LONG, App, HookedStore, replicating, restored, wait_for

HOUR = 3_600_000
MERGES, SEGMENTS = "app.db/merged/1/", "app.db/wal/"


def keys(store, folder):
    return [info.key for info in store.inner.list(folder)]


def work(steps, at_ms):
    steps.begin(at_ms)
    while steps.step(at_ms):
        pass


def steps_of(replicator):
    """What the thread drives, without the thread."""
    replicator._engine.retention.stop()
    return replicator._engine.retention._steps


def commits(app, replicator, count):
    for _ in range(count):
        app.insert(3)
        replicator.flush(LONG)


def test_merges_come_out_of_the_cache(tmp_path, path):
    """Not one GET; the segments go once they are merged, the newest stays, each transaction can
    be restored, and the log goes on after a restart as if nothing had happened."""
    store = HookedStore()
    with App(path) as app:
        with replicating(path, store) as replicator:
            replicator.flush(LONG)
            store.calls.clear()
            commits(app, replicator, 9)
            steps = steps_of(replicator)
            work(steps, now_ms() + HOUR)
            assert store.keys("get") == []
            assert len(keys(store, MERGES)) in (1, 2)  # five minutes may end meanwhile
            work(steps, now_ms() + 2 * HOUR)
            assert len(keys(store, SEGMENTS)) in (2, 3)
            status = replicator.status()
            assert status.retention_error is None
            image = app.image()
        report, data = restored(store, tmp_path)
        assert (report.txid, data) == (10, image)
        report, _ = restored(store, tmp_path, txid=5)
        assert report.txid == 5
        with replicating(path, store) as replicator:
            commits(app, replicator, 3)
            assert replicator.status().generation == status.generation
            assert restored(store, tmp_path)[1] == app.image()


def test_nothing_is_merged_or_pruned_unless_wanted(path):
    """``keep`` off: there is no such thread."""
    store = HookedStore()
    with App(path), replicating(path, store, keep=False) as replicator:
        replicator.flush(LONG)
        assert replicator._engine.retention is None
        assert replicator.status().retention_error is None


def test_trouble_with_the_past_is_in_the_status(path):
    """And does not make the present unhealthy."""
    limits = {"retention": {"tick": 0.001, "begin_ms": 0}}
    store = HookedStore()
    store.go_away("merged/")
    with App(path) as app, replicating(path, store, limits=limits) as replicator:
        replicator.flush(LONG)
        commits(app, replicator, 2)
        wait_for(lambda: replicator.status().retention_error is not None)
        assert "away" in replicator.status().retention_error
        assert replicator.status().healthy


def test_segments_that_left_the_cache_are_fetched(tmp_path, path):
    """The same merge comes out of the store."""
    store = HookedStore()
    with App(path) as app, replicating(path, store) as replicator:
        replicator.flush(LONG)
        commits(app, replicator, 5)
        replicator._engine.cache.trim(0)
        work(steps_of(replicator), now_ms() + HOUR)
        assert keys(store, MERGES)
        assert len(store.keys("get")) >= 4
        assert restored(store, tmp_path)[1] == app.image()

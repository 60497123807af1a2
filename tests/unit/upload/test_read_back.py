"""What the store confirmed is read back: a store that drops or moves objects is found out."""

import pytest

from replicator.errors import NotDurable, StoreUnsafe
from replicator.store.memory import MemoryStore
from replicator.upload.limits import UploadLimits
from tests.helpers.odd_stores import DroppingStore
from tests.helpers.replication import LONG, HookedStore, replicating, restored, wait_for


@pytest.fixture
def dropping():
    """A `DroppingStore`."""
    return DroppingStore()


def refusal(replicator):
    """The error of the upload, once there is one."""
    return wait_for(lambda: replicator.status().last_error)


@pytest.mark.parametrize("lost", ["/wal/", "/snapshots/", "/wal/0000000000000002"])
def test_a_store_that_drops_the_first_objects_is_found_at_once(app, dropping, lost):
    """Marker, snapshot or first segment: nothing that is gone is called durable."""
    dropping.lost = lost
    with replicating(app.path, dropping) as replicator:
        if lost.endswith("2"):
            replicator.flush(LONG)
        app.insert()
        assert "does not have it" in refusal(replicator)
        durable = replicator.status().durable_txid
        assert durable == (1 if lost.endswith("2") else 0)
        with pytest.raises((NotDurable, StoreUnsafe)):
            replicator.flush(0.1)


def test_a_dropped_segment_is_sent_again(app, dropping, tmp_path):
    """It stayed in the cache; once the store keeps objects, everything is durable."""
    dropping.lost = "/wal/"
    with replicating(app.path, dropping) as replicator:
        app.insert(5)
        refusal(replicator)
        dropping.lost = ""
        replicator.flush(LONG)
    assert restored(dropping, tmp_path)[1] == app.image()


class Moving(MemoryStore):
    """Lists the log under another folder, although each object is found at its own key."""

    def list(self, prefix, *, start_after=""):
        if "/wal/" not in prefix:
            yield from super().list(prefix, start_after=start_after)


def test_a_log_that_no_listing_shows_is_not_durable(app):
    """A restore lists the log; an answer to a HEAD is not enough."""
    with replicating(app.path, Moving()) as replicator:
        assert "does not have it" in refusal(replicator)
        assert replicator.status().durable_txid == 0


def test_a_later_loss_is_found_by_the_sample(app, tmp_path):
    """One append of each so many is read back. What was called durable before may be missing, too,
    so a new generation begins, and its snapshot makes everything restorable."""
    inner = DroppingStore()
    limits = {"upload": {"read_back_every": 4}}
    with replicating(app.path, HookedStore(inner), limits=limits) as replicator:
        replicator.flush(LONG)
        for _ in range(2):
            app.insert()
            replicator.flush(LONG)
        generations = replicator.metrics.get("generations")
        inner.lost = "/wal/"
        for _ in range(3):  # no sample is due: they are believed
            app.insert()
            replicator.flush(LONG)
        app.insert()
        wait_for(lambda: replicator.metrics.get("generations") > generations)
        inner.lost = ""
        replicator.flush(LONG)
        assert restored(inner, tmp_path)[1] == app.image()


@pytest.fixture
def asking(app, dropping):
    """A replicator that waits before it asks again for a sample that is missing, for ever."""
    limits = {"upload": {"read_back_every": 1, "read_back_pauses": (1e6,)}}
    store = HookedStore(dropping)
    with replicating(app.path, store, limits=limits) as replicator:
        for _ in range(2):  # the first append is read back, the second is not
            replicator.flush(LONG)
            app.insert()
        replicator.flush(LONG)
        dropping.lost = "/wal/"
        asked = len(store.keys("head"))
        app.insert()
        wait_for(lambda: len(store.keys("head")) > asked)
        yield replicator


def test_a_stop_interrupts_the_wait_for_a_sample(asking):
    """Nothing is called lost because of that."""
    asking.stop()
    assert asking.status().last_error is None
    assert asking.metrics.get("failed_uploads") == 0


def test_a_join_interrupts_the_wait_for_a_sample(asking, app, dropping, tmp_path):
    """The join waits for the attempt under way. The segment that was not confirmed is sent again,
    and everything is durable."""
    dropping.lost = ""
    asking._engine.uploader.begin_anew()
    asking.flush(LONG)
    assert restored(dropping, tmp_path)[1] == app.image()


def test_the_sample_is_a_small_share_of_the_requests():
    """Documented in docs/performance.md."""
    assert UploadLimits().read_back_every == 64

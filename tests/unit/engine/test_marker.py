"""A marker that waits in the cache vouches for a snapshot: it is appended only beside it."""

import pytest

from replicator.errors import NotDurable
from tests.helpers.replication import LONG, HookedStore, replicating, restored

pytestmark = pytest.mark.app(rows=3)


def begun(app):
    """A store that has a generation's first snapshot; its marker is in the cache still."""
    store = HookedStore()
    store.go_away("wal/0")
    with replicating(app.path, store) as replicator, pytest.raises(NotDurable):
        replicator.flush(0.5)
    assert len(list(store.inner.list("app.db/snapshots/"))) == 1
    store.come_back()
    return store


def lose(store):
    store.wipe()
    return store


@pytest.mark.parametrize(
    "after", [lose, lambda _: HookedStore()], ids=["the bucket was emptied", "another bucket"]
)
def test_a_marker_without_its_snapshot_is_not_appended(app, tmp_path, after):
    """Between two starts the snapshot went: the generation begins anew, and is restorable."""
    store = after(begun(app))
    app.insert()
    (tmp_path / "out").mkdir()
    with replicating(app.path, store) as replicator:
        replicator.flush(LONG)
        assert restored(store, tmp_path / "out")[1] == app.image()


def test_a_marker_beside_its_snapshot_is(app, tmp_path):
    """Nothing is sent twice."""
    store = begun(app)
    app.insert()
    (tmp_path / "out").mkdir()
    with replicating(app.path, store) as replicator:
        replicator.flush(LONG)
        assert restored(store, tmp_path / "out")[1] == app.image()
    assert len([key for key in store.keys("put") if "snapshots/" in key]) == 1

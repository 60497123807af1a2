"""Joining a log: what races with it, and what is read where the store keeps no metadata."""

import shutil
import threading

import pytest

from replicator.engine import resume as join
from replicator.engine.generation import new_generation
from replicator.engine.resume import hash_image
from replicator.errors import Cancelled, StoreUnavailable
from replicator.format.page_hashes import PageHashes
from replicator.store.base import ObjectInfo
from tests.helpers.replication import (
    LONG,
    image_of,
    replicating,
    replicator_for,
    restored,
    wait_for,
)

pytestmark = pytest.mark.app(rows=40)


def lose_the_cache(path, store):
    """A log in the store, and no record of it here."""
    with replicating(path, store) as replicator:
        position = replicator.flush(LONG)
    shutil.rmtree(replicator.config.cache)
    return position


def test_a_database_that_changes_while_it_is_compared_is_continued(
    path, app, store, out, monkeypatch
):
    """The image that is compared stands still, so what is committed meanwhile comes next."""
    first = lose_the_cache(path, store)

    def racing(*args):
        app.insert()
        return hash_image(*args)

    monkeypatch.setattr(join, "hash_image", racing)
    with replicating(path, store) as replicator:
        second = replicator.flush(LONG)
    assert (second.generation, second.txid) == (first.generation, first.txid + 1)
    assert restored(store, out)[1] == image_of(path)


def test_the_head_is_read_from_the_object_where_there_is_no_metadata(path, app, store, out):
    """A store without metadata: header and trailer say enough to adopt the log."""
    first = lose_the_cache(path, store)
    head = store.inner.head
    store.inner.head = lambda key: ObjectInfo(key, head(key).size, head(key).modified_ms)
    with replicating(path, store) as replicator:
        assert replicator.flush(LONG) == first
        app.insert()
        second = replicator.flush(LONG)
        assert (second.generation, second.txid) == (first.generation, first.txid + 1)
    with replicating(path, store) as replicator:  # and the record made of it is good
        assert replicator.flush(LONG) == second
    assert restored(store, out)[1] == image_of(path)


def test_a_snapshot_without_a_marker_is_no_log(path, app, store, out):
    """A crash between the first snapshot and its marker: an orphan that is never read."""
    store.go_away("wal/")
    replicator = replicator_for(path, store)
    replicator.start()
    wait_for(
        lambda: any("snapshots/" in key for key in store.keys("put")) or "wal/" in str(store.calls)
    )
    replicator.stop()
    shutil.rmtree(replicator.config.cache)
    store.come_back()
    for info in list(store.inner.list("app.db/wal/")):
        store.inner.delete(info.key)
    with replicating(path, store) as replicator:
        assert replicator.flush(LONG).txid == 1
    assert restored(store, out)[1] == image_of(path)


def test_stop_ends_the_retries_of_a_snapshot(path, app, store):
    """The first snapshot is being retried: stop() cuts the wait between attempts short."""

    def before(method, key):
        if "snapshots/" in key and method == "put":
            raise StoreUnavailable("not now")

    store.before = before
    replicator = replicator_for(path, store)
    replicator.start()
    wait_for(lambda: sum("snapshots/" in key for key in store.keys("put")) > 1)
    done = threading.Thread(target=replicator.stop)
    done.start()
    done.join(20)
    stuck = done.is_alive()
    store.come_back()
    done.join(LONG)
    assert not stuck


def test_hashing_is_given_up_when_told():
    """A large database is not hashed to its end by a replicator that stops."""

    class Endless:
        page_size, pages = 4096, 1 << 30

    with pytest.raises(Cancelled):
        hash_image(Endless(), 1 << 20, lambda: True)


def test_an_image_is_hashed_whole(path, app):
    """In blocks or at once, the hashes are those of the image."""
    from replicator.capture.image import Image
    from replicator.capture.limits import CaptureLimits
    from replicator.sqlite.live import LiveDatabase

    database = LiveDatabase(path)
    hold = database.hold()
    expected = PageHashes(4096)
    expected.extend(1, image_of(path))
    with Image(database, CaptureLimits()) as image:
        assert hash_image(image, 3 * 4096, lambda: False).state == expected.state
    database.release(hold)
    database.close()


def test_generations_sort_by_their_time():
    """UUIDv7: version and variant are right, later ones are never smaller in the first 48 bits."""
    import uuid

    made = [uuid.UUID(new_generation()) for _ in range(50)]
    assert {(one.version, one.variant) for one in made} == {(7, uuid.RFC_4122)}
    stamps = [one.int >> 80 for one in made]
    assert stamps == sorted(stamps)
    assert len(set(made)) == 50

"""The log in the bucket went on without this cache: who may go on, who is told what."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from replicator.cache.records import Fact
from replicator.errors import Fenced, NotDurable, ObjectExists
from tests.helpers.errors import raises
from tests.helpers.replication import (
    LONG,
    App,
    HookedStore,
    image_of,
    replicate_once,
    replicating,
    replicator_for,
    restored,
    wait_for,
)

pytestmark = pytest.mark.app(rows=40)


@pytest.fixture
def other(tmp_path):
    """The application of another host, with another database."""
    (tmp_path / "other").mkdir()
    with App(tmp_path / "other" / "app.db") as other:
        other.insert(7)
        yield other


def cache_of(path):
    return path.with_name(f".{path.name}-replicator")


def make_stale(path, app, store, tmp_path, commits=1):
    """A cache from before ``commits``, beside a database that holds them; the log's position."""
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
    shutil.copytree(cache_of(path), tmp_path / "older")
    with replicating(path, store) as replicator:
        for _ in range(commits):
            app.insert()
            position = replicator.flush(LONG)
    shutil.rmtree(cache_of(path))
    shutil.move(tmp_path / "older", cache_of(path))
    return position


def metadata_of(store, txid):
    return store.inner.head(f"app.db/wal/{txid:016x}.wal.zst").metadata


def held_listing(store):
    """The first listing of the log waits until it is let go."""
    asked, go_on = threading.Event(), threading.Event()

    def before(method, key):
        if method == "list" and key.endswith("wal/"):
            asked.set()
            assert go_on.wait(LONG)

    store.before = before
    return asked, go_on


def during(owner, name):
    """Set once the method was called."""
    called, method = threading.Event(), getattr(owner, name)

    def call(*args):
        called.set()
        return method(*args)

    setattr(owner, name, call)
    return called


@pytest.mark.parametrize("commits", [1, 5])
def test_flush_names_the_txid_of_the_log_that_goes_on(path, app, store, out, tmp_path, commits):
    """What was numbered by a cache that is older than the log has other numbers in the end:
    flush waits for it, neither returns early nor waits for a txid that will not come."""
    ahead = make_stale(path, app, store, tmp_path, commits)
    asked, go_on = held_listing(store)
    with replicating(path, store) as replicator:
        assert asked.wait(LONG)
        wait_for(lambda: replicator.status().pending_segments)
        waits = during(replicator._engine.uploader.watermark, "wait")
        with ThreadPoolExecutor(1) as pool:
            flushed = pool.submit(replicator.flush, LONG)
            assert waits.wait(LONG)
            go_on.set()
            assert flushed.result(LONG) == ahead
        app.insert()
        position = replicator.flush(LONG)
        assert (position.generation, position.txid) == (ahead.generation, ahead.txid + 1)
    report, data = restored(store, out)
    assert (report.txid, data) == (position.txid, image_of(path))


def test_an_older_cache_beside_another_state_is_refused(path, app, store, tmp_path):
    """It says who wrote what is ahead, and what can be done; the bucket stays as it is."""
    make_stale(path, app, store, tmp_path)
    app.insert()
    sent = len(store.keys("put"))
    with replicating(path, store) as replicator:
        with pytest.raises(Fenced, match=r"with a copy of this cache, .* process \d+ on .*"):
            replicator.flush(LONG)
        wait_for(lambda: replicator.failed)
        status = replicator.status()
        assert (status.state, status.healthy) == ("failed", False)
        assert "owns the archive at" in status.last_error
        assert "--take-over" in replicator.failed.hint
    assert len(store.keys("put")) == sent


def test_a_restored_file_beside_an_older_cache_continues(path, app, store, out, tmp_path):
    """The file was restored elsewhere and moved here, so that the cache does not know it, and most
    of its pages differ. It equals the head, also if the start decides before the uploader knows
    that another writer continued the archive."""
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
    shutil.copytree(cache_of(path), tmp_path / "older")
    with replicating(path, store) as replicator:
        app.run("UPDATE t SET body = randomblob(900)")
        position = replicator.flush(LONG)
    shutil.rmtree(cache_of(path))
    shutil.move(tmp_path / "older", cache_of(path))
    app.close()
    for name in path.parent.glob("app.db*"):
        name.unlink()
    path.write_bytes(restored(store, out)[1])
    replicator, decided = replicator_for(path, store), threading.Event()

    def before(method, key):
        if (
            method == "list"
            and key.endswith("wal/")
            and "upload" in threading.current_thread().name
        ):
            wait_for(lambda: decided.is_set() or replicator.failed)

    store.before = before
    with replicator:
        wait_for(lambda: replicator.decided or replicator.failed)
        decided.set()
        assert replicator.failed is None
        assert replicator.flush(LONG) == position


def test_a_start_that_lost_to_another_goes_on_from_a_restore(path, app, other, store, out):
    """Nothing of this cache was ever acknowledged: the restored database is adopted."""
    with replicating(other.path, store) as holder:
        holder.flush(LONG)

        def before(method, key):
            if method == "begin_upload" or ("snapshots/" in key and method == "put"):
                store.come_back()
                other.insert()
                holder.flush(LONG)

        store.before = before
        with pytest.raises(Fenced):
            replicate_once(path, store)
        position = holder.flush(LONG)
    app.close()
    path.unlink()
    _, data = restored(store, out)
    path.write_bytes(data)
    with replicating(path, store) as replicator:
        assert replicator.flush(LONG) == position


@pytest.mark.parametrize("state", ["waiting", "stalled"])
def test_being_fenced_ends_every_wait(path, app, other, store, state):
    """Without a database, or with a full cache, nothing is waited for in vain."""
    settings = {"max_cache_bytes": 1 << 20} if state == "stalled" else {}
    replicator = replicator_for(path, store, **settings)
    replicator.start()
    replicator.flush(LONG)
    store.go_away("wal/")
    for _ in range(20 if state == "stalled" else 1):
        app.insert(1, 150_000)
        with pytest.raises(NotDurable):
            replicator.flush(0.05)
    wait_for(lambda: replicator.status().pending_segments)
    app.close()
    if state == "waiting":
        path.unlink()
    wait_for(lambda: replicator.status().state == state)
    with replicating(other.path, HookedStore(store.inner), take_over=True) as holder:
        holder.flush(LONG)
    store.come_back()
    wait_for(lambda: replicator.failed)
    assert isinstance(replicator.failed, Fenced)
    assert replicator.status().state == "failed"
    names = [event["name"] for event in replicator.events("", 0, 0.0)["events"]]
    assert names[:2] == ["generation", "following"]
    assert state in names
    assert names[-2:] == ["fenced", "unhealthy"]
    replicator.stop()


def test_a_log_of_somebody_else_where_ours_was_is_respected(path, app, other, store):
    """The bucket was emptied, and another host began a shorter log in it."""
    with replicating(path, store) as replicator:
        for _ in range(5):
            app.insert()
            replicator.flush(LONG)
    store.wipe()
    with replicating(other.path, store) as holder:
        holder.flush(LONG)
    app.insert()
    with raises(Fenced, url="memory://", txid=1):
        replicate_once(path, store)


# ---------------------------------------------------------------------------------- take-overs


def test_a_take_over_claims_the_log_first(path, app, other, store, out):
    """One small append stops the holder; the log is restorable between the two steps."""
    between = []

    def before(method, key):
        if "snapshots/" in key and method in ("put", "begin_upload") and not between:
            between.append(restored(store.inner, out))

    with replicating(other.path, store) as holder:
        head = holder.flush(LONG)
        image = image_of(other.path)
        store.before = before
        with replicating(path, store, take_over=True) as replicator:
            taken = replicator.flush(LONG)
        other.insert()
        with pytest.raises(Fenced):
            holder.flush(LONG)
    assert taken.txid == head.txid + 2
    report, data = between[0]
    assert (report.txid, report.generation, data) == (head.txid + 1, head.generation, image)
    told = metadata_of(store, head.txid + 1)
    assert told["kind"] == "catch-up"
    assert told["reason"].startswith("the archive is taken over from process ")
    assert metadata_of(store, taken.txid)["reason"].startswith("taken over from process ")


def test_a_claim_is_tried_again_at_the_new_end(path, app, other, store):
    """The holder appended between the question and the claim: the claim goes behind that."""
    with replicating(other.path, HookedStore(store.inner)) as holder:
        holder.flush(LONG)
        beaten = []

        def before(method, key):
            if method == "put" and "wal/" in key and len(beaten) < 3:
                other.insert()
                beaten.append(holder.flush(LONG).txid)

        store.before = before
        with replicating(path, store, take_over=True) as replicator:
            assert replicator.flush(LONG).txid == beaten[-1] + 2


def test_a_claim_whose_answer_was_lost_is_not_lost(path, app, other, store):
    """The store took it, and says on the second try that the key is taken: by ourselves."""
    with replicating(other.path, HookedStore(store.inner)) as holder:
        head = holder.flush(LONG)

    def after(method, key):
        if method == "put" and "wal/" in key:
            store.after = lambda method, key: None
            raise ObjectExists("an answer to the request that the client library repeated")

    store.after = after
    with replicating(path, store, take_over=True) as replicator:
        assert replicator.flush(LONG).txid == head.txid + 2


@pytest.mark.parametrize("flag", [True, False])
def test_a_take_over_that_was_interrupted_goes_on(path, app, other, store, out, flag):
    """Stopped between the two steps: the next start, ordered again or not, claims no more."""
    with replicating(other.path, HookedStore(store.inner)) as holder:
        head = holder.flush(LONG)
    store.go_away("snapshots/0")
    with replicating(path, store, take_over=True) as replicator:
        wait_for(lambda: replicator._engine.cache.get(Fact.CLAIM))
        with pytest.raises(NotDurable):
            replicator.flush(0.05)
    store.come_back()
    with replicating(path, store, take_over=flag) as replicator:
        assert replicator.flush(LONG).txid == head.txid + 2
    assert restored(store, out)[1] == image_of(path)
    app.insert()
    with replicating(path, store) as replicator:  # and that was it
        assert replicator.flush(LONG).txid == head.txid + 3


def test_the_order_in_an_empty_bucket_is_a_first_start(path, app, store, out):
    """The log has no owner, so none is named; numbers continue from those of this cache."""
    with replicating(path, store, take_over=True) as replicator:
        assert replicator.flush(LONG).txid == 1
    store.wipe()
    with replicating(path, store, take_over=True) as replicator:
        assert replicator.flush(LONG).txid == 2
    assert metadata_of(store, 2)["reason"] == "the first start"
    assert restored(store, out)[1] == image_of(path)


def test_a_take_over_is_given_up_when_told(path, app, other, store):
    """The claim ends against a writer that is always quicker."""
    with replicating(other.path, HookedStore(store.inner)) as holder:
        holder.flush(LONG)
        tries = []

        def before(method, key):
            if method == "put" and "wal/" in key:
                tries.append(key)
                other.insert()
                holder.flush(LONG)

        store.before = before
        replicator = replicator_for(path, store, take_over=True)
        replicator.start()
        wait_for(lambda: len(tries) > 2)
        replicator.stop()
        assert len(set(tries)) == len(tries)
        other.insert()
        holder.flush(LONG)

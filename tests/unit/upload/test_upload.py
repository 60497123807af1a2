"""The upload worker: one append after another, and a watermark that only answers move."""

import threading

import pytest

from replicator.archive.keys import Keys
from replicator.cache.cache import Cache
from replicator.cache.records import Status
from replicator.errors import AccessDenied, Fenced, NotDurable, ReplicatorError, StoreUnavailable
from replicator.metrics import Metrics
from replicator.model import Cause, Kind
from replicator.store.retry import RetryPolicy
from replicator.system.limiter import CapacityLimiter
from replicator.upload.limits import UploadLimits
from replicator.upload.uploader import Uploader
from tests.helpers.cache import add, commit, content, record
from tests.helpers.errors import raises
from tests.helpers.files import FailingFiles
from tests.helpers.replication import LONG, HookedStore, wait_for

QUICK = RetryPolicy(first=0.001, cap=0.002, deadline=None)


def uploader_of(store, cache, mailbox, *, refused=QUICK, **limits):
    """Retries are quick; ``limits`` are fields of UploadLimits."""
    return Uploader(
        store,
        Keys("app.db"),
        cache,
        Metrics(),
        UploadLimits(transient=QUICK, refused=refused, **{"keep_bytes": 1 << 30} | limits),
        mailbox,
        CapacityLimiter(1),
    )


@pytest.fixture
def upload_limits():
    """Fields of UploadLimits that a test changes by parametrising ``upload_limits``."""
    return {}


@pytest.fixture
def uploader(store, cache, mailbox, upload_limits):
    """An uploader that the test starts."""
    uploader = uploader_of(store, cache, mailbox, **upload_limits)
    yield uploader
    uploader.stop()


def key(txid):
    return f"app.db/wal/{txid:016x}.wal.zst"


def appended(store):
    return [int(info.key[-24:-8], 16) for info in store.inner.list("app.db/wal/")]


def test_segments_go_one_by_one_and_the_watermark_has_no_hole(store, cache, uploader):
    """A later PUT begins only when the one before is acknowledged, whatever fails between."""
    for first in (1, 4, 5, 9):
        add(cache, first, {1: 3, 4: 4, 5: 8, 9: 9}[first])
    fails = {key(4): 3, key(9): 1}
    marks = []

    def before(method, name):
        if method != "put":
            return
        marks.append((name, uploader.watermark.txid))
        if fails.get(name, 0):
            fails[name] -= 1
            raise StoreUnavailable("not now")

    store.before = before
    uploader.start()
    uploader.watermark.wait(9, LONG)
    assert marks == [(key(1), 0), *[(key(4), 3)] * 4, (key(5), 4), *[(key(9), 8)] * 2]
    assert appended(store) == [1, 4, 5, 9]
    assert store.get(key(5)) == content(5, 8)
    assert store.head(key(5)).metadata["kind"] == "segment"
    assert cache.durable().last_txid == 9
    assert uploader.health.error is None


def test_a_second_append_never_begins_beside_the_first(store, cache, uploader):
    """While one is under way, nothing else is sent, though more waits."""
    add(cache, 1)
    begun, go_on = threading.Event(), threading.Event()

    def before(method, name):
        if method == "put" and name == key(1):
            begun.set()
            assert go_on.wait(LONG)

    store.before = before
    uploader.start()
    assert begun.wait(LONG)
    add(cache, 2)
    uploader.wake()
    with pytest.raises(NotDurable):
        uploader.watermark.wait(2, 0.05)
    assert store.keys("put") == [key(1)]
    assert not uploader.watermark.state.idle
    go_on.set()
    uploader.watermark.wait(2, LONG)
    wait_for(lambda: uploader.watermark.state.idle)


def test_what_is_not_durable_is_named(store, cache, uploader):
    """wait_durable() says how many transactions are missing, where to, and why."""
    add(cache, 1)
    add(cache, 2, 5)
    store.go_away()
    uploader.start()
    wait_for(lambda: uploader.health.error is not None)
    with raises(NotDurable, txid=5, durable_txid=0):
        uploader.watermark.wait(5, 0.01)
    uploader.stop()
    with raises(NotDurable, txid=5, durable_txid=0):
        uploader.watermark.wait(5, LONG)


def test_a_refusal_is_retried_until_it_recovers(store, cache, uploader, mailbox):
    """403 in the middle: credentials come back, and the log goes on."""
    refuse = threading.Event()
    refuse.set()

    def before(method, name):
        if method == "put" and refuse.is_set():
            raise AccessDenied("expired")

    store.before = before
    add(cache, 1)
    uploader.start()
    wait_for(lambda: cache.pending()[0].delivery.attempts > 2)
    assert isinstance(uploader.health.error, AccessDenied)
    assert str(mailbox.newest.error) == "expired"
    assert cache.pending()[0].delivery.last_error == "expired"
    assert not uploader.watermark.state.ended
    refuse.clear()
    uploader.watermark.wait(1, LONG)


def test_a_lost_answer_is_settled_by_reading_back(store, cache, uploader):
    """The PUT took effect, the answer did not come: the retry finds its own bytes."""

    def after(method, name):
        if method == "put" and store.keys("put").count(name) == 1:
            raise StoreUnavailable("the answer was lost")

    store.after = after
    for txid in (1, 2):
        add(cache, txid)
    uploader.start()
    uploader.watermark.wait(2, LONG)
    assert appended(store) == [1, 2]
    assert store.keys("put") == [key(1), key(1), key(2), key(2)]


@pytest.mark.parametrize("metadata", [True, False])
def test_foreign_bytes_fence_for_good(store, cache, uploader, metadata):
    """Another writer's object under the next key: Fenced, nothing is overwritten, nothing is
    appended any more, and every waiter is told."""
    told = {"sha256": "00" * 32, "writer": "another one", "host": "process 7 on web-2"}
    add(cache, 1)
    uploader.start()
    uploader.watermark.wait(1, LONG)
    store.inner.put(key(2), b"foreign", metadata=told if metadata else None)
    for txid in (2, 3):
        add(cache, txid)
    uploader.wake()
    with pytest.raises(
        Fenced,
        match=r"process 7 on web-2 \(writer another one\) at 20" if metadata else "unknown name",
    ):
        uploader.watermark.wait(3, LONG)
    assert uploader.watermark.state.ended
    assert isinstance(uploader.health.error, Fenced)
    assert store.inner.get(key(2)) == b"foreign"
    assert appended(store) == [1, 2]
    uploader.watermark.wait(1, 0)  # what was acknowledged stays so
    uploader.wake()
    with pytest.raises(Fenced):
        uploader.watermark.wait(2, LONG)
    assert appended(store) == [1, 2]


def test_own_bytes_without_metadata_are_known_by_their_hash(store, cache, uploader):
    """A store that keeps no metadata: the bytes themselves are compared."""
    add(cache, 1)
    store.inner.put(key(1), content(1))
    uploader.start()
    uploader.watermark.wait(1, LONG)


# ----------------------------------------------------------------------- large objects


SMALL = {"part_bytes": 10, "single_put_bytes": 20}
small_parts = pytest.mark.parametrize("upload_limits", [SMALL], ids=["small parts"])


def large(cache, txid=1):
    data = bytes(range(95))
    return data, commit(cache, data, record(txid, data=data))


@small_parts
def test_a_large_segment_goes_in_parts(store, cache, uploader):
    """Parts of one size, published in one step, byte for byte and with its metadata."""
    data, made = large(cache)
    uploader.start()
    uploader.watermark.wait(1, LONG)
    assert store.inner.get(key(1)) == data
    assert store.head(key(1)).metadata == made.metadata
    assert len(store.keys("put_part")) == 10
    assert store.keys("put") == []
    assert store.inner.list_uploads("") == []


@pytest.mark.parametrize("restart", [True, False])
def test_a_multipart_upload_resumes_from_what_the_store_confirms(
    store, cache, tmp_path, mailbox, restart
):
    """Parts that the store has are not sent again, after a failure and after a restart."""
    data, _ = large(cache)

    def before(method, name):
        if method == "put_part" and len(store.keys("put_part")) > 4:
            raise StoreUnavailable("gone in the middle")

    store.before = before
    first = uploader_of(store, cache, mailbox, **SMALL)
    first.start()
    wait_for(lambda: first.health.error is not None)
    if restart:
        first.stop()
        cache.close()
        cache = Cache.open(cache.directory)
    confirmed = len(store.inner.list_parts(key(1), cache.pending()[0].delivery.upload_id))
    assert 0 < confirmed < 10
    store.come_back()
    sent = len(store.keys("put_part"))
    second = first
    if restart:
        second = uploader_of(store, cache, mailbox, **SMALL)
        second.start()
    second.watermark.wait(1, LONG)
    second.stop()
    assert store.inner.get(key(1)) == data
    if restart:
        assert len(store.keys("put_part")) - sent == 10 - confirmed
    assert len(store.keys("begin_upload")) == 1
    cache.close()


@small_parts
def test_a_part_of_another_size_is_sent_again(store, cache, uploader):
    """A part that is not what it should be is not believed."""
    data, _ = large(cache)
    upload_id = store.inner.begin_upload(key(1))
    store.inner.put_part(key(1), upload_id, 1, data[:10])
    store.inner.put_part(key(1), upload_id, 2, b"short")
    cache.uploading(1)
    cache.progress(1, upload_id, 10)
    cache.failed(1, "stopped here", 0)
    uploader.start()
    uploader.watermark.wait(1, LONG)
    assert store.inner.get(key(1)) == data
    assert len(store.keys("put_part")) == 9


@small_parts
def test_a_vanished_upload_starts_over(store, cache, uploader):
    """The upload id is gone (a lifecycle rule): a new one is begun, the object is whole."""
    data, _ = large(cache)
    cache.uploading(1)
    cache.progress(1, "long gone", 10)
    cache.failed(1, "stopped here", 0)
    uploader.start()
    uploader.watermark.wait(1, LONG)
    assert store.inner.get(key(1)) == data
    assert len(store.keys("begin_upload")) == 1


@small_parts
def test_a_lost_answer_of_the_publication_is_settled(store, cache, uploader):
    """CompleteMultipartUpload took effect unanswered: the next attempt finds its own object."""
    data, _ = large(cache)

    def after(method, name):
        if method == "complete_upload" and len(store.keys(method)) == 1:
            raise StoreUnavailable("the answer was lost")

    store.after = after
    uploader.start()
    uploader.watermark.wait(1, LONG)
    assert store.inner.get(key(1)) == data


# --------------------------------------------------------------------------- at the start


def acknowledge(store, cache, *txids):
    for txid in txids:
        made = add(cache, txid)
        store.inner.put(made.key, content(txid), metadata={"sha256": made.sha256})
        cache.uploading(txid)
        cache.uploaded(txid, 1)


def test_an_empty_cache_asks_the_store_nothing(store, cache, uploader, mailbox):
    """Nothing acknowledged, nothing to compare; idle costs no request."""
    uploader.start()
    wait_for(lambda: uploader.watermark.state.idle)
    uploader.watermark.wait(0, LONG)
    assert store.calls == []
    assert not mailbox.reported


def test_a_store_that_holds_our_log_costs_two_requests(store, cache, uploader, mailbox):
    """One listing from the newest object on and one HEAD of it."""
    acknowledge(store, cache, 1, 2, 3)
    uploader = uploader_of(store, cache, mailbox)
    assert uploader.watermark.txid == 3
    uploader.start()
    add(cache, 4)
    uploader.wake()
    uploader.watermark.wait(4, LONG)
    uploader.stop()
    assert [method for method, _ in store.calls] == ["list", "head", "put"]
    assert not mailbox.reported


def test_our_own_unacknowledged_object_is_no_stranger(store, cache, uploader, mailbox):
    """The process died between the PUT and its answer: the object after the head is ours."""
    acknowledge(store, cache, 1)
    made = add(cache, 2)
    store.inner.put(made.key, content(2), metadata={"sha256": made.sha256})
    uploader.start()
    uploader.watermark.wait(2, LONG)
    assert not mailbox.reported
    assert not uploader.watermark.state.ended


@pytest.mark.parametrize("pending", [True, False])
def test_foreign_objects_after_ours_are_told_at_the_start(store, cache, bucket, mailbox, pending):
    """Another writer continued the archive: nothing is appended before it was decided how to
    continue, and each waiter gets the reason."""
    theirs = list(bucket.store.list(bucket.keys.wal_dir))[1]
    acknowledge(store, cache, 1)
    foreign = bucket.store.head(theirs.key)
    store.inner.put(key(2), bucket.store.get(theirs.key), metadata=foreign.metadata)
    if pending:
        add(cache, 2)
    uploader = uploader_of(store, cache, mailbox)
    uploader.start()
    wait_for(lambda: mailbox.of(Cause.OVERTAKEN))
    uploader.wake()
    with raises(NotDurable, txid=2, durable_txid=1):
        uploader.watermark.wait(2, 0.1)
    assert uploader.health.error is mailbox.of(Cause.OVERTAKEN)[0].error
    uploader.end(mailbox.of(Cause.OVERTAKEN)[0].error)
    with raises(Fenced, holder="writer 00000000-0000-0000-0000-000000000001", txid=2):
        uploader.watermark.wait(2, LONG)
    uploader.stop()
    assert store.keys("put") == []


def test_a_foreign_object_without_metadata_is_named_by_its_header(store, cache, bucket, mailbox):
    """Who holds the log is read from the object itself where the store keeps no metadata."""
    theirs = list(bucket.store.list(bucket.keys.wal_dir))[1]
    acknowledge(store, cache, 1)
    store.inner.put(key(2), bucket.store.get(theirs.key))
    uploader = uploader_of(store, cache, mailbox)
    uploader.start()
    wait_for(lambda: mailbox.of(Cause.OVERTAKEN))
    assert "00000000-0000-0000-0000-000000000001" in str(mailbox.of(Cause.OVERTAKEN)[0].error)
    uploader.stop()


def test_another_object_in_the_place_of_our_newest_fences(store, cache, mailbox):
    """The bucket was emptied, and another writer got as far as this one."""
    acknowledge(store, cache, 1)
    store.inner.delete(key(1))
    store.inner.put(key(1), b"foreign", metadata={"sha256": "11" * 32})
    uploader = uploader_of(store, cache, mailbox)
    uploader.start()
    wait_for(lambda: mailbox.of(Cause.OVERTAKEN))
    assert "a writer of unknown name" in str(mailbox.of(Cause.OVERTAKEN)[0].error)
    uploader.stop()


def test_a_store_that_lost_the_log_gets_nothing_until_it_is_begun_anew(store, cache, mailbox):
    """What waits belongs to a log that is gone: it is held until reload()."""
    acknowledge(store, cache, 1, 2)
    add(cache, 3)
    store.wipe()
    uploader = uploader_of(store, cache, mailbox)
    uploader.start()
    wait_for(lambda: mailbox.of(Cause.ARCHIVE_LOST))
    with pytest.raises(NotDurable):
        uploader.watermark.wait(3, 0.05)
    assert store.keys("put") == []
    uploader.reload()
    uploader.wake()
    uploader.watermark.wait(3, LONG)
    uploader.stop()
    assert len(mailbox.of(Cause.ARCHIVE_LOST)) == 1


def test_a_store_that_is_away_at_the_start_is_asked_again(store, cache, mailbox):
    """The check is repeated until it is answered; nothing is appended before."""
    acknowledge(store, cache, 1)
    add(cache, 2)
    store.go_away()
    uploader = uploader_of(store, cache, mailbox)
    uploader.start()
    wait_for(lambda: len(store.keys("list")) > 3)
    assert isinstance(uploader.health.error, StoreUnavailable)
    assert store.keys("put") == []
    store.come_back()
    uploader.watermark.wait(2, LONG)
    assert uploader.health.error is None
    uploader.stop()


def test_a_log_that_is_taken_over_is_not_compared(store, cache, uploader):
    """Held from the start: no request before reload()."""
    acknowledge(store, cache, 1)
    store.inner.put(key(2), b"foreign")
    uploader.start(held=True)
    add(cache, 2)
    uploader.wake()
    with pytest.raises(NotDurable):
        uploader.watermark.wait(3, 0.05)
    assert store.calls == []
    cache.drop_pending()
    marker = commit(cache, content(3), record(3, kind=Kind.GENERATION))
    store.inner.put(Keys("app.db").snapshot(3, marker.generation), b"its snapshot")
    uploader.reload()
    uploader.wake()
    uploader.watermark.wait(3, LONG)
    assert appended(store) == [1, 2, 3]


# ----------------------------------------------------------------------- its own troubles


@pytest.mark.parametrize("name", ["next_pending", "uploading", "uploaded", "failed", "trim"])
def test_a_ledger_in_trouble_is_survived(store, cache, uploader, monkeypatch, name):
    """Each note in the ledger may fail; the segment gets there all the same, once."""
    works, failures = getattr(cache, name), [DiskTrouble("full"), DiskTrouble("full")]

    def fails(*args):
        if failures:
            raise failures.pop()
        return works(*args)

    monkeypatch.setattr(cache, name, fails)
    puts = []

    def before(method, stored):
        if method == "put":
            puts.append(stored)
            if name == "failed" and len(puts) < 4:
                raise StoreUnavailable("not now")

    store.before = before
    uploader.start()
    add(cache, 1)
    uploader.wake()
    uploader.watermark.wait(1, LONG)
    add(cache, 2)
    uploader.wake()
    uploader.watermark.wait(2, LONG)
    assert failures == []
    assert appended(store) == [1, 2]
    assert {r.delivery.status for r in cache.records()} == {Status.UPLOADED}


class DiskTrouble(ReplicatorError):
    pass


def test_a_real_full_disk_under_the_ledger_is_survived(tmp_path, store, mailbox):
    """Through the file seam: whichever of the next calls fails, it gets there."""
    for at in range(1, 25):
        files = FailingFiles(at=0)
        directory = tmp_path / str(at)
        fresh = HookedStore()
        with Cache.open(directory, files) as cache:
            add(cache, 1)
            uploader = uploader_of(fresh, cache, mailbox, keep_bytes=0)
            files.at = len(files.log) + at
            uploader.start()
            uploader.watermark.wait(1, LONG)
            uploader.stop()


def test_a_damaged_segment_is_never_sent(store, cache, uploader, mailbox):
    """The cache's file is not what was captured: the store does not get it."""
    made = add(cache, 1)
    path = next((cache.directory / "segments").iterdir())
    path.write_bytes(b"x" * made.size)
    uploader.start()
    wait_for(lambda: uploader.health.error is not None)
    assert "damaged" in str(uploader.health.error)
    assert appended(store) == []
    assert {incident.txid for incident in mailbox.of(Cause.SEGMENT_DAMAGED)} == {1}


@small_parts
def test_a_damaged_large_segment_is_never_sent(store, cache, uploader):
    """The same for one that goes in parts."""
    large(cache)
    path = next((cache.directory / "segments").iterdir())
    path.write_bytes(b"x" * 95)
    uploader.start()
    wait_for(lambda: uploader.health.error is not None or appended(store))
    assert appended(store) == []


def test_a_defect_ends_the_thread_loudly(store, cache, uploader):
    """An unforeseen error is not silent: every waiter gets it."""

    def before(method, name):
        raise ZeroDivisionError

    store.before = before
    add(cache, 1)
    uploader.start()
    with raises(ReplicatorError, "defect"):
        uploader.watermark.wait(1, LONG)
    assert uploader.watermark.state.ended


def test_the_first_death_counts(uploader):
    """die() twice: the first reason is the reason."""
    first = Fenced("first")
    uploader.end(first)
    uploader.end(Fenced("second"))
    assert uploader.health.error is first
    with pytest.raises(Fenced, match="first"):
        uploader.watermark.wait(1, None)


def test_a_segment_that_was_dropped_is_not_sent(store, cache, uploader, monkeypatch):
    """Dropped between being chosen and being sent: nothing happens, the next one goes."""
    add(cache, 1)
    chosen = cache.next_pending

    def drop():
        found = chosen()
        if found is not None and found.first_txid == 1:
            cache.drop_pending()
        return found

    monkeypatch.setattr(cache, "next_pending", drop)
    uploader.start()
    wait_for(lambda: uploader.watermark.state.idle)
    assert store.keys("put") == []


def test_an_answer_about_a_dropped_segment_moves_nothing(store, cache, uploader):
    """The segment was given up while it was under way; its acknowledgement is not one."""
    add(cache, 1)

    def after(method, name):
        if method == "put":
            cache.drop_pending()

    store.after = after
    uploader.start()
    wait_for(lambda: store.keys("put") and uploader.watermark.state.idle)
    assert uploader.watermark.txid == 0


def test_nothing_is_asked_of_the_store_while_the_uploader_rests(store, cache, uploader):
    """A listing under way ends first. Otherwise the block could acknowledge a segment between the
    uploader's two looks at the ledger, and its object would look like another writer's."""
    add(cache, 1)
    listing, answer = threading.Event(), threading.Event()
    events = []

    def before(method, _name):
        if method == "list" and not listing.is_set():
            listing.set()
            assert answer.wait(LONG)
            events.append("listed")

    def rest():
        with uploader.resting():
            events.append("rests")

    store.before = before
    uploader.start()
    assert listing.wait(LONG)
    resting = threading.Thread(target=rest)
    resting.start()
    resting.join(0.2)  # far longer than it takes to enter the block, if nothing prevents it
    answer.set()
    resting.join(LONG)
    assert events == ["listed", "rests"]


@pytest.mark.parametrize("upload_limits", [{"refused": RetryPolicy(first=1e6, cap=1e6)}])
def test_a_rest_ends_the_pause_after_a_failure(store, cache, uploader):
    """Also if the uploader begins its next attempt before the block is entered."""
    add(cache, 1)

    def before(method, _name):
        if method == "put":
            raise AccessDenied("not yours")

    store.before = before
    uploader.start()
    for _ in range(50):
        with uploader.resting():
            pass
        failures = len(store.keys("put"))
        wait_for(lambda n=failures: len(store.keys("put")) > n)

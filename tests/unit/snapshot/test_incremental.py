"""Snapshots that take over what the one before holds: what is copied, sent, and refused."""

import itertools
from collections import deque
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.archive.facts import tail_of
from replicator.archive.keys import Keys
from replicator.cache.cache import Cache
from replicator.capture.image import Image
from replicator.capture.limits import CaptureLimits
from replicator.errors import (
    AccessDenied,
    CopyRefused,
    ObjectMissing,
    ReplicatorError,
    StoreUnavailable,
)
from replicator.format.envelope import read_tail
from replicator.format.object_header import ObjectHeader
from replicator.format.snapshot_blocks import decode_snapshot
from replicator.model import Kind
from replicator.snapshot.base import OLDEST_MS, BaseFinder, BaseUnusable
from replicator.snapshot.limits import SnapshotLimits
from replicator.snapshot.multipart import ObjectPiece, UploadDiffers, copied_from, cut
from replicator.snapshot.resume import UploadJournal
from replicator.snapshot.stream import send_snapshot
from replicator.sqlite.live import LiveDatabase
from replicator.system.mailbox import Wanted
from tests.helpers.replication import LONG, App, HookedStore, image_of, replicating, restored

GENERATION = "01900000-0000-7000-8000-000000000001"
KEYS = Keys("app.db")
PART = 100_000


def key(txid):
    return KEYS.snapshot(txid, GENERATION)


# A hundredth of the real ones, so that two megabytes are a large database.
SMALL = {"part_bytes": PART, "copy_part_bytes": PART, "block_bytes": 64 << 10}


class Mortal(UploadJournal):
    """As in a process that may end: nothing is given up any more then."""

    ended = False

    def abort(self):
        if not self.ended:
            super().abort()


class Shop:
    """A database, a store, and snapshots from the one into the other."""

    def __init__(self, directory):
        self.directory = directory
        self.app = App(directory / "app.db")
        self.app.insert(2000, 900)
        self.store = HookedStore()
        self.sources = BaseFinder(self.store)
        self.cache = Cache.open(directory / "cache")
        self.journal = Mortal(self.cache, self.store, KEYS)

    def close(self):
        self.cache.close()
        self.app.close()

    def ship(self, txid, source=None, *, created_ms=1000, gate=lambda hashes: None, **limits):
        database = LiveDatabase(self.app.path)
        hold = database.hold()
        try:
            with Image(database, CaptureLimits()) as image:
                header = ObjectHeader(
                    Kind.SNAPSHOT,
                    GENERATION,
                    txid,
                    image.page_size,
                    GENERATION,
                    created_ms,
                    "tests",
                )
                return send_snapshot(
                    image,
                    self.store,
                    header,
                    key(txid),
                    self.journal,
                    limits=SnapshotLimits(**SMALL | limits),
                    gate=gate,
                    cancelled=lambda: False,
                    base=source,
                )
        finally:
            database.release(hold)
            database.close()

    def source(self, txid, now_ms=2000):
        return self.sources.find(key(txid), now_ms)

    def change(self, row):
        """A few pages beside each other."""
        self.app.run(f"UPDATE t SET body = randomblob(900) WHERE id BETWEEN {row} AND {row + 5}")

    def holds(self, txid):
        """Every proof of the object holds, and it is the database."""
        data = self.store.inner.get(key(txid))
        return decode_snapshot(data, key(txid))[1] == image_of(self.app.path)


@pytest.fixture
def shop(tmp_path):
    """A database with its store and its snapshots."""
    shop = Shop(tmp_path)
    yield shop
    shop.close()


# ----------------------------------------------------------------------------- what is copied


def test_only_what_changed_is_sent(shop):
    """A clustered change costs its part or two, the first and the last part; the object is
    the database, and every digest in it is right."""
    whole = shop.ship(1)
    assert whole.copied_bytes == 0
    assert whole.sent_bytes == whole.summary.size == len(shop.store.inner.get(key(1)))
    shop.change(1000)
    second = shop.ship(2, shop.source(1))
    assert shop.holds(2)
    assert second.sent_bytes + second.copied_bytes == second.summary.size
    assert second.copied_bytes >= whole.summary.size - 6 * PART
    assert second.hashes.state == shop.ship(3).hashes.state


def test_copies_of_copies(shop):
    """Ten snapshots, each out of the one before; each stands alone when all others are gone."""
    shop.ship(1)
    for txid in range(2, 11):
        shop.change(txid * 150)
        assert shop.ship(txid, shop.source(txid - 1)).copied_bytes
        shop.store.inner.delete(key(txid - 1))
        assert shop.holds(txid)


@pytest.mark.parametrize("rows", [1, 400, 4000])
def test_a_database_of_another_size(shop, rows):
    """It grew, or shrank: what lies before is copied."""
    shop.ship(1)
    shop.app.insert(rows, 900)
    shop.ship(2, shop.source(1))
    assert shop.holds(2)
    shop.app.run("DELETE FROM t WHERE id > 1000", "VACUUM")
    shop.ship(3, shop.source(2))
    assert shop.holds(3)


def test_scattered_changes_leave_nothing_to_copy(shop):
    """A page here and there in every part: all of it is sent, and it is right."""
    shop.ship(1)
    shop.app.run("UPDATE t SET body = randomblob(900) WHERE id % 20 = 0")
    assert shop.ship(2, shop.source(1)).copied_bytes == 0
    assert shop.holds(2)


def test_small_changes_between_frames_that_stay(shop):
    """Frames of the source that share a part with a change are made again, byte for byte."""
    shop.ship(1)
    shop.app.run("UPDATE t SET body = randomblob(900) WHERE id % 400 = 0")
    shipped = shop.ship(2, shop.source(1))
    assert shop.holds(2)
    assert shipped.summary.size - shipped.copied_bytes < shipped.summary.size


def test_a_small_snapshot_is_one_put(shop):
    """With a source too: there is nothing to copy into."""
    shop.ship(1)
    shop.store.calls.clear()
    assert shop.ship(2, shop.source(1), copy_part_bytes=8 << 20).copied_bytes == 0
    assert shop.store.keys("begin_upload") == []
    assert shop.holds(2)


def test_parts_keep_one_size(shop):
    """Also the copied ones: some stores (R2) refuse an upload of parts of several sizes."""
    sizes = {}
    complete = shop.store.inner.complete_upload

    def noted(key, upload_id, parts, **options):
        sizes.update({part.number: part.size for part in parts})
        complete(key, upload_id, parts, **options)

    shop.ship(1)
    shop.change(1000)
    shop.store.inner.complete_upload = noted
    shop.ship(2, shop.source(1))
    assert {sizes[number] for number in range(1, max(sizes))} == {PART}
    assert sizes[max(sizes)] <= PART


sizes = st.integers(1, 50)


@given(
    st.lists(st.tuples(sizes, st.booleans()), min_size=1, max_size=40),
    st.integers(1, 60),
    st.integers(0, 30),
)
def test_parts_tile_the_object(frames, part_bytes, tail):
    """Whatever frames stay or change: the parts are the object, in order and without a gap;
    all but the last have one size; a part is copied exactly if all of it lies in frames that
    stayed and lie side by side in the source, and then from where these bytes are."""
    pieces, offset, origin = deque(), 0, {}
    for number, (size, stays) in enumerate(frames):
        at = offset + number // 3  # every third frame of the source was followed by a gap
        pieces.append(
            ObjectPiece(size, None, number, at) if stays else ObjectPiece(size, bytes(size))
        )
        for byte in range(size):
            origin[offset + byte] = at + byte if stays else None
        offset += size
    pieces.append(ObjectPiece(tail, bytes(tail)))
    total, begun, position, made = offset + tail, 0, 0, []
    while position < total:
        size = min(part_bytes, total - position)
        part, begun = cut(pieces, begun, size)
        made.append(sum(stretch.stop - stretch.start for stretch in part))
        places = [origin.get(position + n) for n in range(size)]
        side_by_side = None not in places and all(b == a + 1 for a, b in itertools.pairwise(places))
        assert copied_from(part) == (places[0] if side_by_side else None)
        position += size
    assert made[:-1] == [part_bytes] * (len(made) - 1)
    assert sum(made) == total
    assert not pieces or not any(piece.size for piece in pieces)


# ----------------------------------------------------------------------------- sources


def test_what_is_no_source(shop):
    """None of that name, damaged, of format 1, or from the future by this clock."""
    assert shop.source(1) is None
    shop.ship(1)
    assert shop.source(1, now_ms=999) is None
    data = bytearray(shop.store.inner.get(key(1)))
    data[-100] ^= 1
    shop.store.inner.put(key(1), bytes(data), if_absent=False)
    assert shop.source(1) is None


def test_no_byte_is_copied_for_longer_than_a_week(shop):
    """What a store spoils is inherited until then, not for ever: the age is that of the
    oldest byte, however often it was copied since."""
    shop.ship(1, created_ms=1000)
    day, now, txid = 24 * 3600 * 1000, 1000, 1
    while (source := shop.source(txid, now + day)) is not None:
        now, txid = now + day, txid + 1
        shop.change(1000)
        assert shop.ship(txid, source, created_ms=now).copied_bytes
        tail = read_tail(data := shop.store.inner.get(key(txid)), len(data), key(txid))
        assert tail.trailer.blocks.sent_ms == 1000
    assert now + day == 1000 + OLDEST_MS
    shop.ship(txid + 1, created_ms=now + day)
    assert shop.source(txid + 1, now + 2 * day) is not None


def test_a_copy_of_nothing_is_new(shop):
    """Where all was sent, the age begins anew."""
    shop.ship(1, created_ms=1000)
    shop.app.run("UPDATE t SET body = randomblob(900)")
    assert shop.ship(2, shop.source(1), created_ms=5000).copied_bytes == 0
    assert shop.source(2, 6000).sent_ms == 5000


def test_a_large_tail_is_fetched_in_steps(shop):
    """The digests of a large database need more than the first bytes that are asked for."""
    shop.ship(1)
    source = shop.source(1)
    shop.store.calls.clear()
    tail = tail_of(shop.store, key(1), source.info.size, ask=64)
    assert shop.store.keys("get") == [key(1)] * 3  # these, the seek table, the trailer
    assert (tail.seek, tail.trailer.blocks) == (source.entries, source.digests)
    assert len(source.entries) == len(source.digests) > 20


def test_another_compressor_cannot_share_a_part(shop):
    """A frame that is only half copied must be the same bytes when made again; where it is
    not, nothing is published, and without the source all is well."""
    shop.ship(1, level=3)
    shop.change(1000)
    with pytest.raises(BaseUnusable, match="makes other bytes"):
        shop.ship(2, shop.source(1), level=9)
    assert shop.store.inner.list_uploads("") == []
    shop.ship(2, level=9)
    assert shop.holds(2)


# ----------------------------------------------------------------------------- refusals


def refusing(store, error):
    def before(method, key):
        if method == "copy_part":
            raise error

    store.before = before


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ObjectMissing("pruned"), BaseUnusable),
        (StoreUnavailable("500"), BaseUnusable),
        (CopyRefused("501"), CopyRefused),
        (AccessDenied("403"), CopyRefused),
    ],
)
def test_copies_that_fail(shop, error, raised):
    """The attempt ends, its parts are given back, nothing appears."""
    shop.ship(1)
    source = shop.source(1)
    refusing(shop.store, error)
    with pytest.raises(raised):
        shop.ship(2, source)
    assert shop.store.inner.list_uploads("") == []
    assert [info.key for info in shop.store.inner.list("")] == [key(1)]


@pytest.mark.parametrize("much", [-1, 1, PART])
def test_a_store_that_copies_something_else_is_found_out(shop, much):
    """It passes over the range, say. Before the object appears."""
    shop.ship(1)
    copy = shop.store.inner.copy_part

    def wrong(key, upload_id, number, source, start, length):
        part = copy(key, upload_id, number, source, start, length + much)
        return replace(part, size=length)

    shop.store.inner.copy_part = wrong
    with pytest.raises(CopyRefused, match="not the requested one"):
        shop.ship(2, shop.source(1))
    assert [info.key for info in shop.store.inner.list("")] == [key(1)]


# ----------------------------------------------------------------------------- going on


class Crash(BaseException):
    """The process ended: nothing of ours ran after it."""


def crash(shop, method, nth, source):
    """Ends a snapshot of txid 2 after the ``nth`` call of ``method``."""
    shop.store.calls.clear()

    def after(name, _):
        if name == method and len(shop.store.keys(method)) >= nth:
            raise Crash

    shop.store.after, shop.journal.ended = after, True
    with pytest.raises(Crash):
        shop.ship(2, source)
    shop.journal.ended = False
    shop.store.after = lambda *_: None
    shop.store.calls.clear()


@pytest.mark.parametrize(
    ("method", "nth"),
    [("put_part", 1), ("put_part", 3), ("copy_part", 2), ("copy_part", 9), ("list_parts", 1)],
)
def test_an_interrupted_snapshot_goes_on(shop, method, nth):
    """What was sent is not sent again; what was copied is copied again, for its ETag proves
    nothing. The object is the database."""
    shop.ship(1)
    shop.change(300)
    shop.change(1500)
    crash(shop, method, nth, shop.source(1))
    (upload,) = shop.store.inner.list_uploads("")
    there = len(shop.store.inner.list_parts(upload.key, upload.upload_id))
    shipped = shop.ship(2, shop.source(1))
    assert shop.holds(2)
    assert shop.store.keys("begin_upload") == []
    sent, copied = len(shop.store.keys("put_part")), len(shop.store.keys("copy_part"))
    assert copied == shipped.copied_bytes // PART
    assert sent <= -(-shipped.summary.size // PART) - copied
    assert sent + copied + there >= -(-shipped.summary.size // PART)
    assert shop.store.inner.list_uploads("") == []


def test_an_upload_goes_on_without_its_source(shop):
    """The source vanished in between: parts that were copied cannot be proved, so it starts
    over, as it does for parts of another state."""
    shop.ship(1)
    shop.change(1000)
    crash(shop, "copy_part", 5, shop.source(1))
    shop.store.inner.delete(key(1))
    try:
        shop.ship(2, shop.source(1))
    except UploadDiffers:
        shop.ship(2, shop.source(1))
    assert shop.holds(2)
    assert shop.store.inner.list_uploads("") == []


def test_an_old_part_beside_the_copy_starts_over(shop):
    """A store that keeps both of two bodies of one number lists neither."""
    shop.ship(1)
    shop.change(1000)
    crash(shop, "copy_part", 5, shop.source(1))
    listed = shop.store.inner.list_parts
    shop.store.inner.list_parts = lambda *args: listed(*args)[:2]
    with pytest.raises(UploadDiffers, match="not the requested one"):
        shop.ship(2, shop.source(1))
    assert shop.store.inner.list_uploads("") == []


# ----------------------------------------------------------------------------- a replicator


@pytest.fixture
def busy(shop, tmp_path):
    """A replicator with a first snapshot, and a clustered change since."""
    shop.store.calls.clear()
    with replicating(
        shop.app.path, shop.store, cache_dir=tmp_path / "life", limits={"snapshot": SMALL}
    ) as replicator:
        replicator.flush(LONG)
        shop.change(1000)
        yield replicator


def figures(replicator):
    found = replicator.metrics.snapshot()
    return found["copied_bytes"], found["snapshot_bytes"]


def test_a_replicator_copies(busy, shop, tmp_path):
    """A later snapshot of the same generation is made out of the one before; the figures tell
    what was sent and what was copied."""
    before = figures(busy)
    busy.flush(LONG, snapshot=True)
    copied, sent = figures(busy)
    assert copied > 0 == before[0]
    assert sent - before[1] < copied / 2
    _, data = restored(shop.store, tmp_path)
    assert data == image_of(shop.app.path)


def test_a_snapshot_against_damage_copies_nothing(busy, shop):
    """The guard asks for it because stored bytes are not what was written."""
    busy.flush(LONG)
    busy._engine.mailbox.ask(Wanted.WHOLE_SNAPSHOT).result(LONG)
    assert shop.store.keys("copy_part") == []
    assert busy.metrics.snapshot()["snapshots"] == 2


@pytest.mark.parametrize(("error", "asked"), [(CopyRefused("501"), 1), (ObjectMissing("gone"), 2)])
def test_a_store_that_does_not_copy_is_asked_once(busy, shop, tmp_path, error, asked):
    """The snapshot is sent as a whole instead, and so is the next one; a source that is gone
    says nothing about the next."""
    refusing(shop.store, error)
    busy.flush(LONG, snapshot=True)
    tried = [len(shop.store.keys("copy_part"))]
    shop.change(1200)
    busy.flush(LONG, snapshot=True)
    tried.append(len(shop.store.keys("copy_part")))
    assert tried[0] > 0
    assert (tried[1] > tried[0]) == (asked == 2)
    assert figures(busy)[0] == 0
    shop.store.before = lambda *_: None
    _, data = restored(shop.store, tmp_path)
    assert data == image_of(shop.app.path)


def test_a_store_that_is_away_while_the_source_is_looked_for(busy, shop):
    """The snapshot waits like any other request, and nothing is decided by silence."""
    failed = []

    def before(method, key):
        if method == "head" and "snapshots" in key and not failed:
            failed.append(key)
            raise StoreUnavailable("503")

    shop.store.before = before
    busy.flush(LONG, snapshot=True)
    assert failed
    assert figures(busy)[0] > 0


def test_errors_of_the_source_are_errors_of_the_project():
    """A caller that handles those handles these."""
    assert issubclass(BaseUnusable, ReplicatorError)

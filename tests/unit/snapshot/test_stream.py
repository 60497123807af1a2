"""Snapshots: how they are streamed, and what a failure leaves behind."""

import json

import pytest

from replicator.archive.keys import Keys
from replicator.cache.cache import Cache
from replicator.cache.records import Fact
from replicator.capture.image import Image
from replicator.capture.limits import CaptureLimits
from replicator.errors import Cancelled, ObjectExists, ReplicatorError, StoreUnavailable
from replicator.format.object_header import ObjectHeader, parse_metadata
from replicator.format.page_hashes import PageHashes
from replicator.format.snapshot_blocks import compress_block
from replicator.format.zstd import decompress_frame
from replicator.model import Kind
from replicator.snapshot.limits import SnapshotLimits
from replicator.snapshot.multipart import UploadDiffers
from replicator.snapshot.resume import UploadJournal
from replicator.snapshot.stream import send_snapshot
from replicator.sqlite.live import LiveDatabase
from tests.helpers.replication import App, image_of

KEY = "app.db/snapshots/x.sqlite.zst"
GENERATION = "01900000-0000-7000-8000-000000000001"


@pytest.fixture
def image(tmp_path):
    """An image of 2 MB, which makes several blocks."""
    with App(tmp_path / "app.db") as app:
        app.insert(2000, 900)  # 2 MB: several frames
        database = LiveDatabase(app.path)
        hold = database.hold()
        with Image(database, CaptureLimits()) as image:
            yield image
        database.release(hold)
        database.close()


class Mortal(UploadJournal):
    """As in a process that may end: nothing is given up any more then."""

    ended = False

    def abort(self):
        if not self.ended:
            super().abort()


@pytest.fixture
def journal(tmp_path, store):
    """The record of journal uploads, which a test can interrupt."""
    with Cache.open(tmp_path / "cache") as cache:
        yield Mortal(cache, store, Keys("app.db"))


@pytest.fixture
def ship(store, journal):
    """Ships an image; what is known of journal uploads stays between the calls."""

    def ship(image, *, gate=lambda hashes: None, cancelled=lambda: False, created_ms=1):
        header = ObjectHeader(
            Kind.SNAPSHOT, GENERATION, 5, image.page_size, GENERATION, created_ms, "tests"
        )
        return send_snapshot(
            image,
            store,
            header,
            KEY,
            journal,
            limits=ship.limits,
            gate=gate,
            cancelled=cancelled,
        )

    ship.limits = SnapshotLimits()
    return ship


def whole(image):
    return bytes(image.read(1, image.pages))


def content(store):
    """What a plain decompressor makes of the object."""
    import zstandard

    reader = zstandard.ZstdDecompressor().stream_reader(
        store.inner.get(KEY), read_across_frames=True
    )
    return reader.read()


@pytest.mark.parametrize("part", [8 << 20, 100_000])
def test_a_snapshot_is_the_image(image, store, ship, part):
    """In one request or in parts, the object decompresses to the image; summary and hashes
    are its own."""
    ship.limits = SnapshotLimits(part_bytes=part)
    shipped = ship(image)
    hashes, summary = shipped.hashes, shipped.summary
    data = whole(image)
    expected = PageHashes(4096)
    expected.extend(1, data)
    assert hashes.state == expected.state
    assert content(store) == data
    assert summary.size == len(store.inner.get(KEY))
    multipart = bool(store.keys("put_part"))
    assert multipart == (part < len(data))
    if not multipart:
        assert parse_metadata(store.head(KEY).metadata).last_txid == 5
    assert store.inner.list_uploads("") == []


def test_parts_are_of_one_size_but_for_the_last(image, store, ship):
    """Some stores (R2) refuse parts of different sizes."""
    ship.limits = SnapshotLimits(part_bytes=100_000)
    sizes = {}
    put_part = store.inner.put_part

    def noted(key, upload_id, number, body):
        sizes[number] = len(body)
        return put_part(key, upload_id, number, body)

    store.inner.put_part = noted
    ship(image)
    assert len(sizes) > 3
    assert len({sizes[n] for n in range(1, max(sizes))}) == 1
    assert sizes[max(sizes)] <= sizes[1]


@pytest.mark.parametrize("part", [8 << 20, 100_000])
def test_the_gate_is_asked_before_the_object_appears(image, store, ship, part):
    """With the hashes of the whole image; if it raises, nothing appears and no parts stay."""
    ship.limits = SnapshotLimits(part_bytes=part)
    asked = []

    def gate(hashes):
        asked.append(hashes.pages)
        assert list(store.inner.list("")) == []
        raise ReplicatorError("not now")

    with pytest.raises(ReplicatorError, match="not now"):
        ship(image, gate=gate)
    assert asked == [image.pages]
    assert list(store.inner.list("")) == []
    assert store.inner.list_uploads("") == []


@pytest.mark.parametrize("method", ["begin_upload", "put_part", "complete_upload"])
def test_a_failing_store_gets_its_parts_back(image, store, ship, journal, method):
    """Whichever request fails, no object appears, and what was sent can be given up."""
    ship.limits = SnapshotLimits(part_bytes=100_000)

    def before(name, key):
        if name == method and len(store.keys(method)) > (method == "put_part"):
            raise StoreUnavailable("away")

    store.before = before
    with pytest.raises(StoreUnavailable):
        ship(image)
    assert list(store.inner.list("")) == []
    journal.abort()
    assert store.inner.list_uploads("") == []


def test_a_store_that_cannot_even_abort_hides_nothing(image, store, ship):
    """The first error is the one that comes out."""
    ship.limits = SnapshotLimits(part_bytes=100_000)

    def before(name, key):
        if name == "complete_upload":
            raise ReplicatorError("refused")
        if name == "abort_upload":
            raise StoreUnavailable("still away")

    store.before = before
    with pytest.raises(ReplicatorError, match=r"^refused$"):
        ship(image)


@pytest.mark.parametrize("part", [8 << 20, 100_000])
def test_an_object_that_stands_there_is_ours(image, store, ship, part):
    """The key names generation and txid: an earlier attempt made it; it is not replaced."""
    ship.limits = SnapshotLimits(part_bytes=part)
    store.inner.put(KEY, b"earlier")
    ship(image)
    assert store.inner.get(KEY) == b"earlier"
    assert store.inner.list_uploads("") == []
    with pytest.raises(ObjectExists):
        store.inner.put(KEY, b"later")


@pytest.mark.parametrize("part", [8 << 20, 100_000])
def test_an_object_that_is_said_to_stand_there_must(image, store, ship, part):
    """A marker would vouch for it; a refusal for no reason is trouble that may pass."""
    ship.limits = SnapshotLimits(part_bytes=part)
    refused = []

    def before(method, key):
        if method in ("put", "complete_upload") and not refused:
            refused.append(method)
            raise ObjectExists("412")

    store.before = before
    with pytest.raises(StoreUnavailable, match="does not have it"):
        ship(image)
    assert store.inner.list_uploads("") == []
    ship(image)
    assert content(store) == whole(image)


@pytest.mark.parametrize("method", ["put_part", "complete_upload"])
def test_an_upload_that_vanishes_under_way_is_trouble_that_may_pass(image, store, ship, method):
    """A lifecycle rule removed it, say. The next attempt begins another one."""
    ship.limits = SnapshotLimits(part_bytes=100_000)

    def before(name, key):
        if name == method:
            store.before = lambda *_: None
            for upload in store.inner.list_uploads(""):
                store.inner.abort_upload(upload.key, upload.upload_id)

    store.before = before
    with pytest.raises(StoreUnavailable, match="discarded the upload"):
        ship(image)
    assert list(store.inner.list("")) == []
    ship(image)
    assert content(store) == whole(image)


def test_a_snapshot_is_given_up_between_blocks(image, store, ship):
    """Cancelled in the middle: no object, and the image is not read to its end."""
    reads = []
    monkey = image.read
    image.read = lambda first, count: reads.append(first) or monkey(first, count)
    with pytest.raises(Cancelled):
        ship(image, cancelled=lambda: len(reads) > 0)
    assert len(reads) == 1
    assert list(store.inner.list("")) == []


def test_frames_decompress_one_by_one():
    """Each block is a frame of its own: that is what lets a restore fetch pages by range."""
    raw = bytes(range(256)) * 16
    assert decompress_frame(compress_block(raw, 3).data, len(raw)) == raw
    assert json.loads(json.dumps(len(raw))) == 4096


def test_the_image_is_not_disturbed(image, ship, tmp_path):
    """A snapshot reads; the database stays what it was."""
    before = image_of(tmp_path / "app.db")
    ship(image)
    assert image_of(tmp_path / "app.db") == before


# ----------------------------------------------------------------------------- going on


class Crash(BaseException):
    """The process ended: nothing of ours ran after it."""


@pytest.fixture
def interrupted(image, store, ship, journal):
    """A snapshot whose process ended after three of its parts had been sent."""
    ship.limits = SnapshotLimits(part_bytes=100_000)
    journal.ended = True

    def after(name, key):
        if name == "put_part" and len(store.keys("put_part")) >= 3:
            raise Crash

    store.after = after
    with pytest.raises(Crash):
        ship(image)
    store.after = lambda method, key: None
    journal.ended = False
    (upload,) = store.inner.list_uploads("")
    sent = store.inner.list_parts(upload.key, upload.upload_id)
    assert len(sent) >= 3
    store.calls.clear()
    return sent


def test_an_interrupted_upload_is_gone_on_with(image, store, ship, interrupted):
    """Parts that the store confirms are not sent again; the object is whole."""
    summary = ship(image).summary
    assert content(store) == whole(image)
    assert summary.size == len(store.inner.get(KEY))
    total = -(-summary.size // 100_000)
    assert len(store.keys("put_part")) == total - len(interrupted)
    assert store.keys("begin_upload") == []
    assert store.inner.list_uploads("") == []


def test_an_upload_of_another_state_starts_over(image, store, ship, interrupted):
    """The bytes are compared before a part is trusted; the old upload is given back, and the
    next attempt makes one object of one state."""
    with pytest.raises(UploadDiffers):
        ship(image, created_ms=2)  # another header, hence another first part
    assert store.inner.list_uploads("") == []
    assert list(store.inner.list("")) == []
    ship(image, created_ms=2)
    assert content(store) == whole(image)


def test_a_vanished_upload_starts_over(image, store, ship, interrupted):
    """The store threw it away meanwhile, as lifecycle rules do."""
    (upload,) = store.inner.list_uploads("")
    store.inner.abort_upload(upload.key, upload.upload_id)
    with pytest.raises(UploadDiffers):
        ship(image)
    ship(image)
    assert content(store) == whole(image)
    assert store.inner.list_uploads("") == []


def test_parts_too_many_are_noticed(image, store, ship, interrupted):
    """The image got smaller: a longer upload is not completed with a tail of the old one."""
    (upload,) = store.inner.list_uploads("")
    store.inner.put_part(upload.key, upload.upload_id, 900, b"x")
    with pytest.raises(UploadDiffers, match="too many"):
        ship(image)
    ship(image)
    assert content(store) == whole(image)


def test_another_snapshot_gives_up_the_unfinished_one(store, journal, interrupted):
    """Only one is kept in mind; its parts are handed back."""
    assert journal.find(5) is not None
    assert journal.find(6) is None
    assert store.inner.list_uploads("") == []
    assert journal.find(5) is None


def test_orphans_are_swept_away(store, journal, interrupted):
    """What a lost cache or another writer left journal goes; what can be gone on with
    stays; other prefixes are not touched."""
    store.inner.begin_upload("app.db/snapshots/orphan")
    store.inner.begin_upload("other.db/snapshots/theirs")
    journal.sweep()
    assert [u.key for u in store.inner.list_uploads("")] == [KEY, "other.db/snapshots/theirs"]


def test_a_store_that_does_not_list_uploads_is_no_hindrance(store, journal, interrupted):
    """Permission to list or abort them may be missing."""
    store.go_away()
    journal.sweep()
    journal.abort()
    store.come_back()
    assert journal.find(5) is None
    assert len(store.inner.list_uploads("")) == 1


def test_a_damaged_note_is_none(journal, tmp_path):
    """What is not a note of ours is not gone on with."""
    for text in ("", "{", "[1]", '{"key": 1}'):
        journal._cache.put(Fact.SNAPSHOT_UPLOAD, text)
        assert journal.find(5) is None

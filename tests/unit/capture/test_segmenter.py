"""Segments: their content, and that a failure on the way into the cache changes nothing."""

import errno
import hashlib
from dataclasses import replace
from itertools import pairwise

import pytest

from replicator.archive.keys import Keys
from replicator.cache.cache import Cache
from replicator.capture.commit_times import WalObservations
from replicator.capture.image import Image
from replicator.capture.limits import CaptureLimits
from replicator.capture.reader import Batch, WalReader
from replicator.capture.segmenter import Author, Segmenter
from replicator.capture.tip import Head, Tip
from replicator.engine.append import append
from replicator.engine.resume import hash_image
from replicator.errors import ContinuityLost, LocalIOError, ReplicatorError
from replicator.format.buffers import page_numbers
from replicator.format.page_hashes import PageHashes
from replicator.format.segment import decode_segment
from replicator.format.wal import FrameBuilder, frame_size, scan
from replicator.model import DatabaseState, Kind
from replicator.sqlite.live import LiveDatabase
from tests.helpers.errors import raises
from tests.helpers.files import CountingFiles, FailingFiles
from tests.helpers.oracle_wal import overlay, read_wal
from tests.helpers.replication import App, image_of

ALL = 1 << 60
GENERATION = "01900000-0000-7000-8000-000000000001"
OTHER = "01900000-0000-7000-8000-000000000002"


class Clock:
    now = 1_000_000

    def __call__(self):
        return self.now


class Bench:
    """A database, the reader of its WAL, a segmenter, and a cache."""

    def __init__(self, directory, files=None, limits=None):
        self.limits = limits or CaptureLimits()
        self.app = App(directory / "app.db")
        self.app.insert(50)
        self.database = LiveDatabase(self.app.path)
        self.hold = self.database.hold()
        self.cache = Cache.open(directory / "cache", files)
        self.clock = Clock()
        with Image(self.database, self.limits) as image:
            hashes, position = hash_image(image, 1 << 20, lambda: False), image.position
        self.reader = WalReader(self.database.wal, position, self.limits)
        self.observations = WalObservations(self.limits)
        self.segmenter = Segmenter(
            Author(self.cache.writer, "tests", "here"),
            Keys("app.db"),
            Tip(hashes, Head(GENERATION, 7, hashes.state, 0), self.limits),
            self.limits,
            clock_ms=self.clock,
        )
        self.before = self.app.image()

    def segment(self, found=None, **options):
        """Everything committed, as one segment in the cache."""
        found = found or self.reader.find(ALL)
        record = self.append(
            self.segmenter.segment(
                found.start, self.reader.batches(found), found.end, self.observations, **options
            )
        )
        self.reader.advance(found.end)
        return record

    def catch_up(self):
        with Image(self.database, self.limits) as image:
            encoding = self.segmenter.catch_up(image, "a reason")
            return encoding and self.append(encoding)

    def mark_generation(self, hashes=None, reason="x"):
        hashes = hashes or self.segmenter.tip.hashes
        position = self.reader.position
        return self.append(self.segmenter.generation_marker(OTHER, hashes, position, reason))

    def append(self, encoding):
        return append(self.cache, self.segmenter.tip, encoding)

    def state(self):
        """Everything that a failed cut must leave alone."""
        cache = self.cache
        return (
            self.segmenter.tip.hashes.to_bytes(),
            self.segmenter.tip.hashes.state,
            self.segmenter.tip.head,
            self.reader.position,
            cache.head(),
            cache.pending(),
            sorted((cache.directory / "segments").iterdir()),
        )

    def payload(self, record):
        summary, wal = decode_segment(self.cache.read(record), record.key)
        assert (summary.size, summary.sha256) == (record.size, record.sha256)
        return summary, wal

    def close(self):
        self.cache.close()
        self.database.close()
        self.app.close()


@pytest.fixture
def bench(tmp_path, limits):
    """A segmenter with its input and output."""
    bench = Bench(tmp_path, limits=limits)
    yield bench
    bench.close()


def hashes_of(image, page_size=4096):
    hashes = PageHashes(page_size)
    hashes.extend(1, image)
    return hashes


def test_a_segment_leads_from_one_image_to_the_next(bench):
    """Laid over the image before, the decoded segment is the image after, and it says so."""
    bench.app.insert(9)
    bench.app.insert(2)
    record = bench.segment()
    summary, wal = bench.payload(record)
    frames = read_wal(wal)
    assert frames.committed == len(frames.frames)
    assert overlay(bench.before, 4096, frames.frames) == bench.app.image()
    assert (record.first_txid, record.last_txid) == (8, 9)
    assert record.checksum_before == hashes_of(bench.before).checksum
    assert record.state == hashes_of(bench.app.image()).state == bench.segmenter.tip.hashes.state
    assert sum(summary.trailer.commit_frames) == len(frames.frames)
    assert record.raw_bytes == len(wal) - 32
    assert bench.segmenter.tip.head == Head(GENERATION, 9, record.state, record.commit_ms)
    assert record.key == "app.db/wal/0000000000000008.wal.zst"
    assert bench.cache.load_hashes(9) is None  # no array was saved yet


def test_the_saved_changes_lead_to_the_hashes(bench):
    """With an array saved before, the cache leads to the array after each cut."""
    bench.app.insert(3)
    first = bench.segment()
    bench.cache.save_hashes(first.last_txid, bench.segmenter.tip.hashes)
    bench.app.run("DELETE FROM t", "VACUUM")
    record = bench.segment()
    assert bench.cache.load_hashes(record.last_txid).state == record.state
    assert record.state.pages < first.state.pages


def test_a_fast_cut_holds_the_same_frames(bench):
    """Speed changes the bytes of the object, not its payload."""
    bench.app.insert(9)
    record = bench.segment(fast=True)
    _, wal = bench.payload(record)
    assert overlay(bench.before, 4096, read_wal(wal).frames) == bench.app.image()


def test_pages_of_another_size_are_not_caught_up(bench):
    """Another database was copied over the followed one after they were compared."""
    bench.segmenter.tip.hashes = PageHashes(1024)
    before = bench.state()
    with raises(ContinuityLost, "page_size_changed"):
        bench.catch_up()
    assert bench.state() == before


class FailingFromNow(FailingFiles):
    """Counts only once it is armed."""

    def __init__(self):
        super().__init__(at=0)
        self.armed = False

    def system(self, call, /, *args, **kwargs):
        if not self.armed:
            return call(*args, **kwargs)
        return super().system(call, *args, **kwargs)


def steps_of(tmp_path_factory, act):
    files = CountingFiles()
    bench = Bench(tmp_path_factory.mktemp("count"), files)
    prepare(bench)
    before = len(files.log)
    act(bench)
    steps = len(files.log) - before
    bench.close()
    return steps


def prepare(bench):
    bench.app.insert(30)
    bench.app.run("DELETE FROM t WHERE id % 2")


@pytest.mark.parametrize("act", [Bench.segment, Bench.catch_up])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failure_at_any_step_changes_nothing(tmp_path_factory, act, code):
    """Whichever call fails: hashes, head, position, ledger and files are as before, and the
    next attempt gives the segment that would have been."""
    steps = steps_of(tmp_path_factory, act)
    assert steps > 8
    for at in range(1, steps + 1):
        files = FailingFromNow()
        bench = Bench(tmp_path_factory.mktemp("fail"), files)
        prepare(bench)
        before = bench.state()
        files.at, files.code, files.armed = len(files.log) + at, code, True
        try:
            record = act(bench)
        except LocalIOError:
            files.armed = False
            assert bench.state() == before, f"step {at}: {files.names()[-1]}"
            record = act(bench)
        files.armed = False
        _, wal = bench.payload(record)
        assert overlay(bench.before, 4096, read_wal(wal).frames) == bench.app.image()
        assert bench.segmenter.tip.hashes.state == hashes_of(bench.app.image()).state
        bench.close()


@pytest.mark.parametrize("limits", [CaptureLimits(chunk_bytes=4120, hold_bytes=0)], ids=["small"])
def test_frames_that_change_while_being_read_change_nothing(bench):
    """Continuity lost in the middle of a segment: none is made, and hashes are as before."""
    bench.app.insert(30)
    found = bench.reader.find(ALL)
    before = bench.state()
    path = bench.app.path.with_name("app.db-wal")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ReplicatorError):
        bench.segment(found)
    assert bench.state() == before


# ------------------------------------------------------------------------------- catch-up


def test_a_catch_up_ships_only_the_pages_that_differ(bench):
    """One transaction of exactly the pages whose image is not the known one."""
    bench.app.run("UPDATE t SET body = zeroblob(10) WHERE id = 25")
    after = bench.app.image()
    record = bench.catch_up()
    _, wal = bench.payload(record)
    frames = read_wal(wal).frames
    assert overlay(bench.before, 4096, frames) == after
    expected = [
        n + 1
        for n in range(len(after) // 4096)
        if after[n * 4096 :][:4096] != bench.before[n * 4096 :][:4096]
    ]
    assert [pgno for pgno, _, _ in frames] == expected
    assert (record.kind, record.first_txid, record.last_txid) == (Kind.CATCH_UP, 8, 8)


@pytest.mark.parametrize("limits", [CaptureLimits(chunk_bytes=2 * 4096)], ids=["small"])
@pytest.mark.parametrize("change", ["grow", "shrink", "cut off only"])
def test_a_catch_up_follows_growth_and_shrink(bench, change):
    """The database may be longer or shorter than the known one, in any number of runs."""
    if change == "grow":
        bench.app.insert(300)
    elif change == "shrink":
        bench.app.run("DELETE FROM t WHERE id > 3", "VACUUM")
    else:  # known: two pages more than there are
        bench.segmenter.tip.hashes.extend(
            bench.segmenter.tip.hashes.pages + 1, bytes(range(256)) * 32
        )
        bench.before += bytes(range(256)) * 32
    after = image_of(bench.app.path)
    record = bench.catch_up()
    _, wal = bench.payload(record)
    assert overlay(bench.before, 4096, read_wal(wal).frames) == after
    assert record.state == hashes_of(after).state
    if change == "cut off only":
        assert len(read_wal(wal).frames) == 1


def test_nothing_differs_nothing_is_cut(bench):
    """An equal database needs no transaction, whatever became of its log."""
    bench.database.release(bench.hold)
    bench.app.checkpoint("TRUNCATE")
    before = bench.state()
    assert bench.catch_up() is None
    assert bench.state() == before


# ------------------------------------------------------------------- generations and times


def test_a_generation_marker_names_the_state_and_holds_no_frames(bench):
    """The marker: next txid, the new generation, no frames, the state before and after."""
    bench.app.insert()
    hashes = hashes_of(bench.app.image())
    record = bench.mark_generation(hashes, "why not")
    summary, wal = bench.payload(record)
    assert read_wal(wal).frames == []
    assert (record.kind, record.generation, record.first_txid) == (Kind.GENERATION, OTHER, 8)
    assert summary.trailer.checksum_before == summary.trailer.checksum_after == hashes.checksum
    assert record.metadata["reason"] == "why not"
    assert bench.segmenter.tip.head == Head(OTHER, 8, hashes.state, record.commit_ms, event=8)


def test_a_marker_that_fails_leaves_no_file(tmp_path):
    """The disk fills while the marker is written: nothing is in the cache."""
    files = FailingFromNow()
    bench = Bench(tmp_path, files)
    before = bench.cache.head(), sorted((bench.cache.directory / "segments").iterdir())
    for at in range(1, 5):
        files.at, files.armed = len(files.log) + at, True
        with pytest.raises(LocalIOError):
            bench.mark_generation()
        files.armed = False
        assert before == (
            bench.cache.head(),
            sorted((bench.cache.directory / "segments").iterdir()),
        )
    bench.close()


def test_commit_times_never_go_back(bench):
    """The clock may jump; times in the log only grow, across a generation's start too."""
    records = []
    for now in (1_000_000, 2_000_000, 5, 1_500_000):
        bench.clock.now = now
        bench.app.insert()
        records.append(bench.segment())
    bench.clock.now = 6
    records.append(bench.mark_generation())
    bench.app.insert()
    records.append(bench.segment())
    bench.clock.now = 3_000_000
    bench.app.insert()
    records.append(bench.segment())
    times = [r.commit_ms for r in records]
    assert times == [1_000_000, *[2_000_000] * 5, 3_000_000]
    for record in records:
        summary, _ = bench.payload(record)
        assert set(summary.trailer.commit_times_ms) <= {record.commit_ms}
        assert summary.header.created_ms >= record.first_commit_ms


def test_the_head_may_be_of_another_writer(bench):
    """A segmenter describes its objects by its own writer and version."""
    header = bench.segmenter.describe(Kind.SNAPSHOT, OTHER, 99)
    assert (header.writer, header.created_by) == (bench.cache.writer, "tests")
    assert (header.page_size, header.first_txid) == (4096, 99)
    assert bench.segmenter.tip.head.state != DatabaseState(0, 0)


# ------------------------------------------------------------------------- bytes alone

SAME = 0x5A


def wal_of(transactions, *, page_size=512):
    """(position, bytes) of a WAL whose transactions are lists of page numbers."""
    builder = FrameBuilder(page_size, salts=(7, 9))
    base, data, pages = builder.position, b"", 0
    for number, pgnos in enumerate(transactions):
        pages = max(pages, *pgnos)
        images = b"".join(bytes([(SAME + number + n) % 256]) * page_size for n in pgnos)
        data += builder.feed(page_numbers(*pgnos), images, commit=pages)
    return base, data


def batches_of(base, data, *, frames=2):
    """The WAL as the reader would hand it over, a few frames at a time."""
    step = frames * frame_size(base)
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        scanned = scan(piece, base)
        yield Batch(base, piece, scanned, scanned.count)
        base = scanned.position(base, scanned.count)


def segmenter_of(page_size=512):
    hashes = PageHashes(page_size)
    head = Head(GENERATION, 7, hashes.state, 0)
    author = Author(OTHER, "tests", "here")
    tip = Tip(hashes, head, CaptureLimits())
    return Segmenter(author, Keys("app.db"), tip, CaptureLimits(), clock_ms=lambda: 1_000_000)


def test_a_segment_is_made_of_bytes_alone():
    """No database, no cache, no file: frames in, an object and its record out."""
    segmenter, observations = segmenter_of(), WalObservations(CaptureLimits())
    base, data = wal_of([[1, 2, 3], [2], [4, 1]])
    batches = list(batches_of(base, data))
    observations.record(batches[1].end, 900_000)
    encoding = segmenter.segment(base, iter(batches), batches[-1].end, observations)
    body = b"".join(encoding)
    record = encoding.record
    summary, wal = decode_segment(body, record.key)
    assert wal[32:] == data
    assert (record.first_txid, record.last_txid, record.raw_bytes) == (8, 10, len(data))
    assert (record.size, record.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert summary.trailer.commit_frames == (3, 1, 2)
    assert summary.trailer.commit_times_ms == (900_000, 900_000, 1_000_000)
    assert record.state == segmenter.tip.hashes.state
    assert segmenter.tip.head.txid == 7, "nothing moves before the bytes are durable"
    segmenter.tip.move(record, encoding.hashes, encoding.pgnos)
    assert segmenter.tip.head == Head(GENERATION, 10, record.state, 1_000_000)
    assert list(segmenter.tip.changed) == encoding.pgnos.tolist()


def test_a_segment_is_streamed():
    """No batch is read before the bytes of the one before were taken."""
    taken = []

    def counted(batches):
        for batch in batches:
            taken.append(batch)
            yield batch

    segmenter = segmenter_of()
    base, data = wal_of([[n] for n in range(1, 60)])
    end = list(batches_of(base, data))[-1].end
    encoding = segmenter.segment(
        base, counted(batches_of(base, data)), end, WalObservations(CaptureLimits())
    )
    ahead = [len(taken) for _ in encoding]
    assert ahead[0] == 0
    assert max(after - before for before, after in pairwise(ahead)) <= 1
    assert len(taken) == 30


def test_an_encoding_that_is_undone_leaves_the_hashes():
    """What cannot be written did not happen; without a change, undo does nothing."""
    segmenter = segmenter_of()
    before = segmenter.tip.hashes.to_bytes()
    base, data = wal_of([[1, 2]])
    batches = list(batches_of(base, data))
    observations = WalObservations(CaptureLimits())
    encoding = segmenter.segment(base, batches, batches[-1].end, observations)
    encoding.undo()
    b"".join(encoding)
    assert segmenter.tip.hashes.to_bytes() != before
    encoding.undo()
    assert segmenter.tip.hashes.to_bytes() == before


def test_batches_that_do_not_follow_each_other_make_no_segment():
    """Whatever led to it, frames that are not one run of the WAL end in a refusal."""
    base, data = wal_of([[1, 2]])
    (batch,) = batches_of(base, data)
    torn = replace(batch, base=replace(base, salt1=1))
    encoding = segmenter_of().segment(base, [torn], batch.end, WalObservations(CaptureLimits()))
    with pytest.raises(ContinuityLost, match="does not follow"):
        b"".join(encoding)

"""Cutting: what a segment holds, and that a failure on the way changes nothing."""

import errno

import pytest

from replicator.archive.keys import Keys
from replicator.cache.cache import Cache
from replicator.capture import segmenter as cut
from replicator.capture.image import Image
from replicator.capture.reader import WalReader
from replicator.capture.segmenter import Cutter, Head
from replicator.engine.resume import hash_image
from replicator.errors import LocalIOError, ReplicatorError
from replicator.format.page_hashes import PageHashes
from replicator.format.segment import decode_segment
from replicator.model import DatabaseState, Kind
from replicator.sqlite.live import LiveDatabase
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
    """A database, its log's reader and a cutter over a cache."""

    def __init__(self, directory, files=None):
        self.app = App(directory / "app.db")
        self.app.insert(50)
        self.database = LiveDatabase(self.app.path)
        self.hold = self.database.hold()
        self.cache = Cache.open(directory / "cache", files)
        self.clock = Clock()
        with Image(self.database) as image:
            hashes, position = hash_image(image, lambda: False), image.position
        self.reader = WalReader(self.database.wal, position)
        self.cutter = Cutter(
            self.cache,
            Keys("app.db"),
            hashes,
            Head(GENERATION, 7, hashes.state, 0),
            level=3,
            created_by="tests",
            host="here",
            clock_ms=self.clock,
        )
        self.before = self.app.image()

    def cut(self):
        return self.cutter.cut(self.reader, self.reader.find(ALL))

    def state(self):
        """Everything that a failed cut must leave alone."""
        cache = self.cache
        return (
            self.cutter.hashes.to_bytes(),
            self.cutter.hashes.state,
            self.cutter.head,
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
def bench(tmp_path):
    bench = Bench(tmp_path)
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
    record = bench.cut()
    summary, wal = bench.payload(record)
    frames = read_wal(wal)
    assert frames.committed == len(frames.frames)
    assert overlay(bench.before, 4096, frames.frames) == bench.app.image()
    assert (record.first_txid, record.last_txid) == (8, 9)
    assert record.checksum_before == hashes_of(bench.before).checksum
    assert record.state == hashes_of(bench.app.image()).state == bench.cutter.hashes.state
    assert sum(summary.trailer.commit_frames) == len(frames.frames)
    assert record.raw_bytes == len(wal) - 32
    assert bench.cutter.head == Head(GENERATION, 9, record.state, record.commit_ms)
    assert record.key == "app.db/wal/0000000000000008.wal.zst"
    assert bench.cache.load_hashes(9) is None  # no array was saved yet


def test_the_saved_changes_lead_to_the_hashes(bench):
    """With an array saved before, the cache leads to the array after each cut."""
    bench.app.insert(3)
    first = bench.cut()
    bench.cache.save_hashes(first.last_txid, bench.cutter.hashes)
    bench.app.run("DELETE FROM t", "VACUUM")
    record = bench.cut()
    assert bench.cache.load_hashes(record.last_txid).state == record.state
    assert record.state.pages < first.state.pages


def test_a_fast_cut_holds_the_same_frames(bench):
    """Speed changes the bytes of the object, not its payload."""
    bench.app.insert(9)
    found = bench.reader.find(ALL)
    record = bench.cutter.cut(bench.reader, found, fast=True)
    _, wal = bench.payload(record)
    assert overlay(bench.before, 4096, read_wal(wal).frames) == bench.app.image()


class FailingFromNow(FailingFiles):
    """Counts only once it is armed."""

    def __init__(self):
        super().__init__(at=0)
        self.armed = False

    def system(self, call, /, *args, **kwargs):
        if not self.armed:
            return call(*args, **kwargs)
        return super().system(call, *args, **kwargs)


def steps_of_a_cut(tmp_path_factory, act):
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


def cut_segment(bench):
    return bench.cut()


def cut_catch_up(bench):
    with Image(bench.database) as image:
        return bench.cutter.catch_up(image, "a reason")


@pytest.mark.parametrize("act", [cut_segment, cut_catch_up])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failure_at_any_step_changes_nothing(tmp_path_factory, act, code):
    """Whichever call fails: hashes, head, position, ledger and files are as before, and the
    next attempt gives the segment that would have been."""
    steps = steps_of_a_cut(tmp_path_factory, act)
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
        assert bench.cutter.hashes.state == hashes_of(bench.app.image()).state
        bench.close()


def test_frames_that_change_while_being_cut_change_nothing(bench, monkeypatch):
    """Continuity lost in the middle of a cut: no segment, and hashes as before."""
    monkeypatch.setattr("replicator.capture.reader.CHUNK_BYTES", 4120)
    monkeypatch.setattr("replicator.capture.reader.HOLD_BYTES", 0)
    bench.app.insert(30)
    found = bench.reader.find(ALL)
    before = bench.state()
    path = bench.app.path.with_name("app.db-wal")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ReplicatorError):
        bench.cutter.cut(bench.reader, found)
    assert bench.state() == before


# ------------------------------------------------------------------------------- catch-up


def test_a_catch_up_ships_only_the_pages_that_differ(bench):
    """One transaction of exactly the pages whose image is not the known one."""
    bench.app.run("UPDATE t SET body = zeroblob(10) WHERE id = 25")
    after = bench.app.image()
    record = cut_catch_up(bench)
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


@pytest.mark.parametrize("change", ["grow", "shrink", "cut off only"])
def test_a_catch_up_follows_growth_and_shrink(bench, monkeypatch, change):
    """The database may be longer or shorter than the known one, in any number of runs."""
    monkeypatch.setattr(cut, "CHUNK_BYTES", 2 * 4096)
    if change == "grow":
        bench.app.insert(300)
    elif change == "shrink":
        bench.app.run("DELETE FROM t WHERE id > 3", "VACUUM")
    else:  # known: two pages more than there are
        bench.cutter.hashes.extend(bench.cutter.hashes.pages + 1, bytes(range(256)) * 32)
        bench.before += bytes(range(256)) * 32
    after = image_of(bench.app.path)
    record = cut_catch_up(bench)
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
    assert cut_catch_up(bench) is None
    assert bench.state() == before


# ------------------------------------------------------------------- generations and times


def test_a_generation_marker_names_the_state_and_holds_no_frames(bench):
    """The marker: next txid, the new generation, no frames, the state before and after."""
    bench.app.insert()
    hashes = hashes_of(bench.app.image())
    record = bench.cutter.mark_generation(OTHER, hashes, bench.reader.position, "why not")
    summary, wal = bench.payload(record)
    assert read_wal(wal).frames == []
    assert (record.kind, record.generation, record.first_txid) == (Kind.GENERATION, OTHER, 8)
    assert summary.trailer.checksum_before == summary.trailer.checksum_after == hashes.checksum
    assert record.metadata["reason"] == "why not"
    assert bench.cutter.head == Head(OTHER, 8, hashes.state, record.commit_ms, event=8)


def test_a_marker_that_fails_leaves_no_file(tmp_path):
    """The disk fills while the marker is written: nothing is in the cache."""
    files = FailingFromNow()
    bench = Bench(tmp_path, files)
    before = bench.cache.head(), sorted((bench.cache.directory / "segments").iterdir())
    for at in range(1, 5):
        files.at, files.armed = len(files.log) + at, True
        with pytest.raises(LocalIOError):
            bench.cutter.mark_generation(OTHER, bench.cutter.hashes, bench.reader.position, "x")
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
        records.append(bench.cut())
    bench.clock.now = 6
    records.append(
        bench.cutter.mark_generation(OTHER, bench.cutter.hashes, bench.reader.position, "x")
    )
    bench.app.insert()
    records.append(bench.cut())
    bench.clock.now = 3_000_000
    bench.app.insert()
    records.append(bench.cut())
    times = [r.commit_ms for r in records]
    assert times == [1_000_000, *[2_000_000] * 5, 3_000_000]
    for record in records:
        summary, _ = bench.payload(record)
        assert set(summary.trailer.commit_times_ms) <= {record.commit_ms}
        assert summary.header.created_ms >= record.first_commit_ms


def test_the_head_may_be_of_another_writer(bench):
    """A cutter describes what it makes by its own writer and version."""
    header = bench.cutter.describe(Kind.SNAPSHOT, OTHER, 99)
    assert (header.writer, header.created_by) == (bench.cache.writer, "tests")
    assert (header.page_size, header.first_txid) == (4096, 99)
    assert bench.cutter.head.state != DatabaseState(0, 0)

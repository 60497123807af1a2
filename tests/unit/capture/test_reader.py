"""Reading a live log forward: every committed frame, once, and never one that is not."""

import os
import random
import sqlite3
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.capture.limits import CaptureLimits
from replicator.capture.reader import WalReader, no_wal, wal_contains
from replicator.errors import ContinuityLost
from replicator.format.wal import offset_of
from replicator.sqlite.wal_file import WalFile
from replicator.system.paths import wal_path
from tests.helpers.errors import raises
from tests.helpers.oracle_wal import overlay, read_wal
from tests.helpers.replication import App, frames_in

pytestmark = pytest.mark.app(cache_pages=10, empty_wal=True)

ALL = 1 << 60


@pytest.fixture
def reader(app):
    """A reader of the application's WAL."""
    return reader_of(app)


def reader_of(app, page_size=4096, **limits):
    return WalReader(WalFile(wal_path(app.path)), no_wal(page_size), CaptureLimits(**limits))


def wal(app):
    return wal_path(app.path).read_bytes()


def take(reader, limit=ALL):
    """The frames that the reader finds next, captured: [(pgno, commit, image)]."""
    found = reader.find(limit)
    if found is None:
        return []
    frames = list(frames_in(reader.batches(found)))
    assert len(frames) == found.end.frame - found.start.frame
    assert frames[-1][1] != 0, "a capture ends at a commit"
    assert found.raw_bytes == sum(24 + len(image) for _, _, image in frames)
    reader.advance(found.end)
    assert reader.position == reader.read_position == found.end
    return frames


def committed(app):
    reading = read_wal(wal(app))
    return reading.frames[: reading.committed]


def spill(app, rows=200):
    """An open transaction whose frames are in the log already."""
    app.run("BEGIN")
    app.insert(rows, 1000)


def settle_clock(app):
    """As if the last write to the log were long ago, its time being left as it is."""
    stat = os.stat(wal_path(app.path))
    os.utime(wal_path(app.path), ns=(stat.st_atime_ns, stat.st_mtime_ns - 10**10))


def test_nothing_is_found_in_no_log(app, reader):
    """Without a log, or with an empty one, there is nothing and nothing fails."""
    assert reader.find(ALL) is None
    assert not reader.look()
    wal_path(app.path).unlink()
    assert reader.find(ALL) is None
    assert reader.frames_ahead() == 0
    assert not wal_contains(WalFile(wal_path(app.path)), no_wal(4096), CaptureLimits())


def test_commits_are_found_one_after_another(app, reader):
    """What is captured over many looks is exactly the committed log, in order."""
    seen = []
    for rows in (1, 20, 3):
        app.insert(rows)
        seen += take(reader)
        assert seen == committed(app)
        assert take(reader) == []


def test_a_spilled_transaction_is_found_only_once_committed(app, reader):
    """Frames of an open transaction are seen and not taken; all of it comes with its commit."""
    app.insert()
    first = take(reader)
    spill(app)
    assert reader.look()
    assert reader.frames_ahead() > 10
    assert take(reader) == []
    app.insert(100, 1000)
    assert take(reader) == []
    app.run("COMMIT")
    assert first + take(reader) == committed(app)


def test_a_shorter_transaction_over_a_rolled_back_one_is_found(app, reader):
    """After spill, rollback and a shorter commit in the same place, the commit is found and
    nothing of the rolled back frames behind it is."""
    app.insert()
    seen = take(reader)
    spill(app)
    assert take(reader) == []
    app.run("ROLLBACK")
    app.insert()
    seen += take(reader)
    assert seen == committed(app)
    assert take(reader) == []


def test_a_commit_below_further_spilled_frames_is_found(app, reader):
    """Spilled, looked at, spilled further, rolled back, then a short commit, and the log quiet
    for long: the look that resumes ahead finds more dead frames, and must not be content."""
    app.insert()
    seen = take(reader)
    spill(app)
    assert take(reader) == []
    app.insert(200, 1000)
    app.run("ROLLBACK")
    app.insert()
    settle_clock(app)
    seen += take(reader) or take(reader) or take(reader)
    assert seen == committed(app)


def test_a_savepoint_that_is_rolled_back_is_not_captured(app, reader):
    """ROLLBACK TO rewinds the log within a transaction; only what was committed comes out."""
    spill(app)
    assert take(reader) == []
    app.run("SAVEPOINT inner")
    app.insert(200, 1000)
    assert take(reader) == []
    app.run("ROLLBACK TO inner")
    app.insert(2)
    app.run("COMMIT")
    assert take(reader) == committed(app)


@pytest.mark.parametrize("quiet", [True, False])
def test_nothing_changes_while_nobody_writes(app, reader, quiet):
    """An open transaction that rests costs the same answer again and again."""
    spill(app)
    if quiet:
        settle_clock(app)
    for _ in range(3):
        assert take(reader) == []
    app.run("COMMIT")
    assert take(reader) == committed(app)


def test_an_in_place_restart_at_equal_size_is_entered(app, reader):
    """The log restarts at its first frame, the file keeping its size: all new frames come."""
    for _ in range(6):
        app.insert()
    take(reader)
    size = len(wal(app))
    app.checkpoint("RESTART")
    app.insert()
    assert len(wal(app)) == size
    assert take(reader) == committed(app)
    assert reader.position.frame == read_wal(wal(app)).committed


@pytest.mark.parametrize("delete", [True, False])
def test_a_truncated_log_is_followed_by_the_next(app, reader, delete):
    """TRUNCATE, or the log deleted by its last user: nothing for a while, then the new log."""
    app.insert(5)
    take(reader)
    app.checkpoint("TRUNCATE")
    if delete:
        app.close()
        reader._wal.close()  # as after the last close
    assert take(reader) == []
    if delete:
        assert not wal_path(app.path).exists()
        app.db = sqlite3.connect(app.path, isolation_level=None)
    app.insert(2)
    assert take(reader) == committed(app)


def test_another_page_size_is_lost_continuity(app, reader):
    """A log with pages of another size is not the continuation of this one."""
    app.insert()
    take(reader)
    app.checkpoint("TRUNCATE")
    app.run(
        "PRAGMA journal_mode=DELETE", "PRAGMA page_size=1024", "VACUUM", "PRAGMA journal_mode=WAL"
    )
    app.insert()
    reader._wal.close()  # as after the last close
    with raises(ContinuityLost, "page_size_changed"):
        reader.find(ALL)


def test_a_changed_last_frame_is_lost_continuity(app, reader):
    """The captured frame is not what it was, under the same header."""
    app.insert()
    take(reader)
    data = bytearray(wal(app))
    data[offset_of(reader.position) - 4096 - 8] ^= 1  # in the stored checksum
    wal_path(app.path).write_bytes(data)
    with raises(ContinuityLost, "frames_changed"):
        reader.look()


def test_a_log_cut_short_is_lost_continuity(app, reader):
    """The captured frame is no longer there, under the same header."""
    app.insert()
    take(reader)
    os.truncate(wal_path(app.path), 40)
    with pytest.raises(ContinuityLost):
        reader.look()


def test_a_log_that_is_emptied_between_two_reads_has_ended(app):
    """Header read, then a TRUNCATE checkpoint of the application, then the last frame read."""

    class Truncating(WalFile):
        def header(self):
            found = super().header()
            app.checkpoint("TRUNCATE")
            return found

    app.insert()
    reader = WalReader(Truncating(wal_path(app.path)), no_wal(4096), CaptureLimits())
    reader.position = (
        WalReader(WalFile(wal_path(app.path)), no_wal(4096), CaptureLimits()).find(ALL).end
    )
    assert not reader.look()
    app.insert()
    assert WalReader(WalFile(wal_path(app.path)), reader.position, CaptureLimits()).look()


@pytest.mark.app(rows=3, empty_wal=True)
def test_the_end_of_an_empty_log_is_no_position(app):
    """A TRUNCATE checkpoint may come between a look and the search for the last frame."""
    reader = WalReader(WalFile(wal_path(app.path)), no_wal(4096), CaptureLimits())
    assert reader.frames_ahead() == 0
    assert reader.seen_end(0) is None


def test_a_log_that_begins_between_two_reads_is_entered(app):
    """Header read, then the log restarts, then the last frame read: a new log, not damage."""

    class Restarting(WalFile):
        def header(self):
            found = super().header()
            if self.armed:
                self.armed = False
                app.checkpoint("RESTART")
                app.insert(60)
            return found

    log = Restarting(wal_path(app.path))
    log.armed = False
    reader = WalReader(log, no_wal(4096), CaptureLimits())
    app.insert(3)
    app.insert(3)
    take(reader)
    log.armed = True
    assert take(reader) == committed(app)


def test_an_unanchored_reader_refuses_a_log_it_did_not_see_the_end_of(app):
    """Resumed from a record, the log reset before its end was seen: that is a gap, said so."""
    app.insert()
    first = reader_of(app)
    take(first)
    app.insert()  # never captured
    app.checkpoint("TRUNCATE")
    app.insert()
    resumed = WalReader(
        WalFile(wal_path(app.path)), first.position, CaptureLimits(), anchored=False
    )
    with raises(ContinuityLost, "wal_reset"):
        resumed.find(ALL)


@pytest.mark.parametrize("follows", [False, True], ids=["emptied", "a new WAL"])
@pytest.mark.parametrize(
    "read", [lambda r: r.look(), lambda r: r.stash(), lambda r: r.nothing_follows()]
)
def test_every_read_of_an_unanchored_reader_refuses_a_gap(app, read, follows):
    """The frames that were not captured are in the database only: to answer that nothing follows,
    or to read what follows them, would lose them without a sign."""
    app.insert()
    first = reader_of(app)
    take(first)
    app.insert()  # never captured
    app.checkpoint("TRUNCATE")
    if follows:
        app.insert()
    wal = WalFile(wal_path(app.path))
    with raises(ContinuityLost, "wal_reset"):
        read(WalReader(wal, first.position, CaptureLimits(), anchored=False))


def test_frames_in_memory_anchor_a_reader(app):
    """They end where the WAL was seen to end, so the next WAL may follow."""
    app.insert()
    first = reader_of(app)
    take(first)
    app.insert()
    wal = WalFile(wal_path(app.path))
    resumed = WalReader(wal, first.position, CaptureLimits(), anchored=False)
    assert resumed.stash()
    app.checkpoint("TRUNCATE")
    app.insert()
    assert take(resumed)
    assert take(resumed) == committed(app)


def test_a_reader_that_saw_the_end_is_anchored(app):
    """Once it saw the end of the log it resumed in, the next log may follow."""
    app.insert()
    first = reader_of(app)
    take(first)
    resumed = WalReader(
        WalFile(wal_path(app.path)), first.position, CaptureLimits(), anchored=False
    )
    assert take(resumed) == []
    app.checkpoint("TRUNCATE")
    app.insert()
    assert take(resumed) == committed(app)


def test_a_transaction_larger_than_a_chunk_is_taken_whole(app):
    """Memory is bounded by chunks, a capture by commits: many chunks make one capture."""
    reader = reader_of(app, chunk_bytes=3 * 4120, hold_bytes=0)
    spill(app, 100)
    assert take(reader) == []
    app.run("COMMIT")
    app.insert(1)
    found = reader.find(1)
    sizes = [batch.count for batch in reader.batches(found)]
    assert max(sizes) <= 3 < len(sizes)
    seen = take(reader, 1)
    while reader.look():
        seen += take(reader, 1)
    assert seen == committed(app)


def test_what_was_read_just_now_is_not_read_again(app):
    """A few reads are held until they are captured, and end where the last commit does."""
    reader = reader_of(app, chunk_bytes=3 * 4120)
    app.insert(60)
    expected = committed(app)
    spill(app, 100)
    found = reader.find(ALL)
    app.run("ROLLBACK")
    assert len(found.ready) > 1
    assert sum(batch.count for batch in found.ready) == len(expected)
    wal_path(app.path).write_bytes(b"")
    assert [batch.end for batch in reader.batches(found)][-1] == found.end


def test_a_limit_ends_a_capture_at_a_commit_and_says_so(app):
    """About ``limit`` bytes, never part of a transaction; ``complete`` only at the end."""
    reader = reader_of(app, chunk_bytes=4120, hold_bytes=0)
    for _ in range(5):
        app.insert(3)
    answers, seen = [], []
    while reader.look():
        answers.append(reader.find(4120).complete)
        seen += take(reader, 4120)
    assert seen == committed(app)
    assert len(answers) > 2
    assert answers[-1] or reader.find(4120) is None
    assert not any(answers[:-1])


def test_frames_that_change_between_two_reads_are_lost_continuity(app):
    """A capture that must be read again verifies again."""
    reader = reader_of(app, chunk_bytes=2 * 4120, hold_bytes=0)
    app.insert(60, 1000)
    found = reader.find(ALL)
    assert not found.ready
    data = bytearray(wal(app))
    data[32 + 5 * 4120 + 100] ^= 1
    wal_path(app.path).write_bytes(data)
    with raises(ContinuityLost, "frames_vanished"):
        list(reader.batches(found))


def test_another_transaction_in_the_same_place_is_lost_continuity(app):
    """Frames that verify, but are not those that were found."""
    reader = reader_of(app, chunk_bytes=2 * 4120, hold_bytes=0)
    before = wal(app)
    app.insert(60, 1000)
    found = reader.find(ALL)
    path = wal_path(app.path)
    whole = bytearray(path.read_bytes())
    # the same log, as another history would have written it: one byte differs, sums follow
    whole[32 + 24 + 3000] ^= 1
    path.write_bytes(rewritten(bytes(whole)))
    assert len(before) < len(whole)
    with raises(ContinuityLost, "frames_changed"):
        list(reader.batches(found))


def rewritten(data):
    """The log with its checksums made good again."""
    from tests.helpers.oracle_wal import plain_sum

    size = struct.unpack_from(">I", data, 8)[0]
    out, chain = bytearray(data), struct.unpack_from(">2I", data, 24)
    for at in range(32, len(data) - size - 23, size + 24):
        chain = plain_sum(
            data[at + 24 : at + 24 + size], False, plain_sum(data[at : at + 8], False, chain)
        )
        struct.pack_into(">2I", out, at + 16, *chain)
    return bytes(out)


def test_reaches_and_frames_ahead_count_what_follows(app, reader):
    """They count frames of this log, committed or not, and none of an older one behind."""
    app.insert()
    take(reader)
    for _ in range(7):
        app.insert()
    ahead = read_wal(wal(app)).committed - reader.position.frame
    assert reader.frames_ahead() == ahead
    assert reader.reaches(ahead)
    assert not reader.reaches(ahead + 1)


def test_wal_contains_tells_the_captured_wal_from_any_other(app, reader):
    """True for the log and the place a position was taken in; false after a restart, for a
    changed frame, and for another byte order."""
    log = WalFile(wal_path(app.path))
    app.insert()
    take(reader)
    position = reader.position
    assert wal_contains(log, position, CaptureLimits())
    app.insert()
    assert wal_contains(log, position, CaptureLimits())
    app.checkpoint("RESTART")
    app.insert()
    assert not wal_contains(log, position, CaptureLimits())
    take(reader)
    assert wal_contains(log, reader.position, CaptureLimits())
    changed = bytearray(wal(app))
    changed[offset_of(reader.position) - 4096 - 8] ^= 1
    wal_path(app.path).write_bytes(changed)
    assert not wal_contains(log, reader.position, CaptureLimits())


def test_a_wal_contains_a_position_only_with_every_frame_before_it(app):
    """A power cut may take one from the middle and leave the last; SQLite then goes on from the
    one before it, and whatever it writes would be missed."""
    reader = reader_of(app)
    app.insert(30, 1000)
    take(reader)
    limits = CaptureLimits(chunk_bytes=2 * 4120)
    position, whole = reader.position, wal(app)
    assert position.frame > 5
    log = WalFile(wal_path(app.path))
    assert wal_contains(log, position, limits)
    for frame in range(position.frame):
        torn = bytearray(whole)
        torn[32 + frame * 4120 + 600] ^= 1
        wal_path(app.path).write_bytes(torn)
        assert not wal_contains(log, position, limits), frame
    wal_path(app.path).write_bytes(whole[:-1])
    assert not wal_contains(log, position, limits)


def test_what_is_stashed_comes_out_first_and_then_the_rest(app, reader):
    """The log may go once its end is in memory; nothing is lost, and nothing comes twice."""
    app.insert(3)
    first = committed(app)
    assert reader.stash()
    assert reader.stashed
    assert reader.read_position.frame == len(first)
    app.insert(2)
    assert reader.stash()
    whole = committed(app)
    app.checkpoint("TRUNCATE")
    app.insert(1)
    seen = []
    while reader.look():
        seen += take(reader)
    assert seen == whole + committed(app)
    assert not reader.stashed


def test_too_much_is_left_in_the_log(app):
    """What waits already is kept, and the rest is read from the log; more is taken while
    writers wait."""
    reader = reader_of(app, chunk_bytes=4 * 4120, stash_bytes=40 * 4120, hurry_bytes=200 * 4120)
    app.insert(100)
    assert reader.stash()
    waiting = reader.read_position
    for _ in range(5):
        app.insert(100)
    assert not reader.stash()
    assert not reader.saw_end
    assert (reader.read_position, reader.stashed) == (waiting, True)
    assert reader.stash(hurry=True)
    assert reader.saw_end
    assert reader.read_position.frame == len(committed(app))
    app.insert(5000)
    assert not reader.stash(hurry=True)
    assert take(reader) + take(reader) == committed(app)


def test_a_long_transaction_that_may_not_commit_is_not_too_much(app):
    """Nothing committed follows, however far the log goes on: there is nothing to wait for."""
    reader = reader_of(app, stash_bytes=20 * 4120)
    app.insert()
    assert reader.stash()
    whole = committed(app)
    app.run("BEGIN")
    app.insert(2000)
    assert len(wal(app)) > 100 * 4120, "it spilled its pages"
    assert reader.stash()
    assert reader.saw_end
    app.run("ROLLBACK")
    assert take(reader) == whole


def test_what_is_kept_for_a_cut_waits_too(app):
    """As what comes meanwhile does: the log may go before the cut."""
    reader = reader_of(app, hold_bytes=0)
    app.insert(500)
    found = reader.find(ALL)
    expected = committed(app)
    reader.keep(found)
    app.checkpoint("TRUNCATE")
    app.insert(1)
    assert take(reader) == expected


def test_nothing_follows_is_true_only_at_the_very_end(app, reader):
    """A commit that came since, or another log, is noticed."""
    app.insert()
    take(reader)
    assert reader.nothing_follows()
    app.insert()
    assert not reader.nothing_follows()
    take(reader)
    app.checkpoint("RESTART")
    app.insert()
    assert not reader.nothing_follows()


class History:
    """What an application does, and what a reader made of it so far."""

    def __init__(self, app, rng):
        self.app, self.rng = app, rng
        self.reader = reader_of(app)
        self.state = app.path.read_bytes()

    @property
    def inside(self):
        return self.app.db.in_transaction

    def insert(self):
        self.app.insert(1)

    def big(self):
        self.app.insert(self.rng.randrange(20, 90), 1500)

    def begin(self):
        if not self.inside:
            self.app.run("BEGIN")

    def commit(self):
        if self.inside:
            self.app.run("COMMIT")

    def rollback(self):
        if self.inside:
            self.app.run("ROLLBACK")

    def savepoint(self):
        if self.inside:
            self.app.run("SAVEPOINT s")
            self.app.insert(30, 1500)
            self.app.run(self.rng.choice(("ROLLBACK TO s", "ROLLBACK TO s", "RELEASE s")))

    def checkpoint(self):
        if not self.inside:
            self.look()  # as a hold makes sure
            self.app.checkpoint(self.rng.choice(("PASSIVE", "RESTART", "TRUNCATE")))

    def rest(self):
        settle_clock(self.app)

    def look(self):
        while frames := take(self.reader, self.rng.choice((1, ALL))):
            self.state = overlay(self.state, 4096, frames)
        assert self.state == app_image(self.app)


STEPS = [
    "insert",
    "big",
    "begin",
    "begin",
    "commit",
    "rollback",
    "savepoint",
    "checkpoint",
    "rest",
    "look",
    "look",
    "look",
]


@settings(max_examples=80, deadline=None)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=40), seed=st.integers(0, 9))
def test_any_history_is_captured_exactly(tmp_path_factory, steps, seed):
    """Property: whatever an application does between two looks, the captured frames laid over
    the first image are, at each look, the committed database."""
    with App(tmp_path_factory.mktemp("history") / "app.db", cache_pages=5) as app:
        app.checkpoint("TRUNCATE")
        history = History(app, random.Random(seed))
        for step in [*steps, "commit", "look", "checkpoint", "insert", "look"]:
            getattr(history, step)()


def app_image(app):
    """The database file with the committed part of its log laid over it."""
    data = wal(app)
    reading = read_wal(data)
    frames = reading.frames[: reading.committed] if reading else []
    return overlay(Path(app.path).read_bytes(), 4096, frames)


def test_a_header_written_anew_under_the_same_salts(app):
    """A log whose first transaction was rolled back is begun once more by the next writer,
    with the salts that all share and a checkpoint sequence that each connection counts for
    itself: another header checksum, hence another chain, in the same log."""
    reader = reader_of(app)
    with App(app.path, cache_pages=10) as other:
        for _ in range(3):  # this connection has restarted logs, the other has not
            app.insert(3)
            app.checkpoint("RESTART")
        take(reader)
        other.run("BEGIN", "INSERT INTO t(body) VALUES (zeroblob(200000))", "ROLLBACK")
        assert reader.look()
        assert take(reader) == []
        before = wal(app)[:32]
        app.insert(3)
        assert wal(app)[16:24] == before[16:24]
        assert wal(app)[:32] != before
        assert take(reader) == committed(app) != []
        app.insert(2)
        take(reader)
        assert reader.position.frame == len(committed(app))

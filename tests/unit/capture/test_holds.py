"""The holds over a log and its roll-over: no frame is lost, and no writer is stopped for long."""

import contextlib
import os
import random
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest

from replicator.capture.holds import WalHolds
from replicator.capture.image import Image
from replicator.capture.limits import CaptureLimits
from replicator.capture.reader import WalReader
from replicator.errors import ChangedOutside, ContinuityLost
from replicator.metrics import Metrics
from replicator.sqlite.live import Checkpoint, LiveDatabase
from replicator.sqlite.wal_file import WalFile
from replicator.sqlite.wal_index import WalIndex
from replicator.system.files import LOCAL, Files
from replicator.system.paths import index_path
from tests.helpers.bucket import plain_state
from tests.helpers.errors import raises
from tests.helpers.oracle_wal import overlay
from tests.helpers.other_app import OtherApp
from tests.helpers.replication import App, frames_in, image_of, wait_for

pytestmark = pytest.mark.app(rows=30, timeout=0)

SHORT = CaptureLimits(roll_over_frames=8)


class Interrupted(LiveDatabase):
    """The application does something right before and right after each of our steps."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.act = self.after_release = self.after_reopen = lambda: None
        self.opened, self.released = [], []
        self.answer = None  # to a checkpoint, in the place of SQLite's

    def hold(self):
        self.act()
        self.opened.append(super().hold())
        self.act()
        return self.opened[-1]

    def release(self, hold):
        self.act()
        super().release(hold)
        self.released.append(hold)
        self.after_release()
        self.act()

    def reopen_after_last_close(self):
        super().reopen_after_last_close()
        self.after_reopen()

    def checkpoint(self):
        self.act()
        answer = self.answer or super().checkpoint()
        self.act()
        return answer


BUSY = Checkpoint(busy=True, frames=-1, copied=-1)


class Follow:
    """A capture without segments: frames are laid over the first image as they come."""

    def __init__(self, path, limits, *, holds=WalHolds, files=LOCAL):
        self.database = Interrupted(path, busy_timeout=0.1, files=files)
        hold = self.database.hold()
        with Image(self.database, limits) as image:
            self.state = bytes(image.read(1, image.pages))
            position = image.position
        self.reader = WalReader(self.database.wal, position, limits)
        self.metrics = Metrics()
        self.holds = holds(self.database, self.reader, hold, self.metrics, limits)

    def take(self):
        while (found := self.reader.find(1 << 40)) is not None:
            self.state = overlay(
                self.state, found.end.page_size, list(frames_in(self.reader.batches(found)))
            )
            self.reader.advance(found.end)

    def round(self, *, hold=False):
        if hold and self.reader.look():
            self.holds.hold_new_wal()
        self.take()
        self.holds.settle()
        self.take()

    def close(self):
        self.holds.close()
        self.database.close()


@pytest.fixture
def short_limits():
    """Limits with short WALs."""
    return SHORT


@pytest.fixture
def follow(app, short_limits):
    """A capture that follows the application."""
    follow = Follow(app.path, short_limits)
    yield follow
    follow.close()


def log_frames(app):
    return (app.path.with_name("app.db-wal").stat().st_size - 32) // 4120


def test_a_pin_is_always_held(app, follow):
    """At no moment between rounds can the application reset a log that was not captured."""
    for n in range(40):
        app.insert(n % 5 + 1)
        if follow.reader.look():
            busy, _, _ = app.checkpoint("TRUNCATE")
            assert busy or not follow.reader.look()
        follow.round()
        assert follow.state == image_of(app.path)


def test_a_log_rolls_over_when_it_is_long(app, follow):
    """The log's length stays bounded, without a write of ours and without its lock."""
    lengths = []
    for _ in range(60):
        app.insert(3)
        follow.round()
        lengths.append(follow.reader.position.frame)
        assert follow.state == image_of(app.path)
    assert max(lengths) < 30
    assert follow.metrics.get("roll_overs") > 3
    assert follow.metrics.get("write_lock_holds") == 0


@pytest.mark.parametrize("step", ["settle", "backfill"])
def test_nothing_is_copied_into_what_was_put_in_the_place(tmp_path, app, short_limits, step):
    """The log is removed and another database copied over the file at the worst moment, when the
    roll-over is about to have the old log copied: not a byte of the new file changes."""
    other = tmp_path / "other.db"
    with App(other) as new:
        new.insert(300)
        new.checkpoint("TRUNCATE")

    class Replaced(WalHolds):
        def _chase(self, **options):
            found = super()._chase(**options)
            app.path.with_name("app.db-wal").unlink()
            subprocess.run(["cp", other, app.path], check=True)
            return found

    follow = Follow(app.path, short_limits, holds=Replaced)
    app.insert(30)
    follow.take()
    if step == "backfill":
        follow.holds._chase()
    with raises(ChangedOutside, "wal_removed"):
        getattr(follow.holds, step)()
    assert app.path.read_bytes() == other.read_bytes()
    follow.close()


def test_a_log_that_was_removed_before_it_was_looked_at(app, follow):
    """What the image at the start knew of the log does not pass for the log itself."""
    follow.database.wal = WalFile(follow.database.wal.path)
    app.path.with_name("app.db-wal").unlink()
    with raises(ChangedOutside, "wal_removed"):
        follow.holds.backfill()


def test_a_log_removed_during_a_checkpoint_is_told(app, follow, caplog):
    """Pages of the old database may reach the new file then, and the replicator reports it."""
    follow.database.act = lambda: app.path.with_name("app.db-wal").unlink(missing_ok=True)
    with pytest.raises(ChangedOutside):
        follow.holds.backfill()
    assert "copy it once more" in caplog.text


def test_a_long_reader_of_the_application_delays_the_roll_over(app, follow):
    """An old reader keeps the log; nothing of it breaks, and later the log goes."""
    with App(app.path) as reader:
        reader.run("BEGIN")
        before = reader.db.execute("SELECT count(*) FROM t").fetchone()
        for _ in range(30):
            app.insert(3)
            follow.round()
        assert follow.metrics.get("roll_overs") == 0
        assert reader.db.execute("SELECT count(*) FROM t").fetchone() == before
        reader.run("ROLLBACK")
    for _ in range(3):
        app.insert()
        follow.round()
    assert follow.metrics.get("roll_overs") > 0
    assert follow.state == image_of(app.path)


class Meddling:
    """At random: commits, large transactions, checkpoints of every mode, readers."""

    def __init__(self, app, seed):
        self.app, self.rng = app, random.Random(seed)
        self.reader = App(app.path)

    def __call__(self):
        if self.app.db.in_transaction:  # it may wait for the lock that we hold
            return
        step = self.rng.randrange(12)
        try:
            if step < 3:
                self.app.insert(self.rng.randrange(1, 6))
            elif step < 4:
                self.app.insert(60, 900)
            elif step < 7:
                self.app.checkpoint(self.rng.choice(("PASSIVE", "RESTART", "TRUNCATE", "FULL")))
            elif step < 8 and not self.reader.db.in_transaction:
                self.reader.run("BEGIN", "SELECT count(*) FROM t")
            elif step < 9 and self.reader.db.in_transaction:
                self.reader.run("ROLLBACK")
        except Exception as error:  # noqa: BLE001 - only a lock may be in the way
            assert "locked" in str(error)  # noqa: PT017 - any other error would be ours


@pytest.mark.parametrize("seed", range(24))
def test_nothing_is_lost_whatever_happens_between_our_steps(app, follow, seed):
    """Commits, checkpoints and readers between any two of our steps: what was captured is the
    database, page by page, after each round."""
    meddling = Meddling(app, seed)
    follow.database.act = meddling
    for _ in range(60):
        meddling()
        follow.round(hold=bool(seed % 2))
        follow.take()
        assert follow.state == image_of(app.path)
    follow.database.act = lambda: None
    meddling.reader.close()
    assert follow.metrics.get("roll_overs") > 0


def test_a_writer_that_never_pauses_is_stopped_for_a_moment(app, follow):
    """Commits before each of our steps: after the log is long the write lock is taken, the log
    rolls over, and the hold is counted and timed."""
    refused = []

    def never_pause():
        try:
            app.insert(2)
        except Exception:  # noqa: BLE001 - the lock is ours for a moment
            refused.append(1)

    follow.database.act = never_pause
    for _ in range(40):
        never_pause()
        follow.round()
    follow.database.act = lambda: None
    follow.take()
    assert follow.state == image_of(app.path)
    assert follow.metrics.get("write_lock_holds") > 0
    assert follow.metrics.get("roll_overs") > 0
    assert follow.metrics.get("longest_write_lock_ms") > 0
    assert refused, "the lock was held"
    app.insert()


@pytest.mark.parametrize("short_limits", [replace(SHORT, escalate_rest=1e9)], ids=["rest"])
def test_a_lone_writer_is_stopped_rarely(app, follow):
    """The write lock is not taken twice in a row, however long the WAL; the last resort is a WAL
    that is longer by far."""

    def write():
        with contextlib.suppress(sqlite3.OperationalError):
            app.insert(2)

    def rounds(count):
        for _ in range(count):
            write()
            follow.round()

    follow.database.act = write
    while not follow.metrics.get("write_lock_holds"):
        rounds(1)
    assert follow.holds.waiting
    while follow.holds.waiting or follow.reader.position.frame <= 33 * 8:
        rounds(1)
    assert follow.metrics.get("write_lock_holds") == 1
    follow.holds._limits = replace(follow.holds._limits, urgent_factor=40)
    rounds(60)
    assert follow.metrics.get("write_lock_holds") > 1
    follow.database.act = lambda: None
    follow.take()
    assert follow.state == image_of(app.path)


def test_a_lone_writer_that_pauses_is_never_stopped(app, follow):
    """A pause during every fifth round is enough, whatever the writer does in the others."""
    for number in range(100):
        app.insert(2)
        follow.database.act = app.insert if number % 5 else lambda: None
        follow.round()
    follow.database.act = lambda: None
    follow.take()
    assert follow.state == image_of(app.path)
    assert follow.metrics.get("roll_overs") > 3
    assert follow.metrics.get("write_lock_holds") == 0


def test_a_checkpoint_of_the_application_is_enough(app, follow):
    """If it copied the whole WAL, no checkpoint of ours is needed for the roll-over."""
    for _ in range(2):
        app.insert(20)
        follow.take()
        follow.holds._advance(follow.reader.position)
    app.checkpoint()
    follow.database.answer = BUSY
    follow.holds.settle()
    assert follow.holds.waiting


def test_the_size_limit_of_the_application_is_kept_to(app, follow):
    """After a large transaction its next commits cut the WAL to ``journal_size_limit``, as without
    a replicator."""
    app.run("PRAGMA journal_size_limit=50000")
    app.insert(300, 9000)
    assert app.path.with_name("app.db-wal").stat().st_size > 1 << 20
    for _ in range(3):
        follow.round()
        app.insert()
    assert app.path.with_name("app.db-wal").stat().st_size <= 50000
    follow.round()
    assert follow.state == image_of(app.path)


def waiting(app, follow):
    """Rolled over: the log lies in the database, and the next writer begins another one."""
    app.insert(60)
    follow.round()
    assert follow.holds.waiting


def test_a_new_log_is_held_before_it_is_captured(app, follow):
    """Then checkpoints of the application copy something, instead of sorting the log in vain at
    each commit; and still none can reset it."""
    waiting(app, follow)
    app.insert(5)
    assert follow.reader.look()
    assert app.checkpoint()[2] == 0, "on mark zero nothing can be copied"
    follow.holds.hold_new_wal()
    assert not follow.holds.waiting
    app.insert(5)
    frames = log_frames(app)
    busy, _, copied = app.checkpoint("TRUNCATE")
    assert busy
    assert 0 < copied < frames
    follow.round()
    assert follow.state == image_of(app.path)
    for _ in range(20):
        app.insert(5)
        follow.round(hold=True)
    assert follow.state == image_of(app.path)
    assert follow.metrics.get("roll_overs") > 2


def test_a_log_without_a_commit_is_not_held_yet(app, follow):
    """A hold would land on mark zero once more."""
    waiting(app, follow)
    app.run("PRAGMA cache_size=2", "BEGIN")
    app.run(*["INSERT INTO t(body) VALUES (randomblob(9000))"] * 20)
    assert follow.reader.look()
    follow.holds.hold_new_wal()
    assert follow.holds.waiting
    app.run("COMMIT")
    follow.holds.hold_new_wal()
    assert not follow.holds.waiting
    follow.round()
    assert follow.state == image_of(app.path)


@pytest.mark.parametrize(
    "short_limits", [replace(SHORT, checkpoint_patience=0.0)], ids=["impatient"]
)
def test_mark_zero_is_kept_while_an_older_checkpoint_runs_that_may_copy_the_old_log(app, follow):
    """Mark zero stays while a checkpoint runs that may still copy the old WAL."""
    waiting(app, follow)
    app.insert(5)
    assert follow.reader.look()
    follow.database.answer = BUSY
    follow.holds.hold_new_wal()
    assert follow.holds.waiting


@pytest.mark.parametrize("short_limits", [CaptureLimits()], ids=["default"])
def test_a_hold_on_mark_zero_is_kept_while_an_older_checkpoint_runs(app, follow):
    """A hold may land on mark zero by itself, and the log be reset in the middle of a roll-over.
    While a checkpoint that began before is still running, that hold must not be given back: the
    checkpoint would copy frames of the new log by the index of the old one."""
    database = follow.database
    app.insert(60)
    follow.take()
    once = iter([1])
    database.act = lambda: next(once, None) and app.insert()
    follow.holds.settle()  # short of a roll-over; a commit came before the hold was opened
    database.act = lambda: None
    follow.take()
    assert app.checkpoint()[1] == app.checkpoint()[2] == follow.reader.position.frame
    follow.holds._limits = CaptureLimits(roll_over_frames=4, checkpoint_patience=0.0)
    database.opened, database.released = [], []

    def restarted():
        if len(database.released) == 1:
            app.insert(3)  # restarts the log: the fresh hold is on mark zero
            database.answer = BUSY

    database.after_release = restarted
    follow.holds.settle()
    assert database.opened[0] not in database.released
    follow.take()
    assert follow.state == image_of(app.path)


# ------------------------------------------------------------- the application's own checkpoints


def make_way(follow, other_app, statement):
    """A checkpoint of the other process that waits for us, as a session serves it."""
    other_app.begin(statement)
    wait_for(lambda: follow.database.index.checkpoint_waits() or other_app.answered)
    while not other_app.answered:
        if not follow.holds.make_way():
            follow.take()
    follow.take()
    return other_app.result()[0]


@pytest.mark.parametrize("mode", ["FULL", "RESTART", "TRUNCATE"])
@pytest.mark.parametrize("rolled_over", [False, True])
def test_a_checkpoint_that_waits_gets_what_it_waits_for(app, follow, other_app, mode, rolled_over):
    """The hold makes way, from any mark and with uncaptured frames in the WAL, and no frame is
    lost, although the WAL resets at once."""
    for rows in (1, 5, 60):
        while rolled_over and not follow.holds.waiting:
            app.insert(60)
            follow.round()
        for _ in range(2):
            app.insert(rows)
            busy, frames, copied = make_way(follow, other_app, f"PRAGMA wal_checkpoint({mode})")
            assert not busy
            assert frames == copied
            assert follow.state == image_of(app.path)
    app.insert()
    follow.round()
    assert follow.state == image_of(app.path)


@pytest.mark.parametrize("short_limits", [replace(SHORT, stash_bytes=4120)], ids=["no room"])
def test_a_checkpoint_waits_for_frames_that_do_not_fit_into_memory(app, follow, other_app):
    """They are captured first; the caller learns that."""
    app.insert(40)
    other_app.begin("PRAGMA wal_checkpoint(RESTART)")
    wait_for(follow.database.index.checkpoint_waits)
    assert not follow.holds.make_way()
    follow.take()
    assert follow.holds.make_way()
    assert other_app.result()[0][0] == 0
    assert follow.state == image_of(app.path)


@pytest.mark.parametrize("short_limits", [replace(SHORT, way_patience=0.01)], ids=["impatient"])
def test_a_checkpoint_that_waits_for_another_reader_is_not_waited_for(app, follow, other_app):
    """A reader of the application keeps the checkpoint waiting; the capture continues."""
    with App(app.path) as reader:
        reader.run("BEGIN", "SELECT count(*) FROM t")
        app.insert(3)
        other_app.begin("PRAGMA wal_checkpoint(RESTART)")
        wait_for(follow.database.index.checkpoint_waits)
        assert follow.holds.make_way()
        assert not other_app.answered
        reader.run("ROLLBACK")
    while not other_app.answered:
        follow.holds.make_way()
    assert other_app.result()[0][0] == 0


class Polls(WalIndex):
    """Counts its questions for a checkpoint that waits."""

    count = 0

    def checkpoint_waits(self):
        self.count += 1
        return super().checkpoint_waits()


class Reads(Files):
    """Adds up the bytes that are read."""

    size = 0

    def system(self, call, /, *args, **kwargs):
        result = call(*args, **kwargs)
        self.size += len(result) if call is os.pread else 0
        return result


def test_a_long_wait_for_another_reader_is_little_work(app, other_app, short_limits):
    """A checkpoint waits for a reader for a second, and a transaction that was rolled back left a
    megabyte in the WAL: the frames are read a few times, and the locks looked at rarely."""
    files = Reads()
    follow = Follow(app.path, short_limits, files=files)
    index = follow.database.index = Polls(index_path(app.path), near=follow.database.raw.fileno())
    with contextlib.closing(follow), OtherApp(app.path) as reader:
        reader.run("BEGIN")
        reader.run("SELECT count(*) FROM t")
        app.insert()
        follow.round()
        other_app.run("PRAGMA cache_size=2")
        other_app.run("BEGIN")
        other_app.run("INSERT INTO t(body) VALUES (randomblob(1000000)), (randomblob(1000000))")
        other_app.run("ROLLBACK")
        assert follow.reader.frames_ahead() > 200
        other_app.begin("PRAGMA wal_checkpoint(RESTART)")
        wait_for(index.checkpoint_waits)
        index.count = files.size = 0
        assert follow.holds.make_way()
        assert index.count < 100
        assert files.size < 5 << 20
        reader.run("COMMIT")
        while not other_app.answered:
            follow.holds.make_way()
        assert other_app.result()[0][0] == 0


@pytest.mark.parametrize("short_limits", [CaptureLimits()], ids=["default"])
def test_a_hold_rests_on_mark_zero_if_nothing_is_to_copy(app, follow):
    """Once the application has copied the whole WAL, its next checkpoint finds nothing in its way,
    and none of the next commits is lost."""
    for _ in range(2):  # the first round copies all
        app.insert(2)
        follow.round()
    assert not follow.holds.rest(), "not copied yet"
    app.checkpoint()
    assert follow.holds.rest()
    assert follow.holds.rest()
    assert app.checkpoint("TRUNCATE")[0] == 0
    for _ in range(3):
        app.insert(2)
        follow.round()
        assert follow.state == image_of(app.path)


# ----------------------------------------------------------------------- leaving nothing behind


@pytest.fixture
def left(tmp_path, limits):
    """A database whose application has gone, its log held by the replicator alone."""
    with App(tmp_path / "app.db") as app:
        app.insert(30)
    follow = Follow(tmp_path / "app.db", limits)
    written_by_another(follow)
    follow.round()
    yield follow
    follow.close()


def written_by_another(follow, statement="INSERT INTO t(body) VALUES (zeroblob(9000))"):
    code = (
        f"import sqlite3; db = sqlite3.connect({str(follow.database.path)!r}); "
        f"db.execute({statement!r}); db.commit(); db.close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def image(follow):
    """As image_of(), by the descriptor that is open already: one more, and we are not alone."""
    raw, log = follow.database.raw, follow.database.wal.path
    return plain_state(raw.pread(raw.size(), 0), log.read_bytes())


def settled(follow):
    """Left, once the file's modification is old enough to tell a later one."""
    wait_for(follow.holds.truncate_wal_if_idle)


def test_the_log_goes_when_the_application_has_gone(left):
    """What SQLite would do without us at the last close; nothing is lost, and what is written
    next is captured as ever."""
    log = left.database.wal.path
    assert log.stat().st_size
    settled(left)
    assert log.stat().st_size == 0
    assert left.holds.truncate_wal_if_idle()  # and once is enough
    for _ in range(3):
        written_by_another(left)
        left.round()
        assert left.state == image(left)
        assert log.stat().st_size
        settled(left)
        assert log.stat().st_size == 0


@pytest.mark.parametrize("limits", [CaptureLimits(settled_ns=1 << 62)], ids=["never"])
def test_a_file_just_written_is_not_left_yet(left):
    """Two writes within one tick of the kernel's clock look the same."""
    assert not left.holds.truncate_wal_if_idle()
    assert left.database.wal.path.stat().st_size


def test_what_came_last_is_captured_before_the_log_goes(left):
    """Another program commits and ends before the next look: its commit comes first."""
    settled(left)
    written_by_another(left)
    written_by_another(left)
    left.take()
    assert left.holds.waiting or not left.holds.truncate_wal_if_idle()
    written_by_another(left)
    assert not left.holds.truncate_wal_if_idle()
    left.round()
    settled(left)
    assert left.state == image(left)


def test_whoever_writes_while_the_log_goes_is_caught_up(left):
    """Between the close and the next open no connection holds the log: a write then shows in the
    file, and nothing is assumed of it."""

    def meanwhile():
        written_by_another(left)
        left.database.checkpoint()

    left.database.after_reopen = meanwhile
    written_by_another(left)
    left.round()
    with raises(ContinuityLost, "wal_reset"):
        wait_for(left.holds.truncate_wal_if_idle)


@pytest.mark.parametrize("short_limits", [CaptureLimits()], ids=["default"])
def test_an_application_that_stays_keeps_its_log(app, follow):
    """Nothing is done beside a connection, however quiet."""
    follow.round()
    assert follow.holds.truncate_wal_if_idle()
    assert log_frames(app)

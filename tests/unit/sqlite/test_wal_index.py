"""The WAL index, read through SQLite's own descriptor: its figures and its locks."""

import contextlib
import fcntl
import os
import subprocess
import sys
import threading

import pytest

from replicator.capture.limits import CaptureLimits
from replicator.capture.reader import WalReader, no_wal
from replicator.format.wal_index import INDEX_BYTES, parse_index
from replicator.sqlite.live import LiveDatabase
from replicator.sqlite.wal_index import (
    CHECKPOINT_LOCK,
    WRITE_LOCK,
    WalIndex,
    parse_locks,
    waits_alone,
)
from replicator.system.paths import index_path
from tests.helpers.other_app import OtherApp
from tests.helpers.replication import App, wait_for

pytestmark = pytest.mark.app(rows=20, timeout=0)


def position(database):
    """The end of the committed frames, from the WAL itself."""
    return WalReader(database.wal, no_wal(4096), CaptureLimits()).find(1 << 30).end


def test_the_state_is_that_of_the_wal(app, database):
    """Frames, copied frames and salts follow commits, checkpoints and the reset of the WAL."""
    for _ in range(3):
        app.insert(5)
        end = position(database)
        state = database.index.state()
        assert (state.salt1, state.salt2, state.frames) == (end.salt1, end.salt2, end.frame)
        assert not state.all_copied(end)
        assert not database.index.all_copied(end)
        assert app.checkpoint() == (0, end.frame, end.frame)
        assert database.index.state().copied == end.frame
        assert database.index.all_copied(end)
    app.checkpoint("TRUNCATE")
    assert not database.index.all_copied(end)


@pytest.mark.parametrize("offset", [0, 12, 16, 60])
def test_a_header_in_the_middle_of_a_change_is_no_state(app, database, offset):
    """Two copies that differ, another version, and an index that is not initialised or too short
    give no state."""
    data = bytearray(os.pread(database.index._find(), INDEX_BYTES, 0))
    assert parse_index(data) is not None
    assert parse_index(data[:-1]) is None
    data[offset] ^= 1
    if offset in (0, 12):  # in both copies: only the value is wrong
        data[48 + offset] ^= 1
    assert parse_index(data) is None


@pytest.mark.parametrize("mode", ["FULL", "RESTART", "TRUNCATE"])
def test_a_checkpoint_of_another_process_that_waits_is_seen(app, database, other_app, mode):
    """From the moment at which it waits for a hold, until it ends."""
    hold = database.hold()
    app.insert()
    assert not database.index.checkpoint_waits()
    other_app.begin(f"PRAGMA wal_checkpoint({mode})")
    wait_for(database.index.checkpoint_waits)
    assert database.index.only_checkpoint_waits()
    database.release(hold)
    assert other_app.result()[0][0] == 0
    assert not database.index.checkpoint_waits()
    assert not database.index.only_checkpoint_waits()


def test_a_checkpoint_of_this_process_that_waits_is_seen(app, database):
    """fcntl does not report it. It is proved to be no writer unless a connection of this process
    has a read mark above zero."""
    app.checkpoint()
    zero = database.hold()
    app.insert()
    hold = database.hold()
    found = []

    def checkpoint():
        with App(app.path, timeout=100) as same:
            found.append(same.checkpoint("TRUNCATE"))

    thread = threading.Thread(target=checkpoint)
    thread.start()
    wait_for(database.index.checkpoint_waits)
    assert not database.index.only_checkpoint_waits()
    database.release(hold)
    assert database.index.only_checkpoint_waits()
    database.release(zero)
    thread.join()
    assert found[0][0] == 0
    assert not database.index.checkpoint_waits()


def test_a_sidecar_does_not_ask_for_its_own_locks(app, database):
    """The write lock and the checkpoint lock of a claimed process are its own."""
    claimed = WalIndex(database.index._path, near=database.raw.fileno(), claimed=lambda: True)
    hold = database.hold()
    app.insert()
    app.db.execute("PRAGMA busy_timeout=100000")
    thread = threading.Thread(target=app.checkpoint, args=["TRUNCATE"])
    thread.start()
    wait_for(database.index.checkpoint_waits)
    assert not claimed.checkpoint_waits()
    assert not claimed.only_checkpoint_waits()
    database.release(hold)
    thread.join()
    app.insert()
    app.checkpoint()
    assert claimed.all_copied(position(database))


def test_a_writer_is_no_checkpoint(app, database, other_app):
    """A write transaction of another process has the write lock, and a read mark."""
    other_app.run("BEGIN IMMEDIATE")
    assert not database.index.checkpoint_waits()
    assert not database.index.only_checkpoint_waits()
    other_app.run("ROLLBACK")


def test_a_reader_leaves_a_doubt(app, database, other_app):
    """With a read mark of a third process, the owner of the write lock may be a writer."""
    with OtherApp(app.path) as reader:
        reader.run("BEGIN")
        reader.run("SELECT count(*) FROM t")
        app.insert()
        other_app.begin("PRAGMA wal_checkpoint(RESTART)")
        wait_for(database.index.checkpoint_waits)
        assert not database.index.only_checkpoint_waits()
        reader.run("COMMIT")
        assert other_app.result()[0][0] == 0


LOCKER = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    for byte in map(int, sys.argv[2:]):
        fcntl.lockf(file, fcntl.LOCK_EX, 1, byte)
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def locking(database, *locks):
    """Another process has these locks of the WAL index."""
    arguments = [sys.executable, "-c", LOCKER, str(index_path(database.path)), *map(str, locks)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield
        process.stdin.close()


def test_a_passive_checkpoint_beside_a_writer_of_another_process_is_no_sign(app, database):
    """One process has both locks of a checkpoint that waits."""
    app.insert()
    with locking(database, CHECKPOINT_LOCK, WRITE_LOCK):
        assert database.index.checkpoint_waits()
        assert database.index.only_checkpoint_waits()
    with locking(database, CHECKPOINT_LOCK), locking(database, WRITE_LOCK):
        assert not database.index.checkpoint_waits()
        assert not database.index.only_checkpoint_waits()


@pytest.mark.parametrize(
    ("before", "waits", "after", "alone"),
    [
        (False, True, False, True),
        (True, True, False, False),  # a writer that ends meanwhile
        (False, True, True, False),  # one that begins
        (False, False, False, False),
    ],
)
def test_a_writer_that_begins_or_ends_during_the_questions_is_no_checkpoint(
    before, waits, after, alone
):
    """Its read mark outlives its write lock at both ends."""
    reads = iter([before, after])
    assert waits_alone(lambda: next(reads), lambda: waits) is alone


def test_locks_of_this_process_are_parsed_once():
    """A lock without an end has no number there."""
    text = (
        "pos:\t0\nlock:\t1: POSIX  ADVISORY  WRITE 42 00:1b:35 120 121\n"
        "lock:\t2: POSIX  ADVISORY  READ  42 00:1b:35 124 EOF\n"
    )
    assert parse_locks(text) == [(120, 121, True), (124, sys.maxsize, False)]


def test_a_lock_without_an_end_hides_no_other(app, database):
    """Such a lock of this process on the index leaves the other answers as they are."""
    descriptor = database.index._find()
    hold = database.hold()
    app.insert()
    fcntl.lockf(descriptor, fcntl.LOCK_SH, 0, 4096)
    thread = threading.Thread(target=app.checkpoint, args=["RESTART"])
    app.run("PRAGMA busy_timeout=100000")
    thread.start()
    wait_for(database.index.checkpoint_waits)
    database.release(hold)
    thread.join()
    fcntl.lockf(descriptor, fcntl.LOCK_UN, 0, 4096)


def test_the_descriptor_is_the_one_of_sqlite(app, database):
    """No question opens a file; a descriptor far from the expected number is found too, and one of
    an older index is not used again."""

    def descriptors():
        return sorted(os.listdir("/proc/self/fd"))

    before = descriptors()
    index = WalIndex(database.index._path, near=500)
    assert index.state() == database.index.state() is not None
    assert descriptors() == before
    descriptor = index._descriptor
    app.close()
    database.close()
    assert index.state() is None
    assert not index.checkpoint_waits()
    assert not index.only_checkpoint_waits()
    with App(database.path), OtherApp(database.path) as other:
        other.run("SELECT count(*) FROM t")
        again = LiveDatabase(database.path)
        assert index.state() is not None
        again.close()
    assert descriptor >= 0


def test_an_index_that_this_process_has_not_open_is_unknown(app, other_app):
    """Without a descriptor there is no answer, and the search is not repeated."""
    path = app.path.with_name("app.db-shm")
    app.close()
    other_app.run("SELECT count(*) FROM t")
    index = WalIndex(path, near=0)
    assert index.state() is None
    assert index._missing is not None
    assert index.state() is None

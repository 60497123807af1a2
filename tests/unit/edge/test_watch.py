"""edge/watch.py: one event per arming, and silence instead of errors."""

import errno
import logging
import os
import shutil
import sqlite3
import sys
import threading
from pathlib import Path

import pytest

from replicator.edge import watch
from replicator.edge.watch import Watcher

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
PATIENCE = 30  # seconds until a test that would hang fails instead


class Wakes:
    """Counts wake-ups; :meth:`wait` returns at the next one."""

    def __init__(self):
        self.count = 0
        self._woken = threading.Semaphore(0)

    def __call__(self):
        self.count += 1
        self._woken.release()

    def wait(self):
        assert self._woken.acquire(timeout=PATIENCE)


@pytest.fixture
def wakes():
    return Wakes()


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "dir" / "app.db"
    path.parent.mkdir()
    path.write_bytes(b"x")
    return path


@pytest.fixture
def watcher(database, wakes):
    watcher = Watcher(database, wakes)
    yield watcher
    watcher.stop()


def locks_of_this_process():
    lines = Path("/proc/locks").read_text().splitlines()
    return sorted(tuple(line.split()[1:]) for line in lines if line.split()[4] == str(os.getpid()))


def change(path):
    with open(path, "ab") as file:
        file.write(b"x")


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_any_of_the_three_files_wakes(watcher, wakes, database, suffix):
    """A commit touches the WAL, a checkpoint the database."""
    watcher.arm()
    assert watcher.active
    change(f"{database}{suffix}")
    wakes.wait()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_connection_that_closes_wakes(watcher, wakes, database, suffix):
    """It may have been the application's last one; nothing needs to have been written."""
    Path(f"{database}{suffix}").touch()
    watcher.arm()
    os.close(os.open(f"{database}{suffix}", os.O_RDWR))
    wakes.wait()


def test_a_database_that_is_renamed_into_place_wakes(watcher, wakes, database, tmp_path):
    """Replacing the file is a change, from the same directory or another."""
    for source in (tmp_path / "other", database.parent / "other"):
        source.write_bytes(b"y")
        watcher.arm()
        os.replace(source, database)
        wakes.wait()


def test_one_arming_is_one_wake(watcher, wakes, database):
    """However many commits follow, the watch is gone until it is armed again."""
    for round_ in range(1, 4):
        watcher.arm()
        watcher.arm()
        for _ in range(200):
            change(database)
        wakes.wait()
        assert wakes.count == round_


def test_a_disarmed_watch_is_silent(watcher, wakes, database):
    """What happens between disarming and arming again is not heard."""
    watcher.disarm()
    watcher.arm()
    watcher.disarm()
    watcher.disarm()
    change(database)
    watcher.arm()
    change(database)
    wakes.wait()
    assert wakes.count == 1


def test_a_neighbour_does_not_wake(watcher, wakes, database):
    """Other files of the directory are not ours; a busy one ends the watch quietly."""
    watcher.arm()
    change(database.parent / "neighbour")
    change(database)
    wakes.wait()
    watcher.arm()
    once = watcher._once
    while once.waiting():  # the kernel merges equal events, so their number is not ours to say
        change(database.parent / "a")
        change(database.parent / "b")
    assert wakes.count == 1
    while wakes.count == 1:  # what the neighbour left in the queue may end this watch as well
        watcher.arm()
        change(database)


def test_a_symlinked_database_is_watched_where_it_is(database, wakes, tmp_path):
    """SQLite names its WAL after the real file."""
    link = tmp_path / "link.db"
    link.symlink_to(database)
    watcher = Watcher(link, wakes)
    watcher.arm()
    change(f"{database}-wal")
    wakes.wait()
    watcher.stop()


def test_no_directory_is_silence_until_there_is_one(tmp_path, wakes):
    """The database's directory may appear later; arming again finds it."""
    path = tmp_path / "later" / "app.db"
    watcher = Watcher(path, wakes)
    watcher.arm()
    assert not watcher.active
    path.parent.mkdir()
    watcher.arm()
    assert watcher.active
    change(path)
    wakes.wait()
    watcher.stop()


def test_a_deleted_directory_is_watched_again_when_it_is_back(watcher, wakes, database):
    """The watch dies with its directory; arming notices that and takes the new one."""
    watcher.arm()
    (emitter,) = watcher._observer.emitters
    shutil.rmtree(database.parent)
    emitter.join(PATIENCE)
    watcher.disarm()
    watcher.arm()
    if watcher._once is None:
        assert not watcher.active
    database.parent.mkdir()
    watcher.arm()
    assert watcher.active
    change(database)
    wakes.wait()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize("call", ["inotify_init", "inotify_add_watch"])
def test_inotify_limits_are_silence(watcher, database, wakes, monkeypatch, code, call):
    """No instance or no watch left: the poll does the work, and a later arming may succeed."""
    import ctypes

    from watchdog.observers import inotify_c

    def fail(*_):
        ctypes.set_errno(code)
        return -1

    with monkeypatch.context() as patch:
        patch.setattr(inotify_c, call, fail)
        watcher.arm()
        assert not watcher.active
    watcher.arm()
    assert watcher.active
    change(database)
    wakes.wait()


def test_without_watchdog_nothing_happens(watcher, monkeypatch):
    """Another platform, or no watchdog at all."""
    monkeypatch.setitem(sys.modules, "watchdog.observers.inotify", None)
    watcher.arm()
    assert not watcher.active
    watcher.disarm()


def test_an_event_before_the_arming_is_done(watcher, database, wakes, monkeypatch):
    """The observer may hand over an event before its answer to the arming was taken; it counts,
    and the watch can be armed again."""
    from watchdog.observers.inotify import InotifyObserver

    schedule = InotifyObserver.schedule

    def slow(*arguments, **options):
        watch = schedule(*arguments, **options)
        change(database)
        wakes.wait()
        return watch

    with monkeypatch.context() as patch:
        patch.setattr(InotifyObserver, "schedule", slow)
        watcher.arm()
    watcher.arm()
    change(database)
    wakes.wait()


def test_a_failing_wake_does_not_end_the_watch(database, wakes):
    """The observer's thread outlives whatever the callback does."""

    def wake():
        wakes()
        raise RuntimeError("made to fail")

    watcher = Watcher(database, wake)
    for _ in range(2):
        watcher.arm()
        change(database)
        wakes.wait()
    watcher.stop()


def test_a_stopped_watcher_stays_stopped(database, wakes):
    """Stop ends the threads, and arming afterwards starts none."""
    threads = threading.active_count()
    watcher = Watcher(database, wakes)
    watcher.arm()
    assert threading.active_count() > threads
    watcher.stop()
    watcher.stop()
    watcher.arm()
    assert not watcher.active
    assert threading.active_count() == threads


@pytest.mark.parametrize("call", ["unschedule", "stop"])
def test_a_watch_that_cannot_be_ended_is_no_error(database, wakes, monkeypatch, call):
    """Whatever goes wrong inside of watchdog, capturing goes on without it."""
    from watchdog.observers.inotify import InotifyObserver

    watcher = Watcher(database, wakes)
    watcher.arm()
    real = getattr(InotifyObserver, call)

    def fail(observer, *arguments):
        real(observer, *arguments)
        raise OSError(errno.EIO, "injected")

    monkeypatch.setattr(InotifyObserver, call, fail)
    watcher.disarm()
    watcher.stop()
    assert not watcher.active


def test_releasing_what_fired_at_the_same_moment_is_fine(watcher):
    """The observer may have dropped the watch already."""
    watcher.arm()
    once = watcher._once
    once.release()
    once.release()


def test_sqlite_keeps_its_locks(tmp_path, wakes):
    """Watching never opens the database: closing it again would drop the process's locks."""
    db = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE t (x)")
    db.execute("BEGIN")
    db.execute("SELECT * FROM t").fetchall()
    before = locks_of_this_process()
    assert before
    watcher = Watcher(tmp_path / "app.db", wakes)
    for _ in range(3):
        watcher.arm()
        change(tmp_path / "app.db-wal")
        wakes.wait()
        assert locks_of_this_process() == before
    watcher.stop()
    assert locks_of_this_process() == before
    db.close()


def test_the_log_of_a_benign_race_is_dropped():
    """watchdog reports an error when a watch ends while it is read; ours end all the time."""
    record = logging.LogRecord("n", logging.ERROR, "f", 1, "%s called when the thread is inactive",
                               ("queue_events()",), None)
    assert not watch._matters(record)
    record.msg = "%s: something else"
    assert watch._matters(record)

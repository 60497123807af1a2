"""system/watch.py: one event per arming, silence instead of errors, files at rest that change."""

import contextlib
import ctypes
import errno
import os
import shutil
import sqlite3
import sys
import threading
from pathlib import Path

import pytest

from replicator.system import watch
from replicator.system.watch import LONG_REST, Lookout, Watcher

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
PATIENCE = 30  # seconds until a test that would hang fails instead


class Wakes:
    """Counts wake-ups; :meth:`wait` returns at the next one and tells whether an event came."""

    def __init__(self):
        self.count = 0
        self.events = []
        self._woken = threading.Semaphore(0)

    def __call__(self, event):
        self.count += 1
        self.events.append(event)
        self._woken.release()

    def wait(self):
        assert self._woken.acquire(timeout=PATIENCE)
        return self.events[-1]


@pytest.fixture
def wakes():
    return Wakes()


@pytest.fixture
def lookout():
    lookout = Lookout()
    yield lookout
    lookout.stop()


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "dir" / "app.db"
    path.parent.mkdir()
    path.write_bytes(b"x")
    Path(f"{path}-wal").write_bytes(b"x")
    return path


@pytest.fixture
def watcher(lookout, database, wakes):
    watcher = Watcher(lookout, database, wakes)
    yield watcher
    watcher.stop()


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled the moment they are seen."""
    monkeypatch.setattr(watch, "SETTLED", 0.0)


@pytest.fixture
def silent(monkeypatch):
    """A mount on which inotify accepts watches and never says a word."""
    from watchdog.observers import inotify_c

    real = inotify_c.inotify_add_watch
    monkeypatch.setattr(
        inotify_c,
        "inotify_add_watch",
        lambda descriptor, path, mask: real(descriptor, os.fsencode("/proc/self/fd"), mask),
    )


def locks_of_this_process():
    lines = Path("/proc/locks").read_text().splitlines()
    return sorted(tuple(line.split()[1:]) for line in lines if line.split()[4] == str(os.getpid()))


def change(path):
    with open(path, "ab") as file:
        file.write(b"x")


# ------------------------------------------------------------------------------------ events


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_write_to_either_file_wakes(watcher, wakes, database, suffix):
    """A commit touches the WAL, a checkpoint the database."""
    watcher.arm()
    assert watcher.active
    change(f"{database}{suffix}")
    assert wakes.wait()


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_connection_that_closes_wakes(watcher, wakes, database, suffix):
    """It may have been the application's last one; nothing needs to have been written."""
    watcher.arm()
    os.close(os.open(f"{database}{suffix}", os.O_RDWR))
    assert wakes.wait()


def test_a_database_that_is_renamed_into_place_wakes(watcher, wakes, database, tmp_path):
    """Replacing the file is a change, from the same directory or another, also while somebody
    keeps the old one open."""
    with open(database, "rb"):
        for source in (tmp_path / "other", database.parent / "other"):
            source.write_bytes(b"y")
            watcher.arm()
            os.replace(source, database)
            assert wakes.wait()


def test_one_arming_is_one_wake(watcher, wakes, database):
    """However many commits follow, the watch is gone until it is armed again."""
    for round_ in range(1, 4):
        watcher.arm()
        watcher.arm()
        for _ in range(200):
            change(database)
        wakes.wait()
        assert wakes.count == round_


def test_a_neighbour_costs_nothing(lookout, watcher, wakes, database):
    """Only the two files are watched, so that a busy directory is not even heard."""
    watcher.arm()
    for _ in range(100):
        change(database.parent / "neighbour")
    assert wakes.count == 0
    with pytest.raises(BlockingIOError):
        os.read(lookout._inotify, 4096)


def test_many_databases_take_one_thread_and_one_instance(lookout, wakes, tmp_path):
    """Each is woken for its own file, and only that one."""
    paths = [tmp_path / f"{n}.db" for n in range(20)]
    every = []
    threads = threading.active_count()
    for path in paths:
        path.touch()
        Path(f"{path}-wal").touch()
        heard = Wakes()
        watcher = Watcher(lookout, path, heard)
        watcher.arm()
        every.append((watcher, heard))
    assert threading.active_count() == threads + 1
    change(paths[7])
    assert every[7][1].wait()
    assert [heard.count for _, heard in every] == [0] * 7 + [1] + [0] * 12


def test_a_symlinked_database_is_watched_where_it_is(lookout, database, wakes, tmp_path):
    """SQLite names its WAL after the real file."""
    link = tmp_path / "link.db"
    link.symlink_to(database)
    watcher = Watcher(lookout, link, wakes)
    watcher.arm()
    change(f"{database}-wal")
    assert wakes.wait()


def test_no_file_is_silence_until_there_is_one(lookout, tmp_path, wakes):
    """The database may appear later; arming again finds it."""
    path = tmp_path / "later" / "app.db"
    watcher = Watcher(lookout, path, wakes)
    watcher.arm()
    assert not watcher.active
    path.parent.mkdir()
    for name in (path, f"{path}-wal"):
        Path(name).touch()
    watcher.arm()
    assert watcher.active
    change(path)
    assert wakes.wait()


def test_a_deleted_directory_is_watched_again_when_it_is_back(watcher, wakes, database):
    """The watch dies with its file, and says so; arming takes the new one."""
    watcher.arm()
    shutil.rmtree(database.parent)
    assert wakes.wait()
    watcher.arm()
    assert not watcher.active
    database.parent.mkdir()
    database.touch()
    Path(f"{database}-wal").touch()
    watcher.arm()
    assert watcher.active
    change(database)
    assert wakes.wait()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize("call", ["inotify_init", "inotify_add_watch"])
def test_inotify_limits_are_silence(watcher, database, wakes, monkeypatch, code, call):
    """No instance or no watch left: the poll does the work, and a later arming may succeed."""
    from watchdog.observers import inotify_c

    def fail(*_):
        ctypes.set_errno(code)
        return -1

    with monkeypatch.context() as patch:
        patch.setattr(inotify_c, call, fail)
        watcher.arm()
        assert not watcher.active
        assert watcher.rest(0.01) == 0.01
    watcher.arm()
    assert watcher.active
    change(database)
    assert wakes.wait()


def test_without_watchdog_nothing_happens(watcher, monkeypatch):
    """Another platform, or no watchdog at all."""
    monkeypatch.setitem(sys.modules, "watchdog.observers", None)
    watcher.arm()
    assert not watcher.active


def test_events_that_the_kernel_dropped_wake_everybody(lookout, watcher, wakes):
    """An overflowing queue tells of nobody in particular, and a watch that fired may be among
    what was dropped."""
    watcher.arm()
    (each,) = set(lookout._spent(-1))
    each.heard()
    assert wakes.events == [True]
    watcher.arm()
    assert len(lookout._armed) == 2


def test_a_failing_wake_does_not_end_the_watch(lookout, database, wakes):
    """The thread outlives whatever the callback does."""

    def wake(event):
        wakes(event)
        raise RuntimeError("made to fail")

    watcher = Watcher(lookout, database, wake)
    for _ in range(2):
        watcher.arm()
        change(database)
        wakes.wait()


def test_a_stopped_watcher_stays_stopped(lookout, watcher, database, wakes):
    """Neither arming nor what happens to the files is heard of any more."""
    watcher.arm()
    watcher.stop()
    watcher.stop()
    watcher.arm()
    assert not watcher.active
    assert not lookout._armed
    other = Watcher(lookout, database, wakes)
    change(database)
    other.arm()
    change(database)
    wakes.wait()
    assert wakes.count == 1


def test_a_stopped_lookout_ends_its_thread(lookout, watcher, settled):
    """And nothing starts it again."""
    watcher.arm()
    thread = lookout._thread
    assert thread.is_alive()
    lookout.stop()
    assert not thread.is_alive()
    lookout.stop()
    watcher.stop()
    again = Watcher(lookout, "/x", lambda event: None)
    again.arm()
    assert not again.active
    lookout._rest(again, 1.0)
    assert lookout._thread is None


def test_sqlite_keeps_its_locks(lookout, tmp_path, wakes):
    """Watching never opens the database: closing it again would drop the process's locks."""
    db = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE t (x)")
    db.execute("BEGIN")
    db.execute("SELECT * FROM t").fetchall()
    before = locks_of_this_process()
    assert before
    watcher = Watcher(lookout, tmp_path / "app.db", wakes)
    for _ in range(3):
        watcher.arm()
        watcher.rest(0.01)
        change(tmp_path / "app.db-wal")
        wakes.wait()
        assert locks_of_this_process() == before
    watcher.stop()
    assert locks_of_this_process() == before
    db.close()


# -------------------------------------------------------------------------------------- rest


def rewrite(path):
    """The same size, another time."""
    facts = os.stat(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))


def replace(path):
    """Another file of the same size and time."""
    facts = os.stat(path)
    other = path.parent / "other"
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    os.replace(other, path)


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("touch", [change, rewrite, replace, os.unlink])
def test_a_change_that_no_event_tells_of_is_found(
    lookout, watcher, wakes, database, suffix, touch, settled, silent
):
    """Hints are never trusted: on a silent mount the files tell, within the interval."""
    watcher.arm()
    assert watcher.active
    assert watcher.rest(0.01) == LONG_REST
    touch(Path(f"{database}{suffix}"))
    assert wakes.wait() is False
    assert wakes.count == 1


def test_files_that_changed_lately_are_not_at_rest(watcher, database, monkeypatch):
    """A change right after another may leave size and time as they were, so the files must have
    been the same for a while before anybody stops looking."""
    now = [100.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    watcher.arm()
    watcher.active = True
    for seconds, rest in ((0, 1.0), (1.5, 1.0), (0.5, LONG_REST)):
        now[0] += seconds
        assert watcher.rest(1.0) == rest
    change(database)
    assert watcher.rest(1.0) == 1.0
    now[0] += 2.0
    assert watcher.rest(1.0) == LONG_REST


def test_a_rest_is_never_shorter_than_the_interval(watcher, settled):
    """Whoever asked for a slow poll gets one."""
    watcher.arm()
    assert watcher.rest(3600.0) == 3600.0


def test_an_event_ends_the_rest(lookout, watcher, wakes, database, settled):
    """What an event told of is not found once more by looking."""
    watcher.arm()
    watcher.rest(0.01)
    change(database)
    assert wakes.wait() is True
    with lookout._lock:
        pass
    watcher.found()
    assert wakes.events == [True]


def test_a_rest_tells_that_somebody_looks(watcher, settled):
    """The files were found unchanged, and when that was is known."""
    watcher.arm()
    assert watcher.checked == 0.0
    watcher.rest(0.01)
    until = threading.Event()
    for _ in range(PATIENCE * 100):
        if watcher.checked:
            break
        until.wait(0.01)
    assert watcher.checked > 0.0


def test_a_shorter_interval_is_kept_beside_a_longer_one(lookout, tmp_path, wakes, settled, silent):
    """Each database is looked at in its own time."""
    watchers = []
    for name, interval in (("slow", 3600.0), ("quick", 0.01)):
        for path in (tmp_path / name, tmp_path / f"{name}-wal"):
            path.touch()
        watcher = Watcher(lookout, tmp_path / name, wakes)
        watcher.arm()
        watcher.rest(interval)
        watchers.append(watcher)
    change(tmp_path / "quick")
    assert wakes.wait() is False
    assert watchers[0].checked == 0.0


def test_a_thread_that_is_asked_often_is_asked_once(lookout):
    """A full pipe means that it will wake anyway."""
    lookout._begin()
    with contextlib.suppress(BlockingIOError):
        while os.write(lookout._signal[1], b"!" * 4096):
            lookout._nudge()

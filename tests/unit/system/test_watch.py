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

from replicator.system.watch import LONG_REST, SETTLED, FileWatcher, Watch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
PATIENCE = 30  # seconds until a test that would hang fails instead


class Wakes:
    """Counts wake-ups; :meth:`wait` returns at the next one, True if it was an event."""

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
    """A counter of wake-ups."""
    return Wakes()


@pytest.fixture
def settled():
    """Seconds until unchanged files are trusted; overridden where they are trusted at once."""
    return SETTLED


@pytest.fixture
def file_watcher(settled):
    """A running file watcher."""
    file_watcher = FileWatcher(settled=settled)
    yield file_watcher
    file_watcher.stop()


@pytest.fixture
def watched_path(tmp_path):
    """The path of a file with a WAL, both without meaning."""
    path = tmp_path / "dir" / "app.db"
    path.parent.mkdir()
    path.write_bytes(b"x")
    Path(f"{path}-wal").write_bytes(b"x")
    return path


@pytest.fixture
def watch(file_watcher, watched_path, wakes):
    """A watch of the file."""
    watch = Watch(file_watcher, watched_path, wakes)
    yield watch
    watch.stop()


at_once = pytest.mark.parametrize("settled", [0.0])


@pytest.fixture
def silent(monkeypatch):
    """A mount on which inotify accepts watches and never sends an event."""
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
def test_a_write_to_either_file_wakes(watch, wakes, watched_path, suffix):
    """A commit touches the WAL, a checkpoint the database."""
    watch.arm()
    assert watch.active
    change(f"{watched_path}{suffix}")
    assert wakes.wait()


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_connection_that_closes_wakes(watch, wakes, watched_path, suffix):
    """It may have been the application's last one; nothing needs to have been written."""
    watch.arm()
    os.close(os.open(f"{watched_path}{suffix}", os.O_RDWR))
    assert wakes.wait()


def test_a_database_that_is_renamed_into_place_wakes(watch, wakes, watched_path, tmp_path):
    """Replacing the file is a change, from the same directory or another, also while a process
    keeps the old one open."""
    with open(watched_path, "rb"):
        for source in (tmp_path / "other", watched_path.parent / "other"):
            source.write_bytes(b"y")
            watch.arm()
            os.replace(source, watched_path)
            assert wakes.wait()


def test_one_arming_is_one_wake(watch, wakes, watched_path):
    """However many commits follow, the watch is gone until it is armed again."""
    for round_ in range(1, 4):
        watch.arm()
        watch.arm()
        for _ in range(200):
            change(watched_path)
        wakes.wait()
        assert wakes.count == round_


def test_a_neighbour_costs_nothing(file_watcher, watch, wakes, watched_path):
    """Only the two files are watched, so that a busy directory is not even heard."""
    watch.arm()
    for _ in range(100):
        change(watched_path.parent / "neighbour")
    assert wakes.count == 0
    with pytest.raises(BlockingIOError):
        os.read(file_watcher._inotify, 4096)


def test_many_databases_take_one_thread_and_one_instance(file_watcher, wakes, tmp_path):
    """Each is woken for its own file, and only that one."""
    paths = [tmp_path / f"{n}.db" for n in range(20)]
    every = []
    threads = threading.active_count()
    for path in paths:
        path.touch()
        Path(f"{path}-wal").touch()
        heard = Wakes()
        watch = Watch(file_watcher, path, heard)
        watch.arm()
        every.append((watch, heard))
    assert threading.active_count() == threads + 1
    change(paths[7])
    assert every[7][1].wait()
    assert [heard.count for _, heard in every] == [0] * 7 + [1] + [0] * 12


def test_a_symlinked_database_is_watched_where_it_is(file_watcher, watched_path, wakes, tmp_path):
    """SQLite names its WAL after the real file."""
    link = tmp_path / "link.db"
    link.symlink_to(watched_path)
    watch = Watch(file_watcher, link, wakes)
    watch.arm()
    change(f"{watched_path}-wal")
    assert wakes.wait()


def test_no_file_is_silence_until_there_is_one(file_watcher, tmp_path, wakes):
    """The database may appear later; arming again finds it."""
    path = tmp_path / "later" / "app.db"
    watch = Watch(file_watcher, path, wakes)
    watch.arm()
    assert not watch.active
    path.parent.mkdir()
    for name in (path, f"{path}-wal"):
        Path(name).touch()
    watch.arm()
    assert watch.active
    change(path)
    assert wakes.wait()


def test_a_deleted_directory_is_watched_again_when_it_is_back(watch, wakes, watched_path):
    """The watch ends with its file, with an event; arming watches the new file."""
    watch.arm()
    shutil.rmtree(watched_path.parent)
    assert wakes.wait()
    watch.arm()
    assert not watch.active
    watched_path.parent.mkdir()
    watched_path.touch()
    Path(f"{watched_path}-wal").touch()
    watch.arm()
    assert watch.active
    change(watched_path)
    assert wakes.wait()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize("call", ["inotify_init", "inotify_add_watch"])
def test_inotify_limits_are_silence(watch, watched_path, wakes, monkeypatch, code, call):
    """No instance or no watch left: the poll does the work, and a later arming may succeed."""
    from watchdog.observers import inotify_c

    def fail(*_):
        ctypes.set_errno(code)
        return -1

    with monkeypatch.context() as patch:
        patch.setattr(inotify_c, call, fail)
        watch.arm()
        assert not watch.active
        assert watch.rest(0.01) == 0.01
    watch.arm()
    assert watch.active
    change(watched_path)
    assert wakes.wait()


def test_without_watchdog_nothing_happens(watch, monkeypatch):
    """Another platform, or no watchdog at all."""
    monkeypatch.setitem(sys.modules, "watchdog.observers", None)
    watch.arm()
    assert not watch.active


def test_events_that_the_kernel_dropped_wake_everybody(file_watcher, watch, wakes):
    """An overflow names no file, and the event of any armed watch may be among the dropped ones."""
    watch.arm()
    (each,) = set(file_watcher._fired(-1))
    each.fired()
    assert wakes.events == [True]
    watch.arm()
    assert len(file_watcher._armed) == 2


def test_a_failing_wake_does_not_end_the_watch(file_watcher, watched_path, wakes):
    """The thread outlives whatever the callback does."""

    def wake(event):
        wakes(event)
        raise RuntimeError("made to fail")

    watch = Watch(file_watcher, watched_path, wake)
    for _ in range(2):
        watch.arm()
        change(watched_path)
        wakes.wait()


def test_a_stopped_watcher_stays_stopped(file_watcher, watch, watched_path, wakes):
    """Neither arming nor a change has an effect."""
    watch.arm()
    watch.stop()
    watch.stop()
    watch.arm()
    assert not watch.active
    assert not file_watcher._armed
    other = Watch(file_watcher, watched_path, wakes)
    change(watched_path)
    other.arm()
    change(watched_path)
    wakes.wait()
    assert wakes.count == 1


@at_once
def test_a_stopped_lookout_ends_its_thread(file_watcher, watch):
    """And nothing starts it again."""
    watch.arm()
    thread = file_watcher._thread
    assert thread.is_alive()
    file_watcher.stop()
    assert not thread.is_alive()
    file_watcher.stop()
    watch.stop()
    again = Watch(file_watcher, "/x", lambda event: None)
    again.arm()
    assert not again.active
    file_watcher.compare_every(again, 1.0)
    assert file_watcher._thread is None


def test_sqlite_keeps_its_locks(file_watcher, tmp_path, wakes):
    """Watching never opens the database: closing it again would drop the process's locks."""
    db = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE t (x)")
    db.execute("BEGIN")
    db.execute("SELECT * FROM t").fetchall()
    before = locks_of_this_process()
    assert before
    watch = Watch(file_watcher, tmp_path / "app.db", wakes)
    for _ in range(3):
        watch.arm()
        watch.rest(0.01)
        change(tmp_path / "app.db-wal")
        wakes.wait()
        assert locks_of_this_process() == before
    watch.stop()
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
@at_once
def test_a_change_that_no_event_tells_of_is_found(
    file_watcher, watch, wakes, watched_path, suffix, touch, silent
):
    """On a mount without events, the comparison finds the change within the interval."""
    watch.arm()
    assert watch.active
    assert watch.rest(0.01) == LONG_REST
    touch(Path(f"{watched_path}{suffix}"))
    assert wakes.wait() is False
    assert wakes.count == 1


def test_files_that_changed_lately_are_not_at_rest(watched_path, wakes):
    """A change directly after another one may keep size and time, so the files must have been
    unchanged for a while before the watch rests."""
    now = [100.0]
    watch = Watch(FileWatcher(monotonic=lambda: now[0]), watched_path, wakes)
    watch.active = True
    for seconds, rest in ((0, 1.0), (1.5, 1.0), (0.5, LONG_REST)):
        now[0] += seconds
        assert watch.rest(1.0) == rest
    change(watched_path)
    assert watch.rest(1.0) == 1.0
    now[0] += 2.0
    assert watch.rest(1.0) == LONG_REST


@at_once
def test_a_rest_is_never_shorter_than_the_interval(watch):
    """A caller that wants a slow poll gets one."""
    watch.arm()
    assert watch.rest(3600.0) == 3600.0


@at_once
def test_an_event_ends_the_rest(file_watcher, watch, wakes, watched_path):
    """A comparison does not report the change of an event again."""
    watch.arm()
    watch.rest(0.01)
    change(watched_path)
    assert wakes.wait() is True
    with file_watcher._lock:
        pass
    watch.found_changed()
    assert wakes.events == [True]


@at_once
def test_a_rest_tells_that_somebody_looks(watch):
    """The files were found unchanged, and when that was is known."""
    watch.arm()
    assert watch.checked == 0.0
    watch.rest(0.01)
    until = threading.Event()
    for _ in range(PATIENCE * 100):
        if watch.checked:
            break
        until.wait(0.01)
    assert watch.checked > 0.0


@at_once
def test_a_shorter_interval_is_kept_beside_a_longer_one(file_watcher, tmp_path, wakes, silent):
    """Each database is looked at in its own time."""
    watches = []
    for name, interval in (("slow", 3600.0), ("quick", 0.01)):
        for path in (tmp_path / name, tmp_path / f"{name}-wal"):
            path.touch()
        watch = Watch(file_watcher, tmp_path / name, wakes)
        watch.arm()
        watch.rest(interval)
        watches.append(watch)
    change(tmp_path / "quick")
    assert wakes.wait() is False
    assert watches[0].checked == 0.0


def test_a_thread_that_is_asked_often_is_asked_once(file_watcher):
    """A full pipe means that it will wake anyway."""
    file_watcher._begin()
    with contextlib.suppress(BlockingIOError):
        while os.write(file_watcher._signal[1], b"!" * 4096):
            file_watcher._nudge()

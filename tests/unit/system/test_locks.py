"""One holder per directory, and one replicator per cache directory and per database."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from replicator.errors import AlreadyRunning, CacheInUse, LocalIOError
from replicator.system.files import Files
from replicator.system.locks import DirLock, ReplicatorLock
from replicator.system.paths import cache_directory
from tests.helpers.command_line import cache_of
from tests.helpers.errors import raises
from tests.helpers.files import CountingFiles, FailingFiles
from tests.helpers.handles import sidecar_of
from tests.helpers.locks import waited_for
from tests.helpers.replication import LONG, wait_for

HOLDER = """
import sys
from replicator.system.locks import DirLock
lock = DirLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
while sys.stdin.readline():
    lock.announce()
    print("announced", flush=True)
"""


def start_holder(directory):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"held\n"
    return process


def test_lock_names_its_holder_and_ends_with_it(tmp_path):
    """The second comer learns the pid; a killed holder leaves nothing behind."""
    with start_holder(tmp_path / "cache") as holder:
        with raises(AlreadyRunning, pid=holder.pid, path=str(tmp_path / "cache")):
            DirLock(tmp_path / "cache").acquire()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with DirLock(tmp_path / "cache") as lock:
            assert lock.path.read_text() == str(os.getpid())


def test_the_helper_of_tests_finds_the_holder(tmp_path):
    """Before and after its start is decided; else a test would not wait for the end of a sidecar
    that is alive."""
    path = tmp_path / "app.db"
    assert sidecar_of(path) is None
    with start_holder(cache_of(path)) as holder:
        assert sidecar_of(path) == holder.pid
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"announced\n"
        assert sidecar_of(path) == holder.pid
        holder.kill()
        holder.wait()
        assert sidecar_of(path) is None


def test_lock_excludes_within_one_process_and_can_be_taken_again(tmp_path):
    """Two replicators in one process are two replicators."""
    first, second = DirLock(tmp_path), DirLock(tmp_path)
    first.acquire()
    with raises(AlreadyRunning, pid=os.getpid()):
        second.acquire()
    first.release()
    first.release()
    with second:
        pass


def test_lock_is_not_inherited_by_a_child(tmp_path):
    """A command that outlives the replicator must not keep its lock."""
    lock = DirLock(tmp_path)
    lock.acquire()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        lock.release()
        with DirLock(tmp_path):
            assert child.poll() is None
        child.stdin.close()


def test_lock_of_a_holder_without_a_pid(tmp_path):
    """A holder that has not written its pid yet is still a holder."""
    with open(tmp_path / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with raises(AlreadyRunning, pid=None):
            DirLock(tmp_path).acquire()


def test_lock_on_a_file_that_was_removed_is_taken_again(tmp_path):
    """A lock on a file without a name excludes no process: the file with the name counts."""

    class Removing(CountingFiles):
        def act(self, number, call, args, kwargs):
            if call is fcntl.flock and self.names().count("flock") == 1:
                os.unlink(tmp_path / "lock")
            return call(*args, **kwargs)

    files = Removing()
    with DirLock(tmp_path, files) as lock:
        assert lock.path.exists()
    assert files.names().count("flock") == 2


def test_lock_that_fails_leaks_no_descriptor(tmp_path):
    """flock itself may fail (ENOLCK on network file systems)."""
    before = len(os.listdir("/proc/self/fd"))
    with raises(LocalIOError, errno=errno.ENOLCK):
        DirLock(tmp_path, FailingFiles(2, errno.ENOLCK)).acquire()
    assert len(os.listdir("/proc/self/fd")) == before


# ReplicatorLock


@pytest.fixture
def database_path(tmp_path):
    """The path of a database in a directory of its own."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "app.db"


def test_one_database_has_one_replicator_whatever_its_cache(tmp_path, database_path):
    """Two cache directories do not make two databases; the next one may when the first ends."""
    first = ReplicatorLock(database_path, tmp_path / "one")
    first.acquire()
    for cache in (tmp_path / "two", cache_directory(database_path)):
        second = ReplicatorLock(database_path, cache)
        with pytest.raises(AlreadyRunning):
            second.acquire()
    first.release()
    second.acquire()
    with pytest.raises(AlreadyRunning):
        first.acquire()
    DirLock(tmp_path / "one").acquire()  # a lock taken before the refusal was released


def test_one_cache_has_one_replicator_whatever_its_database(tmp_path, database_path):
    """Two databases in one cache would be torn apart."""
    first = ReplicatorLock(database_path, tmp_path / "cache")
    first.acquire()
    with pytest.raises(AlreadyRunning):
        ReplicatorLock(database_path.with_name("other.db"), tmp_path / "cache").acquire()


def test_two_databases_in_one_directory_are_apart(database_path):
    """Neither their default caches nor their locks meet."""
    for name in ("one.db", "two.db"):
        path = database_path.with_name(name)
        ReplicatorLock(path, cache_directory(path)).acquire()


def test_nothing_is_made_where_no_database_can_be(tmp_path):
    """A directory that is not mounted yet is not created."""
    database = tmp_path / "not mounted" / "app.db"
    ReplicatorLock(database, tmp_path / "cache").acquire()
    assert not database.parent.exists()


class ReadOnlyDefault(Files):
    """The default cache directory cannot be made, nor anything in it."""

    def system(self, call, /, *args, **kwargs):
        if any(isinstance(arg, Path) and ".app.db-replicator" in arg.parts for arg in args):
            raise OSError(errno.EROFS, "read-only file system")
        return super().system(call, *args, **kwargs)


def test_a_read_only_directory_of_the_database_is_no_reason_to_stop(tmp_path, database_path):
    """Opening the database reports it; a read-only cache directory is an error."""
    ReplicatorLock(database_path, tmp_path / "cache", ReadOnlyDefault()).acquire()
    with raises(LocalIOError, path=str(cache_directory(database_path)), errno=errno.EROFS):
        ReplicatorLock(database_path, cache_directory(database_path), ReadOnlyDefault()).acquire()


# waiting


def in_thread(call):
    """A started thread."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_a_wait_ends_when_the_holder_is_killed(tmp_path):
    """The kernel wakes the waiting thread, and the lock is its own from then on."""
    with start_holder(tmp_path / "cache") as holder:
        lock = DirLock(tmp_path / "cache")
        waiting = in_thread(lambda: lock.acquire(wait=True))
        wait_for(lambda: waited_for(tmp_path / "cache" / "lock"))
        assert not lock.held
        holder.kill()
        waiting.join(LONG)
        assert lock.held
        with raises(AlreadyRunning, pid=os.getpid()):
            DirLock(tmp_path / "cache").acquire()


def test_one_of_several_that_wait_gets_the_lock(tmp_path):
    """Each of them has it once, and never two at a time."""
    first, holders, ended = DirLock(tmp_path), [], []
    first.acquire()

    def take():
        lock = DirLock(tmp_path)
        lock.acquire(wait=True)
        holders.append(lock)
        ended.append(len(holders))
        holders.remove(lock)
        lock.release()

    threads = [in_thread(take) for _ in range(3)]
    first.release()
    for thread in threads:
        thread.join(LONG)
    assert ended == [1, 1, 1]


def test_a_lock_says_that_its_holder_has_decided(tmp_path, database_path):
    """Whichever of the two locks a second replicator meets, and not after the next start."""
    first = ReplicatorLock(database_path, tmp_path / "one")
    first.announce()  # nothing is held yet
    for cache in (tmp_path / "one", tmp_path / "two"):
        first.acquire()
        with raises(AlreadyRunning, decided=False):
            ReplicatorLock(database_path, cache).acquire()
        first.announce()
        with raises(AlreadyRunning, pid=os.getpid(), decided=True):
            ReplicatorLock(database_path, cache).acquire()
        first.release()


def test_a_cache_of_another_database_is_told_apart(tmp_path, database_path):
    """Its end would not be the end of a replicator of this database."""
    first = ReplicatorLock(database_path, tmp_path / "cache")
    first.acquire()
    first.announce()
    other = database_path.with_name("other.db")
    with pytest.raises(CacheInUse):
        ReplicatorLock(other, tmp_path / "cache").acquire()
    first.release()
    ReplicatorLock(other, tmp_path / "cache").acquire()

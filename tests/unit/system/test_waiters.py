"""The processes that wait for a lock."""

import contextlib
import os
import random
import signal
import subprocess
import sys

import pytest

from replicator.system import waiters
from replicator.system.locks import DirLock, ReplicatorLock
from tests.helpers.locks import waited_for
from tests.helpers.replication import wait_for

WAITER = """
import sys
from replicator.system.locks import DirLock
lock = DirLock(sys.argv[1])
lock.acquire(wait=True)
print("held", lock.waiting(), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def waiter(tmp_path):
    """Starts a process that waits for the lock of a directory."""
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", WAITER, str(tmp_path / "cache")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_holder_sees_each_process_that_waits_until_it_ends(tmp_path, waiter):
    """Even one that is killed, which can remove nothing."""
    with DirLock(tmp_path / "cache") as lock:
        assert lock.waiting() == []
        first, second = waiter(), waiter()
        wait_for(lambda: lock.waiting() == sorted([first.pid, second.pid]))
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert lock.waiting() == [second.pid]
        second.send_signal(signal.SIGSTOP)
        assert lock.waiting() == [second.pid]
        second.send_signal(signal.SIGCONT)
    assert second.stdout.readline() == "held []\n"
    assert lock.waiting() == []


def test_the_next_holder_sees_the_others(tmp_path, waiter):
    """It no longer waits, so it is not among them."""
    with DirLock(tmp_path / "cache") as lock:
        pids = {waiter().pid, waiter().pid}
        wait_for(lambda: set(lock.waiting()) == pids and waited_for(lock.path))
        content = lock.path.read_text()
    wait_for(lambda: lock.path.read_text() not in {"", content})
    with lock.path.open() as file:
        assert pids == {int(lock.path.read_text()), *waiters.waiting(file.fileno())}


def test_both_locks_of_a_replicator_are_looked_at(tmp_path, waiter):
    """A sidecar with another cache directory waits for the lock next to the database."""
    database = tmp_path / "app.db"
    lock = ReplicatorLock(database, tmp_path / "elsewhere")
    other = ReplicatorLock(database, tmp_path / "cache")
    lock.acquire()
    try:
        assert lock.waiting() == []
        with open(tmp_path / ".app.db-replicator" / "lock", "r+") as file:
            waiters.enter(file.fileno(), os.getpid())
            assert lock.waiting() == [os.getpid()]
            waiters.leave(file.fileno(), os.getpid())
            assert lock.waiting() == []
    finally:
        lock.release()
    assert other.waiting() == []


def test_many_waiters_are_found_in_any_order(tmp_path):
    """The kernel shows one lock at a time, and not the lowest first."""
    path = tmp_path / "lock"
    path.touch()
    pids = random.Random(1).sample(range(1, 1 << 22), 50)
    with contextlib.ExitStack() as stack:
        for pid in pids:
            fd = stack.enter_context(path.open("r+")).fileno()
            waiters.enter(fd, pid)
        with path.open() as looked_at:
            assert waiters.waiting(looked_at.fileno()) == sorted(pids)
            stack.close()
            assert waiters.waiting(looked_at.fileno()) == []


def test_a_file_without_such_locks_shows_none(tmp_path):
    """Some file systems have none; here, a descriptor that permits none."""
    (tmp_path / "lock").touch()
    fd = os.open(tmp_path / "lock", os.O_PATH)
    waiters.enter(fd, 1)
    assert waiters.waiting(fd) == []
    waiters.leave(fd, 1)
    os.close(fd)

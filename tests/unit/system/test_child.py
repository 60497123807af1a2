"""Waiting for a command: a signal that another thread received is handled at once."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from replicator.system.child import wait_for

SLEEPS = [sys.executable, "-c", "import signal; signal.pause()"]


def begun(*command):
    return subprocess.Popen(list(command) or SLEEPS)


@pytest.mark.parametrize("code", [0, 7])
def test_the_exit_code(code):
    """Waiting for a child returns its exit code."""
    assert wait_for(begun(sys.executable, "-c", f"raise SystemExit({code})")) == code


def test_a_signal_that_another_thread_received(monkeypatch):
    """It does not interrupt the main thread, and still its handler runs and can forward it."""
    child = begun()
    before = signal.signal(signal.SIGUSR1, lambda *_: child.terminate())
    waiting = threading.Event()
    ask = os.pidfd_open

    def opened(pid):
        waiting.set()
        return ask(pid)

    monkeypatch.setattr(os, "pidfd_open", opened)

    def other():
        waiting.wait()
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        assert wait_for(child) == -signal.SIGTERM
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert signal.set_wakeup_fd(-1) == -1  # as it was


def test_a_system_without_pidfd(monkeypatch):
    """Then it waits for the child as ``waitpid`` does."""

    def refused(pid):
        raise OSError("not here")

    monkeypatch.setattr(os, "pidfd_open", refused)
    assert wait_for(begun(sys.executable, "-c", "pass")) == 0


def test_from_another_thread():
    """Handlers of signals do not run there, so the plain wait is enough."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(wait_for, begun(sys.executable, "-c", "pass")).result() == 0

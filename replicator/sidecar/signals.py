"""The signals of a sidecar: held from the first moment, received one by one.

They are blocked in every thread and taken by the main thread when it is ready for them. So none is
lost, none interrupts work at an unknown place, and each arrives with its origin: the kernel sends
those of a terminal to the command as well.

Owns: the meaning of each signal, and the command that gets them while it runs. Refuses: to decide
what the end of the sidecar includes; the daemon does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
"""They end a sidecar without a command: it makes everything durable first."""

PASSED = frozenset({signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU})
"""Servers give them a meaning of their own; without a command they have none."""

COMMAND_ENDED = signal.SIGRTMIN + 1  # the process sends it to itself
FROM_KERNEL = 0x80  # SI_KERNEL: a terminal sends it, to each process of its foreground group
POLL = 0.2  # seconds between two looks for a signal that ends the process at once

log = logging.getLogger(__name__)


def hold() -> None:
    """Blocks the signals in this thread and in all threads that it starts. Call it before any
    thread exists. A signal that the parent process has ignored (``nohup``) stays ignored."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _held())


def _held() -> set[int]:
    kept = {number for number in ENDING | PASSED if signal.getsignal(number) != signal.SIG_IGN}
    return {*kept, COMMAND_ENDED}


class Signals:
    """Used by the main thread, after :func:`hold`."""

    def __init__(self) -> None:
        self.received = False  # one that ends the sidecar
        self.hurried = False  # one more: the end must not wait for anything

    def take(self, seconds: float) -> signal.struct_siginfo | None:
        """The next held signal, waited for up to ``seconds``.

        If the process was stopped and continues after that time, CPython returns a structure that
        no signal filled, with any number in it: such a number counts as none.
        """
        held = _held()
        arrived = signal.sigtimedwait(held, seconds)
        return arrived if arrived is not None and arrived.si_signo in held else None

    def wait(self, seconds: float) -> bool:
        """Sleep, but return as soon as a signal ends the sidecar; True if one was received."""
        until = time.monotonic() + seconds
        while not self.received and (left := until - time.monotonic()) >= 0:
            arrived = self.take(left)
            if arrived is not None:
                self._arrived(arrived.si_signo)
        return self.received

    def _arrived(self, number: int) -> None:
        name = signal.Signals(number).name
        if number in ENDING:
            log.info("%s: uploading what is left, then ending", name)
            self.received = True
        elif number in PASSED:
            log.info("%s has no meaning without a command; ignored", name)

    def hurry(self) -> bool:
        """True once a signal came after the one that ended the sidecar, or after its command."""
        while not self.hurried and (arrived := self.take(0)) is not None:
            self.hurried = arrived.si_signo in ENDING
        return self.hurried

    @contextlib.contextmanager
    def ending_at_once(self, leave: Callable[[int], object] = os._exit) -> Iterator[None]:
        """Inside the block a signal ends the process, with the exit code 128 + N: its work can be
        killed at any time. ``leave`` is called with the code."""
        over = threading.Event()

        def watch() -> None:
            while not over.is_set():
                arrived = self.take(POLL)
                if arrived is not None and arrived.si_signo in ENDING:
                    leave(128 + arrived.si_signo)

        watcher = threading.Thread(target=watch, name="replicator-signals", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def run(self, command: list[str], started: Callable[[int], None]) -> int:
        """Runs the command to its end and passes every signal to it, except those of a terminal,
        which it got from there. ``started`` gets its process id. The exit code, ``-N`` if signal N
        ended the command; ``OSError`` if it cannot run."""
        with _unblocked() as missed:
            child = subprocess.Popen(command)
        started(child.pid)
        waiter = threading.Thread(target=_wait_for, args=(child,), name="replicator-command")
        waiter.start()
        for number in missed:
            child.send_signal(number)
        while (arrived := signal.sigwaitinfo(_held())).si_signo != COMMAND_ENDED:
            if arrived.si_code != FROM_KERNEL:
                child.send_signal(arrived.si_signo)
        waiter.join()
        return child.returncode


def _wait_for(child: subprocess.Popen[bytes]) -> None:
    child.wait()
    os.kill(os.getpid(), COMMAND_ENDED)


@contextlib.contextmanager
def _unblocked() -> Iterator[list[int]]:
    """A process started in the block inherits no blocked signal. The list gets the signals that
    arrive in the block."""
    missed: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: missed.append(number)) for number in _held()
    }
    signal.pthread_sigmask(signal.SIG_UNBLOCK, before)
    try:
        yield missed
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, before)
        for number, handler in before.items():
            signal.signal(number, handler)

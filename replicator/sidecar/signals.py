"""The signals of a sidecar: held from the first moment, received one by one.

They are blocked in every thread, and one thread receives them. So none is lost, none interrupts
work at an unknown place, and each arrives with its origin: the kernel sends those of a terminal to
the command as well.

Owns: the meaning of each signal, and the command that gets them while it runs. Refuses: to decide
what the end of the sidecar includes; the daemon does.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Self

from replicator.system.offspring import Offspring
from replicator.system.pid_one import FROM_KERNEL

ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
"""They end a sidecar without a command: it makes everything durable first."""

PASSED = frozenset({signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU})
"""Servers give them a meaning of their own; without a command they have none."""

STOP = signal.SIGRTMIN + 1  # ends the thread that receives; the process sends it to itself
SETTLE = 0.1  # seconds within which a signal of the terminal reaches every process
POLL = 0.2  # seconds between two looks whether the work of a block is over

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A signal that was received. A terminal sends it to the command, too."""

    number: int
    from_terminal: bool = False
    at: float = field(default_factory=time.monotonic)


def hold() -> set[int | signal.Signals]:
    """Blocks the signals in this thread and in all threads that it starts; the mask before. Call
    it before any thread exists. A signal that the parent process has ignored (``nohup``) stays
    ignored."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, _held())


def _held() -> set[int]:
    kept = {number for number in ENDING | PASSED if signal.getsignal(number) != signal.SIG_IGN}
    return {*kept, STOP}


class Signals:
    """The signals of the process, from :func:`hold` to the end of the context; the context holds
    them itself, if that was not done before.

    A thread receives them: ``sigtimedwait`` of the main thread would return an arbitrary signal
    after SIGCONT, if its time is over (CPython 3.11).
    """

    def __init__(self) -> None:
        self.received = 0  # the signal that ends the sidecar, 0 before it came
        self.hurried = False  # one more: the end must not wait for anything
        self.passed = 0  # the last signal of ENDING that the command got
        self._settled_at = 0.0  # monotonic; one of the terminal before that ended the command
        self._before: set[int | signal.Signals] = set()  # the mask outside of the context
        self._arrivals: queue.SimpleQueue[Arrival | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._receive, name="replicator-signals", daemon=True
        )

    def __enter__(self) -> Self:
        self._before = hold()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._thread.ident is not None  # it was started
        signal.pthread_kill(self._thread.ident, STOP)
        self._thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def _receive(self) -> None:
        held = _held()
        while (info := signal.sigwaitinfo(held)).si_signo != STOP:
            self.deliver(Arrival(info.si_signo, info.si_code == FROM_KERNEL))

    def deliver(self, arrival: Arrival) -> None:
        """Adds a signal to those that were received."""
        self._arrivals.put(arrival)

    def _take(self, seconds: float) -> Arrival | None:
        """The next signal, waited for up to ``seconds``."""
        with contextlib.suppress(queue.Empty):
            return self._arrivals.get(timeout=seconds)
        return None

    def wait(self, seconds: float) -> bool:
        """Sleep, but return as soon as a signal ends the sidecar; True if one was received."""
        until = time.monotonic() + seconds
        while not self.received and (left := until - time.monotonic()) >= 0:
            arrived = self._take(left)
            if arrived is not None:
                self._arrived(arrived.number)
        return bool(self.received)

    def so_far(self) -> int:
        """The signal that ends the sidecar, if it has arrived, else 0; without a pause."""
        while not self.received and (arrived := self._take(0)) is not None:
            self._arrived(arrived.number)
        return self.received

    def _arrived(self, number: int) -> None:
        if number in ENDING:
            log.info("%s: uploading what is left, then ending", signal.Signals(number).name)
            self.received = number
        else:
            _ignore(number)

    def arrived(self) -> int:
        """The number of signals that end a sidecar since the last call."""
        count = 0
        while (arrived := self._take(0)) is not None:
            count += arrived.number in ENDING
        return count

    def hurry(self) -> bool:
        """True once a signal came after the one that ended the sidecar, or after its command."""
        while not self.hurried and (arrived := self._take(0)) is not None:
            self.hurried = arrived.number in ENDING and not self._is_late(arrived)
        return self.hurried

    def _is_late(self, arrived: Arrival) -> bool:
        """True for the signal of a terminal that has ended the command before it arrived here."""
        return arrived.from_terminal and arrived.at < self._settled_at

    @contextlib.contextmanager
    def ending_at_once(self, leave: Callable[[int], object] = os._exit) -> Iterator[None]:
        """Inside the block a signal ends the process, with the exit code 128 + N: its work can be
        killed at any time. ``leave`` is called with the code."""
        over = threading.Event()

        def watch() -> None:
            while not over.is_set():
                arrived = self._take(POLL)
                if arrived is None:
                    continue
                if arrived.number in ENDING:
                    leave(128 + arrived.number)
                else:
                    _ignore(arrived.number)

        watcher = threading.Thread(target=watch, name="replicator-watcher", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            self._arrivals.put(None)  # ends the watcher's pause
            watcher.join()

    def run(
        self,
        command: list[str],
        started: Callable[[int], None],
        environment: dict[str, str] | None = None,
    ) -> int:
        """Runs the command to its end and passes every signal to it, except those of a terminal,
        which it got from there, and those of ``PASSED`` that arrived before its start: it has
        given them no meaning yet, and the kernel's is to end it. ``started`` gets its process id.
        The exit code, ``-N`` if signal N ended the command; ``OSError`` if it cannot run."""
        began, over = time.monotonic(), threading.Event()
        with _unblocked(self.deliver):  # the command may be ready before this ends
            child = subprocess.Popen(command, env=environment)
        started(child.pid)
        waiter = threading.Thread(
            target=self._wait_for, args=(child, over), name="replicator-command"
        )
        waiter.start()
        while (arrived := self._arrivals.get()) is not None or not over.is_set():
            if arrived is not None:
                self._pass(arrived, child, began)
        waiter.join()
        self._settled_at = time.monotonic() + SETTLE
        return child.returncode

    def _pass(self, arrived: Arrival, child: subprocess.Popen[bytes], began: float) -> None:
        if arrived.number in ENDING - {signal.SIGHUP}:  # which reloads a server
            self.passed = arrived.number
        if arrived.number in PASSED and arrived.at < began:
            _ignore(arrived.number)
        elif not arrived.from_terminal:
            child.send_signal(arrived.number)

    def outlast(self, rest: Offspring, *, end: bool, patience: float) -> list[int]:
        """Waits for the processes that a command left behind, and passes every signal to them;
        those that remain.

        They get SIGTERM with ``end``. From then on, or from a signal that ends them, they have
        ``patience`` seconds; one more signal ends the wait.
        """
        until = math.inf
        if end and rest.alive():
            rest.send(signal.SIGTERM)
            until = time.monotonic() + patience
        while (left := rest.alive()) and time.monotonic() < until:
            arrived = self._take(POLL)
            if arrived is None:
                continue
            if not arrived.from_terminal:
                rest.send(arrived.number)
            if arrived.number in ENDING and not self._is_late(arrived):
                until = time.monotonic() + (patience if until == math.inf else 0)
        return left

    def _wait_for(self, child: subprocess.Popen[bytes], over: threading.Event) -> None:
        child.wait()
        over.set()
        self._arrivals.put(None)


def _ignore(number: int) -> None:
    log.info("%s has no meaning without a command; ignored", signal.Signals(number).name)


@contextlib.contextmanager
def _unblocked(deliver: Callable[[Arrival], None]) -> Iterator[None]:
    """A process started in the block inherits no blocked signal. Signals that arrive in the block
    are delivered."""
    before = {
        number: signal.signal(number, lambda number, _: deliver(Arrival(number)))
        for number in _held()
    }
    signal.pthread_sigmask(signal.SIG_UNBLOCK, before)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, before)
        for number, handler in before.items():
            signal.signal(number, handler)

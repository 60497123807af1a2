"""Group commit: all that wait for one database in this process share one request.

A thread sends the requests, one after another. A waiter that comes while one is under way waits for
the next, which begins after its commit; the sidecar merges the requests of several processes.

Owns: the waiters of each database of this process, and the connections to the sidecars. Refuses: to
use a lock, a thread or a connection of the process that forked this one.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import threading
import time
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

from replicator.app.open_files import OpenFiles
from replicator.app.place import DatabasePlace, handle_of
from replicator.errors import NotDurable, NotRunning, ReplicatorError
from replicator.model import Position
from replicator.sidecar.control_client import FILE, HANGS, SOCKET_NAME
from replicator.sidecar.kept import KeptConnection

FOREVER = float("inf")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WaiterTimes:
    """In seconds, but for ``gather``."""

    slice: float = 10.0  # the longest request; those who wait longer are in the next one too
    grace: float = 0.25  # for the answer of a sidecar that gives up at the deadline
    idle: float = 30.0  # until the thread without waiters ends, and its connection
    gather: float = 0.25  # of the last request's time: for the others to commit again
    longest_gather: float = 0.05
    pause: float = 0.05  # between two attempts to reach a sidecar that starts again


class Waiter(Future[Position]):
    """One that waits until ``until`` (monotonic)."""

    def __init__(self, until: float) -> None:
        super().__init__()
        self.until = until

    def wait(self, grace: float) -> Position:
        """The durable position. Raises the error of the request, ``NotDurable`` after the
        deadline."""
        try:
            return self.result(self.left(grace))
        except FutureTimeout:
            self.cancel()
            raise late() from None

    def left(self, grace: float) -> float | None:
        """Seconds until the deadline, and ``grace``; None without one."""
        if self.until == FOREVER:
            return None
        return max(0.0, self.until - time.monotonic()) + grace

    def settle(self, position: Position) -> None:
        with contextlib.suppress(InvalidStateError):  # it left
            self.set_result(position)

    def fail(self, error: ReplicatorError) -> None:
        with contextlib.suppress(InvalidStateError):
            self.set_exception(copy.copy(error))  # each thread that raises it adds its traceback


class Waiters:
    """Those of one database in one process. Any thread may call its methods."""

    def __init__(self, place: DatabasePlace, times: WaiterTimes | None = None) -> None:
        self._place = place
        self.times = times or WaiterTimes()
        self._changed = threading.Condition()
        self._next: list[Waiter] = []
        self._thread: threading.Thread | None = None
        self._files = OpenFiles(place.database)
        self._connection = KeptConnection(place.cache)
        self._company = 1  # waiters at the end of the last request, with those that it served
        self._took = 0.0  # seconds of the last request
        self._answered = False  # a sidecar answered before, so another one is expected

    def add(self, timeout: float | None) -> Waiter:
        """A waiter for everything that is committed now."""
        waiter = Waiter(FOREVER if timeout is None else time.monotonic() + timeout)
        with self._changed:
            self._next.append(waiter)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="replicator-durable", daemon=True
                )
                self._thread.start()
            if len(self._next) in (1, self._company):
                self._changed.notify()
        return waiter

    def require(self) -> None:
        """``NotRunning`` if it is sure that no sidecar runs."""
        if not self._expected():
            raise _not_running(self._place)

    def _expected(self) -> bool:
        """True unless no sidecar ever answered here and there is no trace of one."""
        return (
            self._answered
            or os.path.lexists(self._place.cache / SOCKET_NAME)
            or handle_of(self._place.database) is not None
        )

    def abandon(self) -> None:
        """In a forked child: close its copy of the connection."""
        self._connection.close()

    # ------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while batch := self._take():
            self._serve(batch)

    def _take(self) -> list[Waiter]:
        """Those of the next request; none if the thread has to end."""
        with self._changed:
            if self._changed.wait_for(lambda: self._next, self.times.idle):
                self._gather()
            batch, self._next = self._next, []
            if not batch:
                self._thread = None
                self._connection.close()
        return batch

    def _gather(self) -> None:
        """Wait a little for those whom the last request served: most commit again at once, and
        would have to wait for the request after this one."""
        if self._company > 1:
            self._changed.wait_for(
                lambda: len(self._next) >= self._company,
                min(self.times.gather * self._took, self.times.longest_gather),
            )

    def _serve(self, batch: list[Waiter]) -> None:
        now = time.monotonic()
        until = min(max(each.until for each in batch), now + self.times.slice)
        try:
            position = self._flush(until)
        except ReplicatorError as error:
            self._failed(batch, error)
        except BaseException as defect:
            log.exception("unexpected error (bug) in a request for durable commits")
            self._failed(batch, ReplicatorError(f"unexpected error (bug): {defect!r}"))
        else:
            self._answered = True
            self._took = time.monotonic() - now
            with self._changed:
                self._company = len(batch) + len(self._next)
            for each in batch:
                each.settle(position)

    def _flush(self, until: float) -> Position:
        request = {
            "command": "flush",
            FILE: self._files.check(),
            "timeout": max(0.0, until - time.monotonic()),
        }
        return Position(**self._connection.ask(request))

    def _failed(self, batch: list[Waiter], error: ReplicatorError) -> None:
        """Give the error to those who do not wait longer; the others are in the next request."""
        temporary = isinstance(error, NotDurable) or error.code == HANGS
        if isinstance(error, NotRunning) and self._expected():
            temporary = True
            self._revive(max(each.until for each in batch))
        now = time.monotonic()
        staying = [each for each in batch if temporary and each.until > now]
        for each in batch:
            if each not in staying:
                each.fail(error)
        with self._changed:
            self._next[:0] = [each for each in staying if not each.done()]

    def _revive(self, until: float) -> None:
        """Wait a moment for the sidecar; the handle of this process starts another one."""
        handle = handle_of(self._place.database)
        seconds = max(0.0, min(until - time.monotonic(), self.times.pause))
        if handle is None:
            time.sleep(seconds)
            return
        with contextlib.suppress(ReplicatorError):
            handle.flush(seconds)


class Registry:
    """The waiters of every database of this process."""

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._after_fork)

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._waiters: dict[DatabasePlace, Waiters] = {}

    def _after_fork(self) -> None:
        inherited = self._waiters
        self._begin()
        for each in inherited.values():
            each.abandon()

    def of(self, place: DatabasePlace) -> Waiters:
        if self._process != os.getpid():  # a fork that Python did not notice
            self._after_fork()
        with self._lock:
            if place not in self._waiters:
                self._waiters[place] = Waiters(place)
            return self._waiters[place]


def late() -> NotDurable:
    return NotDurable(
        "the commit did not reach the store in time",
        hint="it is committed on this machine and will be sent; do not repeat it",
    )


def _not_running(place: DatabasePlace) -> NotRunning:
    return NotRunning(f"no sidecar answers in {place.cache}", path=place.cache)


registry = Registry()

"""The leases of a sidecar: connections that handles of applications keep open.

The kernel closes a connection when the last process that has it ends, however that happens. So the
sidecar of an application knows when nothing of the application is left.

Owns: the open connections, the outcome of the start that they wait for, and the last result before
the end. Refuses: to decide when the sidecar ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from typing import Any

from replicator.errors import AlreadyRunning, ReplicatorError

ENDING = "ending"  # code of the refusal to attach; the lock is free a moment later


class Leases:
    """Any thread may call its methods."""

    def __init__(self, *, hosted: bool = False) -> None:
        """``hosted``: an application started this sidecar, which ends with the last lease."""
        self.hosted = hosted
        self._held: set[socket.socket] = set()
        self._closed = False
        self._started = threading.Event()
        self._failure: ReplicatorError | None = None
        self._result: dict[str, Any] | None = None
        self._changed = threading.Condition()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        if not hosted:
            self._started.set()

    def add(self, connection: socket.socket) -> None:
        """Hold a lease until the other end of ``connection`` is closed. ``AlreadyRunning`` with the
        code ``ending`` once the sidecar ends."""
        self.count()  # closes those that ended
        with self._changed:
            if self._closed:
                raise AlreadyRunning("the sidecar is ending", pid=os.getpid(), code=ENDING)
            self._held.add(connection)
            self._changed.notify_all()
        self.ring()

    def drop(self, connection: socket.socket) -> None:
        with self._changed:
            self._held.discard(connection)
            self._changed.notify_all()
        connection.close()

    def count(self) -> int:
        """The number of leases that are held now."""
        with self._changed:
            held = set(self._held)
        for connection in held:
            if _ended(connection):
                self.drop(connection)
        with self._changed:
            return len(self._held)

    def wait(self, seconds: float) -> int:
        """Wait until the number of leases changes, for ``seconds`` at most; that number."""
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        with self._changed:
            for connection in self._held:
                poller.register(connection, select.POLLRDHUP)
        poller.poll(seconds * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        return self.count()

    def ring(self) -> None:
        """End the pause of :meth:`wait`."""
        with self._changed:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def dispose(self) -> None:
        """Close every descriptor, after the last :meth:`wait`."""
        with self._changed:
            wake, self._wake = self._wake, -1
            held, self._held, self._closed = self._held, set(), True
        for connection in held:
            connection.close()
        if wake >= 0:
            os.close(wake)

    def close(self) -> bool:
        """Refuse further leases; False, and nothing changes, if one is held."""
        self.count()
        with self._changed:
            self._closed = not self._held
            return self._closed

    # ---------------------------------------------------------------------------- outcomes

    @property
    def started(self) -> bool:
        return self._started.is_set()

    def begin(self) -> None:
        """The databases of this sidecar are followed, or waited for."""
        self._started.set()

    def fail(self, error: ReplicatorError) -> None:
        """The start failed with ``error``."""
        self._failure = error
        self._started.set()

    def require_start(self) -> None:
        """Wait for the start; raises its error."""
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    def finish(self, result: dict[str, Any]) -> None:
        """The last result before the end, for those that wait in :meth:`leave`."""
        with self._changed:
            self._result = result
            self._changed.notify_all()

    def leave(self, seconds: float | None) -> dict[str, Any]:
        """The answer to a handle that closed its lease: ``last`` is False if others are held, else
        the last result is awaited for ``seconds`` at most, and part of the answer."""
        until = None if seconds is None else time.monotonic() + seconds
        others = self.count()
        with self._changed:
            while self.hosted and not others and self._result is None:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
                others = len(self._held)
            last = self.hosted and not others
            return {"last": last, **((self._result or {}) if last else {})}


def _ended(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True

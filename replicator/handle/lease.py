"""A lease: the open connection by which an application holds its sidecar.

Owns: the connection, and the descriptor of the process at its other end. A forked child inherits
both, and so holds the sidecar too. Refuses: to send a request over it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time

from replicator.handle.bell import Bell

POLL = 0.01  # seconds between two looks


class Lease:
    """Of one handle in one process, and in its forked children until they end."""

    def __init__(self, connection: socket.socket, pid: int, *, hosted: bool) -> None:
        """``pid`` is the sidecar's. ``hosted``: an application started it, and it ends with the
        last lease."""
        connection.setblocking(False)  # a look never waits
        self._connection = connection
        self._process = _process(pid)
        self.pid = pid
        self.hosted = hosted
        if self._process is not None and self.ended():  # the number may name another process now
            os.close(self._process)
            self._process = None

    def wait_end(self, bell: Bell, seconds: float | None = None) -> bool:
        """Wait until the sidecar ends, for ``seconds`` at most; True if it ended. Raises
        ``Cancelled`` once the bell rang."""
        watched = self._connection.fileno() if self._process is None else self._process
        return watched < 0 or bell.wait(seconds, watched)

    def ended(self) -> bool:
        """True if the sidecar ended."""
        try:
            return not self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def ends_by(self, until: float) -> bool:
        """True once the sidecar ended, waited for until then."""
        while not (ended := self.ended()) and time.monotonic() < until:
            time.sleep(POLL)
        return ended

    def release(self) -> None:
        """Give up the lease. :meth:`wait_end` then works only where the kernel gives descriptors of
        processes, and is true at once elsewhere."""
        self._connection.close()

    def close(self) -> None:
        self.release()
        if self._process is not None:
            descriptor, self._process = self._process, None
            os.close(descriptor)
        with contextlib.suppress(OSError):  # it is a child of process 1 only, or not ours
            os.waitpid(self.pid, os.WNOHANG)


def _process(pid: int) -> int | None:
    """A descriptor of a process; None if it has ended, or the kernel does not give one."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def peer(connection: socket.socket) -> int:
    """The process that listens at the other end, 0 if it is in another PID namespace.

    Source: unix(7), SO_PEERCRED.
    """
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid: int = struct.unpack("3i", credentials)[0]
    return pid

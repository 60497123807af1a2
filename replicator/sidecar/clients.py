"""The connections of a control socket, which clients keep open between their requests.

Owns: the list of them, and their end. Refuses: to end one while its answer is under way.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Clients:
    """Any thread may call its methods."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._served: set[socket.socket] = set()
        self._closed = False

    @contextlib.contextmanager
    def served(self, connection: socket.socket) -> Iterator[None]:
        """In the block, :meth:`close` makes ``connection`` end before its next request."""
        with self._lock:
            self._served.add(connection)
            if self._closed:
                _end(connection)
        try:
            yield
        finally:
            with self._lock:
                self._served.discard(connection)

    def close(self) -> None:
        """No connection gets a further request, now and later."""
        with self._lock:
            self._closed = True
            for connection in self._served:
                _end(connection)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the client closed it
        connection.shutdown(socket.SHUT_RD)

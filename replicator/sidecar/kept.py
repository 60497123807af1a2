"""A connection to a control socket that is kept for the next request.

Owns: the connection, and the one repetition of a request that it needs if the sidecar closed it
since. Refuses: a request that must not be repeated; requests at the same time.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from replicator.errors import NotRunning
from replicator.sidecar.control_client import (
    ANSWER_TIMEOUT,
    checked,
    reaching,
    read_reply,
    socket_path,
)


class KeptConnection:
    """Used by one thread, in one process."""

    def __init__(self, cache_dir: Path, *, answer_timeout: float = ANSWER_TIMEOUT) -> None:
        """``answer_timeout``: see :func:`replicator.sidecar.control_client.ask`."""
        self._cache_dir = cache_dir
        self._answer_timeout = answer_timeout
        self._connection: socket.socket | None = None

    def ask(self, request: dict[str, Any]) -> Any:
        """As :func:`replicator.sidecar.control_client.ask`, for a request that waits."""
        kept = self._connection is not None
        try:
            reply = self._exchange(request)
        except NotRunning:
            if not kept:
                raise
            reply = self._exchange(request)  # a sidecar before this one closed the connection
        return checked(request["command"], reply)

    def _exchange(self, request: dict[str, Any]) -> Any:
        wait = request.get("timeout")
        try:
            with reaching(self._cache_dir):
                connection = self._open()
                connection.settimeout(None if wait is None else wait + self._answer_timeout)
                connection.sendall(json.dumps(request).encode() + b"\n")
                return read_reply(connection)
        except BaseException:
            self.close()  # the answer would be taken for that of the next request
            raise

    def _open(self) -> socket.socket:
        if self._connection is None:
            self._connection = socket.socket(socket.AF_UNIX)
            with socket_path(self._cache_dir) as path:
                self._connection.settimeout(self._answer_timeout)
                self._connection.connect(str(path))
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

"""The server of the control sockets: one thread listens for all databases of a sidecar.

Owns: the thread, each database's socket in its cache directory, and which call answers which
request. Refuses to wait for a client: each request is answered in a thread of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from replicator.errors import ConfigError, ReplicatorError
from replicator.format.bounded_json import JsonLimits, parse_json
from replicator.replicator import SqliteReplicator
from replicator.sidecar.control_client import SOCKET_NAME, socket_path

REQUEST_LIMITS = JsonLimits(size=65536)  # of one request line
LONGEST_WAIT = 366 * 86_400.0  # seconds; a clock has no room for much more
ACCEPT_RETRY = 0.1  # seconds after a failed accept, most likely for want of descriptors


class ControlServer:
    """Accepts connections at the control sockets of all databases, in one thread."""

    def __init__(
        self,
        listing: Callable[[], list[dict[str, Any]]] = list,
        *,
        accept_retry: float = ACCEPT_RETRY,
    ) -> None:
        """``listing`` names the databases of this process. ``accept_retry`` is the pause after a
        failed accept, in seconds."""
        self.listing = listing
        self._accept_retry = accept_retry
        self._listeners = selectors.DefaultSelector()
        self._stop, self._stopped = socket.socketpair()
        self._listeners.register(self._stopped, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._serve, name="replicator-control", daemon=True)
        self._thread.start()

    def add(self, listener: socket.socket, answer: Callable[[socket.socket], None]) -> None:
        """Pass each connection at ``listener`` to ``answer``, in a thread of its own."""
        listener.setblocking(False)
        self._listeners.register(listener, selectors.EVENT_READ, answer)

    def remove(self, listener: socket.socket) -> None:
        self._listeners.unregister(listener)

    def _serve(self) -> None:
        while True:
            for key, _ in self._listeners.select():
                if key.data is None:
                    return
                try:
                    connection, _ = key.fileobj.accept()  # type: ignore[union-attr]
                except BlockingIOError:  # the listener was closed, or the client left
                    continue
                except OSError:
                    time.sleep(self._accept_retry)
                    continue
                threading.Thread(target=key.data, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self._stop.close()
        self._thread.join()
        self._listeners.close()
        self._stopped.close()


class ControlSocket:
    """The control socket of one database, open from its creation until :meth:`close`.

    Answers ``status``, ``flush``, ``snapshot``, ``repair``, ``proofs``, ``metrics`` and
    ``databases``, which names all of the sidecar. A socket with the same name is replaced: the
    caller holds the database's lock.
    """

    def __init__(
        self, directory: Path, replicator: SqliteReplicator, server: ControlServer
    ) -> None:
        """``OSError`` or ``LocalIOError`` if no socket can be made in ``directory``."""
        self._directory = directory
        self._server = server
        self._answers = _answers_of(replicator) | {
            "databases": lambda _: {"databases": server.listing()}
        }
        self._listener = _listen_in(directory)
        server.add(self._listener, self._answer)

    def close(self) -> None:
        self._server.remove(self._listener)
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self._directory / SOCKET_NAME)

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            line = connection.makefile("rb").readline(REQUEST_LIMITS.size + 1)
            connection.sendall(json.dumps(self._reply(line)).encode() + b"\n")

    def _reply(self, line: bytes) -> dict[str, Any]:
        try:
            request = parse_json(line, REQUEST_LIMITS)
            if not isinstance(request, dict):
                raise TypeError("a request is an object")
            answer = self._answers[request["command"]]
            _seconds(request)
        except (ValueError, KeyError, TypeError):
            return {"error": ConfigError("the request is not understood").to_dict()}
        try:
            return {"answer": answer(request)}
        except ReplicatorError as error:
            return {"error": error.to_dict()}


def _answers_of(replicator: SqliteReplicator) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """The call that answers each command."""
    return {
        "status": lambda _: asdict(replicator.status()),
        "flush": lambda r: asdict(replicator.flush(_seconds(r), snapshot=bool(r.get("snapshot")))),
        "repair": lambda r: asdict(
            replicator.repair(_seconds(r), str(r.get("reason") or "requested by a command"))
        ),
        "proofs": lambda _: replicator.look_at_proofs(),
        "snapshot": lambda r: {"txid": replicator.snapshot(_seconds(r))},
        "metrics": lambda _: replicator.metrics.snapshot(),
    }


def _listen_in(directory: Path) -> socket.socket:
    """A listening control socket in ``directory``."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        with socket_path(directory) as path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(str(path))
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def _seconds(request: dict[str, Any]) -> float | None:
    """The longest wait that the client accepts; ``TypeError`` if it is not a number."""
    timeout = request.get("timeout")
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError("a timeout is a number of seconds")
    return max(0.0, min(float(timeout), LONGEST_WAIT))

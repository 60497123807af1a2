"""The server of the control sockets: one thread listens for all databases of a sidecar.

Owns: the thread, each database's socket in its cache directory, and which call answers which
request. Refuses to wait for a client: each request is answered in a thread of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from replicator.config.settings import SqliteReplicatorConfig
from replicator.engine.in_process import InProcessReplicator
from replicator.errors import ConfigError, ReplicatorError
from replicator.format.bounded_json import JsonLimits, parse_json
from replicator.sidecar.clients import Clients
from replicator.sidecar.control_client import (
    ATTACH,
    FILE,
    LEAVE,
    SOCKET_NAME,
    fingerprint,
    socket_path,
)
from replicator.sidecar.leases import Leases

REQUEST_LIMITS = JsonLimits(size=65536)  # of one request line
LONGEST_WAIT = 366 * 86_400.0  # seconds; a clock has no room for much more
ACCEPT_RETRY = 0.1  # seconds after a failed accept, most likely for want of descriptors


class ControlServer:
    """Accepts connections at the control sockets of all databases, in one thread."""

    def __init__(
        self,
        listing: Callable[[], list[dict[str, Any]]] = list,
        *,
        leases: Leases | None = None,
        accept_retry: float = ACCEPT_RETRY,
    ) -> None:
        """``listing`` names the databases of this process, ``leases`` are those of the handles that
        attach. ``accept_retry`` is the pause after a failed accept, in seconds."""
        self.listing = listing
        self.leases = leases or Leases()
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
                    if any(select.select([self._stopped], [], [], self._accept_retry)):
                        return
                    continue
                threading.Thread(target=key.data, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self._stop.close()
        self._thread.join()
        self._listeners.close()
        self._stopped.close()
        self.leases.dispose()


class ControlSocket:
    """The control socket of one database, open from its creation until :meth:`close`.

    Answers ``status``, ``flush``, ``mark``, ``snapshot``, ``repair``, ``proofs``, ``events``,
    ``failure``, ``metrics``, ``leave``, and ``databases``, which names all of the sidecar. A
    connection serves its requests one after another, until the client closes it. That of ``attach``
    stays open as a lease. A request with a ``file`` is refused if the database is another file. A
    socket with the same name is replaced: the caller holds the database's lock.
    """

    def __init__(
        self, directory: Path, replicator: InProcessReplicator, server: ControlServer
    ) -> None:
        """``OSError`` or ``LocalIOError`` if no socket can be made in ``directory``."""
        self._directory = directory
        self._server = server
        self._replicator = replicator
        self._answers = _answers_of(replicator) | {
            "databases": lambda _: {"databases": server.listing()},
            LEAVE: lambda request: server.leases.leave(_seconds(request)),
        }
        self._clients = Clients()
        self._listener = _listen_in(directory)
        server.add(self._listener, self._answer)

    def close(self) -> None:
        """Ends each connection after the answer that is under way."""
        self._server.remove(self._listener)
        self._listener.close()
        self._clients.close()
        with contextlib.suppress(OSError):
            os.unlink(self._directory / SOCKET_NAME)

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            held.enter_context(connection)
            held.enter_context(self._clients.served(connection))
            lines = held.enter_context(connection.makefile("rb"))
            line = lines.readline(REQUEST_LIMITS.size + 1)
            request = _request_in(line)
            if request.get("command") == ATTACH:
                self._attach(connection, request, held)
                return
            while request:  # one that is not understood is the last one of its connection
                _send(connection, self._reply(request))
                if not (line := lines.readline(REQUEST_LIMITS.size + 1)):
                    return
                request = _request_in(line)
            _send(connection, _not_understood())

    def _reply(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = self._answers[request["command"]]
            _seconds(request)
        except (KeyError, TypeError):
            return _not_understood()
        try:
            if FILE in request:
                _require_file(self._replicator.config, request)
            return {"answer": answer(request)}
        except ReplicatorError as error:
            return {"error": error.to_dict()}

    def _attach(
        self, connection: socket.socket, request: dict[str, Any], held: contextlib.ExitStack
    ) -> None:
        """Make the connection a lease. Its first answer says which sidecar this is, the second one
        that the start succeeded."""
        leases = self._server.leases
        try:
            _require_same(self._replicator.config, request)
            leases.add(connection)
        except ReplicatorError as error:
            _send(connection, {"error": error.to_dict()})
            return
        held.pop_all()
        held.callback(leases.drop, connection)
        _send(connection, {"answer": {"pid": os.getpid(), "hosted": leases.hosted}})
        try:
            leases.require_start()
            _send(connection, {"answer": {}})
        except ReplicatorError as error:
            _send(connection, {"error": error.to_dict()})
        else:
            held.pop_all()


def _answers_of(replicator: InProcessReplicator) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """The call that answers each command."""
    return {
        "status": lambda _: asdict(replicator.status()),
        "flush": lambda r: asdict(replicator.flush(_seconds(r), snapshot=bool(r.get("snapshot")))),
        "mark": lambda r: asdict(
            replicator.mark(
                _text(r, "name"), _seconds(r), note=_text(r, "note"), move=bool(r.get("move"))
            )
        ),
        "repair": lambda r: asdict(
            replicator.repair(_seconds(r), str(r.get("reason") or "requested by a command"))
        ),
        "proofs": lambda _: replicator.look_at_proofs(),
        "snapshot": lambda r: {"txid": replicator.snapshot(_seconds(r))},
        "metrics": lambda _: replicator.metrics.snapshot(),
        "events": lambda r: replicator.events(
            _text(r, "log"), _number(r, "after"), _seconds(r) or 0.0
        ),
        "failure": lambda _: {"error": replicator.failed and replicator.failed.to_dict()},
    }


def _request_in(line: bytes) -> dict[str, Any]:
    """The request of a line; without a command if it is not understood."""
    try:
        request = parse_json(line, REQUEST_LIMITS)
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}


def _not_understood() -> dict[str, Any]:
    return {"error": ConfigError("the request is not understood").to_dict()}


def _send(connection: socket.socket, reply: dict[str, Any]) -> None:
    connection.sendall(json.dumps(reply).encode() + b"\n")


def _require_same(config: SqliteReplicatorConfig, request: dict[str, Any]) -> None:
    """``ConfigError`` if a handle is for another database or another archive."""
    address = config.address
    known = {fingerprint(config.database), fingerprint(config.source)}  # a link may be switched
    if known.isdisjoint(str(request.get(name)) for name in ("database", "source")):
        raise _other_database(config)
    if (request.get("url"), request.get("endpoint_url")) != (address.url, address.endpoint_url):
        raise ConfigError(
            f"a sidecar replicates {config.database} to {address.url}",
            setting="bucket",
            code="other_destination",
            hint="use the same destination, or stop the other process first",
        )


def _require_file(config: SqliteReplicatorConfig, request: dict[str, Any]) -> None:
    """``ConfigError`` if a request is about another file than the one at the path of ``config``."""
    try:
        facts = config.source.stat()
        same = request[FILE] == [facts.st_dev, facts.st_ino]
    except FileNotFoundError:
        return  # the answer says so
    except OSError:
        same = False
    if not same:
        raise _other_database(config)


def _other_database(config: SqliteReplicatorConfig) -> ConfigError:
    return ConfigError(
        f"the sidecar in {config.cache} replicates {config.source}",
        setting="cache_dir",
        code="other_database",
        hint="give each database its own cache_dir",
    )


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


def _text(request: dict[str, Any], field: str) -> str:
    """The text in a field, "" if it is absent."""
    return str(request.get(field) or "")


def _number(request: dict[str, Any], field: str) -> int | None:
    value = request.get(field)
    return value if isinstance(value, int) else None


def _seconds(request: dict[str, Any]) -> float | None:
    """The longest wait that the client accepts; ``TypeError`` if it is not a number."""
    timeout = request.get("timeout")
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError("a timeout is a number of seconds")
    return max(0.0, min(float(timeout), LONGEST_WAIT))

"""The control socket of a database: how commands speak to the sidecar that follows it.

A JSON line each way, over a socket in the cache directory. Owns the socket, the thread that
listens at all of them, and the client. Refuses: to know what a request does.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from replicator.errors import ConfigError, LocalIOError, NotRunning, ReplicatorError, from_dict
from replicator.replicator import SqliteReplicator

SOCKET_NAME = "control.sock"
MOST_REQUEST = 65536  # bytes of one request line
AT_ONCE = ("status", "metrics", "proofs")  # requests that wait for nothing …
ANSWER_TIMEOUT = 10.0  # … so that no answer in this many seconds means a sidecar that hangs
REST = 0.1  # seconds after a connection that could not be had, most likely for want of descriptors


class Reception:
    """One thread that listens at the sockets of all databases. Each request is answered in a
    thread of its own, for some take long."""

    def __init__(self) -> None:
        self._doors = selectors.DefaultSelector()
        self._end, stopped = socket.socketpair()
        self._stopped = stopped
        self._doors.register(stopped, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._serve, name="replicator-control", daemon=True)
        self._thread.start()

    def open(self, door: socket.socket, answer: Callable[[socket.socket], None]) -> None:
        """Hand each connection at ``door`` to ``answer``."""
        door.setblocking(False)
        self._doors.register(door, selectors.EVENT_READ, answer)

    def close(self, door: socket.socket) -> None:
        self._doors.unregister(door)

    def _serve(self) -> None:
        while True:
            for key, _ in self._doors.select():
                if key.data is None:
                    return
                try:
                    connection, _ = key.fileobj.accept()  # type: ignore[union-attr]
                except BlockingIOError:  # closed meanwhile, or the client left
                    continue
                except OSError:
                    time.sleep(REST)
                    continue
                threading.Thread(target=key.data, args=(connection,), daemon=True).start()

    def stop(self) -> None:
        self._end.close()
        self._thread.join()
        self._doors.close()
        self._stopped.close()


class ControlSocket:
    """Answers ``status``, ``flush``, ``snapshot``, ``repair`` and ``metrics``: a JSON line each
    way."""

    def __init__(
        self, directory: Path, replicator: SqliteReplicator, reception: Reception | None = None
    ) -> None:
        """``reception`` listens; without one, one of this socket's own."""
        self._directory = directory
        self._given = reception
        self._replicator = replicator
        self._answers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "status": lambda _: asdict(replicator.status()),
            "flush": lambda r: asdict(
                replicator.flush(_seconds(r), snapshot=bool(r.get("snapshot")))
            ),
            "repair": lambda r: asdict(
                replicator.repair(_seconds(r), str(r.get("reason") or "a command asked for it"))
            ),
            "proofs": lambda _: replicator.look_at_proofs(),
            "snapshot": lambda r: {"txid": replicator.snapshot(_seconds(r))},
            "metrics": self._metrics,
        }

    def _metrics(self, _: dict[str, Any]) -> dict[str, float]:
        self._replicator.status()  # which brings the gauges up to date
        return self._replicator.metrics.snapshot()

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_UNIX)
        with _short_path(self._directory) as place, contextlib.suppress(FileNotFoundError):
            os.unlink(place / SOCKET_NAME)
        with _short_path(self._directory) as place:
            self._socket.bind(str(place / SOCKET_NAME))
        self._socket.listen()
        self._reception = self._given or Reception()
        self._reception.open(self._socket, self._answer)
        return self

    def __exit__(self, *exc: object) -> None:
        self._reception.close(self._socket)
        if self._given is None:
            self._reception.stop()
        self._socket.close()
        with contextlib.suppress(OSError):
            os.unlink(self._directory / SOCKET_NAME)

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            line = connection.makefile("rb").readline(MOST_REQUEST)
            connection.sendall(json.dumps(self._reply(line)).encode() + b"\n")

    def _reply(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            answer = self._answers[request["command"]]
            _seconds(request)
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"error": ConfigError("the request is not understood").to_dict()}
        try:
            return {"answer": answer(request)}
        except ReplicatorError as error:
            return {"error": error.to_dict()}


def _seconds(request: dict[str, Any]) -> float | None:
    """How long the client is willing to wait; ``TypeError`` for what is no number."""
    timeout = request.get("timeout")
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError("a timeout is a number of seconds")
    return timeout


def ask(cache_dir: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Ask the sidecar whose cache directory this is. ``NotRunning``, or the error it met."""
    connection = socket.socket(socket.AF_UNIX)
    if request["command"] in AT_ONCE:
        connection.settimeout(ANSWER_TIMEOUT)
    try:
        with _short_path(cache_dir) as place:
            connection.connect(str(place / SOCKET_NAME))
        connection.sendall(json.dumps(request).encode() + b"\n")
        reply = json.loads(connection.makefile("rb").readline())
    except TimeoutError as error:
        raise ReplicatorError(
            f"the sidecar in {cache_dir} does not answer",
            hint="look at its log; it may have to be restarted",
        ) from error
    except (OSError, ValueError, LocalIOError) as error:
        raise NotRunning(f"no sidecar answers in {cache_dir}") from error
    finally:
        connection.close()
    if "error" in reply:
        raise from_dict(reply["error"])
    answer: dict[str, Any] = reply["answer"]
    return answer


@contextlib.contextmanager
def _short_path(directory: Path) -> Iterator[Path]:
    """The directory under a name that fits a socket's address (108 bytes)."""
    if len(os.fsencode(directory)) < 90:
        yield directory
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise LocalIOError(f"cannot open {directory}: {error.strerror}") from error
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)

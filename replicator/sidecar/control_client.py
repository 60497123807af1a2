"""The client of a control socket: asks the sidecar that replicates a database.

Owns: the path of the socket, one request, and its reply (a JSON line each way). Imports nothing of
replication, so that a command and an application's process can ask at little cost.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from replicator.errors import LocalIOError, NotRunning, ReplicatorError, from_dict
from replicator.format.bounded_json import JsonLimits, parse_json
from replicator.model import Position, ReplicationStatus

SOCKET_NAME = "control.sock"
LONGEST_DIRECTORY = 90  # bytes: a socket's address fits 108, with the name and a final zero
HANGS = "sidecar_hangs"  # code of a request whose answer is late
ATTACH, LEAVE = "attach", "leave"  # commands of a handle, see :mod:`.leases`
FILE = "file"  # field of a request: [device, inode] of the database file that it is about
# the sidecar answers them at once
IMMEDIATE = ("status", "metrics", "proofs", "databases", "failure")
ANSWER_LIMITS = JsonLimits(size=4 << 20)  # the list of ten thousand databases
ANSWER_TIMEOUT = 10.0  # seconds after which a sidecar that owes an immediate answer hangs


@dataclass(frozen=True, slots=True)
class TakenSnapshot:
    """The answer to ``snapshot``: the transaction that it holds."""

    txid: int


_ANSWERS = {
    "status": ReplicationStatus,
    "flush": Position,
    "mark": Position,
    "snapshot": TakenSnapshot,
}


def ask(
    cache_dir: Path,
    request: dict[str, Any],
    *,
    answer_timeout: float = ANSWER_TIMEOUT,
    connected: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Send one request to the sidecar that uses ``cache_dir``, and return its answer.

    ``request`` has the key ``command`` and, for the commands that wait, ``timeout`` in seconds.
    A sidecar may be stopped or hang, so the wait ends ``answer_timeout`` seconds after the answer
    was due. ``connected`` is called before the request is sent. Raises ``NotRunning``, or the error
    that the sidecar raised.
    """
    connection = socket.socket(socket.AF_UNIX)
    wait = 0.0 if request["command"] in IMMEDIATE else request.get("timeout")
    if wait is not None:
        connection.settimeout(wait + answer_timeout)
    try:
        reply = _exchange(connection, cache_dir, request, connected)
    finally:
        connection.close()
    answer: dict[str, Any] = checked(request["command"], reply)
    return answer


def attach(
    cache_dir: Path, request: dict[str, Any], *, answer_timeout: float = ANSWER_TIMEOUT
) -> tuple[socket.socket, dict[str, Any]]:
    """Open a lease: the connection, which the caller closes, and the first answer. The second one
    follows when the sidecar has started. Raises as :func:`ask`."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(answer_timeout)
        answer = checked(ATTACH, _exchange(connection, cache_dir, {"command": ATTACH, **request}))
    except BaseException:
        connection.close()
        raise
    return connection, answer


def fingerprint(path: Path) -> str:
    """Stands for a path in a request; JSON cannot hold every name of a file."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()


def checked(command: str, reply: object) -> Any:
    """The answer in a reply; raises the error in its place, or that it is neither."""
    match reply:
        case {"error": {"error": str()} as error}:
            raise from_dict(error)
        case {"answer": answer} if _fits(command, answer):
            return answer
    raise ReplicatorError(
        f"the sidecar answers {command} in a way that this version does not understand",
        hint="use the version of the program that the sidecar runs",
        code="unknown_answer",
    )


def _fits(command: str, answer: object) -> bool:
    """True if an answer has the fields, and these the types, that the caller relies on."""
    if command not in _ANSWERS:
        return True
    types = get_type_hints(_ANSWERS[command])
    return (
        isinstance(answer, dict)
        and answer.keys() == types.keys()
        and all(_is(answer[name], types[name]) for name in types)
    )


def _is(value: object, kind: Any) -> bool:
    """True if a value of JSON has the type of a field."""
    if kind is float:
        return isinstance(value, int | float)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_is(each, *get_args(kind)) for each in value)
    return isinstance(value, kind)


def _exchange(
    connection: socket.socket,
    cache_dir: Path,
    request: dict[str, Any],
    connected: Callable[[], object] = lambda: None,
) -> Any:
    with reaching(cache_dir):
        with socket_path(cache_dir) as path:
            connection.connect(str(path))
        connected()
        connection.sendall(json.dumps(request).encode() + b"\n")
        return read_reply(connection)


@contextlib.contextmanager
def reaching(cache_dir: Path) -> Iterator[None]:
    """Raises the errors of a connection to the sidecar as ``NotRunning``, or with the code
    ``HANGS`` if the answer is late."""
    try:
        yield
    except TimeoutError as error:
        raise ReplicatorError(
            f"the sidecar in {cache_dir} does not answer",
            hint="read its log; a restart may be necessary",
            code=HANGS,
        ) from error
    except (OSError, ValueError, LocalIOError) as error:
        raise NotRunning(f"no sidecar answers in {cache_dir}", path=cache_dir) from error


def read_reply(connection: socket.socket) -> Any:
    """The next line of a connection, and nothing after it."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) <= ANSWER_LIMITS.size:
        ahead = connection.recv(65536, socket.MSG_PEEK)
        if not ahead:
            break
        line += connection.recv(ahead.find(b"\n") + 1 or len(ahead))
    return parse_json(bytes(line), ANSWER_LIMITS)


@contextlib.contextmanager
def socket_path(directory: Path) -> Iterator[Path]:
    """The path of the control socket in ``directory``, short enough for a socket's address.

    A long path is reached through a descriptor of its directory; ``LocalIOError`` if that cannot
    be opened.
    """
    if len(os.fsencode(directory)) < LONGEST_DIRECTORY:
        yield directory / SOCKET_NAME
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise LocalIOError(
            f"cannot open {directory}: {error.strerror}", path=directory, errno=error.errno
        ) from error
    try:
        yield Path(f"/proc/self/fd/{descriptor}") / SOCKET_NAME
    finally:
        os.close(descriptor)

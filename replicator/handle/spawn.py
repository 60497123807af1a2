"""Starts the sidecar of an application, in a new process with a new session.

It is started, never forked: of the application's memory, locks and descriptors it gets nothing but
a socket and standard error. A terminal's Ctrl-C does not reach it. It is no child of the
application afterwards, so an application that waits for all its children does not wait for it.

Owns: the program, its settings on their way, and the outcome of its start. Refuses: to put a
setting on the command line, where other users see it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
from typing import Any

from replicator.config.settings import SETTINGS, SqliteReplicatorConfig
from replicator.config.units import PATH
from replicator.errors import ReplicatorError
from replicator.handle.bell import Bell
from replicator.handle.interpreter import interpreter, standard_error
from replicator.handle.lease import Lease
from replicator.sidecar.control_client import ATTACH, checked, read_reply
from replicator.system.paths import expanded

PROGRAM = (
    "import json, sys\n"
    "request = json.loads(sys.stdin.buffer.readline())\n"
    "sys.path[:] = request['path']\n"
    "from replicator.sidecar.hosted import main\n"
    "main(request)"
)
END = 5.0  # seconds for a sidecar that reported an error to end


def spawn(
    config: SqliteReplicatorConfig,
    *,
    prepare: str,
    log: str | os.PathLike[str] | None,
    bell: Bell,
) -> Lease:
    """The lease of a sidecar that has started. Raises the error of its start, ``Cancelled`` once
    the bell rang."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            first = _start(config, theirs, log)
        with contextlib.suppress(OSError):  # it ended, and so does the connection
            ours.sendall(_request(config, prepare).encode() + b"\n")
        first.wait()
        pid = _outcome(ours, bell)
    except BaseException:
        ours.close()
        raise
    return Lease(ours, pid, hosted=True)


def _start(
    config: SqliteReplicatorConfig, channel: socket.socket, log: str | os.PathLike[str] | None
) -> subprocess.Popen[bytes]:
    """The first process. It reads the request, makes the sidecar its orphan, and ends."""
    command = [interpreter(), "-P", "-c", PROGRAM, "replicator", str(config.source)]
    with contextlib.ExitStack() as opened:
        errors: int | None = standard_error(config.database)
        if log is not None:
            errors = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            opened.callback(os.close, errors)
        return subprocess.Popen(
            command,
            stdin=channel.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if errors is None else errors,
            start_new_session=True,
        )


def _request(config: SqliteReplicatorConfig, prepare: str) -> str:
    """The line that :class:`replicator.sidecar.hosted.HostedRequest` reads."""
    request = {
        "settings": settings_of(config),
        "path": [os.path.abspath(each) for each in sys.path],
        "prepare": prepare,
        "level": logging.getLogger("replicator").getEffectiveLevel(),
    }
    return json.dumps(request)


def settings_of(config: SqliteReplicatorConfig) -> dict[str, Any]:
    """The settings with absolute paths, as values of JSON: the working directory may change, and
    a link on the path may be switched."""
    values = {name: getattr(config, name) for name in SETTINGS}
    paths = {name for name, each in SETTINGS.items() if each.unit is PATH}
    for name in paths & {name for name, value in values.items() if value is not None}:
        values[name] = str(expanded(values[name]).absolute())
    return values | {
        "db_path": str(config.source),
        "cache_dir": str(config.cache),
        "prefix": config.address.prefix,
    }


def _outcome(channel: socket.socket, bell: Bell) -> int:
    """The process id of the sidecar, once it has started; raises its error."""
    bell.wait(None, channel.fileno())
    try:
        answer = checked(ATTACH, read_reply(channel))
    except (OSError, ValueError) as error:
        raise ReplicatorError(
            "the sidecar ended during its start",
            code="sidecar_ended",
            hint="its log, on standard error, has the reason",
        ) from error
    except ReplicatorError:
        bell.wait(END, channel.fileno())  # so that what it held is free
        raise
    pid: int = answer["pid"]
    return pid

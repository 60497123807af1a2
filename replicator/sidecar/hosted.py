"""The sidecar of an application: handles start it, and it ends with the last of them.

A handle starts this process with one end of a pair of sockets as standard input. Over it come the
settings, then goes the outcome of the start; the open connection is the first lease.

Owns: the steps from the first moment of the process to its exit code. While leases are held, the
signals that end a sidecar only wait: the application ends at the same time, and its last commits
come first. Refuses: to end while a process of the application is left.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicator.config.settings import SqliteReplicatorConfig
from replicator.errors import ConfigError, LocalIOError, NotDurable, ReplicatorError
from replicator.sidecar import launch
from replicator.sidecar.leases import Leases
from replicator.sidecar.logs import set_up_logging
from replicator.sidecar.signals import Signals, hold
from replicator.system import process

if TYPE_CHECKING:
    from replicator.sidecar.fleet import Fleet
    from replicator.sidecar.member import Member

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HostedTimes:
    """In seconds."""

    final_flush: float = 30.0  # to make the rest durable after the last lease
    flush: float = 0.2  # one attempt at that
    confirm: float = 5.0  # to find everything durable once more, after that time or before it
    check: float = 1.0  # between two looks at signals while leases are held
    close: float = 5.0  # for threads to end; a request to a store that hangs may take minutes


@dataclass(frozen=True, slots=True)
class HostedRequest:
    """The request of a handle, which sends it as a line of JSON."""

    settings: dict[str, Any]
    path: list[str]  # sys.path of the application
    prepare: str = ""  # "module:function" for the connections of drills
    level: int = logging.WARNING  # of the log

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=os.fspath)


def main(document: dict[str, Any]) -> None:
    """The process: standard input is the connection to the handle, whose request was read."""
    hold()
    if os.fork():  # the parent ends: no child of the application is left for it to wait for
        os._exit(0)
    channel, request = _take_channel(), HostedRequest(**document)
    set_up_logging(as_json=False, prefixed=False, level=request.level)
    process.claim()
    process.leave(run(request, channel))


def _take_channel() -> socket.socket:
    """The connection in place of standard input."""
    channel = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    return channel


def run(request: HostedRequest, channel: socket.socket, *, times: HostedTimes | None = None) -> int:
    """Replicate until the last lease ends; the exit code."""
    leases = Leases(hosted=True)
    leases.add(channel)
    try:
        with ending_with_the_application(leases):
            launch.load()
        return _Hosted(request, leases, times or HostedTimes()).run(channel)
    except ReplicatorError as error:
        _fail(leases, channel, error)
        return error.exit_code


def _fail(leases: Leases, channel: socket.socket, error: ReplicatorError) -> None:
    if not leases.started:
        leases.fail(error)
        _report(channel, {"error": error.to_dict()})


@contextmanager
def ending_with_the_application(
    leases: Leases, leave: Callable[[int], object] = os._exit
) -> Iterator[None]:
    """In the block, the end of the application ends the process: its work can be killed at any
    time."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if not leases.wait(0.5) and not over.is_set() and leases.close():
                leave(0)

    watcher = threading.Thread(target=watch, name="replicator-watcher", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        leases.ring()
        watcher.join()


def _report(channel: socket.socket, document: dict[str, Any]) -> None:
    try:
        channel.sendall(json.dumps(document).encode() + b"\n")
    except OSError:
        log.info("the application ended during the start")


class _Hosted:
    """The sidecar once its modules are loaded."""

    def __init__(self, request: HostedRequest, leases: Leases, times: HostedTimes) -> None:
        self._config = _config(request.settings)
        self._prepare = request.prepare
        self._leases = leases
        self._times = times
        self._end_at = float("inf")
        self._hurried = 0  # signals after the end of the application
        self._signals = Signals()

    def run(self, channel: socket.socket) -> int:
        from replicator.sidecar.fleet import Databases, Fleet, SidecarTimes
        from replicator.sqlite.connect import unprepared

        prepare = _function(self._prepare) if self._prepare else unprepared
        databases = Databases.single(self._config, prepare=prepare)
        times = replace(SidecarTimes(), final_flush=self._times.confirm)
        with (
            self._signals,
            Fleet(databases, times, hurry=self._hurry, leases=self._leases) as fleet,
        ):
            try:
                self._start(fleet)
                _report(channel, {"answer": {"pid": os.getpid()}})
                (member,) = fleet.members
                self._follow(member)
                return self._finish(fleet, member)
            except ReplicatorError as error:
                _fail(self._leases, channel, error)
                raise
            finally:
                self._end_at = time.monotonic() + self._times.close

    def _start(self, fleet: Fleet) -> None:
        with ending_with_the_application(self._leases):
            fleet.claim()
            fleet.prepare(around_command=False)
        fleet.start()
        if not all(member.reachable for member in fleet.members):
            raise LocalIOError(
                f"no control socket can be made in {self._config.cache}",
                path=self._config.cache,
                code="no_control_socket",
                hint="put the cache on a local disk, with the setting cache_dir",
            )
        self._leases.begin()

    def _finish(self, fleet: Fleet, member: Member) -> int:
        from replicator.sidecar.daemon import finish

        code = finish(fleet)
        status = asdict(member.replicator.status())
        error = member.error and member.error.to_dict()
        self._leases.finish({"status": status, "error": error})
        return code

    def _follow(self, member: Member) -> None:
        """Returns once nothing of the application is left and everything is durable, or the time
        for that is over."""
        while True:
            while self._leases.wait(self._times.check):
                if self._signals.arrived():
                    log.info("a signal came; the end waits for the end of the application")
            log.info("the application ended: uploading what is left")
            member.begin_last_flush()
            until = time.monotonic() + self._times.final_flush
            while (
                not self._leases.count()
                and isinstance(member.flush(self._times.flush), NotDurable)
                and time.monotonic() < until
                and not self._hurry()
            ):
                pass
            if self._leases.close():
                return
            self._hurried = 0
            log.info("the application is back")

    def _hurry(self) -> bool:
        """True once two signals came after the application had ended, or the time for the end of
        threads is over. One signal is that which ended the application, too."""
        self._hurried += self._signals.arrived()
        return self._hurried > 1 or time.monotonic() >= self._end_at


def _config(settings: dict[str, Any]) -> SqliteReplicatorConfig:
    return SqliteReplicatorConfig(**settings | {"db_path": Path(settings["db_path"])})


def _function(name: str) -> Callable[[Any], None]:
    """The function ``module:function``; ``ConfigError`` if there is none."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise ConfigError(
            f"prepare: {name!r} cannot be imported: {error!r}",
            setting="prepare",
            hint="write module:function, and import nothing there that starts the application",
        ) from error
    if not callable(found):
        raise ConfigError(f"prepare: {name!r} is no function", setting="prepare")
    function: Callable[[Any], None] = found
    return function

"""The way to a lease: attach to the sidecar of a database, or start one.

Of several processes that need one at the same time, one starts it and the others attach. A name in
the kernel's abstract namespace of sockets says whose turn it is: it vanishes with its process. It
saves work only; the lock of the database decides.

Owns: the order of these attempts, and the waits between them. Refuses: to end a sidecar.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from replicator.config.settings import SqliteReplicatorConfig
from replicator.errors import AlreadyRunning, NotRunning
from replicator.handle.bell import Bell
from replicator.handle.lease import Lease, peer
from replicator.handle.spawn import spawn
from replicator.sidecar.control_client import ATTACH, attach, checked, fingerprint, read_reply
from replicator.sidecar.leases import ENDING


@dataclass(frozen=True, slots=True)
class ConnectTimes:
    """In seconds."""

    patience: float = 15.0  # for a process that has the lock and does not answer
    turn: float = 10.0  # for another process that starts a sidecar and does not answer yet
    pause: float = 0.05  # between two attempts to attach
    longest_pause: float = 1.0  # between two attempts to start


DEFAULT_TIMES = ConnectTimes()


@dataclass(frozen=True, slots=True)
class Connector:
    """The sidecar that one config asks for."""

    config: SqliteReplicatorConfig
    prepare: str = ""
    log: str | os.PathLike[str] | None = None
    times: ConnectTimes = DEFAULT_TIMES

    def connect(self, bell: Bell) -> Lease:
        """A lease of a sidecar that follows the database, or waits for it.

        Raises the errors of its start; ``AlreadyRunning`` if another process has the lock and does
        not answer; ``ConfigError`` if a sidecar replicates another database or to another
        destination; ``Cancelled`` once the bell rang.
        """
        began, pause, refused_at = time.monotonic(), self.times.pause, None
        while True:
            lease = self.attach(bell)
            if lease is not None:
                return lease
            with turn(self.config) as mine:
                if mine or time.monotonic() - began > self.times.turn:
                    try:
                        return spawn(self.config, prepare=self.prepare, log=self.log, bell=bell)
                    except AlreadyRunning as error:
                        refused_at = refused_at or time.monotonic()
                        if time.monotonic() - refused_at > self.times.patience:
                            raise
                        pause = self._wait_for(error.pid, pause, bell)
                        continue
            bell.wait(self.times.pause)

    def _wait_for(self, pid: int | None, pause: float, bell: Bell) -> float:
        """Wait until the process that has the lock ends, or for ``pause``; the next pause."""
        descriptors = []
        with contextlib.suppress(OSError):
            descriptors.append(os.pidfd_open(pid or 0))
        try:
            bell.wait(pause, *descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return min(2 * pause, self.times.longest_pause)

    def attach(self, bell: Bell) -> Lease | None:
        """A lease of the sidecar that answers; None if none does, or if it is ending."""
        try:
            connection, answer = attach(self.config.cache, self._request())
        except NotRunning:
            return None
        except AlreadyRunning as error:
            if error.code != ENDING:
                raise
            self._wait_for(error.pid, self.times.longest_pause, bell)
            return None
        try:
            bell.wait(None, connection.fileno())
            checked(ATTACH, read_reply(connection))
        except (OSError, ValueError):  # it ended during its start; this process tries its own
            connection.close()
            return None
        except BaseException:
            connection.close()
            raise
        return Lease(connection, peer(connection), hosted=bool(answer.get("hosted")))

    def _request(self) -> dict[str, Any]:
        address = self.config.address
        return {
            "database": fingerprint(self.config.database),
            "source": fingerprint(self.config.source),
            "url": address.url,
            "endpoint_url": address.endpoint_url,
        }


@contextlib.contextmanager
def turn(config: SqliteReplicatorConfig) -> Iterator[bool]:
    """True if no other process of this machine starts a sidecar with this cache now."""
    with socket.socket(socket.AF_UNIX) as name:
        mine = True
        try:
            name.bind(f"\0replicator-{os.getuid()}-{fingerprint(config.cache)}")
        except OSError as error:  # a kernel that forbids such names does not stop us
            mine = error.errno != errno.EADDRINUSE
        yield mine

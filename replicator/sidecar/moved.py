"""Answers where a switched link leads: the lock and the control socket next to another file.

A command and a second sidecar resolve the path of the database when they start. After a link on
that path was switched, they look next to the file that is followed now, while the cache stays where
it is. Owns: the lock and the socket at the second place. Refuses: to make them for a file that does
not exist, and to move the cache.
"""

from __future__ import annotations

import contextlib
import logging

from replicator.config.settings import SqliteReplicatorConfig
from replicator.errors import ReplicatorError
from replicator.replicator import SqliteReplicator
from replicator.sidecar.control_server import ControlServer, ControlSocket
from replicator.system.locks import DirLock
from replicator.system.paths import cache_directory, resolved

log = logging.getLogger(__name__)


class SecondPlace:
    """Of one database. Used by one thread at a time."""

    def __init__(
        self, config: SqliteReplicatorConfig, replicator: SqliteReplicator, server: ControlServer
    ) -> None:
        self._config = config
        self._replicator = replicator
        self._server = server
        self._first = cache_directory(config.database)
        self._at = self._first
        self._seen: tuple[int, int] | None = None  # (device, inode): resolving a path costs more
        self._open = contextlib.ExitStack()

    def look(self) -> None:
        """Follow the path to where it leads now."""
        with contextlib.suppress(OSError):  # without a file nothing changes
            found = self._config.source.stat()
            if self._seen != (found.st_dev, found.st_ino):
                self._seen = found.st_dev, found.st_ino
                self._follow()

    def _follow(self) -> None:
        real = resolved(self._config.source)
        place = cache_directory(real)
        if place == self._at:
            return
        self.close()
        self._at = place
        if place == self._first:
            return
        try:
            self._open.enter_context(DirLock(place))
            if self._config.cache == self._first:  # else commands know the cache by its option
                socket = ControlSocket(place, self._replicator, self._server)
                self._open.callback(socket.close)
        except (OSError, ReplicatorError) as error:
            log.error("%s leads to %s now; %s", self._config.source, real, error)
        else:
            log.info("%s leads to %s now", self._config.source, real)

    def close(self) -> None:
        self._open.close()
        self._at = self._first

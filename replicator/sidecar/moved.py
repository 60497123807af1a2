"""Answers where a switched link leads: the lock and the control socket next to another file.

A command and a second sidecar resolve the path of the database when they start. After a link on
that path was switched, they look next to the file that is followed now, while the cache stays where
it is. Owns: the lock, the socket and the note of the cache at the second place. Refuses: to make
them for a file that does not exist, and to move the cache.
"""

from __future__ import annotations

import contextlib
import logging

from replicator.config.settings import SqliteReplicatorConfig
from replicator.engine.in_process import InProcessReplicator
from replicator.errors import ReplicatorError
from replicator.sidecar.control_server import ControlServer, ControlSocket
from replicator.system.cache_place import note_cache
from replicator.system.locks import DirLock
from replicator.system.paths import cache_directory, resolved

log = logging.getLogger(__name__)


class SecondPlace:
    """Of one database. Used by one thread at a time."""

    def __init__(
        self, config: SqliteReplicatorConfig, replicator: InProcessReplicator, server: ControlServer
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
        if place in (self._first, self._config.cache):  # locked and answered already
            return
        try:
            lock = self._open.enter_context(DirLock(place))
            lock.announce()
            if self._config.cache_dir is None:  # else commands know the cache by its option
                note_cache(lock.directory, self._config.cache)
                socket = ControlSocket(place, self._replicator, self._server)
                self._open.callback(socket.close)
        except (OSError, ReplicatorError) as error:
            log.error("%s leads to %s now; %s", self._config.source, real, error)
        else:
            log.info("%s leads to %s now", self._config.source, real)

    def close(self) -> None:
        self._open.close()
        self._at = self._first

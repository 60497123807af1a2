"""One replicator per cache directory and per database, whatever cache directory each was given.

Both locks are files of their own, never the database: closing any descriptor of that would drop
SQLite's locks on it. Two names of one database that no symbolic link joins (a hard link, a bind
mount of the single file) escape the second lock; then the log in the bucket has the last word.
"""

from __future__ import annotations

import logging
from pathlib import Path

from replicator.errors import LocalIOError
from replicator.system.files import DirLock, Files

log = logging.getLogger(__name__)


def cache_beside(database: Path) -> Path:
    """The cache directory of a database when none is named; it follows the database."""
    return database.with_name(f".{database.name}-replicator")


class ReplicatorLock:
    """Held from :meth:`acquire` to :meth:`release`, or to the end of the process."""

    def __init__(self, database: Path, cache: Path, files: Files | None = None) -> None:
        beside = cache_beside(database)
        self._cache = DirLock(cache, files)
        self._beside = DirLock(beside, files) if beside != cache else None

    def acquire(self) -> None:
        """``AlreadyRunning`` names the process that works with the cache or the database.

        Where nothing can be written beside the database it cannot be followed either, which is
        for others to say.
        """
        self._cache.acquire()
        if self._beside is None or not self._beside.path.parent.parent.is_dir():
            return
        try:
            self._beside.acquire()
        except LocalIOError as error:
            log.warning(
                "%s; so a replicator that is given another cache directory would not be noticed",
                error,
            )
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        self._cache.release()
        if self._beside is not None:
            self._beside.release()

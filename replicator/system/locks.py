"""Locks between processes: one holder per directory, and one replicator per database.

Owns the lock files, which are never the database: closing any descriptor of that would drop
SQLite's locks on it. Refuses to break a lock. Two names of one database that no symbolic link
joins (a hard link, a bind mount of the single file) have two locks; then only the fencing in the
archive stops the second replicator.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from pathlib import Path
from typing import Self

from replicator.errors import AlreadyRunning, CacheInUse, LocalIOError
from replicator.system import waiters
from replicator.system.directory import Directory, working_directory
from replicator.system.files import LOCAL, Files, StrPath, about, located
from replicator.system.lending import give_away, take_back
from replicator.system.paths import cache_directory

DECIDED = "decided"  # the word after the process id, see :meth:`DirLock.announce`
CONTENT = 40  # bytes of a lock file that are read

log = logging.getLogger(__name__)


class DirLock:
    """At most one holder per directory, among processes and within one.

    ``flock`` on ``{directory}/lock``: the kernel releases it when the holder dies for any
    reason. The descriptor is close-on-exec, so a child process does not hold it.
    """

    def __init__(self, directory: StrPath, files: Files = LOCAL) -> None:
        self.path = Path(directory) / "lock"
        self._place = directory
        self._files = files
        self._fd = -1
        self._directory: Directory | None = None

    @property
    def directory(self) -> Directory:
        """The open directory, while the lock is held."""
        assert self._directory is not None
        return self._directory

    @property
    def held(self) -> bool:
        return self._fd >= 0

    def acquire(self, *, wait: bool = False) -> None:
        """Make the directory if it is missing, and take the lock. ``AlreadyRunning`` has the pid of
        the holder, if it is known; ``UnsafePath``: another user controls the directory.

        With ``wait`` the thread sleeps in the kernel until the holder releases the lock.
        """
        with about(self.path):
            while not self._try(wait=wait):
                pass

    def announce(self) -> None:
        """Write into the lock that its holder has decided the start, until it is released."""
        if self.held:
            with about(self.path):
                text = f"{os.getpid()} {DECIDED}"
                self._files.system(os.pwrite, self._fd, text.encode(), 0)

    def waiting(self) -> list[int]:
        """The processes that wait until this holder releases the lock."""
        return waiters.waiting(self._fd) if self.held else []

    def release(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
        if self._directory is not None:
            directory, self._directory = self._directory, None
            directory.close()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _try(self, *, wait: bool) -> bool:
        """One attempt. False if the file was removed between opening and locking it."""
        directory = working_directory(self._place, self._files)
        try:
            locked = self._lock_in(directory, wait=wait)
        except BaseException:
            directory.close()
            raise
        if locked:
            self._directory = directory
        else:
            directory.close()
        return locked

    def _lock_in(self, directory: Directory, *, wait: bool) -> bool:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = self._files.descriptor(directory.entry(self.path.name), flags)
        try:
            self._take(fd, wait=wait)
            if not self._is_current(fd):
                os.close(fd)
                return False
            self._files.system(os.ftruncate, fd, 0)
            self._files.system(os.pwrite, fd, str(os.getpid()).encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(fd, CONTENT, 0).decode("ascii", "replace")
            os.close(fd)
            raise self._already_running(*holder.split()) from error
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def _take(self, fd: int, *, wait: bool) -> None:
        if not wait:
            self._files.system(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        waiters.enter(fd, os.getpid())
        self._files.system(fcntl.flock, fd, fcntl.LOCK_EX)
        waiters.leave(fd, os.getpid())

    def _is_current(self, fd: int) -> bool:
        try:
            name, at = located(self._place)
            found = self._files.system(
                os.stat, Path(name) / self.path.name, follow_symlinks=False, **at
            )
            return os.path.samestat(os.fstat(fd), found)
        except FileNotFoundError:
            return False

    def _already_running(self, holder: str = "", word: str = "", *_: str) -> AlreadyRunning:
        who = f"process {holder}" if holder else "another process"
        return AlreadyRunning(
            f"{who} already works with {self.path.parent}",
            pid=int(holder) if holder.isdigit() else None,
            path=self.path.parent,
            decided=word == DECIDED,
            hint="stop it first, or start with --standby, which continues after its end",
        )


class ReplicatorLock:
    """One replicator per cache directory and per database. Held from :meth:`acquire` to
    :meth:`release`, or to the end of the process. Root takes the directories that belong to the
    owner of the database, and gives them to him at the end."""

    def __init__(self, database: Path, cache: Path, files: Files = LOCAL) -> None:
        default = cache_directory(database)
        self._path, self._files = database, files
        self._cache = DirLock(cache, files)
        self._database = DirLock(default, files) if default != cache else None
        self._lends = True  # the cache is next to the database, or was made or taken here

    @property
    def held(self) -> bool:
        return self._cache.held

    def acquire(self, *, wait: bool = False) -> None:
        """``AlreadyRunning`` names the process that uses the cache or the database; ``CacheInUse``
        if that uses the cache for another database. With ``wait`` as :meth:`DirLock.acquire`.

        A read-only directory of the database is no error here: opening the database reports it.
        """
        cache = self._cache.path.parent
        taken = take_back(cache, self._path, self._files)
        self._lends = self._database is None or taken or not cache.exists()
        try:
            self._cache.acquire(wait=wait)
        except AlreadyRunning as other:
            if other.decided and self._database_is_free():
                raise _cache_in_use(other) from other
            raise
        if wait and take_back(cache, self._path, self._files):  # the holder gave it away at its end
            self._lends = True
        if not self._has_database_lock():
            return
        assert self._database is not None
        try:
            self._acquire_database(self._database, wait=wait)
        except LocalIOError as error:
            log.warning(
                "%s; a second replicator with another cache directory would not be detected", error
            )
        except BaseException:
            self.release()
            raise

    def announce(self) -> None:
        """The start of this holder is decided: the file is the database that it replicates, and an
        application may use it."""
        for lock in (self._cache, self._database):
            if lock is not None:
                lock.announce()

    def waiting(self) -> list[int]:
        """The processes that wait for the end of this holder, each once."""
        locks = (self._cache, self._database)
        return sorted({pid for lock in locks if lock is not None for pid in lock.waiting()})

    def _acquire_database(self, lock: DirLock, *, wait: bool) -> None:
        place = lock.path.parent
        take_back(place, self._path, self._files)
        lock.acquire(wait=wait)
        if wait:
            take_back(place, self._path, self._files)

    def _has_database_lock(self) -> bool:
        return self._database is not None and self._database.path.parent.parent.is_dir()

    def _database_is_free(self) -> bool:
        """True if no process has the lock of the database next to that of the cache."""
        if not self._has_database_lock():
            return False
        assert self._database is not None
        with contextlib.suppress(AlreadyRunning, LocalIOError), self._database:
            return True
        return False

    def release(self) -> None:
        for lock, lends in ((self._cache, self._lends), (self._database, True)):
            if lock is None:
                continue
            if lends and lock.held:
                give_away(lock.directory, self._path)
            lock.release()


def _cache_in_use(other: AlreadyRunning) -> CacheInUse:
    return CacheInUse(f"{other}, for another database", pid=other.pid, path=other.path)

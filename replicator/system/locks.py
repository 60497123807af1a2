"""Locks between processes: one holder per directory, and one replicator per database.

Owns the lock files, which are never the database: closing any descriptor of that would drop
SQLite's locks on it. Refuses to break a lock. Two names of one database that no symbolic link
joins (a hard link, a bind mount of the single file) have two locks; then only the fencing in the
archive stops the second replicator.
"""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path
from typing import Self

from replicator.errors import AlreadyRunning, LocalIOError
from replicator.system.directory import Directory, working_directory
from replicator.system.files import LOCAL, Files, StrPath, about, located
from replicator.system.paths import cache_directory
from replicator.system.restore_marker import take_marker

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

    def acquire(self) -> None:
        """Make the directory if it is missing, and take the lock. ``AlreadyRunning`` has the pid of
        the holder, if it is known; ``UnsafePath``: another user controls the directory."""
        with about(self.path):
            while not self._try():
                pass

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

    def _try(self) -> bool:
        """One attempt. False if the file was removed between opening and locking it."""
        directory = working_directory(self._place, self._files)
        try:
            locked = self._lock_in(directory)
        except BaseException:
            directory.close()
            raise
        if locked:
            self._directory = directory
        else:
            directory.close()
        return locked

    def _lock_in(self, directory: Directory) -> bool:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = self._files.descriptor(directory.entry(self.path.name), flags)
        try:
            self._files.system(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_current(fd):
                os.close(fd)
                return False
            self._files.system(os.ftruncate, fd, 0)
            self._files.system(os.pwrite, fd, str(os.getpid()).encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise self._already_running(holder) from error
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def _is_current(self, fd: int) -> bool:
        try:
            name, at = located(self._place)
            found = self._files.system(
                os.stat, Path(name) / self.path.name, follow_symlinks=False, **at
            )
            return os.path.samestat(os.fstat(fd), found)
        except FileNotFoundError:
            return False

    def _already_running(self, holder: str) -> AlreadyRunning:
        who = f"process {holder}" if holder else "another process"
        return AlreadyRunning(
            f"{who} already works with {self.path.parent}",
            pid=int(holder) if holder.isdigit() else None,
            path=self.path.parent,
            hint="stop it first, or give this replicator its own --cache-dir and database",
        )


class ReplicatorLock:
    """One replicator per cache directory and per database. Held from :meth:`acquire` to
    :meth:`release`, or to the end of the process."""

    def __init__(self, database: Path, cache: Path, files: Files = LOCAL) -> None:
        default = cache_directory(database)
        self._path, self._files = database, files
        self._cache = DirLock(cache, files)
        self._database = DirLock(default, files) if default != cache else None

    def acquire(self) -> None:
        """``AlreadyRunning`` names the process that uses the cache or the database.

        A read-only directory of the database is no error here: opening the database reports it.
        """
        take_marker(self._path, self._files)
        self._cache.acquire()
        if self._database is None or not self._database.path.parent.parent.is_dir():
            return
        try:
            self._database.acquire()
        except LocalIOError as error:
            log.warning(
                "%s; a second replicator with another cache directory would not be detected", error
            )
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        self._cache.release()
        if self._database is not None:
            self._database.release()

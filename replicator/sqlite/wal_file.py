"""Raw reads of the live WAL.

Owns the descriptor of the ``-wal`` file. Opening and closing it is harmless, because SQLite takes
no locks on it. Refuses to write, to interpret frames, and to read another file than the one that
it opened: SQLite removes no WAL that a connection uses, so only another program can replace it.
"""

from __future__ import annotations

import os
from pathlib import Path

from replicator.format.wal import HEADER_SIZE, WalHeader, parse_header
from replicator.system.files import LOCAL, Files, local_error


class WalFile:
    """The ``-wal`` file. Once open, it stays the same file until :meth:`close`."""

    def __init__(self, path: Path, files: Files = LOCAL) -> None:
        self.path = path
        self._files = files
        self.replaced = False  # True if the path named another file, or none, after the opening
        self._detached = False
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None

    def refresh(self) -> os.stat_result | None:
        """Open the file if it is not open, else look whether the path still names it. Returns the
        status of the open file; None if there is none."""
        try:
            if self._detached and self._descriptor is not None:
                return os.fstat(self._descriptor)
            found = self._named()
            if self._descriptor is None:
                return None if found is None else self._open()
            if found is not None and (found.st_dev, found.st_ino) == self._identity:
                return found
            self.replaced = True
            return os.fstat(self._descriptor)
        except OSError as error:
            raise local_error(error, self.path) from error

    def _named(self) -> os.stat_result | None:
        """The status of the file that the path names now."""
        try:
            return self._files.system(os.stat, self.path)
        except FileNotFoundError:
            return None

    def _open(self) -> os.stat_result | None:
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC
            self._descriptor = self._files.system(os.open, self.path, flags)
        except FileNotFoundError:
            return None
        found = os.fstat(self._descriptor)
        self._identity = (found.st_dev, found.st_ino)
        return found

    def detach(self) -> None:
        """From now on, the path of the open file does not matter."""
        self._detached = True

    def another(self) -> WalFile:
        """A second reader of the same open file."""
        other = WalFile(self.path, self._files)
        if self._descriptor is not None:
            other._descriptor, other._identity = os.dup(self._descriptor), self._identity
        return other

    @property
    def written_ns(self) -> int | None:
        """Time of the last write to the open file; None if none is open."""
        return None if self._descriptor is None else os.fstat(self._descriptor).st_mtime_ns

    def header(self) -> WalHeader | None:
        """The WAL's header; None if the WAL is empty."""
        return parse_header(self.read(HEADER_SIZE, 0))

    def read(self, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end of the file."""
        if self._descriptor is None:
            return b""
        try:
            return self._files.system(os.pread, self._descriptor, size, offset)
        except OSError as error:
            raise local_error(error, self.path) from error

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._identity = None, None

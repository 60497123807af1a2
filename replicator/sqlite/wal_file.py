"""Raw reads of the live WAL.

Owns the descriptor of the ``-wal`` file. Opening and closing it is harmless, because SQLite takes
no locks on it. Refuses to write, and to interpret frames.
"""

from __future__ import annotations

import os
from pathlib import Path

from replicator.format.wal import HEADER_SIZE, WalHeader, parse_header
from replicator.system.files import LOCAL, Files, local_error


class WalFile:
    """The ``-wal`` file, re-opened whenever its path names another inode."""

    def __init__(self, path: Path, files: Files = LOCAL) -> None:
        self.path = path
        self._files = files
        self.replaced = False  # True if the file was ever replaced or removed after it was opened
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None

    def refresh(self) -> os.stat_result | None:
        """Open the file that the path names now. Returns its status; None if there is none."""
        try:
            found = self._files.system(os.stat, self.path)
            if self._identity != (found.st_dev, found.st_ino):
                self.replaced |= self._identity is not None
                self.close()
                flags = os.O_RDONLY | os.O_CLOEXEC
                self._descriptor = self._files.system(os.open, self.path, flags)
                found = os.fstat(self._descriptor)
                self._identity = (found.st_dev, found.st_ino)
        except FileNotFoundError:
            self.replaced |= self._identity is not None
            self.close()
            return None
        except OSError as error:
            raise local_error(error, self.path) from error
        return found

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

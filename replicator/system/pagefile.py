"""A database file that several threads assemble with positioned writes.

Owns one descriptor. Refuses to know the meaning of the bytes. Nothing is synced before
:meth:`PageFile.sync`.
"""

from __future__ import annotations

import errno
import os

from replicator.format.buffers import Buffer
from replicator.system.files import LOCAL, Files, InFile, StrPath, about


class PageFile(InFile):
    """Opened for reading and writing, created if missing. Regions never written are zeros."""

    def __init__(self, path: StrPath, files: Files = LOCAL) -> None:
        with about(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            super().__init__(files, path, files.descriptor(path, flags, 0o644))

    def resize(self, size: int) -> None:
        """Truncate, or extend by a hole, which takes no space."""
        with about(self.path):
            self._files.system(os.ftruncate, self._fd, size)

    def pwrite(self, data: Buffer, offset: int) -> None:
        """Write all of ``data`` at ``offset``; a short write is completed."""
        rest = memoryview(data).cast("B")
        with about(self.path):
            while rest:
                count = self._files.system(os.pwrite, self._fd, rest, offset)
                if not count:
                    raise OSError(errno.EIO, "nothing could be written")
                rest, offset = rest[count:], offset + count

    def allocated(self) -> int:
        """Bytes that the file takes on the disk."""
        with about(self.path):
            return self._files.system(os.fstat, self._fd).st_blocks * 512

    def sync(self) -> None:
        with about(self.path):
            self._files.system(os.fsync, self._fd)

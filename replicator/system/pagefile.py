"""A database file while it is being put together: positioned writes from several threads.

Owns: one descriptor and the fault seam of :class:`replicator.system.files.Files`. Refuses to
know what the bytes mean. Nothing is synced before :meth:`PageFile.sync`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from replicator.format.buffers import Buffer
from replicator.system.files import Files, InFile, about


class PageFile(InFile):
    """Opened for reading and writing, created if missing. Regions never written are zeros."""

    def __init__(self, path: Path, files: Files | None = None) -> None:
        files = files or Files()
        with about(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            super().__init__(files, path, files.system(os.open, path, flags, 0o644))

    def resize(self, size: int) -> None:
        """Cut off or extend by a hole, which takes no space."""
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
        """Bytes that take space on the disk already."""
        with about(self.path):
            return self._files.system(os.fstat, self._fd).st_blocks * 512

    def sync(self) -> None:
        with about(self.path):
            self._files.system(os.fsync, self._fd)


def remove_directory(path: Path, files: Files) -> None:
    """Remove an empty directory."""
    with about(path):
        files.system(os.rmdir, path)


def take_over_mode(old: Path, new: Path, files: Files) -> None:
    """Give ``new`` the permissions of ``old``, and its owner where we may."""
    with about(new):
        facts = files.system(os.stat, old)
        files.system(os.chmod, new, facts.st_mode & 0o7777)
        with contextlib.suppress(PermissionError):
            files.system(os.chown, new, facts.st_uid, facts.st_gid)

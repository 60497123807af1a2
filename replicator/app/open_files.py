"""Notices that this process has a file open that is no longer the database.

SQLite writes on to a file that was replaced, moved or deleted. Its commits are in no archive, while
the sidecar confirms those of the new file.

Owns: the identity of the file at a path over time. Refuses: to find out which connection it is; as
long as one has such a file open, no commit of this process is confirmed.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from replicator.errors import DatabaseMissing, DatabaseReplaced

DESCRIPTORS = "/proc/self/fd"


class OpenFiles:
    """Of one database in one process. Used by one thread at a time."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._now: tuple[int, int] | None = None
        self._before: set[tuple[int, int]] = set()  # files that had the name and may be open

    def check(self) -> list[int]:
        """[device, inode] of the file at the path. ``DatabaseReplaced`` while this process has an
        earlier one open, ``DatabaseMissing`` if there is none."""
        path = self._database
        try:
            facts = os.stat(path)
        except OSError as error:
            raise DatabaseMissing(f"{path}: {error.strerror}", path=path) from error
        now = facts.st_dev, facts.st_ino
        if now != self._now:
            self._before |= _deleted(path) if self._now is None else {self._now}
            self._now = now
        self._before.discard(now)
        if self._before:
            self._before &= {identity for _, identity in _open()}
        if self._before:
            raise DatabaseReplaced(
                f"this process has a file open that was {path} before another file took its name",
                path=path,
                hint="close every connection that was opened before, and commit again",
            )
        return list(now)


def _deleted(path: Path) -> set[tuple[int, int]]:
    """The open files that had the path when they were deleted."""
    found = set()
    for descriptor, identity in _open():
        with contextlib.suppress(OSError):  # it was closed
            if os.readlink(f"{DESCRIPTORS}/{descriptor}") == f"{path} (deleted)":
                found.add(identity)
    return found


def _open() -> list[tuple[int, tuple[int, int]]]:
    """The descriptors of this process, each with (device, inode); none where the kernel does not
    show them."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(DESCRIPTORS):
            with contextlib.suppress(OSError):  # it was closed
                facts = os.fstat(int(name))
                found.append((int(name), (facts.st_dev, facts.st_ino)))
    return found

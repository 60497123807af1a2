"""Notices that this process has a file open that is no longer the database.

SQLite writes on to a file that was replaced, moved or deleted. Its commits are in no archive, while
the sidecar confirms those of the new file.

Owns: the identity of the file at a path over time. Refuses: to find out which connection it is; as
long as one has such a file open, no commit of this process is confirmed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from replicator.errors import DatabaseMissing, DatabaseReplaced
from replicator.system.birth import born_ns
from replicator.system.database_files import descriptors

DESCRIPTORS = "/proc/self/fd"
MAGIC = b"SQLite format 3\0"

Identity: TypeAlias = tuple[int, int, int | None]
"""Device, inode and time of birth: a new file may get the number of a removed one at once."""


class OpenFiles:
    """Of one database in one process. Used by one thread at a time."""

    def __init__(
        self, database: Path, *, born: Callable[[int | Path], int | None] = born_ns
    ) -> None:
        """``born`` gives the time of birth of a descriptor or a path, None if it is unknown."""
        self._database = database
        self._born = born
        self._now: Identity | None = None
        self._before: set[Identity] = set()  # files that had the name and may be open

    def check(self) -> list[int]:
        """[device, inode] of the file at the path. ``DatabaseReplaced`` while this process has an
        earlier one open, ``DatabaseMissing`` if there is none."""
        path = self._database
        try:
            facts = os.stat(path)
        except OSError as error:
            raise DatabaseMissing(f"{path}: {error.strerror}", path=path) from error
        now = facts.st_dev, facts.st_ino, self._born(path)
        if now != self._now:
            self._before |= self._deleted() if self._now is None else {self._now}
            self._now = now
        self._before.discard(now)
        if self._before:
            self._before = self._still_open()
        if self._before:
            raise DatabaseReplaced(
                f"this process has a file open that was {path} before another file took its name",
                path=path,
                hint="close every connection that was opened before, and commit again",
            )
        return [facts.st_dev, facts.st_ino]

    def _still_open(self) -> set[Identity]:
        """Those of the files before that a descriptor has open."""
        found = set()
        for descriptor, number in _open():
            same = {each for each in self._before if each[:2] == number}
            if same and _is_database(descriptor):
                born = self._born(descriptor)
                found |= {each for each in same if None in (born, each[2]) or born == each[2]}
        return found

    def _deleted(self) -> set[Identity]:
        """The open files that had the path when they were deleted."""
        found = set()
        for descriptor, number in _open():
            with contextlib.suppress(OSError):  # it was closed
                if os.readlink(f"{DESCRIPTORS}/{descriptor}") == f"{self._database} (deleted)":
                    found.add((*number, self._born(descriptor)))
        return found


def _is_database(descriptor: int) -> bool:
    """False for another kind of file, most likely a WAL, which got the number."""
    with contextlib.suppress(OSError):  # it was closed, or is write-only
        return os.pread(descriptor, len(MAGIC), 0) == MAGIC
    return False


def _open() -> Iterator[tuple[int, tuple[int, int]]]:
    """The descriptors of this process; none where the kernel does not show them."""
    with contextlib.suppress(FileNotFoundError):
        yield from descriptors()

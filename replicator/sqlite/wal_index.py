"""The WAL index of the live database: its locks, and how much of the WAL is copied.

POSIX locks belong to the process, so a second descriptor of ``-shm`` must never be closed. This
module opens none: it reads through the descriptor that SQLite itself keeps open.

Owns: finding that descriptor, and the questions about SQLite's locks. Refuses to open ``-shm``, to
write, and to lock. On systems without ``/proc`` the answer is always that nothing is known.
Source: SQLite documentation, "WAL-mode File Format", 2.3.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from replicator.format.wal_index import INDEX_BYTES, WalIndexState, parse_index
from replicator.model import WalPosition
from replicator.system import process

FLOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2) on 64-bit Linux
WRITE_LOCK, CHECKPOINT_LOCK, READ_LOCKS = 120, 121, 123  # bytes of -shm
READ_MARKS = 5
OPEN_LOCK = 128  # byte of -shm that every connection has locked while it has the file open
NEAR = 16  # SQLite opens the file right after the database, so its descriptor has a number near

OwnLock: TypeAlias = tuple[int, int, bool]  # first and last byte, and whether it is exclusive


def locked_by_another(
    descriptor: int, first: int, size: int, *, against: int = fcntl.F_WRLCK
) -> bool:
    """True if another process holds a lock on these bytes that conflicts with a lock of the kind
    ``against``; one system call."""
    ask = FLOCK.pack(against, os.SEEK_SET, first, size, 0)
    kind, *_ = FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, ask))
    return bool(kind != fcntl.F_UNLCK)


class WalIndex:
    """Of one open database. ``near`` is a descriptor that was opened shortly before. ``claimed``
    returns True if no application has the database open in this process."""

    def __init__(
        self, path: Path, *, near: int, claimed: Callable[[], bool] = process.claimed
    ) -> None:
        self._path = path
        self._claimed = claimed
        self._near = near
        self._descriptor = -1
        self._missing: tuple[int, int] | None = None  # no descriptor of this file was found

    def state(self) -> WalIndexState | None:
        """The WAL as the index has it; None if that is unknown."""
        descriptor = self._find()
        if descriptor is None:
            return None
        with contextlib.suppress(OSError, ValueError):
            return parse_index(os.pread(descriptor, INDEX_BYTES, 0))
        return None

    def all_copied(self, position: WalPosition) -> bool:
        """True if the WAL ends at ``position``, the database contains all of it, and the
        checkpoint that copied it has released mark zero, so that the next hold is on that mark."""
        state, descriptor = self.state(), self._find()
        if state is None or descriptor is None or not state.all_copied(position):
            return False
        with contextlib.suppress(OSError, ValueError):
            return not (
                locked_by_another(descriptor, READ_LOCKS, 1, against=fcntl.F_RDLCK)
                or (not self._claimed() and _covers(_own_locks(descriptor), READ_LOCKS, READ_LOCKS))
            )
        return False

    def checkpoint_waits(self) -> bool:
        """True if another connection has the locks of a FULL, RESTART or TRUNCATE checkpoint.

        A passive checkpoint of one connection and a write transaction of another look the same.
        A connection of this process counts too, unless the process was claimed.
        """
        descriptor = self._find()
        if descriptor is None:
            return False
        with contextlib.suppress(OSError, ValueError):
            return _others_checkpoint(descriptor) or (
                not self._claimed() and _we_checkpoint(_own_locks(descriptor))
            )
        return False

    def only_checkpoint_waits(self) -> bool:
        """True if a process holds the write lock without a read mark above zero.

        A writer that continues this WAL has such a mark. So the owner of the lock is a checkpoint
        that read the header of the WAL after it took the lock, and no WAL can begin since then.
        A hold of this process above mark zero hides a checkpoint of this process.
        """
        descriptor = self._find()
        if descriptor is None:
            return False
        with contextlib.suppress(OSError, ValueError):
            if _others_checkpoint(descriptor):
                return not locked_by_another(descriptor, READ_LOCKS, READ_MARKS)
            if not self._claimed():
                own = _own_locks(descriptor)
                above_zero = READ_LOCKS + 1, READ_LOCKS + READ_MARKS - 1
                return _we_checkpoint(own) and not any(
                    low <= above_zero[1] and above_zero[0] <= high for low, high, _ in own
                )
        return False

    def used_by_another(self) -> bool | None:
        """True if another process has this index open; None if that is unknown."""
        descriptor = self._find()
        if descriptor is not None:
            with contextlib.suppress(OSError, ValueError):
                return locked_by_another(descriptor, OPEN_LOCK, 1)
        return None

    def _find(self) -> int | None:
        """SQLite's descriptor of the file that the path names now."""
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        wanted = found.st_dev, found.st_ino
        if _identity(self._descriptor) == wanted:
            return self._descriptor
        if self._missing == wanted or not sys.platform.startswith("linux"):
            return None
        for descriptor in self._candidates():
            if _identity(descriptor) == wanted:
                self._descriptor, self._missing = descriptor, None
                return descriptor
        self._missing = wanted
        return None

    def _candidates(self) -> Iterator[int]:
        """Descriptors of this process, the likely ones first."""
        yield from range(max(0, self._near - NEAR), self._near + NEAR)
        with contextlib.suppress(OSError, ValueError):
            yield from map(int, os.listdir("/proc/self/fd"))


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _others_checkpoint(descriptor: int) -> bool:
    return locked_by_another(descriptor, CHECKPOINT_LOCK, 1) and locked_by_another(
        descriptor, WRITE_LOCK, 1
    )


def _own_locks(descriptor: int) -> list[OwnLock]:
    """The locks of this process, which fcntl(2) does not report; see proc(5), fdinfo."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    fields = [line.split() for line in lines if line.startswith("lock:")]
    return [(int(each[-2]), int(each[-1]), "WRITE" in each) for each in fields]


def _we_checkpoint(own: list[OwnLock]) -> bool:
    return _covers(own, WRITE_LOCK, CHECKPOINT_LOCK)


def _covers(own: list[OwnLock], first: int, last: int) -> bool:
    """True if these bytes are locked exclusively. The kernel joins neighbouring locks."""
    return any(low <= first and last <= high for low, high, exclusive in own if exclusive)

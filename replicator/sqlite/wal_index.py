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

FileLock: TypeAlias = tuple[int, int, bool]  # first and last byte, and whether it is exclusive


def locked_by_another(
    descriptor: int, first: int, size: int, *, against: int = fcntl.F_WRLCK
) -> bool:
    """True if another process holds a lock on these bytes that conflicts with a lock of the kind
    ``against``; one system call."""
    return _lock_of_another(descriptor, first, size, against) is not None


def _lock_of_another(descriptor: int, first: int, size: int, against: int) -> FileLock | None:
    """The whole lock, also beyond the bytes that were asked for."""
    ask = FLOCK.pack(against, os.SEEK_SET, first, size, 0)
    kind, _, start, length, _ = FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, ask))
    if kind == fcntl.F_UNLCK:
        return None
    return start, start + length - 1 if length else sys.maxsize, kind == fcntl.F_WRLCK


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
        with contextlib.suppress(OSError):
            return parse_index(os.pread(descriptor, INDEX_BYTES, 0))
        return None

    def all_copied(self, position: WalPosition) -> bool:
        """True if the WAL ends at ``position``, the database contains all of it, and the
        checkpoint that copied it has released mark zero, so that the next hold is on that mark."""
        state, descriptor = self.state(), self._find()
        if state is None or descriptor is None or not state.all_copied(position):
            return False
        with contextlib.suppress(OSError):
            return not (
                locked_by_another(descriptor, READ_LOCKS, 1, against=fcntl.F_RDLCK)
                or (not self._claimed() and _covers(_own_locks(descriptor), READ_LOCKS, READ_LOCKS))
            )
        return False

    def checkpoint_waits(self) -> bool:
        """True if another connection has the locks of a FULL, RESTART or TRUNCATE checkpoint.

        A passive checkpoint of one connection and a write transaction of another look the same if
        both are of one process. A connection of this process counts too, unless the process was
        claimed.
        """
        descriptor = self._find()
        if descriptor is None:
            return False
        with contextlib.suppress(OSError):
            return _others_checkpoint(descriptor) or (
                not self._claimed() and _checkpoints(_own_locks(descriptor))
            )
        return False

    def only_checkpoint_waits(self) -> bool:
        """True if a process holds the locks of such a checkpoint, and no read mark.

        A writer has a read mark before it has the write lock, and until it has released it. So the
        owner of the lock is a checkpoint that read the header of the WAL after it took the lock,
        and no WAL can begin since then. A hold of this process above mark zero hides a checkpoint
        of this process.
        """
        descriptor = self._find()
        if descriptor is None:
            return False
        with contextlib.suppress(OSError):
            if _others_checkpoint(descriptor):
                before = self.state()
                return waits_alone(
                    lambda: locked_by_another(descriptor, READ_LOCKS, READ_MARKS),
                    lambda: _others_checkpoint(descriptor) and self.state() == before,
                )
            if not self._claimed():
                own = _own_locks(descriptor)
                above_zero = READ_LOCKS + 1, READ_LOCKS + READ_MARKS - 1
                return _checkpoints(own) and not any(
                    low <= above_zero[1] and above_zero[0] <= high for low, high, _ in own
                )
        return False

    def used_by_another(self) -> bool | None:
        """True if another process has this index open; None if that is unknown."""
        descriptor = self._find()
        if descriptor is not None:
            with contextlib.suppress(OSError):
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
        with contextlib.suppress(OSError):
            yield from map(int, os.listdir("/proc/self/fd"))


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def waits_alone(reads: Callable[[], bool], waits: Callable[[], bool]) -> bool:
    """True if a checkpoint ``waits`` and no other process ``reads``, from the locks at three
    moments.

    A writer that has the write lock at the second moment reads before and after it. It would have
    to begin and to end between the first and the third, within microseconds, and without a commit,
    which ``waits`` would see.
    """
    return not reads() and waits() and not reads()


def _others_checkpoint(descriptor: int) -> bool:
    """True if another process has both locks of a checkpoint that waits; one system call. The
    kernel joins neighbouring locks of a process, so the answer is of one moment."""
    found = _lock_of_another(descriptor, WRITE_LOCK, 1, fcntl.F_WRLCK)
    return found is not None and _checkpoints([found])


def _own_locks(descriptor: int) -> list[FileLock]:
    """The locks of this process, which fcntl(2) does not report; see proc(5), fdinfo."""
    return parse_locks(Path(f"/proc/self/fdinfo/{descriptor}").read_text())


def parse_locks(text: str) -> list[FileLock]:
    """The locks in the text of an fdinfo file. One without an end ends with ``EOF``."""
    fields = [line.split() for line in text.splitlines() if line.startswith("lock:")]
    return [
        (int(each[-2]), sys.maxsize if each[-1] == "EOF" else int(each[-1]), "WRITE" in each)
        for each in fields
    ]


def _checkpoints(locks: list[FileLock]) -> bool:
    return _covers(locks, WRITE_LOCK, CHECKPOINT_LOCK)


def _covers(locks: list[FileLock], first: int, last: int) -> bool:
    """True if these bytes are locked exclusively. The kernel joins neighbouring locks."""
    return any(low <= first and last <= high for low, high, exclusive in locks if exclusive)

"""The processes that wait for a lock, as every process sees them that can open its file.

Each has a lock of its own on the byte of the file whose number is its process id. The kernel
releases that lock when the process ends for any reason, so none is shown after its end, and a
container with process ids of its own is shown too. The lock that they wait for is of another kind
(``flock``) and does not see these.

Owns: these locks. Refuses: to fail; a file system without them shows no waiters.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator

FLOCK = "hhqqi0q"  # struct flock of fcntl(2): type, whence, first byte, length, process id
LAST = 1 << 40  # no process id is greater


def enter(fd: int, pid: int) -> None:
    """Shows a process as one that waits for the lock on an open file, until :func:`leave`, or
    until the file is closed. Another one with the same process id hides it."""
    with contextlib.suppress(OSError):
        _call(fd, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, pid, 1)


def leave(fd: int, pid: int) -> None:
    """Ends :func:`enter`."""
    with contextlib.suppress(OSError):
        _call(fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, pid, 1)


def waiting(fd: int) -> list[int]:
    """The process ids of those that wait, in their own numbers, in order."""
    with contextlib.suppress(OSError):
        return sorted(_held(fd, 1, LAST))
    return []


def _held(fd: int, first: int, end: int) -> Iterator[int]:
    """The locked bytes from ``first`` to before ``end``; the kernel shows one of them, which need
    not be the lowest."""
    if first >= end:
        return
    kind, start = _call(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, first, end - first)
    if kind == fcntl.F_UNLCK:
        return
    yield start
    yield from _held(fd, first, start)
    yield from _held(fd, start + 1, end)


def _call(fd: int, command: int, kind: int, first: int, length: int) -> tuple[int, int]:
    """The type and the first byte of the lock that fcntl(2) returns."""
    request = struct.pack(FLOCK, kind, os.SEEK_SET, first, length, 0)
    answer = struct.unpack(FLOCK, fcntl.fcntl(fd, command, request))
    return answer[0], answer[2]

"""Memory and limits of a process that runs only the replicator: a sidecar or a command.

Owns: settings of the C library's heap, of numpy's threads, and of the kernel's limit of open files.
Refuses to change a process that an application owns: the library only asks whether the process
was claimed.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
import sys
import threading
from collections.abc import Iterator
from typing import TypeAlias

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # parameters of mallopt(3)
LARGE = 4 << 20  # bytes from which an allocation gets a mapping of its own
BLAS_THREADS = "OPENBLAS_NUM_THREADS"

Limits: TypeAlias = tuple[int, int]  # soft and hard limit of open files, see getrlimit(2)


_claimed = False


def claim() -> None:
    """State that no application has a database open in this process."""
    global _claimed  # noqa: PLW0603 - it is about the process
    _claimed = True


def claimed() -> bool:
    """True if the process was claimed for the replicator."""
    return _claimed


def leave(code: int) -> None:
    """Ends the process. Threads that are left wait for a store that hangs."""
    logging.shutdown()
    if threading.active_count() > 1:
        os._exit(code)
    sys.exit(code)


def use_one_arena() -> None:
    """Share one heap between all threads, so that each reuses memory that another one freed.

    By default glibc gives each of ten threads its own: 109 MB instead of 98 MB under steady
    writes. Without glibc nothing happens.
    """
    _mallopt(ARENA_MAX, 1)


def release_large_buffers() -> None:
    """Return large buffers to the system when they are freed: request bodies, zstd's windows.

    By default glibc takes them from the heap once one of that size was freed, and a burst of blobs
    makes the heap 120 to 130 MB large instead of 110. Not for a restore, which uses as much all
    the time and would have it cleared again each time. Without glibc nothing happens.
    """
    _mallopt(MMAP_THRESHOLD, LARGE)
    _mallopt(TRIM_THRESHOLD, 2 * LARGE)


def trim_heap() -> None:
    """Return the unused pages of the heap to the system; takes about a millisecond.

    glibc keeps them otherwise: 180 MB after a burst. Without glibc nothing happens.
    """
    trim = _heap("malloc_trim")
    if trim is not None:
        trim(0)


def raise_file_limit() -> Limits:
    """Raise the limit of open files to the hard limit: a database takes a dozen.

    Returns the limits before, which a child process expects.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    return before


def set_file_limit(pid: int, limits: Limits) -> None:
    """Set the limits of open files of a child process."""
    with contextlib.suppress(OSError):  # it ended already
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def _mallopt(parameter: int, value: int) -> None:
    mallopt = _heap("mallopt")
    if mallopt is not None:
        mallopt(parameter, value)


def _heap(name: str) -> ctypes._NamedFuncPointer | None:
    """A function of the C library; None if the library has no such function."""
    return getattr(ctypes.CDLL(None), name, None)


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Import numpy in this block: its linear algebra, never used here, then starts no threads.

    Such threads spin, which is half of the import's CPU. The block restores the environment, since
    the application may become a child process.
    """
    before = os.environ.get(BLAS_THREADS)
    os.environ[BLAS_THREADS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[BLAS_THREADS]
        else:
            os.environ[BLAS_THREADS] = before

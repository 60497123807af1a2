"""The memory and limits of a process that is ours alone: a sidecar's or a command's.

Owns: what can be told to the C library's heap, to numpy's threads, and to the kernel about open
files. Refuses: to be used by the library itself, whose process is the application's; that only
asks whether the process was claimed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Iterator

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # parameters of mallopt(3)
LARGE = 4 << 20  # bytes from which on memory is worth a mapping of its own
BLAS_THREADS = "OPENBLAS_NUM_THREADS"


_claimed = False


def claim() -> None:
    """Nobody else lives in this process: no application has a database open here."""
    global _claimed  # noqa: PLW0603 - it is about the process
    _claimed = True


def claimed() -> bool:
    return _claimed


def one_arena() -> None:
    """Let all threads share one heap, so that what one of them freed serves the others.

    By default glibc gives each of ten threads its own: 109 MB instead of 98 MB under steady
    writes. Without glibc nothing happens.
    """
    _mallopt(ARENA_MAX, 1)


def large_apart() -> None:
    """Give back what is large as soon as it is freed: bodies of requests, zstd's windows.

    By default glibc takes it from the heap once something of that size was freed, which a burst
    of blobs makes 120 to 130 MB large instead of 110. Not for a restore, which uses as much all
    the time, and would have it cleared anew each time. Without glibc nothing happens.
    """
    _mallopt(MMAP_THRESHOLD, LARGE)
    _mallopt(TRIM_THRESHOLD, 2 * LARGE)


def give_back() -> None:
    """Return the pages of the heap that nothing uses to the system; about a millisecond.

    glibc keeps them by itself: 180 MB after a burst. Without glibc nothing happens.
    """
    trim = _heap("malloc_trim")
    if trim is not None:
        trim(0)


def most_descriptors() -> tuple[int, int]:
    """Raise the limit of open files as far as it goes, for a database takes a dozen; the limits
    as they were, which are those that a child expects."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    return before


def limit_descriptors(pid: int, limits: tuple[int, int]) -> None:
    """Give a child the limits of open files that we had."""
    with contextlib.suppress(OSError):  # it ended already
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def _mallopt(parameter: int, value: int) -> None:
    mallopt = _heap("mallopt")
    if mallopt is not None:
        mallopt(parameter, value)


def _heap(name: str) -> ctypes._NamedFuncPointer | None:
    """A function of the C library, None where it has none of that name."""
    return getattr(ctypes.CDLL(None), name, None)


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Import numpy inside: its linear algebra, which is never used here, then starts no threads
    that spin (half of the import's CPU). The environment is as before afterwards, since the
    application may be a child of ours."""
    before = os.environ.get(BLAS_THREADS)
    os.environ[BLAS_THREADS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[BLAS_THREADS]
        else:
            os.environ[BLAS_THREADS] = before

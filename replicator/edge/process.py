"""The memory of a process that is ours alone: a sidecar's or a command's.

Owns: what can be told to the C library's heap and to numpy's threads. Refuses: to be used by the
library itself, whose process is the application's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

ARENA_MAX = -8  # M_ARENA_MAX of mallopt(3)
BLAS_THREADS = "OPENBLAS_NUM_THREADS"


def one_arena() -> None:
    """Let all threads share one heap, so that what one of them freed serves the others.

    By default glibc gives each of ten threads its own: 109 MB instead of 98 MB under steady
    writes. Without glibc nothing happens.
    """
    mallopt = _heap("mallopt")
    if mallopt is not None:
        mallopt(ARENA_MAX, 1)


def give_back() -> None:
    """Return the pages of the heap that nothing uses to the system; about a millisecond.

    glibc keeps them by itself: 180 MB after a burst. Without glibc nothing happens.
    """
    trim = _heap("malloc_trim")
    if trim is not None:
        trim(0)


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

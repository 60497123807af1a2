"""The time at which a file was made, where the file system knows it.

A file system gives the number of a removed file to the next one; the time of birth tells them
apart. Owns the call of ``statx``, which Python does not offer. Refuses to guess: without an answer
nothing is known.
Source: statx(2); linux/stat.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_BIRTH = 0x800  # STATX_BTIME
_MASK = struct.Struct("I")
_TIME = struct.Struct("qI")
_TIME_AT = 80
_SIZE = 256


def born_ns(file: int | Path) -> int | None:
    """The time of birth of an open file, or of the one at a path, which is not opened: in ns since
    the epoch; None if it is unknown."""
    if isinstance(file, int):
        return _born_ns(file, b"", _AT_EMPTY_PATH)
    return _born_ns(_AT_FDCWD, os.fsencode(file), 0)


def _born_ns(directory: int, name: bytes, flags: int) -> int | None:
    try:
        statx = ctypes.CDLL(None, use_errno=True).statx
    except (AttributeError, OSError):  # another system, or an old C library
        return None
    answer = ctypes.create_string_buffer(_SIZE)
    if statx(ctypes.c_int(directory), name, flags, _BIRTH, answer):
        return None
    (mask,), (seconds, nanoseconds) = _MASK.unpack_from(answer), _TIME.unpack_from(answer, _TIME_AT)
    known = mask & _BIRTH and seconds  # ext2 and ext3 give the time zero to every file
    return seconds * 10**9 + nanoseconds if known else None

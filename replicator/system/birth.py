"""The time at which a file was made, where the file system knows it.

A file system gives the number of a removed file to the next one; the time of birth tells them
apart. Owns the call of ``statx``, which Python does not offer. Refuses to guess: without an answer
nothing is known.
Source: statx(2); linux/stat.h.
"""

from __future__ import annotations

import ctypes
import struct

_AT_EMPTY_PATH = 0x1000
_BIRTH = 0x800  # STATX_BTIME
_MASK = struct.Struct("I")
_TIME = struct.Struct("qI")
_TIME_AT = 80
_SIZE = 256


def born_ns(fd: int) -> int | None:
    """The time of birth of an open file, in ns since the epoch; None if it is unknown."""
    try:
        statx = ctypes.CDLL(None, use_errno=True).statx
    except (AttributeError, OSError):  # another system, or an old C library
        return None
    answer = ctypes.create_string_buffer(_SIZE)
    if statx(ctypes.c_int(fd), b"", _AT_EMPTY_PATH, _BIRTH, answer):
        return None
    (mask,), (seconds, nanoseconds) = _MASK.unpack_from(answer), _TIME.unpack_from(answer, _TIME_AT)
    return seconds * 10**9 + nanoseconds if mask & _BIRTH else None

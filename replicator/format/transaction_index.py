"""The index of transactions in the trailer of a WAL object: frames and commit times of each.

Owns its bytes, and the bounds that are checked before they are decompressed. Refuses to know the
rest of the trailer. docs/format.md describes every byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from replicator.errors import DamageError
from replicator.format import zstd
from replicator.format.buffers import U64, Buffer
from replicator.format.limits import DEFAULT_FORMAT_LIMITS, FormatLimits
from replicator.format.numbers import Numbers

Number = TypeVar("Number", np.uint32, np.uint64)


@dataclass(frozen=True, slots=True)
class IndexClaims:
    """The figures of a trailer about its index: the number of transactions and of commit times,
    and the first of these (ms)."""

    commits: int
    times: int
    first_ms: int


def encode_index(commit_frames: Sequence[int], commit_times_ms: Sequence[int]) -> bytes:
    """Frames and time steps as planes of their bytes, compressed: 0.8 bytes a transaction."""
    frames = np.array(commit_frames, np.uint32)
    steps = np.diff(np.array(commit_times_ms, np.int64))
    if (steps < 0).any():
        raise ValueError("commit times decrease")
    planes = _planes(frames) + _planes(steps.astype(np.uint64))
    return zstd.compress_frame(planes, 3) if planes else b""


def parse_index(
    index: Buffer,
    claims: IndexClaims,
    data_bytes: int,
    limits: FormatLimits = DEFAULT_FORMAT_LIMITS,
) -> tuple[Sequence[int], Sequence[int]]:
    """Frames and commit times. ``data_bytes`` are those of the object before its trailer.

    ``DamageError``, without a key, if the claims exceed what an object of that length can hold.
    """
    most = min(
        limits.transactions, max(limits.few_transactions, data_bytes // limits.bytes_a_frame)
    )
    if max(claims.commits, claims.times) > most:
        raise DamageError(
            f"its index lists {max(claims.commits, claims.times)} transactions, and its length "
            f"allows {most}",
            code="beyond_limits",
        )
    split = 4 * claims.commits
    size = split + 8 * max(0, claims.times - 1)
    planes = zstd.decompress_frame(index, size) if len(index) else b""
    if len(planes) != size:
        raise DamageError("its index of transactions has a wrong length", code="contradiction")
    frames = Numbers(_from_planes(planes[:split], np.uint32))
    steps = _from_planes(planes[split:], np.uint64)
    return frames, Numbers(_times(steps, claims.first_ms, limits)) if claims.times else ()


def _times(steps: U64, first_ms: int, limits: FormatLimits) -> U64:
    """Each commit time; the sum in floating point cannot overflow, and comes first."""
    if first_ms + float(steps.sum(dtype=np.float64)) > limits.last_ms:
        raise DamageError("its commit times are beyond the year 9999", code="beyond_limits")
    times = np.empty(len(steps) + 1, np.uint64)
    times[0] = first_ms
    np.cumsum(steps, out=times[1:])
    times[1:] += np.uint64(first_ms)
    return times


def _planes(numbers: np.ndarray[tuple[int], np.dtype[Number]]) -> bytes:
    little = numbers.astype(numbers.dtype.newbyteorder("<"))
    return little.view(np.uint8).reshape(-1, numbers.itemsize).T.tobytes()


def _from_planes(planes: Buffer, kind: type[Number]) -> np.ndarray[tuple[int], np.dtype[Number]]:
    width = np.dtype(kind).itemsize
    rows = np.frombuffer(planes, np.uint8).reshape(width, -1).T
    little = np.ascontiguousarray(rows).view(np.dtype(kind).newbyteorder("<")).ravel()
    return little.astype(kind, copy=False)

"""The checksum of SQLite's WAL, as arithmetic on arrays.

One step over a pair of words (a, b) is ``s0' = s0 + s1 + a``, ``s1' = s0 + 2*s1 + a + b``
modulo 2**32: linear. Over n pairs it is ``M**n`` applied to the seed plus a weighted sum of the
words, where ``M = [[1, 1], [1, 2]]`` and all weights are Fibonacci numbers. So the part of each
checksum that depends on the frame's bytes is two dot products with constant vectors, and the part
that depends on the previous frame is one multiplication by a constant 2x2 matrix.

Owns only that arithmetic. Source: SQLite documentation, "WAL-mode File Format", section
"Checksum Algorithm".
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from replicator.format.buffers import U32, Buffer, Flags

Checksum: TypeAlias = tuple[int, int]

_MASK = 0xFFFFFFFF
_HEADER_WORDS = 6  # of a frame header; the sum covers the first two, not salts and checksum


def plain_checksum(data: Buffer, big_endian: bool, seed: Checksum = (0, 0)) -> Checksum:
    """The definition, one pair at a time. For the few bytes of a WAL's header."""
    s0, s1 = seed
    for a, b in struct.iter_unpack(">2I" if big_endian else "<2I", data):
        s0 = (s0 + s1 + a) & _MASK
        s1 = (s1 + s0 + b) & _MASK
    return s0, s1


@dataclass(frozen=True, eq=False, slots=True)
class FrameSums:
    """The constants for frames of one page size.

    ``first`` and ``second`` are the weights of every word of a frame (0 for the words that the
    sum does not cover). ``matrix`` is the transpose of M**n (equal to it: M is symmetric),
    uint32[2, 2].
    """

    first: U32
    second: U32
    matrix: U32

    @staticmethod
    @functools.cache
    def of(page_size: int) -> FrameSums:
        summed = page_size // 4 + 2
        fib = _fibonacci(summed + 2)
        matrix = fib[[[summed - 1, summed], [summed, summed + 1]]]
        return FrameSums(_spread(fib[summed - 1 :: -1]), _spread(fib[summed:0:-1]), matrix)

    def data_sums(self, words: U32, big_endian: bool) -> U32:
        """The contribution of each frame's bytes to the chain: uint32[frames, 2].

        ``words`` is uint32[frames, words] in their order in memory. ``einsum`` reaches 27 GB/s
        here and ``dot`` 11: only ``einsum`` has a SIMD loop for uint32.
        """
        words = words.view(">u4" if big_endian else "<u4").astype(np.uint32, copy=False)
        sums = np.empty((len(words), 2), np.uint32)
        np.einsum("ij,j->i", words, self.first, out=sums[:, 0])
        np.einsum("ij,j->i", words, self.second, out=sums[:, 1])
        return sums

    def verify(self, words: U32, stored: U32, seed: Checksum, big_endian: bool) -> Flags:
        """For each frame, True if its checksum continues the *stored* one of the frame before.

        Up to and including the first False, the result equals that of the computed chain.
        """
        before = np.empty_like(stored)
        before[:1] = seed
        before[1:] = stored[:-1]
        expected = self.data_sums(words, big_endian) + before @ self.matrix
        return np.asarray((expected == stored).all(axis=1))

    def chain(self, sums: U32, seed: Checksum) -> U32:
        """The cumulative checksum after each frame: ``c[i] = M**n c[i-1] + sums[i]``.

        A prefix sum by doubling: after the pass with step k, each row covers 2k frames.
        """
        chained = sums.copy()
        chained[:1] += np.array(seed, np.uint32) @ self.matrix
        power, step = self.matrix, 1
        while step < len(chained):
            chained[step:] += chained[:-step] @ power
            power, step = power @ power, 2 * step
        return chained


def _fibonacci(count: int) -> U32:
    numbers = [0, 1]
    while len(numbers) < count:
        numbers.append((numbers[-1] + numbers[-2]) & _MASK)
    return np.array(numbers, np.uint32)


def _spread(weights: U32) -> U32:
    """Weights of the summed words, with zeros for the salts and the checksum."""
    skipped = np.zeros(_HEADER_WORDS - 2, np.uint32)
    return np.concatenate([weights[:2], skipped, weights[2:]])

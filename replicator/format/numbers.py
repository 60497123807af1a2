"""Many integers in the memory of their bytes: 4 or 8 each, where a tuple takes 40.

Owns the sequence that behaves like a tuple of ``int``. Refuses any change of its values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from replicator.format.buffers import U32, U64, Indexes

_STEP = 4096  # integers made at once by an iteration


class Numbers(Sequence[int]):
    """Equal to every sequence of the same integers."""

    __slots__ = ("_values",)

    def __init__(self, values: U32 | U64 | Indexes) -> None:
        self._values = values

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Numbers:
        """The same integers; each at most 2**64 - 1."""
        return numbers if isinstance(numbers, cls) else cls(np.array(numbers, np.uint64))

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> Numbers: ...
    def __getitem__(self, at: int | slice) -> int | Numbers:
        if isinstance(at, slice):
            return Numbers(self._values[at])
        return int(self._values[at])

    def __iter__(self) -> Iterator[int]:
        for at in range(0, len(self._values), _STEP):
            yield from self._values[at : at + _STEP].tolist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Numbers):
            return bool(np.array_equal(self._values, other._values))
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Numbers({len(self)})"

    def totals(self) -> Numbers:
        """The sums of the first, of the first two, …, of all."""
        return Numbers(self._values.cumsum(dtype=np.uint64))

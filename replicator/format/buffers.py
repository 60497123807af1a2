"""Type names that the format modules share: raw bytes and small integer arrays."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Buffer: TypeAlias = bytes | bytearray | memoryview
U32: TypeAlias = npt.NDArray[np.uint32]
U64: TypeAlias = npt.NDArray[np.uint64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Indexes: TypeAlias = npt.NDArray[np.intp]
Offsets: TypeAlias = npt.NDArray[np.signedinteger[Any]]


def page_numbers(*numbers: int) -> U32:
    return np.array(numbers, np.uint32)


def page_range(first: int, last: int) -> U32:
    """Page numbers ``first`` to ``last``, both included."""
    return np.arange(first, last + 1, dtype=np.uint32)

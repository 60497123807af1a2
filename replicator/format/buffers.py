"""Names for what the format modules pass around: raw bytes and small integer arrays."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Buffer: TypeAlias = bytes | bytearray | memoryview
U32: TypeAlias = npt.NDArray[np.uint32]
U64: TypeAlias = npt.NDArray[np.uint64]
Indexes: TypeAlias = npt.NDArray[np.intp]
Offsets: TypeAlias = npt.NDArray[np.signedinteger[Any]]


def page_numbers(*numbers: int) -> U32:
    return np.array(numbers, np.uint32)

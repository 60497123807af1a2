"""Expecting an error by its class, its code and its values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from replicator.errors import ReplicatorError


@contextlib.contextmanager
def raises(
    kind: type[ReplicatorError], code: str = "", **values: Any
) -> Iterator[pytest.ExceptionInfo[ReplicatorError]]:
    """The block raises exactly this class, with this code (default: that of the class) and at
    least these values."""
    with pytest.raises(kind) as caught:
        yield caught
    error = caught.value
    assert (type(error), error.code) == (kind, code or kind.code)
    assert {name: getattr(error, name) for name in values} == values

"""Selects the objects that a partial check reads: a slice that rotates by day, or a random draw.

``1/7`` takes another seventh every day, so that seven days in a row see everything that was
there all the time. ``2%`` and ``50M`` draw at random, weighed by size; the seed repeats a draw.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from replicator.config.units import parse_size
from replicator.errors import ConfigError

DAY_MS = 86_400_000
_HINT = "write 1/7, 2% or 50M"


class Sized(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def size(self) -> int: ...


Item = TypeVar("Item", bound=Sized)


@dataclass(frozen=True, slots=True)
class Sample:
    """One of the three is set: every ``slices``-th object, a ``share`` of the bytes (0 … 1), or
    so many ``bytes``."""

    text: str
    slices: int = 0
    share: float = 0.0
    bytes: int = 0

    @classmethod
    def parse(cls, text: str) -> Sample:
        """``ConfigError`` for any other text."""
        plain = text.replace(" ", "")
        if match := re.fullmatch(r"1/([1-9][0-9]{0,4})", plain):
            return cls(text, slices=int(match[1]))
        if match := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]+)?)%", plain):
            share = float(match[1]) / 100
            if 0 < share <= 1:
                return cls(text, share=share)
            raise ConfigError(
                f"a sample of {text} is not between 0% and 100%",
                hint=_HINT,
                setting="sample",
                code="out_of_bounds",
            )
        try:
            return cls(text, bytes=max(1, parse_size(plain)))
        except ConfigError as error:
            raise ConfigError(
                f"cannot read the sample {text!r}",
                hint=_HINT,
                setting="sample",
                code="invalid_value",
            ) from error

    def choose(self, items: Iterable[Item], *, now_ms: int, seed: int) -> list[tuple[Item, int]]:
        """The objects to read, in their own order, and how many bytes of each.

        By chance at least one is drawn. Only the last one drawn may be read in part.
        """
        kept = list(items)
        if self.slices:
            today = now_ms // DAY_MS % self.slices
            return [
                (item, item.size)
                for item in kept
                if zlib.crc32(item.key.encode()) % self.slices == today
            ]
        budget = self.bytes or max(1, round(self.share * sum(item.size for item in kept)))
        chosen: dict[str, int] = {}
        for item in random.Random(seed).sample(kept, len(kept)):
            if budget <= 0:
                break
            chosen[item.key] = min(item.size, budget)
            budget -= item.size
        return [(item, chosen[item.key]) for item in kept if item.key in chosen]

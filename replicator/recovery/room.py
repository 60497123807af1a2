"""The disk space that several restores take, compared with what is free, before the first one.

Owns the sum: a file that is replaced is deleted only once the new one is complete, and the parts of
an interrupted restore are there already. Refuses to reserve anything.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from replicator.errors import DiskFull
from replicator.recovery.partial import Partial
from replicator.system.files import Files


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file to restore: its size, the bytes of it that are there from an interrupted restore,
    and the bytes of the file that it replaces."""

    size: int
    there: int
    replaced: int

    @classmethod
    def of(cls, output: Path, size: int, files: Files, *, overwrite: bool) -> PlannedFile:
        partial = Partial(output, files).directory / "database"
        replaced = files.allocated(output) if overwrite else 0
        return cls(size, min(size, files.allocated(partial)), replaced)


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that are needed, and bytes that are free."""

    needed: int
    free: int

    @classmethod
    def of(cls, wanted: Iterable[PlannedFile], into: Path, files: Files, *, at_once: int) -> Room:
        """``at_once`` files exist next to those they replace at the same time."""
        kept = list(wanted)
        growth = sum(max(0, each.size - each.there - each.replaced) for each in kept)
        twice = (min(each.size - each.there, each.replaced) for each in kept)
        directory = next(each for each in (into, *into.parents) if each.is_dir())
        return cls(growth + sum(heapq.nlargest(at_once, twice)), files.disk_free(directory))

    def require(self, into: Path) -> None:
        """``DiskFull`` if more is needed than is free."""
        if self.needed > self.free:
            raise DiskFull(
                f"{into}: the databases need {self.needed} bytes, {self.free} are free",
                path=into,
                hint="nothing was written: name another directory, or some of them with --only",
            )

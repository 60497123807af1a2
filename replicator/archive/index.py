"""The objects of one archive as values: segments, merges, snapshots.

Owns: one type for each, the transactions that each object holds, and the search by txid. A merge
states its transactions in its name. The name of a segment holds its first txid only; as long as
no request asked the object, its end is a guess: right before the next object begins. Pure; see
:mod:`.listing` for the requests that fill an index, :mod:`.facts` for those that ask an object.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TypeAlias

from replicator.errors import DamageError
from replicator.format.object_header import ObjectFacts
from replicator.model import Kind

SEGMENTS = 0  # the level of the objects in ``wal/``
EVERY_TRANSACTION = 1  # the level of merges that keep every transaction
OPEN_END = 1 << 64  # beyond every txid: nothing limits the guess for the newest segment
MOST_OVERLAPS = 256  # objects that hold the same transaction; retention leaves a few
_RUN = 64  # objects that a search passes at once
DIVISIBLE = frozenset({Kind.SEGMENT, Kind.MERGE})


class Overlapping(DamageError):
    """More objects claim the same transactions than any archive has."""

    code = "overlapping"

    @classmethod
    def at(cls, item: WalObject) -> Overlapping:
        return cls(
            f"{item.key}: too many other objects claim the same transactions",
            key=item.key,
        )


@dataclass(frozen=True, slots=True)
class WalObject:
    """A segment or a merge, and the transactions ``first`` … ``last`` in it.

    ``level`` is 0 in ``wal/``, else that of the merge. ``facts`` are None until a request asked
    the object or its metadata; ``proved`` is True when they come from the object's own bytes.
    """

    key: str
    level: int
    first: int
    last: int
    size: int
    stored_ms: int = 0
    facts: ObjectFacts | None = None
    proved: bool = False

    @property
    def kind(self) -> Kind | None:
        return self.facts.kind if self.facts else None

    @property
    def generation(self) -> str | None:
        return self.facts.generation if self.facts else None

    @property
    def at_ms(self) -> int:
        """The time of its last commit or, until asked, the time the store took it, which is never
        earlier than the commit."""
        return self.facts.last_ms if self.facts else self.stored_ms

    @property
    def divisible(self) -> bool:
        """True if a restore can stop at any transaction inside. Merges above level 1, and the
        kinds that are one step, hold only the newest image of each page."""
        if self.facts is None:
            return self.level <= EVERY_TRANSACTION
        return self.facts.kind in DIVISIBLE and self.facts.indexed

    @property
    def guessed(self) -> bool:
        """True if ``last`` is a guess from the next name; there may be a hole instead."""
        return self.level == SEGMENTS and self.facts is None

    def with_facts(self, facts: ObjectFacts, *, proved: bool = False) -> WalObject:
        return replace(self, last=facts.last_txid, facts=facts, proved=proved)


@dataclass(frozen=True, slots=True)
class SnapshotObject:
    """A snapshot: the whole database after ``txid``. The last four fields are those of
    :class:`WalObject`."""

    key: str
    txid: int
    generation: str
    size: int
    stored_ms: int = 0
    facts: ObjectFacts | None = None
    proved: bool = False

    @property
    def first(self) -> int:
        return self.txid

    @property
    def last(self) -> int:
        return self.txid

    @property
    def at_ms(self) -> int:
        """The time it was begun or, until asked, the time the store took it."""
        return self.facts.created_ms if self.facts else self.stored_ms

    def with_facts(self, facts: ObjectFacts, *, proved: bool = False) -> SnapshotObject:
        return replace(self, facts=facts, proved=proved)


@dataclass(frozen=True, slots=True)
class PinnedPoint:
    """A restore point that stays as long as it is pinned. ``name`` is "" for a pin without one."""

    txid: int
    note: str = ""
    name: str = ""


ArchiveObject: TypeAlias = WalObject | SnapshotObject


@dataclass(frozen=True)
class Index:
    """The objects of an archive. ``wal`` is sorted by first txid, larger objects first;
    ``snapshots`` by txid and generation."""

    wal: tuple[WalObject, ...] = ()
    snapshots: tuple[SnapshotObject, ...] = ()
    by_key: dict[str, ArchiveObject] = field(init=False, repr=False, compare=False)
    _firsts: list[int] = field(init=False, repr=False, compare=False)
    _reach: list[int] = field(init=False, repr=False, compare=False)  # largest last so far
    _highest: list[int] = field(init=False, repr=False, compare=False)  # last of each run

    def __post_init__(self) -> None:
        wal = sorted(self.wal, key=lambda item: (item.first, -item.last, item.level, item.key))
        snapshots = sorted(self.snapshots, key=lambda item: (item.txid, item.generation))
        every: list[ArchiveObject] = [*wal, *snapshots]
        put = object.__setattr__
        put(self, "wal", tuple(wal))
        put(self, "snapshots", tuple(snapshots))
        put(self, "by_key", {item.key: item for item in every})
        put(self, "_firsts", [item.first for item in wal])
        put(self, "_reach", list(accumulate((item.last for item in wal), max)))
        lasts = [item.last for item in wal]
        put(self, "_highest", [max(lasts[at : at + _RUN]) for at in range(0, len(wal), _RUN)])

    @classmethod
    def of(cls, objects: Iterable[ArchiveObject]) -> Index:
        """An index of freshly listed objects. Guesses the ends of the segments without facts."""
        found = list(objects)
        log = [item for item in found if isinstance(item, WalObject)]
        starts = {item.first for item in log}
        starts |= {item.last + 1 for item in log if item.level != SEGMENTS}
        boundaries = sorted(starts)
        return cls(
            tuple(replace(i, last=_guess(i, boundaries)) if i.guessed else i for i in log),
            tuple(item for item in found if isinstance(item, SnapshotObject)),
        )

    @property
    def empty(self) -> bool:
        return not self.by_key

    @property
    def head(self) -> int:
        """The newest txid of the archive: of its WAL objects, else of its snapshots, else 0. A
        lower bound until the newest segment was asked, which holds at least its first txid."""
        wal = (item.first if item.last == OPEN_END else item.last for item in self.wal)
        return max(wal if self.wal else (item.txid for item in self.snapshots), default=0)

    @property
    def newest_segment(self) -> WalObject | None:
        """The object that the next append follows."""
        segments = (item for item in self.wal if item.level == SEGMENTS)
        return max(segments, key=lambda item: item.first, default=None)

    @property
    def newest_ms(self) -> int:
        """The store's clock showed at least this."""
        return max((item.stored_ms for item in self.by_key.values()), default=0)

    def covering(self, txid: int) -> list[WalObject]:
        """The WAL objects that hold ``txid``, finest first; :class:`Overlapping` if there are more
        than ``MOST_OVERLAPS``, which only names that are made up can bring about."""
        low, high = bisect_left(self._reach, txid), bisect_right(self._firsts, txid)
        found: list[WalObject] = []
        for at in range(low // _RUN * _RUN, high, _RUN):
            if self._highest[at // _RUN] >= txid:
                run = self.wal[max(low, at) : min(high, at + _RUN)]
                found += [item for item in run if item.last >= txid]
            if len(found) > MOST_OVERLAPS:
                raise Overlapping.at(found[-1])
        return sorted(found, key=lambda item: (item.last - item.first, item.key))

    def beginning(self, txid: int) -> tuple[WalObject, ...]:
        """The WAL objects whose first transaction is ``txid``."""
        return self.wal[bisect_left(self._firsts, txid) : bisect_right(self._firsts, txid)]

    def between(self, first: int, last: int) -> tuple[WalObject, ...]:
        """A part of ``wal`` that contains every object with a transaction of ``first`` …
        ``last``; other objects that begin at or before ``last`` may be among them."""
        return self.wal[bisect_left(self._reach, first) : bisect_right(self._firsts, last)]

    def with_objects(self, objects: Iterable[ArchiveObject]) -> Index:
        """The same with more objects, or others under the same keys. Ends stay as they are."""
        merged = self.by_key | {item.key: item for item in objects}
        return _split(merged.values())

    def without(self, keys: Iterable[str]) -> Index:
        """The same without some objects. Ends stay as they are: a guess does not grow over the
        hole."""
        gone = set(keys)
        return _split(item for key, item in self.by_key.items() if key not in gone)


def _split(objects: Iterable[ArchiveObject]) -> Index:
    found = list(objects)
    return Index(
        tuple(item for item in found if isinstance(item, WalObject)),
        tuple(item for item in found if isinstance(item, SnapshotObject)),
    )


def _guess(item: WalObject, boundaries: list[int]) -> int:
    at = bisect_right(boundaries, item.first)
    return boundaries[at] - 1 if at < len(boundaries) else OPEN_END

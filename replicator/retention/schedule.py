"""Decides which objects are worth merging now: a pure function of the index and the time.

Level 1 gathers the segments of five minutes, level 2 everything of an hour. Large objects are not
merged, so that a merge never costs more than its bounds in memory and requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from replicator.archive.index import EVERY_TRANSACTION, SEGMENTS, Index, WalObject
from replicator.model import Kind
from replicator.retention.merge import MERGEABLE

NEWEST_LEVEL = 2  # the newest image of each page, for the points of hours and quick restores
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Level:
    """``period_ms`` is what one merge spans at most; it is made ``settle_ms`` after its end.
    No source is larger than ``source_bytes``, nor all together than ``total_bytes``."""

    number: int
    period_ms: int
    settle_ms: int
    source_bytes: int
    total_bytes: int


# A second's segment of a busy writer (200 transactions) is 0.4 MB: 16 MiB are 40 of them.
LEVELS = (
    Level(EVERY_TRANSACTION, 5 * MINUTE_MS, MINUTE_MS, 4 << 20, 16 << 20),
    Level(NEWEST_LEVEL, 60 * MINUTE_MS, 7 * MINUTE_MS, 32 << 20, 64 << 20),
)


@dataclass(frozen=True, slots=True)
class Run:
    """Items that follow one another and become one merge of ``level``."""

    level: int
    items: tuple[WalObject, ...]

    @property
    def first(self) -> int:
        return self.items[0].first

    @property
    def last(self) -> int:
        return self.items[-1].last


def due_runs(index: Index, now_ms: int, *, since_ms: float = 0) -> list[Run]:
    """Runs that are complete, level by level, oldest first. Objects committed before ``since_ms``
    stay unmerged: retention deletes them soon."""
    return [run for level in LEVELS for run in _runs(index, level, now_ms, since_ms)]


def next_due_ms(index: Index, now_ms: int) -> int | None:
    """The time at which the next run is complete if nothing is appended; None: never."""
    ends = [
        _end(run.items[0], level) + level.settle_ms
        for level in LEVELS
        for run in _runs(index, level, 1 << 62, 0)
    ]
    return min((end for end in ends if end > now_ms), default=None)


def _runs(index: Index, level: Level, now_ms: int, since_ms: float) -> Iterator[Run]:
    line = _line(index, level)
    for items, closed in _grouped(line, level):
        due = closed or _end(items[0], level) + level.settle_ms <= now_ms
        if len(items) > 1 and due and items[0].at_ms >= since_ms:
            yield Run(level.number, items)


def _end(item: WalObject, level: Level) -> int:
    return (item.at_ms // level.period_ms + 1) * level.period_ms


def _line(index: Index, level: Level) -> Iterator[WalObject]:
    """The sources for merges of this level, oldest first: of the transactions without such a merge
    the objects that reach furthest, no transaction twice."""
    done = [item for item in index.wal if item.level == level.number]
    here, at, reach = 0, 0, 0
    for item in index.wal:
        while at < len(done) and done[at].first <= item.first:
            reach = max(reach, done[at].last)
            at += 1
        if item.level < level.number and item.first > max(here, reach):
            here = item.last
            yield item


def _grouped(
    line: Iterable[WalObject], level: Level
) -> Iterator[tuple[tuple[WalObject, ...], bool]]:
    """Groups that may be merged, and whether one is complete because another thing follows."""
    group: list[WalObject] = []
    for item in line:
        if group and not _joins(group, item, level):
            yield tuple(group), _settled(group, item, level)
            group = []
        if _fits(item, level):
            group.append(item)
    if group:
        yield tuple(group), False


def _settled(group: list[WalObject], after: WalObject, level: Level) -> bool:
    """At level 1 the next object always closes a group. A group of level 2 waits for the merges of
    level 1 that may still be made of its items."""
    return level.number == EVERY_TRANSACTION or (
        after.level == EVERY_TRANSACTION and all(i.level == EVERY_TRANSACTION for i in group)
    )


def _fits(item: WalObject, level: Level) -> bool:
    if item.size > level.source_bytes:
        return False
    if level.number == EVERY_TRANSACTION:
        return item.level == SEGMENTS and item.kind in (None, Kind.SEGMENT)
    return item.kind is None or item.kind in MERGEABLE


def _joins(group: list[WalObject], item: WalObject, level: Level) -> bool:
    newest = group[-1]
    return (
        _fits(item, level)
        and item.first == newest.last + 1
        and (None in (item.generation, newest.generation) or item.generation == newest.generation)
        and item.at_ms // level.period_ms == newest.at_ms // level.period_ms
        and sum(i.size for i in group) + item.size <= level.total_bytes
    )

"""Which objects rebuild a database to a transaction: a pure function of a listing.

Owns: the choice of the snapshot, the fewest objects that lead from it to the target, and the
words for what is missing. Refuses: to read anything. What a name cannot tell (where a segment
ends, whose generation it is) is taken from :attr:`Listing.known`, which the caller fills while
it reads objects; a plan that turns out wrong is made again with what was learnt.

The name of a segment holds its first txid only. It ends, as far as the listing tells, right
before the next known boundary; the newest segment is open-ended.

Merges above level 1 keep the newest image of each page only, so no target may lie inside one.
"""

from __future__ import annotations

from replicator.archive.keys import SnapshotKey
from replicator.archive.spans import (
    OPEN_END,
    Listing,
    Plan,
    Span,
    covering,
    log_spans,
)
from replicator.errors import GapError, NoBackup


def plan(listing: Listing, target: int | None) -> Plan:
    """The plan for ``target`` (None: the newest transaction).

    ``GapError`` names the missing txids and what can be restored; ``NoBackup`` says that there
    is nothing at all.
    """
    _refuse_nothing(listing)
    spans = log_spans(listing)
    goal = _head(listing, spans) if target is None else target
    candidates = [item for item in listing.snapshots if item.txid <= goal]
    if not candidates:
        raise _before_first(listing, spans, goal)
    snapshot = max(candidates, key=lambda item: (item.txid, item.generation))
    walk = _Walk(spans, snapshot)
    if not walk.reaches(goal):
        raise _gap(listing, spans, walk, goal)
    return Plan(snapshot, walk.path(goal), target)


def newest_reachable(listing: Listing, target: int | None) -> Plan:
    """The plan for the newest transaction at or below ``target`` that the listing reaches."""
    _refuse_nothing(listing)
    spans = log_spans(listing)
    limit = OPEN_END if target is None else target
    walks = [_Walk(spans, item) for item in listing.snapshots if item.txid <= limit]
    if not walks:
        raise _before_first(listing, spans, limit)
    best = max(walks, key=lambda walk: (walk.furthest(limit), walk.snapshot.txid))
    goal = best.furthest(limit)
    return Plan(best.snapshot, best.path(goal), None if goal == OPEN_END else goal)


def window(listing: Listing) -> str:
    """What can be restored, in words: ``transactions 3…90 and 120…``."""
    spans = log_spans(listing)
    ranges: list[tuple[int, int]] = []
    for snapshot in sorted(listing.snapshots, key=lambda item: item.txid):
        last = _Walk(spans, snapshot).furthest(OPEN_END)
        if ranges and snapshot.txid <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
        else:
            ranges.append((snapshot.txid, last))
    if not ranges:
        return "nothing: no snapshot is left"
    return "transactions " + " and ".join(_range(first, last) for first, last in ranges)


def head(listing: Listing) -> int:
    """The newest txid the listing speaks of, a lower bound while the last segment is unread."""
    return _head(listing, log_spans(listing), bounded=True)


def _refuse_nothing(listing: Listing) -> None:
    if listing.empty:
        raise NoBackup("there is no backup here")
    if not (listing.wal or listing.merged):
        raise NoBackup(
            "there is a snapshot but no log that vouches for it",
            hint="a replicator stopped before its first upload was complete; start it again",
        )


def _head(listing: Listing, spans: list[Span], *, bounded: bool = False) -> int:
    ends = [span.first if bounded and span.last == OPEN_END else span.last for span in spans]
    return max([*ends, *(() if ends else (item.txid for item in listing.snapshots))], default=0)


class _Walk:
    """The cheapest ways from one snapshot along the log: fewest objects, then fewest bytes.

    Objects are joined end to end; only the first may begin before the snapshot, because a
    snapshot can be taken in the middle of what later becomes one merge.
    """

    def __init__(self, spans: list[Span], snapshot: SnapshotKey) -> None:
        self.snapshot = snapshot
        self._start = snapshot.txid + 1
        self._best: dict[int, tuple[int, int, Span | None]] = {self._start: (0, 0, None)}
        self._usable: list[Span] = []
        for span in spans:
            if span.last > snapshot.txid and span.generation in (None, snapshot.generation):
                self._usable.append(span)
                self._relax(span)

    def _from(self, span: Span) -> int:
        """The txid the walk must have come to before it can take ``span``."""
        return max(span.first, self._start)

    def _relax(self, span: Span) -> None:
        here = self._best.get(self._from(span))
        if here is None:
            return
        cost = (here[0] + 1, here[1] + span.item.size, span)
        there = self._best.get(span.last + 1)
        if there is None or cost[:2] < there[:2]:
            self._best[span.last + 1] = cost

    def _last_step(self, goal: int) -> Span | None:
        """The object that ends at ``goal``, or one that can be cut there if that takes fewer:
        at its end the log holds a checksum to compare with, so an end wins when equal."""
        steps, _, exact = self._best.get(goal + 1, (OPEN_END, 0, None))
        inside = [
            span
            for span in self._usable
            if span.divisible
            and self._from(span) <= goal < span.last
            and self._best.get(self._from(span), (OPEN_END,))[0] + 1 < steps
        ]
        return min(
            inside,
            default=exact,
            key=lambda span: (self._best[self._from(span)][0], span.item.size),
        )

    def reaches(self, goal: int) -> bool:
        return goal == self.snapshot.txid or self._last_step(goal) is not None

    def path(self, goal: int) -> tuple[Span, ...]:
        """Oldest first."""
        steps: list[Span] = []
        step = None if goal == self.snapshot.txid else self._last_step(goal)
        while step is not None:
            steps.append(step)
            step = self._best[self._from(step)][2]
        return tuple(reversed(steps))

    def furthest(self, limit: int) -> int:
        """The newest txid ≤ ``limit`` that can be reached; OPEN_END when nobody knows."""
        if self.reaches(limit):
            return limit
        ends = [end - 1 for end in self._best if end - 1 <= limit]
        return max(ends)


def _before_first(listing: Listing, spans: list[Span], goal: int) -> GapError:
    if not listing.snapshots:
        first, last = spans[0].first, _head(listing, spans)
        return GapError(
            f"the log holds transactions {_range(first, last)}, but no snapshot to "
            "start from is left"
        )
    first = min(item.txid for item in listing.snapshots)
    return GapError(
        f"transaction {goal} lies before the oldest snapshot, {first}; "
        f"restorable: {window(listing)}"
    )


def _gap(listing: Listing, spans: list[Span], walk: _Walk, goal: int) -> GapError:
    rest = f"restorable: {window(listing)}"
    end = _head(listing, spans)
    if goal > end:
        return GapError(f"transaction {goal} is beyond the end of the log; {rest}")
    foreign = _foreign_start(spans, walk)
    if foreign is not None:
        return GapError(
            f"transaction {foreign.first} begins generation {foreign.generation}, whose "
            f"snapshot is missing; {rest}",
            hint=_OLDER,
        )
    reached = walk.furthest(goal)
    inside = [span for span in covering(spans, goal) if not span.divisible]
    if inside:
        return GapError(
            f"transactions {_range(inside[0].first, inside[0].last)} are kept as one step, and "
            f"{goal} is not its end; {rest}",
            hint=f"restore to {inside[0].first - 1} or {inside[0].last}",
        )
    following = min((span.first for span in spans if span.first > reached + 1), default=goal + 1)
    return GapError(
        f"transactions {_range(reached + 1, following - 1)} are missing; {rest}", hint=_OLDER
    )


_OLDER = "restore with --allow-older to get the newest state that can be proved"


def _foreign_start(spans: list[Span], walk: _Walk) -> Span | None:
    """The object right after the furthest point, when another generation begins there."""
    reached = walk.furthest(OPEN_END)
    for span in spans:
        if span.first == reached + 1 and span.generation not in (None, walk.snapshot.generation):
            return span
    return None


def _range(first: int, last: int) -> str:
    if last >= OPEN_END:
        return f"{first}…"
    return str(first) if first == last else f"{first}…{last}"

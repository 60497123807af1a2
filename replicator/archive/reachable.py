"""Which transactions can be restored: a pure function of what the objects of a log say.

The rules are those of a restore: it starts from a snapshot the log vouches for, and applies
objects of the same generation end to end. The first of them may begin before the snapshot.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from replicator.model import Kind

Range = tuple[int, int]  # txids, both inclusive
Ranges = tuple[Range, ...]


class Piece(Protocol):
    """What a restore starts from or applies. A snapshot covers its own txid only."""

    @property
    def generation(self) -> str: ...
    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...
    @property
    def divisible(self) -> bool:
        """Whether a target may lie inside."""


@dataclass(frozen=True, slots=True)
class Said:
    """One object and what it says of itself. A snapshot covers its own txid only."""

    key: str
    kind: Kind
    generation: str
    first: int
    last: int
    divisible: bool  # a target may lie inside
    before: int  # database checksum before ``first``; a snapshot's is that of its state
    after: int  # after ``last``
    page_size: int
    first_ms: int
    last_ms: int


def restorable(snapshots: Iterable[Said], pieces: Iterable[Said]) -> Ranges:
    """The txids that can be restored exactly."""
    log = sorted(pieces, key=lambda piece: (piece.first, piece.last))
    return reached(_trusted(list(snapshots), log), log)


def reached(starts: Sequence[Piece], log: Sequence[Piece]) -> Ranges:
    """The txids that a log, by first txid, leads to from snapshots that can be trusted."""
    points = [(start.last, start.last) for start in starts]
    return normalised([*points, *_walked(starts, log)])


def _walked(starts: Sequence[Piece], log: Sequence[Piece]) -> Iterator[Range]:
    """What each piece adds, oldest first: what ends before a piece was looked at before it."""
    ends: set[tuple[str, int]] = {(start.generation, start.last) for start in starts}
    anchors: dict[str, list[int]] = defaultdict(list)
    for start in sorted(starts, key=lambda start: start.last):
        anchors[start.generation].append(start.last)
    for piece in log:
        since = _joined(piece, ends, anchors[piece.generation])
        if since is not None:
            ends.add((piece.generation, piece.last))
            yield (since if piece.divisible else piece.last), piece.last


def _joined(piece: Piece, ends: set[tuple[str, int]], anchors: Sequence[int]) -> int | None:
    """The first txid of ``piece`` that can be restored; None if nothing leads to it."""
    if (piece.generation, piece.first - 1) in ends:
        return piece.first
    at = bisect_left(anchors, piece.first)
    inside = at < len(anchors) and anchors[at] < piece.last
    return anchors[at] + 1 if inside else None


def _trusted(snapshots: list[Said], log: list[Said]) -> list[Said]:
    """Snapshots the log vouches for: of the generation the log has at that txid, with the
    checksum the log names there. Where the log around one is gone, nothing speaks against it."""
    firsts = [piece.first for piece in log]
    longest = max((piece.last - piece.first for piece in log), default=0)
    return [snapshot for snapshot in snapshots if _vouched(snapshot, log, firsts, longest)]


def _vouched(snapshot: Said, log: list[Said], firsts: list[int], longest: int) -> bool:
    txid = snapshot.last
    low, high = bisect_left(firsts, txid - longest), bisect_right(firsts, txid)
    covering = [piece for piece in log[low:high] if piece.last >= txid]
    if covering:
        finest = min(covering, key=lambda piece: piece.last - piece.first)
        return finest.generation == snapshot.generation and (
            finest.last != txid or finest.after == snapshot.after
        )
    following = next((piece for piece in log[high:] if piece.first == txid + 1), None)
    if following is not None and following.generation == snapshot.generation:
        return following.before == snapshot.after
    return any(first > txid for first in firsts[-1:])


def normalised(ranges: Iterable[Range]) -> Ranges:
    """Sorted, with touching and overlapping ranges joined."""
    joined: list[Range] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(joined[-1][1], last)
        else:
            joined.append((first, last))
    return tuple(joined)


def without(ranges: Ranges, taken: Ranges) -> Ranges:
    """What is in ``ranges`` and not in ``taken``; both normalised."""
    left: list[Range] = []
    for first, last in ranges:
        here = first
        for start, end in taken:
            if end < here or start > last:
                continue
            if start > here:
                left.append((here, start - 1))
            here = end + 1
        if here <= last:
            left.append((here, last))
    return tuple(left)

"""Whether the objects of a log lead from one to the next: a pure function of what they say.

Owns: the findings. Every boundary between two transactions has one database checksum, and
whatever ends or begins there must name it: segments, merges and snapshots bear witness against
each other. A hole is a finding unless retention noted that it thinned the log there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from replicator.archive.keys import Keys
from replicator.archive.reachable import Range, Ranges, Said, normalised
from replicator.model import Kind


@dataclass(frozen=True, slots=True)
class Finding:
    """One object that is damaged or missing, and the transactions it holds (or held).

    ``lost`` are those of them, and after them, that cannot be restored any more; none when
    another object holds the same transactions.
    """

    kind: Literal["damaged", "missing"]
    key: str
    problem: str
    first_txid: int
    last_txid: int
    lost: Ranges = ()


def contradictions(log: Sequence[Said], snapshots: Sequence[Said]) -> Iterator[Finding]:
    """Objects whose checksums do not fit those of their neighbours."""
    accused: set[str] = set()
    for (_, txid), witnesses in sorted(
        _boundaries(log, snapshots).items(), key=lambda item: item[0][1]
    ):
        for key, said, problem in _minority(witnesses):
            if key not in accused:
                accused.add(key)
                yield Finding("damaged", key, f"{problem} {txid}", said.first, said.last)


Witness = tuple[int, Said, bool]  # checksum, who says so, whether it begins here


def _boundaries(
    log: Iterable[Said], snapshots: Iterable[Said]
) -> dict[tuple[str, int], list[Witness]]:
    """By generation and txid: who names a checksum of the database after that txid."""
    found: dict[tuple[str, int], list[Witness]] = defaultdict(list)
    for piece in log:
        found[piece.generation, piece.last].append((piece.after, piece, False))
        if piece.kind is not Kind.GENERATION:
            found[piece.generation, piece.first - 1].append((piece.before, piece, True))
    for snapshot in snapshots:
        found[snapshot.generation, snapshot.last].append((snapshot.after, snapshot, False))
    return {
        place: witnesses
        for place, witnesses in found.items()
        if len({checksum for checksum, _, _ in witnesses}) > 1
    }


def _minority(witnesses: list[Witness]) -> Iterator[tuple[str, Said, str]]:
    """Whoever disagrees with most; when two stand against each other, the later one."""
    votes = Counter(checksum for checksum, _, _ in witnesses)
    (most, count), *others = votes.most_common()
    if others and others[0][1] == count:
        most = min(witnesses, key=lambda each: (each[2], each[1].first, each[1].key))[0]
    other = next(said for checksum, said, _ in witnesses if checksum == most)
    for checksum, said, begins in witnesses:
        if checksum != most:
            verb = "does not continue" if begins else "does not agree with"
            yield (
                said.key,
                said,
                (f"it {verb} {other.key}: the database checksums differ at transaction"),
            )


def strangers(log: Sequence[Said], snapshots: Sequence[Said]) -> Iterator[Finding]:
    """Log objects of a generation that had not begun, or was over, where they stand.

    A generation begins with its marker; where that is missing, with its snapshot.
    """
    begun = {snapshot.last + 1: snapshot.generation for snapshot in snapshots}
    begun |= {piece.first: piece.generation for piece in log if piece.kind is Kind.GENERATION}
    over: set[str] = set()
    current = ""
    for piece in sorted(log, key=lambda piece: (piece.first, piece.last)):
        next_one = begun.get(piece.first, current or piece.generation)
        if next_one != current and next_one not in over:
            over.add(current)
            current = next_one
        if piece.generation != current:
            yield Finding(
                "damaged",
                piece.key,
                f"it belongs to generation {piece.generation}, the log here to {current}",
                piece.first,
                piece.last,
            )


def page_sizes(log: Sequence[Said], snapshots: Sequence[Said]) -> Iterator[Finding]:
    """Log objects whose pages have another size than the snapshots of their generation."""
    sizes = {snapshot.generation: snapshot.page_size for snapshot in snapshots}
    for piece in log:
        if sizes.get(piece.generation, piece.page_size) != piece.page_size:
            yield Finding(
                "damaged",
                piece.key,
                f"its pages have {piece.page_size} bytes, those "
                f"of the snapshot {sizes[piece.generation]}",
                piece.first,
                piece.last,
            )


def holes(
    covered: Iterable[Range], snapshots: Sequence[Said], head: int, thinned: int, keys: Keys
) -> Iterator[Finding]:
    """Transactions that no object holds, up to ``head``, the newest one known of.

    ``covered`` are the extents of all objects that are there, damaged ones too. Before
    ``thinned`` holes are retention's work.
    """
    taken = normalised(covered)
    shown = [snapshot.last + 1 for snapshot in snapshots]
    here = max(thinned + 1, min([first for first, _ in taken] + shown, default=1))
    for first, last in (*taken, (head + 1, head + 1)):
        if first > here:
            yield Finding(
                "missing", keys.wal(here), "no object holds its transactions", here, first - 1
            )
        here = max(here, last + 1)


def missing_starts(
    log: Sequence[Said], present: Sequence[Said], damaged: set[str], thinned: int, keys: Keys
) -> Iterator[Finding]:
    """Generations whose first snapshot is gone, but not by retention."""
    there = {(snapshot.last, snapshot.generation) for snapshot in present}
    for piece in log:
        if (
            piece.kind is Kind.GENERATION
            and piece.first >= thinned
            and (piece.first, piece.generation) not in there
        ):
            key = keys.snapshot(piece.first, piece.generation)
            if key not in damaged:
                yield Finding(
                    "missing",
                    key,
                    f"generation {piece.generation} begins with it",
                    piece.first,
                    piece.first,
                )

"""Checks that the objects of an archive follow one another: a pure function of their facts.

Owns the findings. Every boundary between two transactions has one database checksum, and each
object that ends or begins there must name it: segments, merges and snapshots are checked against
each other. A hole is a finding unless retention recorded that it pruned the log there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from replicator.archive.keys import Keys
from replicator.archive.reachable import Range, Ranges, normalised
from replicator.format.object_header import ObjectFacts
from replicator.model import Kind

Facts: TypeAlias = Mapping[str, ObjectFacts]  # of log objects or of snapshots, by key


@dataclass(frozen=True, slots=True)
class Finding:
    """One object that is damaged or missing, and the transactions it holds (or held).

    An inconclusive one has a newer format, which this version cannot check. ``lost`` are those of
    them, and after them, that cannot be restored; none when another object holds the same
    transactions.
    """

    kind: Literal["damaged", "missing", "inconclusive"]
    key: str
    problem: str
    first_txid: int
    last_txid: int
    lost: Ranges = ()


def contradictions(log: Facts, snapshots: Facts) -> Iterator[Finding]:
    """Objects whose checksums do not fit those of their neighbours."""
    flagged: set[str] = set()
    boundaries = _boundaries(log, snapshots)
    for (_, txid), witnesses in sorted(boundaries.items(), key=lambda item: item[0][1]):
        for witness, problem in _disagreeing(witnesses):
            if witness.key not in flagged:
                flagged.add(witness.key)
                yield _damaged(witness.key, witness.facts, f"{problem} {txid}")


@dataclass(frozen=True, slots=True)
class _Witness:
    """An object that names the checksum of the database at its beginning or at its end."""

    checksum: int
    key: str
    facts: ObjectFacts
    begins: bool  # it begins at that transaction


def _boundaries(log: Facts, snapshots: Facts) -> dict[tuple[str, int], list[_Witness]]:
    """By generation and txid: the objects that name a checksum of the database after that txid,
    where these differ."""
    found: dict[tuple[str, int], list[_Witness]] = defaultdict(list)
    for key, facts in (*log.items(), *snapshots.items()):
        end = _Witness(facts.checksum_after, key, facts, begins=False)
        found[facts.generation, facts.last_txid].append(end)
    for key, facts in log.items():
        if facts.kind is not Kind.GENERATION:
            start = _Witness(facts.checksum_before, key, facts, begins=True)
            found[facts.generation, facts.first_txid - 1].append(start)
    return {
        boundary: witnesses
        for boundary, witnesses in found.items()
        if len({witness.checksum for witness in witnesses}) > 1
    }


def _disagreeing(witnesses: list[_Witness]) -> Iterator[tuple[_Witness, str]]:
    """The objects that disagree with most; where two disagree with each other, the later one."""
    votes = Counter(witness.checksum for witness in witnesses)
    (most, count), *others = votes.most_common()
    if others and others[0][1] == count:
        most = min(
            witnesses, key=lambda each: (each.begins, each.facts.first_txid, each.key)
        ).checksum
    other = next(witness.key for witness in witnesses if witness.checksum == most)
    for witness in witnesses:
        if witness.checksum != most:
            verb = "does not continue" if witness.begins else "does not agree with"
            problem = f"it {verb} {other}: the database checksums differ at transaction"
            yield witness, problem


def generation_mismatches(log: Facts, snapshots: Facts) -> Iterator[Finding]:
    """Log objects of a generation that had not begun, or was over, at their transactions.

    A generation begins with its marker; where that is missing, with its snapshot.
    """
    begun = {facts.last_txid + 1: facts.generation for facts in snapshots.values()}
    begun |= {f.first_txid: f.generation for f in log.values() if f.kind is Kind.GENERATION}
    over: set[str] = set()
    current = ""
    for key, facts in sorted(log.items(), key=lambda i: (i[1].first_txid, i[1].last_txid)):
        next_one = begun.get(facts.first_txid, current or facts.generation)
        if next_one != current and next_one not in over:
            over.add(current)
            current = next_one
        if facts.generation != current:
            problem = f"it belongs to generation {facts.generation}, the archive here to {current}"
            yield _damaged(key, facts, problem)


def page_sizes(log: Facts, snapshots: Facts) -> Iterator[Finding]:
    """Log objects whose pages have another size than the snapshots of their generation."""
    sizes = {facts.generation: facts.page_size for facts in snapshots.values()}
    for key, facts in log.items():
        size = sizes.get(facts.generation, facts.page_size)
        if size != facts.page_size:
            problem = f"its pages have {facts.page_size} bytes, those of the snapshot {size}"
            yield _damaged(key, facts, problem)


def _damaged(key: str, facts: ObjectFacts, problem: str) -> Finding:
    return Finding("damaged", key, problem, facts.first_txid, facts.last_txid)


def holes(
    covered: Iterable[Range], snapshots: Facts, head: int, pruned: int, keys: Keys
) -> Iterator[Finding]:
    """Transactions that no object holds, up to ``head``, the newest one known of.

    ``covered`` are the extents of all objects that are there, damaged ones too. Before
    ``pruned`` holes are the work of retention.
    """
    taken = normalised(covered)
    shown = [facts.last_txid + 1 for facts in snapshots.values()]
    here = max(pruned + 1, min([first for first, _ in taken] + shown, default=1))
    for first, last in (*taken, (head + 1, head + 1)):
        if first > here:
            problem = "no object holds its transactions"
            yield Finding("missing", keys.wal(here), problem, here, first - 1)
        here = max(here, last + 1)


def missing_starts(
    log: Facts, snapshots: Facts, present: Collection[str], pruned: int, keys: Keys
) -> Iterator[Finding]:
    """Generations whose first snapshot is gone, but not by retention. ``present`` are the keys of
    all objects that are there."""
    there = {(facts.last_txid, facts.generation) for facts in snapshots.values()}
    for facts in log.values():
        start, generation = facts.first_txid, facts.generation
        if (
            facts.kind is Kind.GENERATION
            and start >= pruned
            and (start, generation) not in there
            and (key := keys.snapshot(start, generation)) not in present
        ):
            problem = f"generation {generation} begins with it"
            yield Finding("missing", key, problem, start, start)

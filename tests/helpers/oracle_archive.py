"""Random archives as values, and an oracle of what can be restored from them.

The oracle knows every fact, tries every combination, and shares no code with the product: it reads
the fields of the objects, and keeps sets.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

from hypothesis import strategies as st

from replicator.archive.index import OPEN_END, Index
from replicator.model import Kind
from tests.helpers.objects import snapshot_object, wal_object

WAITS = (1_000, 60_000, 600_000, 4_000_000, 90_000_000)  # ms between two objects
STEPS = (Kind.SEGMENT, Kind.SEGMENT, Kind.SEGMENT, Kind.SEGMENT, Kind.CATCH_UP, Kind.MERGE_NEWEST)


@dataclass(frozen=True)
class Archive:
    """``log`` and ``snapshots`` carry all their facts; ``asked`` are the keys of the log objects
    that some earlier request asked."""

    log: tuple
    snapshots: tuple
    asked: frozenset
    newest_txid: int
    now_ms: int

    @property
    def known(self):
        """The index of one who asked every object."""
        return Index.of([*self.log, *self.snapshots])

    @property
    def listed(self):
        """The index of one who listed the names, and asked some objects."""
        return Index.of(
            [
                *(item if item.key in self.asked else unasked(item) for item in self.log),
                *(replace(item, facts=None) for item in self.snapshots),
            ]
        )

    def answer(self, item):
        """The object with its facts."""
        return next(each for each in (*self.log, *self.snapshots) if each.key == item.key)

    def without(self, keys):
        return replace(
            self,
            log=tuple(item for item in self.log if item.key not in keys),
            snapshots=tuple(item for item in self.snapshots if item.key not in keys),
        )


def unasked(item):
    return replace(item, facts=None, last=item.last if item.level else OPEN_END)


# ------------------------------------------------------------------------- random archives


class _Writer:
    """One linear history, written object by object."""

    def __init__(self, rng):
        self.rng = rng
        self.now_ms = 1_000_000
        self.txid = 0
        self.generation = None
        self.generations = 0
        self.checksums = {}
        self.log, self.snapshots = [], []

    def checksum(self, txid):
        return self.checksums.setdefault(txid, self.rng.randint(1, 1 << 40))

    def new_generation(self):
        self.generations += 1
        return f"generation-{self.generations}"

    def append(self, kind, count, level=0):
        first, self.txid = self.txid + 1, self.txid + count
        self._put(kind, first, self.txid, level, self.now_ms)

    def _put(self, kind, first, last, level, at_ms):
        marker = kind is Kind.GENERATION
        item = wal_object(
            first,
            last,
            self.generation,
            key=f"wal/{first:04}" if not level else f"merged/{level}/{first:04}-{last:04}",
            level=level,
            size=self.rng.randint(1, 40),
            at_ms=at_ms,
            commit_ms=at_ms,
            kind=kind,
            before=self.checksum(last if marker else first - 1),
            after=self.checksum(last),
        )
        self.log.append(replace(item, stored_ms=at_ms + 60_000 * level))

    def snapshot(self, txid, generation=None, checksum=None):
        generation = generation or self.generation
        self.snapshots.append(
            snapshot_object(
                txid,
                generation,
                key=f"snapshots/{txid:04}-{generation}",
                size=self.rng.randint(20, 90),
                at_ms=self.now_ms,
                after=self.checksum(txid) if checksum is None else checksum,
            )
        )

    def begin(self):
        self.generation = self.new_generation()
        self.append(Kind.GENERATION, 1)
        self.snapshot(self.txid)

    def step(self):
        self.now_ms += self.rng.choice(WAITS)
        if self.generation is None or self.rng.randint(1, 7) == 1:
            self.begin()
            return
        kind = self.rng.choice(STEPS)
        self.append(kind, 1 if kind is Kind.CATCH_UP else self.rng.choice((1, 1, 2, 3, 4)))
        for txid in range(self.log[-1].first, self.txid + 1):
            if self.rng.randint(1, 4) == 1:
                self.snapshot(txid)

    def merge(self, level):
        """Some neighbours as one object; merges of different runs may overlap."""
        segments = [item for item in self.log if not item.level]
        at = self.rng.randint(0, len(segments) - 1)
        run = segments[at : at + self.rng.randint(2, 5)]
        every = level == 1
        if len(run) < 2 or any(item.kind is Kind.GENERATION for item in run):
            return
        if every and any(item.kind is not Kind.SEGMENT for item in run):
            return
        self.generation = run[0].generation
        first, last = run[0].first, run[-1].last
        if all((item.level, item.first, item.last) != (level, first, last) for item in self.log):
            kind = Kind.MERGE if every else Kind.MERGE_NEWEST
            self._put(kind, first, last, level, run[-1].at_ms)

    def orphan(self):
        """A start that crashed after its snapshot, or was slower than another."""
        txid = self.rng.randint(1, self.txid + 2)
        self.snapshot(txid, self.new_generation(), self.rng.randint(1, 1 << 40))


@st.composite
def archives(draw, *, lose=True):
    """Several generations, catch-ups, squashed segments, merges of both levels that may overlap,
    snapshots in the middle of objects, orphaned generations; with ``lose`` some are half-deleted.
    """
    rng = draw(st.randoms(use_true_random=False))
    writer = _Writer(rng)
    for _ in range(rng.randint(1, 10)):
        writer.step()
    for level in (1, 2):
        for _ in range(rng.randint(0, 3)):
            writer.merge(level)
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        writer.orphan()
    lost = rng.choice((0, 0, 10, 30)) if lose else 0  # of 100 objects
    log = [item for item in writer.log if rng.randint(0, 99) >= lost]
    snapshots = {i.key: i for i in writer.snapshots if rng.randint(0, 99) >= lost}
    share = rng.choice((0, 30, 70, 100))
    asked = {item.key for item in log if rng.randint(0, 99) < share}
    return Archive(
        tuple(log), tuple(snapshots.values()), frozenset(asked), writer.txid, writer.now_ms
    )


# ------------------------------------------------------------------------------- the oracle


def trusted(archive, snapshot):
    """docs/format.md: the object of the log that contains the txid has the same generation and,
    where it ends there, the same checksum."""
    txid, checksum = snapshot.txid, snapshot.facts.checksum_after
    holding = [item for item in archive.log if item.first <= txid <= item.last]
    if holding:
        finest = min(holding, key=lambda item: (item.last - item.first, item.key))
        same = finest.facts.generation == snapshot.generation
        return same and (finest.last > txid or finest.facts.checksum_after == checksum)
    for item in archive.log:
        if item.first == txid + 1 and item.facts.generation == snapshot.generation:
            return item.facts.checksum_before == checksum
    return any(item.first > txid for item in archive.log)


def ends(archive, snapshots):
    """Every state that a way from one of the snapshots ends an object at: generation, txid, and
    whether it is the snapshot itself."""
    found = {(item.generation, item.txid, True) for item in snapshots}
    while True:
        more = {
            (generation, item.last, False)
            for generation, txid, start in found
            for item in archive.log
            if joins(item, generation, txid, start)
        }
        if more <= found:
            return found
        found |= more


def joins(item, generation, txid, start):
    follows = item.first == txid + 1 or (start and item.first <= txid < item.last)
    return follows and item.facts.generation == generation


def divisible(item):
    return item.facts.kind in (Kind.SEGMENT, Kind.MERGE)


def restorable(archive, snapshots=None):
    """The txids that can be restored, as a set."""
    if snapshots is None:
        snapshots = [item for item in archive.snapshots if trusted(archive, item)]
    states = ends(archive, snapshots)
    inside = {
        stop
        for generation, txid, start in states
        for item in archive.log
        if divisible(item) and joins(item, generation, txid, start)
        for stop in range(max(txid + 1, item.first), item.last)
    }
    return {txid for _, txid, _ in states} | inside


def cheapest(archive, snapshots, goal, cost):
    """The lowest sum of ``cost(object)``, a tuple, of any way that stops at ``goal``; None: there
    is none."""
    best = {}
    for item in snapshots:
        _lower(best, (item.generation, item.txid, True), cost(item))
    while sum(
        _lower(best, (state[0], item.last, False), _add(best[state], cost(item)))
        for state in list(best)
        for item in archive.log
        if joins(item, *state)
    ):
        pass
    found = [spent for (_, txid, _), spent in best.items() if txid == goal]
    found += [
        _add(spent, cost(item))
        for state, spent in best.items()
        for item in archive.log
        if divisible(item) and joins(item, *state)
        if max(state[1] + 1, item.first) <= goal < item.last
    ]
    return min(found, default=None)


def _lower(best, state, spent):
    """True if that is a cheaper way to a state."""
    lower = state not in best or spent < best[state]
    if lower:
        best[state] = spent
    return lower


def _add(one, other):
    return tuple(a + b for a, b in zip(one, other, strict=True))


def follow_one_another(way, goal):
    """True if a way, snapshot first, leads to ``goal`` by the rules."""
    snapshot, *log = way
    here = [snapshot, *log]
    if not log:
        return snapshot.txid == goal
    first = log[0]
    begins = first.first == snapshot.txid + 1 or first.first <= snapshot.txid < first.last
    chained = all(older.last + 1 == newer.first for older, newer in pairwise(log))
    same = len({item.facts.generation if item in log else item.generation for item in here}) == 1
    last = log[-1]
    stops = last.last == goal or (divisible(last) and last.first <= goal < last.last)
    return begins and chained and same and stops

"""The tables that the commits of an archive touched, from its own objects.

Owns: a run of WAL objects after one state, read forwards once. The pages of that state come from
the WAL objects since its snapshot, and from those blocks of the snapshot in which a way through a
b-tree leads, so that no database is restored. Every object is proved as for a restore: SHA-256,
WAL checksums, its index, and the database checksum that joins it to the one before.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from replicator.archive.facts import require_fit
from replicator.archive.index import WalObject
from replicator.errors import GapError, NoBackup
from replicator.format.envelope import discontinuous
from replicator.format.object_header import ObjectFacts
from replicator.inspect.owners import Owners, Touched
from replicator.recovery.fetch import Fetcher
from replicator.recovery.known_archive import KnownArchive
from replicator.recovery.limits import DEFAULT_LIMITS
from replicator.recovery.loader import SegmentLoader
from replicator.recovery.pages import StatePages
from replicator.recovery.plan import Plan
from replicator.recovery.planner import Planner
from replicator.recovery.progress import Meter
from replicator.recovery.segment import Segment
from replicator.store.base import Store
from replicator.system.files import Files
from replicator.system.pagefile import PageFile

MOST_PLANS = 40  # attempts to find the objects of a state; each finds one that is not what it seems

Change = tuple[int, Touched]  # the last transaction of a commit or a step, and its tables


@dataclass(slots=True)
class Follower:
    """The changes of one archive. ``scratch`` is an empty directory of the caller. ``seen`` are
    the names of all tables that the schema had so far, in lower case."""

    store: Store
    known: KnownArchive
    scratch: Path
    seen: set[str] = field(default_factory=set)

    def changes(self, base: int, items: Sequence[WalObject]) -> Generator[Change]:
        """Of the objects that follow transaction ``base``, oldest first. None of them if that
        state cannot be restored; none after a hole, or after the start of a generation."""
        files, path = Files(), self.scratch / f"{base}.pages"
        with (
            Fetcher(self.store, Meter(None), DEFAULT_LIMITS) as fetcher,
            PageFile(path, files) as file,
        ):
            files.unlink(path)  # its space is free again after the last use
            loader = SegmentLoader(fetcher, self._spool, files)
            state = self._state(base, fetcher, file, loader)
            if state is not None:
                yield from self._follow(state, loader, items)

    def _spool(self, first: int) -> Path:
        return self.scratch / f"{first}.spool"

    def _state(
        self, base: int, fetcher: Fetcher, file: PageFile, loader: SegmentLoader
    ) -> _State | None:
        """The pages at ``base``. An object that turns out to hold other transactions than its name
        suggests is learned, and the plan made again."""
        for _ in range(MOST_PLANS):
            try:
                plan = Planner(self.known, base, allow_older=False, detours=True).plan()
            except (GapError, NoBackup):
                return None
            state = _State(plan, self.known, fetcher, file)
            surprise = next(
                (
                    item
                    for item, segment in loader.load_all(plan.segments)
                    if not state.begin(item, segment)
                ),
                None,
            )
            if surprise is None:
                return state
        return None

    def _follow(
        self, state: _State, loader: SegmentLoader, items: Sequence[WalObject]
    ) -> Iterator[Change]:
        owners = Owners(state.pages.read)
        try:
            for item, segment in loader.load_all(items):
                if not state.continues(segment):
                    return
                yield from state.follow(item, segment, owners)
                self._spool(item.first).unlink(missing_ok=True)
        finally:
            self.seen |= owners.seen


class _State:
    """The pages of a database, moved on by one object after another."""

    def __init__(self, plan: Plan, known: KnownArchive, fetcher: Fetcher, file: PageFile) -> None:
        tail = known.reader.tail(plan.snapshot)
        file.resize(0)
        self.pages = StatePages(plan.snapshot, tail, fetcher, file)
        self.generation = plan.snapshot.generation
        self._plan = plan
        self._known = known
        self._txid = plan.snapshot.txid
        self._checksum: int | None = tail.trailer.checksum_after
        self._key = plan.snapshot.key

    def begin(self, item: WalObject, segment: Segment) -> bool:
        """Apply an object of the plan; False if it is not what the plan expects, which is known
        from now on."""
        facts = ObjectFacts.of(segment.header, segment.trailer)
        require_fit(item, facts)
        wanted = self._plan.txid
        is_last = item is self._plan.segments[-1]
        end = wanted if is_last and wanted is not None else facts.last_txid
        expected = facts.generation == self.generation and facts.last_txid >= end
        inside = end < facts.last_txid
        if not expected or facts.first_txid > self._txid + 1 or (inside and not segment.index):
            self._known.learn(item.key, facts)
            return False
        self._require_joined(item, facts)
        self.pages.apply(segment, frames=segment.index[end - facts.first_txid] if inside else None)
        self._txid, self._key = end, item.key
        self._checksum = None if inside else facts.checksum_after
        return True

    def continues(self, segment: Segment) -> bool:
        """False for the start of a generation, and after a hole."""
        header = segment.header
        return header.generation == self.generation and header.first_txid <= self._txid + 1

    def follow(self, item: WalObject, segment: Segment, owners: Owners) -> Iterator[Change]:
        """Apply the next object; the change of each commit that is new, or of the one step."""
        facts = ObjectFacts.of(segment.header, segment.trailer)
        require_fit(item, facts)
        if facts.last_txid <= self._txid:
            return  # a merge had all of it
        self._require_joined(item, facts)
        found: list[Touched] = []
        self.pages.apply(
            segment, committed=lambda pages: found.append(owners.after(pages, self.pages.size))
        )
        if len(found) == facts.last_txid - facts.first_txid + 1:
            known = enumerate(found, facts.first_txid)
            yield from [change for change in known if change[0] > self._txid]
        elif found:
            yield facts.last_txid, found[-1]
        self._txid, self._key, self._checksum = facts.last_txid, item.key, facts.checksum_after

    def _require_joined(self, item: WalObject, facts: ObjectFacts) -> None:
        """The database checksums on both sides are equal, unless one side is inside an object."""
        joins = facts.first_txid == self._txid + 1
        if joins and self._checksum is not None and facts.checksum_before != self._checksum:
            raise discontinuous(item.key, self._key)

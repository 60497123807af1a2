"""Carries out one plan: builds the database file, newest pages first, and proves it.

Owns the chain from object to object (generation, txids, checksums) and the order of the work:
segments from the newest down, then the snapshot underneath, then the proof. A page is written
once, at its offset. Refuses to plan, to choose between objects, and to touch the output.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicator.archive.facts import require_fit
from replicator.archive.index import OPEN_END, WalObject
from replicator.errors import DamageError, DiskFull
from replicator.format.envelope import damaged, discontinuous
from replicator.format.latest_pages import Overlay, runs
from replicator.format.object_header import ObjectFacts
from replicator.model import DatabaseState
from replicator.recovery.checksum import checksum_of, hash_file, state_at_end
from replicator.recovery.fetch import Fetcher
from replicator.recovery.known_archive import KnownArchive
from replicator.recovery.loader import SegmentLoader
from replicator.recovery.partial import Partial
from replicator.recovery.plan import Plan
from replicator.recovery.point_in_time import committed_at
from replicator.recovery.progress import Meter
from replicator.recovery.segment import Segment
from replicator.recovery.snapshot import SnapshotLoader, page_size_of
from replicator.system.files import Files
from replicator.system.pagefile import PageFile

MOST_HASHED = 1 << 25  # pages whose hashes take 256 MiB: a database of 128 GiB


class PlanOutdated(Exception):
    """An object holds other transactions than its name suggested; the index knows it now, and the
    plan must be made again."""


class Unproved(DamageError):
    """All objects are intact, yet the file is not the database that the archive describes."""

    code = "unproved"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A proved database file in the partial directory."""

    txid: int
    committed_at: int | None
    state: DatabaseState
    page_size: int
    resumed: bool
    sealed: bool


@dataclass(frozen=True, slots=True)
class _Link:
    """The object applied last: the next older one must end with its checksum before it."""

    key: str
    first: int
    checksum_before: int


class Rebuild:
    """Carries out one plan. ``store`` access goes through ``fetcher``."""

    def __init__(
        self,
        plan: Plan,
        known: KnownArchive,
        fetcher: Fetcher,
        parts: Partial,
        files: Files,
        meter: Meter,
    ) -> None:
        self._plan = plan
        self._known = known
        self._fetcher = fetcher
        self._parts = parts
        self._files = files
        self._meter = meter
        self._tail = known.reader.tail(plan.snapshot)
        self._limits = fetcher.limits
        self._loader = SegmentLoader(fetcher, parts.spool, files)
        self._page_size = page_size_of(plan.snapshot, self._tail, self._limits)
        trailer = self._tail.trailer
        self._txid = trailer.last_txid
        self._committed_at = None if plan.segments else committed_at(known, trailer.last_txid)
        self._pages = trailer.pages
        self._end = DatabaseState(trailer.pages, trailer.checksum_after)
        self._checksum = trailer.checksum_after
        self._newer: _Link | None = None  # the object applied last
        self._cut: tuple[Segment, int] | None = None  # the restore stops inside, after n frames

    def run(self) -> Rebuilt:
        """``PlanOutdated``: plan again. ``DamageError``: an object, or :class:`Unproved`."""
        identity = {
            "snapshot": self._plan.snapshot.key,
            "page_size": self._page_size,
            "sha256": self._tail.trailer.data_sha256.hex(),
        }
        kept = self._parts.load(identity, self._plan.txid)
        if not kept:
            self._parts.clear()
        self._meter.begin("segments", self._plan.size, self._plan.objects)
        with PageFile(self._parts.database, self._files) as file:
            overlay = self._apply_segments(file)
            self._parts.begin(identity, self._plan.txid)
            self._meter.phase("snapshot")
            loader = SnapshotLoader(
                self._plan.snapshot, self._tail, overlay, file, self._fetcher, self._parts
            )
            for size in loader.load(kept):
                self._meter.advance(size)
            self._meter.advance(self._plan.snapshot.size - self._tail.trailer_offset, 1)
            self._prove(file)
            file.sync()
        return Rebuilt(
            self._txid,
            self._committed_at,
            DatabaseState(self._pages, self._checksum),
            self._page_size,
            bool(kept),
            self._tail.sealed,
        )

    # ----------------------------------------------------------------------------- segments

    def _apply_segments(self, file: PageFile) -> Overlay:
        overlay: Overlay | None = None
        for item, segment in self._loader.load_all(self._plan.segments[::-1]):
            self._accept(item, segment)
            if overlay is None:
                overlay = self._begin(file, segment)
            self._apply(file, overlay, item, segment)
            self._newer = _Link(item.key, item.first, segment.trailer.checksum_before)
            self._meter.advance(item.size, 1)
        self._check_base()
        return overlay or self._size(file)

    def _accept(self, item: WalObject, segment: Segment) -> None:
        """Refuse an object that does not match its name, or does not join the newer one."""
        facts = ObjectFacts.of(segment.header, segment.trailer)
        require_fit(item, facts)
        if self._surprises(item, item.with_facts(facts)):
            self._known.learn(item.key, facts)
            raise PlanOutdated(item.key)
        if facts.page_size != self._page_size:
            raise damaged(
                item.key,
                f"its pages have {facts.page_size} bytes, those of the snapshot {self._page_size}",
                code="other_page_size",
            )
        newer = self._newer
        if newer is not None and newer.checksum_before != facts.checksum_after:
            raise discontinuous(newer.key, item.key)

    def _surprises(self, planned: WalObject, read: WalObject) -> bool:
        """True if the plan rests on something else than the object turned out to hold."""
        if read.generation != self._plan.snapshot.generation:
            return True
        if self._newer is not None:
            return read.last != planned.last
        txid = self._plan.txid
        if txid is None:
            return planned.last not in (read.last, OPEN_END)
        return read.last < txid or (read.last > txid and not read.divisible)

    def _begin(self, file: PageFile, newest: Segment) -> Overlay:
        wanted = self._plan.txid
        self._end = DatabaseState(newest.trailer.pages, newest.trailer.checksum_after)
        self._pages = newest.trailer.pages
        self._txid = newest.trailer.last_txid if wanted is None else wanted
        self._committed_at = newest.committed_at(self._txid)
        if self._txid != newest.trailer.last_txid:
            count = newest.index[self._txid - newest.header.first_txid]
            self._cut = newest, count
            self._pages = int(newest.frames.commits[count - 1])
        return self._size(file)

    def _size(self, file: PageFile) -> Overlay:
        """Give the file its final size; ``DiskFull`` while nothing was downloaded in vain. If the
        database at the end of the last object is so large that the hashes of its pages take much
        memory, it must fit as well: a forged size does not."""
        size = self._pages * self._page_size
        large = self._end.pages > MOST_HASHED
        needed = max(size, self._end.pages * self._page_size * large) - file.allocated()
        free = self._files.disk_free(self._parts.directory)
        if needed > free:
            raise DiskFull(
                f"{self._parts.directory.parent}: the database needs {needed} more "
                f"bytes, {free} are free",
                path=self._parts.directory.parent,
            )
        file.resize(size)
        return Overlay(self._page_size, self._pages)

    def _apply(self, file: PageFile, overlay: Overlay, item: WalObject, segment: Segment) -> None:
        cut = self._cut is not None and self._cut[0] is segment
        count = self._cut[1] if self._cut is not None and cut else segment.frames.count
        chosen = overlay.choose(segment.frames, count)
        for first, data, _ in segment.chunks():
            for pgnos, images in chosen.images(data, first):
                for offset, run in runs(pgnos, images, self._page_size, zeros=True):
                    file.pwrite(run, offset)
        if not (cut or self._loader.is_small(item)):
            self._files.unlink(self._parts.spool(item.first))

    def _check_base(self) -> None:
        snapshot, oldest = self._plan.snapshot, self._newer
        if (
            oldest is not None
            and oldest.first == snapshot.txid + 1
            and (oldest.checksum_before != self._tail.trailer.checksum_after)
        ):
            raise damaged(
                snapshot.key,
                f"{oldest.key} does not continue it: the database checksums differ",
                code="discontinuous",
            )

    # -------------------------------------------------------------------------------- proof

    def _prove(self, file: PageFile) -> None:
        self._meter.begin("verify", self._pages * self._page_size, 0)
        whole = file, self._page_size, self._pages, self._meter.advance
        if self._cut is None:
            self._checksum = checksum_of(*whole)
            found = DatabaseState(self._pages, self._checksum)
        else:
            hashes = hash_file(*whole)
            self._checksum = hashes.checksum
            found = state_at_end(hashes, *self._cut)
        if found != self._end:
            raise Unproved(
                f"{self._plan.snapshot.key} and the {len(self._plan.segments)} objects after it "
                f"do not give the database that the archive describes (checksum "
                f"{found.checksum:016x}, not {self._end.checksum:016x})",
                key=self._plan.snapshot.key,
            )

"""One plan carried out: the database file, built newest pages first, and proved.

Owns: the chain from object to object (generation, txids, checksums) and the order of the work:
segments from the newest down, then the snapshot underneath, then the proof. A page is written
once, at its offset. Refuses to plan, to choose between objects, and to touch the target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from replicator.archive.catalog import DIVISIBLE, Catalog
from replicator.archive.keys import MergedKey
from replicator.archive.spans import OPEN_END, Known, Plan, Span
from replicator.errors import DamageError, DiskFull
from replicator.format.envelope import damaged
from replicator.format.latest_pages import Overlay, runs
from replicator.model import DatabaseState
from replicator.recovery.checksum import checksum_of, hash_file, state_at_end
from replicator.recovery.fetch import RANGE_BYTES, Fetcher
from replicator.recovery.partial import Partial
from replicator.recovery.progress import Meter
from replicator.recovery.segment import Segment, load_segment
from replicator.recovery.snapshot import SnapshotLoader, page_size_of
from replicator.store.retry import retry_damaged
from replicator.system.files import Files
from replicator.system.pagefile import PageFile

ONE_GET_BYTES = 16 * 1024 * 1024  # larger segments are fetched in parallel into a local file


class Learnt(Exception):
    """An object turned out to cover other transactions than its name led to expect; the
    catalog knows now, and the plan must be made again."""


class Unproved(DamageError):
    """All objects are intact, yet the file is not the database the log describes."""

    code = "unproved"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A proved database file in the partial directory."""

    txid: int
    committed_at: int | None
    state: DatabaseState
    page_size: int
    resumed: bool


@dataclass(frozen=True, slots=True)
class _Link:
    """What the next older object must lead to."""

    key: str
    first: int
    checksum_before: int


class Rebuild:
    """Carries out one plan. ``store`` access goes through ``fetcher``."""

    def __init__(
        self,
        plan: Plan,
        catalog: Catalog,
        fetcher: Fetcher,
        notes: Partial,
        files: Files,
        meter: Meter,
    ) -> None:
        self._plan = plan
        self._catalog = catalog
        self._fetcher = fetcher
        self._notes = notes
        self._files = files
        self._meter = meter
        self._tail = catalog.tail(plan.snapshot)
        self._page_size = page_size_of(plan.snapshot, self._tail)
        trailer = self._tail.trailer
        self._txid = trailer.last_txid
        self._committed_at = None if plan.segments else catalog.committed_at(trailer.last_txid)
        self._pages = trailer.pages
        self._end = DatabaseState(trailer.pages, trailer.checksum_after)
        self._checksum = trailer.checksum_after
        self._newer: _Link | None = None  # the object applied last
        self._cut: tuple[Segment, int] | None = None  # the target lies inside, after n frames

    def run(self) -> Rebuilt:
        """``Learnt``: plan again. ``DamageError``: an object, or :class:`Unproved`."""
        identity = {
            "snapshot": self._plan.snapshot.key,
            "page_size": self._page_size,
            "sha256": self._tail.trailer.data_sha256.hex(),
        }
        kept = self._notes.load(identity, self._plan.target)
        if not kept:
            self._notes.clear()
        self._meter.begin("segments", self._plan.size, self._plan.objects)
        with PageFile(self._notes.database, self._files) as file:
            overlay = self._apply_segments(file)
            self._notes.begin(identity, self._plan.target)
            self._meter.phase("snapshot")
            loader = SnapshotLoader(
                self._plan.snapshot, self._tail, overlay, file, self._fetcher, self._notes
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
        )

    # ----------------------------------------------------------------------------- segments

    def _apply_segments(self, file: PageFile) -> Overlay:
        overlay: Overlay | None = None
        for span, segment in self._segments():
            self._accept(span, segment)
            if overlay is None:
                overlay = self._begin(file, segment)
            self._apply(file, overlay, span, segment)
            self._newer = _Link(span.key, span.first, segment.trailer.checksum_before)
            self._meter.advance(span.item.size, 1)
        self._check_base()
        return overlay or self._size(file)

    def _segments(self) -> Iterator[tuple[Span, Segment]]:
        spans = self._plan.segments[::-1]
        jobs = (
            (span.item.size, partial(self._fetch, span)) if self._is_small(span) else (0, _nothing)
            for span in spans
        )
        for span, data in zip(spans, self._fetcher.in_order(jobs), strict=True):
            yield span, self._load(span, data)

    @staticmethod
    def _is_small(span: Span) -> bool:
        return span.item.size <= ONE_GET_BYTES

    def _fetch(self, span: Span) -> bytes | None:
        return self._fetcher.get(span.key, 0, span.item.size)

    def _load(self, span: Span, data: bytes | None) -> Segment:
        """Decode; ``data`` is the first fetch of a small object."""
        first = [data] if self._is_small(span) else []

        def read() -> Segment:
            fetched = first.pop() if first else None
            if fetched is None and self._is_small(span):
                fetched = self._fetch(span)
            return load_segment(span.key, self._source(span, fetched))

        return retry_damaged(read)

    def _source(self, span: Span, data: bytes | None) -> Callable[[], Iterator[bytes]]:
        if data is not None:
            return partial(iter, (data,))
        path = self._notes.spool(span.first)
        with PageFile(path, self._files) as spool:
            self._fetcher.spool(span.key, span.item.size, spool)
        return partial(self._files.pieces, path, RANGE_BYTES)

    def _accept(self, span: Span, segment: Segment) -> None:
        """Whether the object is the one the plan took it for, and joins the newer one."""
        header, last = segment.header, segment.trailer.last_txid
        if header.first_txid != span.first or (
            isinstance(span.item, MergedKey) and last != span.last
        ):
            raise damaged(
                span.key,
                f"it holds transactions {header.first_txid}…{last}, not what its name says",
            )
        known = Known(
            header.generation,
            span.first,
            last,
            divisible=header.kind in DIVISIBLE and bool(segment.index),
        )
        if self._surprises(span, known):
            self._catalog.learn(span.key, known)
            raise Learnt(span.key)
        if header.page_size != self._page_size:
            raise damaged(
                span.key,
                f"its pages have {header.page_size} bytes, those of the snapshot {self._page_size}",
            )
        newer = self._newer
        if newer is not None and newer.checksum_before != segment.trailer.checksum_after:
            raise damaged(
                newer.key, f"it does not continue {span.key}: the database checksums differ"
            )

    def _surprises(self, span: Span, known: Known) -> bool:
        if known.generation != self._plan.snapshot.generation:
            return True
        if self._newer is not None:
            return known.last != span.last
        target = self._plan.target
        if target is None:
            return span.last not in (known.last, OPEN_END)
        return known.last < target or (known.last > target and not known.divisible)

    def _begin(self, file: PageFile, newest: Segment) -> Overlay:
        target = self._plan.target
        self._end = DatabaseState(newest.trailer.pages, newest.trailer.checksum_after)
        self._pages = newest.trailer.pages
        self._txid = newest.trailer.last_txid if target is None else target
        self._committed_at = newest.committed_at(self._txid)
        if self._txid != newest.trailer.last_txid:
            count = newest.index[self._txid - newest.header.first_txid]
            self._cut = newest, count
            self._pages = int(newest.frames.commits[count - 1])
        return self._size(file)

    def _size(self, file: PageFile) -> Overlay:
        """Give the file its final size; ``DiskFull`` while nothing was downloaded in vain."""
        size = self._pages * self._page_size
        needed = size - file.allocated()
        free = self._files.disk_free(self._notes.directory)
        if needed > free:
            raise DiskFull(
                f"{self._notes.directory.parent}: the database needs {needed} more "
                f"bytes, {free} are free"
            )
        file.resize(size)
        return Overlay(self._page_size, self._pages)

    def _apply(self, file: PageFile, overlay: Overlay, span: Span, segment: Segment) -> None:
        cut = self._cut is not None and self._cut[0] is segment
        count = self._cut[1] if self._cut is not None and cut else segment.frames.count
        chosen = overlay.choose(segment.frames, count)
        for first, data, _ in segment.chunks():
            for pgnos, images in chosen.images(data, first):
                for offset, run in runs(pgnos, images, self._page_size, zeros=True):
                    file.pwrite(run, offset)
        if not (cut or self._is_small(span)):
            self._files.unlink(self._notes.spool(span.first))

    def _check_base(self) -> None:
        snapshot, oldest = self._plan.snapshot, self._newer
        if (
            oldest is not None
            and oldest.first == snapshot.txid + 1
            and (oldest.checksum_before != self._tail.trailer.checksum_after)
        ):
            raise damaged(
                snapshot.key, f"{oldest.key} does not continue it: the database checksums differ"
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
                f"do not give the database the log describes (checksum {found.checksum:016x}, "
                f"not {self._end.checksum:016x})",
                key=self._plan.snapshot.key,
            )


def _nothing() -> bytes | None:
    return None

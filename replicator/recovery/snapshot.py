"""The pages of one snapshot, fetched by ranges and put under newer pages in parallel.

Owns the grouping of blocks into requests, the SHA-256 over its data in order, and the parts kept
of an earlier attempt. The thread that fetched a group decompresses and writes it, and reads it
again if it does not decompress. The file is synced from time to time, so that disk and network
work at once. Refuses to judge the database as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Self

from replicator.archive.index import SnapshotObject
from replicator.format.buffers import U64
from replicator.format.envelope import Tail, damaged, read_header
from replicator.format.latest_pages import Overlay
from replicator.format.page_hashes import page_hashes
from replicator.format.seek_table import SeekEntry
from replicator.format.snapshot_blocks import SnapshotProof, decode_block
from replicator.format.wal import valid_page_size
from replicator.model import Kind
from replicator.recovery.fetch import Fetcher
from replicator.recovery.limits import RecoveryLimits
from replicator.recovery.partial import Partial
from replicator.store.retry import retry_damaged
from replicator.system.pagefile import PageFile


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring blocks that one request fetches. The first group begins with the object's
    header."""

    start: int
    length: int
    entries: tuple[SeekEntry, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """``data`` are the fetched bytes; None when the group was there already."""

    group: Group
    data: bytes | None
    hashes: tuple[U64, ...]


def page_size_of(item: SnapshotObject, tail: Tail, limits: RecoveryLimits) -> int:
    """From trailer and seek table, which must describe whole pages without holes."""
    trailer, entries = tail.trailer, tail.seek
    if tail.kind is not Kind.SNAPSHOT or not entries or trailer.last_txid != item.txid:
        raise damaged(item.key, "it does not match its name", code="other_object")
    page_size = trailer.payload_bytes // max(1, trailer.pages)
    if (
        not valid_page_size(page_size)
        or entries.raw_bytes != trailer.pages * page_size
        or entries.largest > limits.most_block_bytes
        or not entries.whole_pages(page_size)
    ):
        raise damaged(item.key, "its seek table does not describe its pages", code="contradiction")
    last = entries[-1]
    if last.offset + last.compressed != tail.trailer_offset:
        raise damaged(item.key, "its seek table does not cover its data", code="contradiction")
    return page_size


class _Syncs:
    """Syncs a file while others fetch, one sync at a time. None is left at the end."""

    def __init__(self, file: PageFile, fetcher: Fetcher) -> None:
        self._file = file
        self._fetcher = fetcher
        self._unsynced = 0
        self._running: Future[None] | None = None

    def wrote(self, size: int) -> None:
        """Count ``size`` bytes more. Waits here if the disk is slower than the network."""
        self._unsynced += size
        if self._unsynced >= self._fetcher.limits.sync_raw_bytes:
            self._wait()
            self._unsynced, self._running = 0, self._fetcher.beside(self._file.sync)

    def _wait(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._wait()


class SnapshotLoader:
    """Writes the pages of a snapshot that no newer page has settled."""

    def __init__(
        self,
        item: SnapshotObject,
        tail: Tail,
        overlay: Overlay,
        file: PageFile,
        fetcher: Fetcher,
        parts: Partial,
    ) -> None:
        self._item = item
        self._tail = tail
        self._overlay = overlay
        self._file = file
        self._fetcher = fetcher
        self._parts = parts
        self._kept: dict[int, U64] = {}

    def load(self, kept: dict[int, U64]) -> Iterator[int]:
        """Load all pages, yielding the bytes of each finished group; the last value comes after the
        SHA-256 of the object were compared. ``kept`` comes from :meth:`Partial.load`."""
        self._kept = kept
        proof = SnapshotProof(self._tail, self._item.key)
        whole = True
        with _Syncs(self._file, self._fetcher) as syncs:
            for done in self._fetcher.in_order(
                (self._held(group), partial(self._group, group)) for group in self._groups()
            ):
                for entry, hashes in zip(done.group.entries, done.hashes, strict=True):
                    self._parts.note(self._first_pgno(entry), hashes)
                whole = whole and done.data is not None
                if whole:
                    proof.update(done.data or b"")
                syncs.wrote(sum(entry.raw for entry in done.group.entries))
                yield done.group.length
        if whole:
            proof.finish()

    def _held(self, group: Group) -> int:
        """Bytes of memory that a finished group takes until its turn: its own, and the hashes."""
        raw = sum(entry.raw for entry in group.entries)
        return group.length + raw // self._fetcher.limits.hash_share

    def _groups(self) -> Iterator[Group]:
        entries: list[SeekEntry] = []
        start = size = raw = 0
        limits = self._fetcher.limits
        for entry in self._tail.seek or ():
            end = entry.offset + entry.compressed
            too_long = end - start > limits.range_bytes
            if entries and (too_long or raw + entry.raw > limits.group_raw_bytes):
                yield Group(start, size, tuple(entries))
                start, raw, entries = start + size, 0, []
            entries.append(entry)
            size, raw = end - start, raw + entry.raw
        yield Group(start, size, tuple(entries))

    def _group(self, group: Group) -> Done:
        hashes = tuple(self._kept_hashes(entry) for entry in group.entries)
        if group.start and all(found is not None for found in hashes):
            return Done(group, None, tuple(found for found in hashes if found is not None))
        return retry_damaged(partial(self._transfer, group))

    def _transfer(self, group: Group) -> Done:
        data = self._fetcher.get(self._item.key, group.start, group.length)
        return Done(group, data, self._write(group, data))

    def _kept_hashes(self, entry: SeekEntry) -> U64 | None:
        """The hashes of a kept part if the file still holds it."""
        hashes = self._kept.get(self._first_pgno(entry))
        if hashes is None:
            return None
        image = bytearray(entry.raw)
        self._file.preadinto(image, entry.raw_offset)
        first = self._first_pgno(entry)
        return hashes if self._overlay.holds(first, image, hashes) else None

    def _first_pgno(self, entry: SeekEntry) -> int:
        return entry.raw_offset // self._overlay.page_size + 1

    def _write(self, group: Group, data: bytes) -> tuple[U64, ...]:
        if not group.start:
            self._check_header(data)
        return tuple(
            self._write_frame(
                memoryview(data)[entry.offset - group.start :][: entry.compressed], entry
            )
            for entry in group.entries
        )

    def _write_frame(self, data: memoryview, entry: SeekEntry) -> U64:
        image = decode_block(data, entry, self._item.key)
        first = self._first_pgno(entry)
        for offset, run in self._overlay.open_runs(first, image, zeros=bool(self._kept)):
            self._file.pwrite(run, offset)
        return page_hashes(self._overlay.page_size, first, image)

    def _check_header(self, data: bytes) -> None:
        header, start = read_header(data, self._item.key)
        expected = (Kind.SNAPSHOT, self._item.generation, self._item.txid, self._overlay.page_size)
        if expected != (header.kind, header.generation, header.first_txid, header.page_size):
            raise damaged(self._item.key, "it does not match its name", code="other_object")
        if self._tail.seek is None or start != self._tail.seek[0].offset:
            raise damaged(
                self._item.key, "its seek table does not cover its data", code="contradiction"
            )

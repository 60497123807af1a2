"""Reads and proves every byte of one object, in bounded memory.

Owns the checks of a single object (SHA-256, WAL checksums, page hashes against the database
checksum of a snapshot) and the comparison with its metadata. Refuses to judge how objects fit
together; see :mod:`.consistency`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from functools import partial

from replicator.archive.facts import FactsReader, require_fit
from replicator.archive.index import ArchiveObject, SnapshotObject, WalObject
from replicator.errors import DamageError
from replicator.format.envelope import HEADER_LIMIT, Tail, damaged, read_header
from replicator.format.object_header import ObjectFacts
from replicator.format.page_hashes import PageHashes
from replicator.format.seek_table import SeekEntry
from replicator.format.snapshot_blocks import SnapshotProof, decode_block
from replicator.recovery.fetch import Fetcher
from replicator.recovery.limits import RecoveryLimits
from replicator.recovery.segment import load_segment
from replicator.recovery.snapshot import page_size_of
from replicator.store.retry import retry_damaged

# The fields of the metadata that the bytes hold too.
PROVABLE = (
    "kind",
    "generation",
    "first_txid",
    "last_txid",
    "page_size",
    "pages",
    "writer",
    "checksum_before",
    "checksum_after",
    "first_commit_ms",
    "last_commit_ms",
    "sha256",
)


def weight(item: ArchiveObject, limits: RecoveryLimits) -> int:
    """Bytes of memory that reading it takes, for :meth:`Fetcher.in_order`."""
    if item.size <= limits.range_bytes:
        return item.size
    return limits.window_bytes // limits.large_share


def verify_wal_object(
    fetcher: Fetcher, item: WalObject, claimed: ObjectFacts | None
) -> ObjectFacts:
    """Read all of it; the facts its bytes hold. ``DamageError`` names it, ``Misdescribed`` when
    only ``claimed`` (its metadata) differs."""
    found = retry_damaged(partial(_read_log_object, fetcher, item))
    compare(item, found, claimed)
    return found


def _read_log_object(fetcher: Fetcher, item: WalObject) -> ObjectFacts:
    whole = hashlib.sha256()
    step = fetcher.limits.range_bytes

    def pieces() -> Iterator[bytes]:
        for at in range(0, item.size, step):
            data = fetcher.get(item.key, at, min(step, item.size - at))
            whole.update(data)
            yield data

    segment = load_segment(item.key, pieces, in_memory=0, integrity=fetcher.integrity)
    return ObjectFacts.of(segment.header, segment.trailer, whole.hexdigest())


class Misdescribed(DamageError):
    """The object is sound, but its metadata speaks of another one. ``facts`` are its own."""

    code = "misdescribed"

    def __init__(self, key: str, facts: ObjectFacts) -> None:
        super().__init__(f"{key}: its metadata describes another object", key=key)
        self.facts = facts


def compare(item: ArchiveObject, found: ObjectFacts, claimed: ObjectFacts | None) -> None:
    """``DamageError`` if the object does not match its name, ``Misdescribed`` if only its metadata
    is wrong."""
    require_fit(item, found)
    if claimed is not None and any(
        getattr(claimed, name) != getattr(found, name)
        for name in PROVABLE
        if name != "sha256" or (claimed.sha256 and found.sha256)
    ):
        raise Misdescribed(item.key, found)


def verify_snapshot(
    fetcher: Fetcher,
    reader: FactsReader,
    item: SnapshotObject,
    *,
    limit: int | None = None,
    seed: int = 0,
) -> Iterator[int]:
    """Read it, yielding bytes as they are done. With ``limit`` below its size, only that many
    bytes of it, drawn by ``seed``; each page group proves itself by its content checksum."""
    tail = reader.tail(item)
    page_size = page_size_of(item, tail, fetcher.limits)
    if limit is not None and limit < item.size:
        yield from _prove_some(fetcher, item, tail, limit, seed)
        return
    hashes, proof = PageHashes(page_size), SnapshotProof(tail, item.key)
    for size, data, raw in fetcher.in_order(
        (_held(group), partial(_group, fetcher, item, group))
        for group in _groups(tail, fetcher.limits)
    ):
        proof.update(data)
        for image in raw:
            proof.pages(image)
            hashes.extend(hashes.pages + 1, image)
        yield size
    proof.finish()
    if hashes.state.checksum != tail.trailer.checksum_after:
        raise damaged(item.key, "its pages do not have the checksum of its trailer")
    header = read_header(fetcher.get(item.key, 0, min(HEADER_LIMIT, item.size)), item.key)[0]
    require_fit(item, ObjectFacts.of(header, tail.trailer))
    yield item.size - tail.trailer_offset  # which was read first


def _prove_some(
    fetcher: Fetcher, item: SnapshotObject, tail: Tail, limit: int, seed: int
) -> Iterator[int]:
    entries, extents, at = tail.seek or (), [], 0
    for group in _groups(tail, fetcher.limits):
        extents.append((at, at + len(group)))
        at += len(group)
    for first, last in random.Random(seed).sample(extents, len(extents)):
        size, _, _ = _group(fetcher, item, list(entries[first:last]))
        yield size
        limit -= size
        if limit <= 0:
            return


def _groups(tail: Tail, limits: RecoveryLimits) -> Iterator[list[SeekEntry]]:
    """Neighbouring data frames worth one request."""
    group: list[SeekEntry] = []
    size = raw = 0
    for entry in tail.seek or ():
        too_long = size + entry.compressed > limits.range_bytes
        if group and (too_long or raw + entry.raw > limits.proved_raw_bytes):
            yield group
            group, size, raw = [], 0, 0
        group.append(entry)
        size, raw = size + entry.compressed, raw + entry.raw
    yield group


def _held(group: list[SeekEntry]) -> int:
    """Bytes of memory that a group takes."""
    return sum(entry.compressed + entry.raw for entry in group)


def _group(
    fetcher: Fetcher, item: SnapshotObject, entries: list[SeekEntry]
) -> tuple[int, bytes, list[bytes]]:
    """Bytes fetched, the bytes themselves, and the pages in them. The first group begins with
    the object's header."""
    start = 0 if not entries[0].raw_offset else entries[0].offset
    length = entries[-1].offset + entries[-1].compressed - start

    def read() -> tuple[int, bytes, list[bytes]]:
        data = fetcher.get(item.key, start, length)
        view = memoryview(data)
        return (
            length,
            data,
            [
                decode_block(view[entry.offset - start :][: entry.compressed], entry, item.key)
                for entry in entries
            ],
        )

    return retry_damaged(read)

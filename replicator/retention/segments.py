"""The acknowledged segments of a running replicator, as merges need them.

Owns: their translation from the cache's records. Refuses: to read the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from replicator.archive.index import SEGMENTS, WalObject
from replicator.cache.cache import Cache
from replicator.cache.records import SegmentRecord
from replicator.format.object_header import ObjectFacts
from replicator.retention.merge import MergeSource
from replicator.upload.watermark import Watermark


class Segments(Protocol):
    def appended(self, since: int) -> Sequence[WalObject]:
        """The segments acknowledged after this txid, oldest first."""

    def cached(self, first: int, last: int) -> Sequence[MergeSource]:
        """The segments in the cache that begin between these transactions, oldest first."""

    def merged(self, first: int, last: int) -> None:
        """A merge in the store covers these transactions, all of them."""


class CachedSegments:
    """Of one cache; ``watermark`` saves looking into it while nothing was appended."""

    def __init__(self, cache: Cache, watermark: Watermark) -> None:
        self._cache = cache
        self._watermark = watermark

    def appended(self, since: int) -> Sequence[WalObject]:
        if self._watermark.txid <= since:
            return []
        found = []
        for record in self._cache.records(since + 1):
            if not record.acknowledged:
                break
            found.append(_item(record))
        return found

    def cached(self, first: int, last: int) -> Sequence[MergeSource]:
        return [
            MergeSource(
                record.key, record.first_txid, record.last_txid, partial(self._cache.read, record)
            )
            for record in self._cache.records(first, last)
            if record.acknowledged and record.stored
        ]

    def merged(self, first: int, last: int) -> None:
        self._cache.merged(first, last)


def _item(record: SegmentRecord) -> WalObject:
    facts = ObjectFacts(
        kind=record.kind,
        generation=record.generation,
        first_txid=record.first_txid,
        last_txid=record.last_txid,
        page_size=record.end.page_size,
        pages=record.state.pages,
        checksum_before=record.checksum_before,
        checksum_after=record.state.checksum,
        created_ms=record.created_ms,
        first_commit_ms=record.first_commit_ms,
        last_commit_ms=record.commit_ms,
        sha256=record.sha256,
        writer="",
    )
    return WalObject(
        record.key,
        SEGMENTS,
        record.first_txid,
        record.last_txid,
        record.size,
        record.delivery.uploaded_ms or record.created_ms,
        facts,
    )

"""WAL objects, fetched in parallel and decoded one after another, in the order asked for.

Owns: the choice between one request for a small object and a local file for a large one, and the
second attempt for bytes that arrived damaged. Refuses to judge an object's place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from replicator.archive.index import WalObject
from replicator.recovery.fetch import Fetcher
from replicator.recovery.segment import Segment, load_segment
from replicator.store.retry import retry_damaged
from replicator.system.files import Files, StrPath
from replicator.system.pagefile import PageFile


class SegmentLoader:
    """``spool`` is the file for the large object that begins with a txid; the caller removes it."""

    def __init__(self, fetcher: Fetcher, spool: Callable[[int], StrPath], files: Files) -> None:
        self._fetcher = fetcher
        self._spool = spool
        self._files = files

    def load_all(self, items: Sequence[WalObject]) -> Iterator[tuple[WalObject, Segment]]:
        """Each object with its content. ``DamageError``, ``ObjectMissing``."""
        jobs = (
            (item.size, partial(self._fetch, item)) if self.is_small(item) else (0, _nothing)
            for item in items
        )
        for item, data in zip(items, self._fetcher.in_order(jobs), strict=True):
            yield item, self._load(item, data)

    def is_small(self, item: WalObject) -> bool:
        return item.size <= self._fetcher.limits.one_get_bytes

    def _fetch(self, item: WalObject) -> bytes | None:
        return self._fetcher.get(item.key, 0, item.size)

    def _load(self, item: WalObject, data: bytes | None) -> Segment:
        """Decode; ``data`` is the first fetch of a small object."""
        first = [data] if self.is_small(item) else []

        def read() -> Segment:
            fetched = first.pop() if first else None
            if fetched is None and self.is_small(item):
                fetched = self._fetch(item)
            source = self._source(item, fetched)
            return load_segment(
                item.key,
                source,
                in_memory=self._fetcher.limits.in_memory_bytes,
                integrity=self._fetcher.integrity,
            )

        return retry_damaged(read)

    def _source(self, item: WalObject, data: bytes | None) -> Callable[[], Iterator[bytes]]:
        if data is not None:
            return partial(iter, (data,))
        path = self._spool(item.first)
        with PageFile(path, self._files) as spool:
            self._fetcher.spool(item.key, item.size, spool)
        return partial(self._files.pieces, path, self._fetcher.limits.range_bytes)


def _nothing() -> bytes | None:
    return None

"""Sends one segment: in a single PUT, or in parts, of which the store may have some already.

Owns: the way from a segment file to its object, and whose object is at its key afterwards.
Refuses: to retry, and to choose the next segment.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

from replicator.cache.cache import Cache
from replicator.cache.records import SegmentRecord
from replicator.errors import DamageError, ObjectExists, UploadMissing
from replicator.store.base import Part, Store
from replicator.upload.fencing import settle_taken
from replicator.upload.limits import UploadLimits

log = logging.getLogger(__name__)


class Sender:
    """Used by the upload thread alone."""

    def __init__(self, store: Store, cache: Cache, limits: UploadLimits) -> None:
        self._store = store
        self._cache = cache
        self._limits = limits

    def send(self, record: SegmentRecord) -> None:
        """Return once the object is in the store; ``Fenced`` if another writer's is there.
        ``DamageError`` when the segment's file is not the one captured."""
        try:
            if record.size <= self._limits.single_put_bytes:
                self._store.put(record.key, self._cache.read(record), metadata=record.metadata)
            else:
                self._send_parts(record)
        except ObjectExists:
            self._settle(record)

    def _settle(self, record: SegmentRecord) -> None:
        settle_taken(self._store, record, self._cache.writer)

    def _send_parts(self, record: SegmentRecord) -> None:
        if not self._cache.intact(record):  # a single request checks this when it reads
            raise DamageError(
                f"the cached segment of txid {record.first_txid} is damaged",
                key=record.key,
                hint="restart: the replicator catches up from the database",
            )
        upload_id, part_size, present = self._resume(record)
        count = -(-record.size // part_size)
        source = self._cache.open_segment(record)
        try:
            with ThreadPoolExecutor(self._limits.parallel_parts, "replicator-part") as pool:

                def send(number: int) -> Part:
                    known = present.get(number)
                    size = min(part_size, record.size - (number - 1) * part_size)
                    if known is not None and known.size == size:
                        return known
                    body = source.pread(size, (number - 1) * part_size)
                    return self._store.put_part(record.key, upload_id, number, body)

                parts = list(pool.map(send, range(1, count + 1)))
        finally:
            source.close()
        self._store.complete_upload(record.key, upload_id, parts)
        # Not every store decides a race of completions for one winner (SeaweedFS 4.48 let two of
        # six win), so the object at the key is checked afterwards.
        self._settle(record)

    def _resume(self, record: SegmentRecord) -> tuple[str, int, dict[int, Part]]:
        """The id, part size and parts of an earlier upload as the store confirms it, or of a new
        one."""
        delivery = record.delivery
        if delivery.upload_id is not None:
            try:
                parts = self._store.list_parts(record.key, delivery.upload_id)
            except UploadMissing:
                log.info(
                    "the multipart upload of txid %d is gone; starting over", record.first_txid
                )
            else:
                return delivery.upload_id, delivery.part_size, {p.number: p for p in parts}
        part_size = self._limits.part_size(record.size)
        upload_id = self._store.begin_upload(record.key, metadata=record.metadata)
        self._cache.progress(record.first_txid, upload_id, part_size)
        return upload_id, part_size, {}

"""Remembers the unfinished upload of a snapshot, so that the next attempt can resume it.

Owns: one fact in the ledger, and the abortion of uploads that are of no use. Refuses: to know the
parts of the upload; only the store does (S3's ListParts).
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass

from replicator.archive.keys import Keys
from replicator.cache.cache import Cache
from replicator.cache.records import Fact
from replicator.errors import ReplicatorError
from replicator.store.base import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SnapshotUpload:
    """A multipart upload of a snapshot. ``created_ms`` is in the object's header."""

    key: str
    upload_id: str
    part_bytes: int
    generation: str
    txid: int
    created_ms: int


class UploadJournal:
    """At most one upload at a time. Any thread may use it."""

    def __init__(self, cache: Cache, store: Store, keys: Keys) -> None:
        self._cache = cache
        self._store = store
        self._keys = keys

    def find(self, txid: int, generation: str | None = None) -> SnapshotUpload | None:
        """The upload to resume for a snapshot of ``txid`` (in ``generation``, unless it is None).
        Aborts any other one."""
        upload = self._read()
        if upload is None:
            return None
        if upload.txid == txid and generation in (None, upload.generation):
            return upload
        self.abort()
        return None

    def _read(self) -> SnapshotUpload | None:
        try:
            return SnapshotUpload(**json.loads(self._cache.get(Fact.SNAPSHOT_UPLOAD) or "null"))
        except (TypeError, ValueError):
            return None

    def record(self, upload: SnapshotUpload) -> None:
        """An upload begins; call it before the first part is sent."""
        self._cache.put(Fact.SNAPSHOT_UPLOAD, json.dumps(asdict(upload)))

    def forget(self) -> None:
        """The upload ended."""
        self._cache.put(Fact.SNAPSHOT_UPLOAD, "")

    def abort(self) -> None:
        """Return the parts to the store, if it answers."""
        upload = self._read()
        if upload is not None:
            self.forget()
            self._abort(upload.key, upload.upload_id)

    def sweep(self) -> None:
        """Abort every other upload below the prefix: of a cache that was lost, or of a writer that
        lost the archive. Call it when a generation begins."""
        own = self._read()
        try:
            for upload in self._store.list_uploads(self._keys.root):
                if own is None or upload.upload_id != own.upload_id:
                    self._abort(upload.key, upload.upload_id)
        except ReplicatorError as error:
            log.info("unfinished uploads could not be listed: %s", error)

    def _abort(self, key: str, upload_id: str) -> None:
        """A lifecycle rule removes the uploads of a store that does not answer now."""
        try:
            self._store.abort_upload(key, upload_id)
        except ReplicatorError as error:
            log.info("the unfinished upload of %s was not aborted: %s", key, error)

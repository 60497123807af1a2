"""The snapshot upload that was begun and not ended: remembered, so that it can be gone on with.

Owns one fact in the ledger. What the store holds of the upload is for the store to say (S3's
ListParts); here is only where to ask.
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
class Begun:
    """A multipart upload of a snapshot. ``created_ms`` is in the header that it began with."""

    key: str
    upload_id: str
    part_bytes: int
    generation: str
    txid: int
    created_ms: int


class Unfinished:
    """At most one upload at a time. Safe to share, as the cache is."""

    def __init__(self, cache: Cache, store: Store, keys: Keys) -> None:
        self._cache = cache
        self._store = store
        self._keys = keys

    def find(self, txid: int, generation: str | None = None) -> Begun | None:
        """The upload to go on with for a snapshot of ``txid`` (in ``generation``, if that is
        fixed); any other one is given up."""
        begun = self._read()
        if begun is None:
            return None
        if begun.txid == txid and generation in (None, begun.generation):
            return begun
        self.give_up()
        return None

    def _read(self) -> Begun | None:
        try:
            return Begun(**json.loads(self._cache.get(Fact.SNAPSHOT_UPLOAD) or "null"))
        except (TypeError, ValueError):
            return None

    def note(self, begun: Begun) -> None:
        """An upload begins; to be called before its first part is sent."""
        self._cache.put(Fact.SNAPSHOT_UPLOAD, json.dumps(asdict(begun)))

    def forget(self) -> None:
        """The upload ended."""
        self._cache.put(Fact.SNAPSHOT_UPLOAD, "")

    def give_up(self) -> None:
        """Hand the parts back to the store, as far as it answers."""
        begun = self._read()
        if begun is not None:
            self.forget()
            self._abort(begun.key, begun.upload_id)

    def sweep(self) -> None:
        """Hand back every other upload below the prefix: of a cache that was lost, or of a
        writer that lost the log. To be called when a generation begins."""
        begun = self._read()
        try:
            for upload in self._store.list_uploads(self._keys.root):
                if begun is None or upload.upload_id != begun.upload_id:
                    self._abort(upload.key, upload.upload_id)
        except ReplicatorError as error:
            log.info("unfinished uploads could not be listed: %s", error)

    def _abort(self, key: str, upload_id: str) -> None:
        """What a dead store keeps of them, its lifecycle rule removes."""
        try:
            self._store.abort_upload(key, upload_id)
        except ReplicatorError as error:
            log.info("the unfinished upload of %s was not given up: %s", key, error)

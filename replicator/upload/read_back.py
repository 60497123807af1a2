"""Reads back what the store confirmed: at once after the first appends, then a sample.

A store may confirm an object and drop it, or keep it under another key. No answer to a PUT shows
that. Owns: which appends are read back, and what counts as kept. Refuses: to call such an append
durable; it stays in the cache, and the uploader repeats it.

Requests: for a new generation a HEAD of its snapshot before the marker, a LIST after it, and a HEAD
of the first segment; afterwards one HEAD for each :attr:`.UploadLimits.read_back_every` appends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from replicator.archive.keys import Keys
from replicator.archive.listing import list_segments
from replicator.cache.records import SegmentRecord
from replicator.errors import Cancelled, ObjectMissing, StoreUnsafe
from replicator.model import Kind
from replicator.store.base import Store
from replicator.upload.fencing import is_same


class ReadBack:
    """Used by the upload thread alone."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        every: int,
        pauses: Sequence[float],
        *,
        interrupted: Callable[[float], bool],
    ) -> None:
        """``pauses`` are seconds between the questions for an object that seems to be missing: a
        gateway may answer from an older state for a moment. ``interrupted(seconds)`` waits that
        long, and returns True as soon as the upload has to end or to pause."""
        self._store = store
        self._pauses = pauses
        self._interrupted = interrupted
        self._keys = keys
        self._every = every
        self._left = every  # appends until the next one is read back
        self._first = False  # that one is the first after a marker

    def before(self, record: SegmentRecord) -> None:
        """``StoreUnsafe`` if ``record`` begins a generation whose snapshot the store dropped."""
        if record.kind is not Kind.GENERATION:
            return
        key = self._keys.snapshot(record.first_txid, record.generation)
        try:
            self._store.head(key)
        except ObjectMissing as error:
            raise self._not_kept(key) from error

    def after(self, record: SegmentRecord) -> bool:
        """False if a sample is missing that the store confirmed just now: then appends before it,
        which are called durable, may be missing, too. ``StoreUnsafe`` if one of the first appends
        of a generation is missing, of which nothing is called durable yet. ``Cancelled`` if the
        upload was interrupted; the same question comes after the next append."""
        if record.kind is Kind.GENERATION:
            found = list_segments(self._store, self._keys, record.first_txid)
            if not any(item.key == record.key for item in found):
                raise self._not_kept(record.key)
            self._left, self._first = 0, True
            return True
        if self._left > 0:
            self._left -= 1
            return True
        kept = self._has(record)
        if not kept and self._first:
            raise self._not_kept(record.key)
        self._left, self._first = self._every, False
        return kept

    def _has(self, record: SegmentRecord) -> bool:
        for pause in (0.0, *self._pauses):
            if pause and self._interrupted(pause):
                raise Cancelled("the upload was interrupted before the store was asked again")
            with contextlib.suppress(ObjectMissing):
                if is_same(self._store, record):
                    return True
        return False

    def _not_kept(self, key: str) -> StoreUnsafe:
        return StoreUnsafe(
            f"{self._store.url} confirmed {key}, but does not have it",
            url=self._store.url,
            code="not_kept",
            hint="nothing is lost: the transactions wait in the cache. Check the disks of the "
            "store and its rules of expiry, or choose another; a restart sends the snapshot again",
        )

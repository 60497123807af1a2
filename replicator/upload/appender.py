"""Appends one segment to the archive, fenced before and after, and reads samples back.

Owns: the sender, the samples, and the time since the archive was last seen to be this cache's own.
Refuses: to choose the segment, to retry, and to decide what a lost archive means.
"""

from __future__ import annotations

from collections.abc import Callable

from replicator.archive.keys import Keys
from replicator.cache.cache import Cache
from replicator.cache.records import SegmentRecord
from replicator.store.base import Store
from replicator.upload.fencing import Freshness, Reading, read_clocks, refuse_later, still_holds
from replicator.upload.limits import UploadLimits
from replicator.upload.read_back import ReadBack
from replicator.upload.sender import Sender


class Appender:
    """Used by one thread."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        cache: Cache,
        limits: UploadLimits,
        *,
        interrupted: Callable[[float], bool],
        clocks: Callable[[], Reading] = read_clocks,
    ) -> None:
        """``interrupted(seconds)``: see :class:`ReadBack`."""
        self._store = store
        self._keys = keys
        self._cache = cache
        self._sender = Sender(store, cache, limits)
        every, pauses = limits.read_back_every, limits.read_back_pauses
        self._read_back = ReadBack(store, keys, every, pauses, interrupted=interrupted)
        self._freshness = Freshness(clocks)

    @property
    def stale(self) -> bool:
        """True if :meth:`look` has to come before the next append."""
        return self._freshness.stale

    def look(self) -> bool:
        """As :func:`still_holds`."""
        began = self._freshness.now()
        holds = still_holds(self._store, self._keys, self._cache)
        self._freshness.seen(began)
        return holds

    def append(self, record: SegmentRecord) -> bool:
        """Append, and look again if that took so long that another writer may have appended at
        the key, merged its segment, and deleted it before this append. False: the store loses
        what it confirms. ``Fenced``, and the errors of the sender and of the samples."""
        began = self._freshness.now()
        self._read_back.before(record)
        self._sender.send(record)
        kept = self._read_back.after(record)
        if self._freshness.stale:
            refuse_later(self._store, self._keys, record, self._cache.writer)
        self._freshness.seen(began)
        return kept

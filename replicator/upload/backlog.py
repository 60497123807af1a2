"""Sends what waits in the cache before a start restores the database.

Owns: the order, which is that of the upload worker, without its thread and its retries. Refuses: to
drop a segment, and to send any once the archive is not as the cache left it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from replicator.archive.keys import Keys
from replicator.cache.cache import Cache
from replicator.cache.records import SegmentRecord
from replicator.errors import LocalIOError, ReplicatorError
from replicator.store.base import Store
from replicator.system import clock
from replicator.upload.appender import Appender
from replicator.upload.limits import UploadLimits


def send_waiting(
    store: Store,
    keys: Keys,
    cache: Cache,
    limits: UploadLimits,
    *,
    interrupted: Callable[[float], bool],
) -> bool:
    """Appends every waiting segment, oldest first. False: the store does not hold the archive that
    the cache continues, or loses what it confirms. The errors of :class:`Appender`, after which the
    rest still waits. ``interrupted(seconds)`` waits that long; it may raise ``Cancelled``."""
    appender = Appender(store, keys, cache, limits, interrupted=interrupted)
    if not appender.look():
        return False
    for waiting in cache.pending():
        interrupted(0.0)
        record = cache.uploading(waiting.first_txid)
        if record is not None and not _append(appender, cache, record):
            return False
    return True


def _append(appender: Appender, cache: Cache, record: SegmentRecord) -> bool:
    try:
        if appender.stale and not appender.look():
            return False
        if not appender.append(record):
            return False
    except ReplicatorError as error:
        with contextlib.suppress(LocalIOError):
            cache.failed(record.first_txid, str(error), clock.now_ms())
        raise
    cache.uploaded(record.first_txid, clock.now_ms())
    return True

"""Sends what waits in the cache of a database before a start restores it.

The cache is the only place of these transactions, and the archive lacks them until they are sent: a
restore before that gives an older state, and the application continues from it.

Owns: the error if they cannot be sent, and the way on by order. Refuses: to drop them, and to
answer for a store that does not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from replicator.archive.keys import Keys
from replicator.cache.cache import Cache
from replicator.cache.records import SegmentRecord
from replicator.errors import DamageError, Fenced, RefusedError, StoreUnsafe
from replicator.store.base import Store
from replicator.system.files import Files
from replicator.upload.backlog import send_waiting
from replicator.upload.limits import UploadLimits

log = logging.getLogger(__name__)


def send_first(
    store: Store,
    keys: Keys,
    directory: Path,
    files: Files,
    *,
    ordered: bool,
    interrupted: Callable[[float], bool],
) -> None:
    """Returns once nothing waits in the cache at ``directory``. ``RefusedError`` if the cache does
    not continue the archive, or is damaged, unless the restore is ``ordered``; the errors of the
    store and of the disk. ``interrupted``: see :func:`send_waiting`. No request if nothing
    waits."""
    if not (directory / "state.db").exists():
        return
    with Cache.open(directory, files) as cache:
        if not (waiting := cache.pending()):
            return
        log.info("%s; they are sent before the restore", _described(waiting, directory))
        reason = _send(store, keys, cache, interrupted)
        if not reason:
            return
        text = f"{_described(cache.pending(), directory)} and cannot be sent: {reason}"
    if not ordered:
        raise RefusedError(
            text,
            code="cache_not_sent",
            hint="copy the cache directory. To continue from the state in the bucket without these "
            "transactions, start with --restore",
        )
    log.warning("%s; the restore leaves them out, by order", text)


def _send(store: Store, keys: Keys, cache: Cache, interrupted: Callable[[float], bool]) -> str:
    """Why the rest cannot be sent; "" if nothing is left."""
    try:
        sent = send_waiting(store, keys, cache, UploadLimits(), interrupted=interrupted)
    except (DamageError, Fenced, StoreUnsafe) as error:
        return str(error)
    return "" if sent else f"{store.url} does not hold the archive that they continue"


def _described(waiting: list[SegmentRecord], directory: Path) -> str:
    first, last = waiting[0].first_txid, waiting[-1].last_txid
    return f"transactions {first} to {last} wait in {directory}"

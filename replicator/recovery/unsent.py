"""Refuses a restore of an older state than the one that waits in the cache of the output.

Owns: the comparison of the archive's newest transaction with those of the cache next to the output.
Refuses: to send them, and to look into a cache at another place.
"""

from __future__ import annotations

import logging
from pathlib import Path

from replicator.archive.keys import Keys
from replicator.cache.unsent import unsent
from replicator.errors import LocalIOError, RefusedError
from replicator.system.paths import cache_directory

log = logging.getLogger(__name__)


def refuse_older(output: Path, keys: Keys, newest: int) -> None:
    """``RefusedError`` if the cache of ``output`` holds transactions of this archive after
    ``newest``, which is the archive's last one. No request."""
    cache = cache_directory(output)
    try:
        segments = unsent(cache)
    except (LocalIOError, OSError) as error:
        log.warning("it is not known if transactions wait in %s: %s", cache, error)
        return
    waiting = [(first, last) for first, last, key in segments if key == keys.wal(first)]
    if not waiting or waiting[-1][1] <= newest:
        return
    raise RefusedError(
        f"transactions {waiting[0][0]} to {waiting[-1][1]} wait in {cache}, and the newest one in "
        f"the bucket is {newest}: the restored file would lack them",
        code="cache_waits",
        hint="send them first: `replicator run` does, also without the database, and with "
        "--auto-restore it restores afterwards. To restore the older state all the same: "
        f"--txid {newest}",
    )

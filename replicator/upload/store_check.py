"""Checks that the store supports conditional PUTs: before the first append, then remembered.

A store that ignores ``If-None-Match`` would let two writers append at one key, and neither would
notice.

Owns: the verdict, and its memory in the ledger. Refuses: such a store, unless the settings take
the risk.
"""

from __future__ import annotations

import json
import logging

from replicator.cache.cache import Cache
from replicator.cache.records import Fact
from replicator.errors import StoreUnsafe
from replicator.store import probe
from replicator.store.address import StoreAddress
from replicator.store.base import Store

RACERS = 4  # enough for a store that checks first and writes then; doctor takes more time

log = logging.getLogger(__name__)


def require_conditional_put(
    address: StoreAddress,
    store: Store,
    patient: Store,
    cache: Cache,
    *,
    allow_unsafe: bool,
    anew: bool,
) -> None:
    """Race a few conditional PUTs, unless this cache remembers that this store passed.

    ``patient`` is ``store`` with retries; ``anew``: ignore the memory. ``StoreUnsafe`` for a
    store that lets several writers win, or none.
    """
    place = [address.url, address.endpoint_url]
    winners = None if anew else _remembered(cache, place)
    if winners is None or (winners != 1 and not allow_unsafe):
        winners = probe.race_conditional_put(store, address.prefix, RACERS, patient=patient)
        cache.put(Fact.STORE_CHECK, json.dumps([place, winners]))
    if winners == 1:
        return
    message = (
        f"{address.url}: {winners} of {RACERS} writers to one key got the answer that they "
        "alone created it"
    )
    if not allow_unsafe:
        raise StoreUnsafe(
            message,
            url=address.url,
            hint=(
                "this store ignores If-None-Match, so two replicators could damage the archive "
                "unnoticed; use another store, or --allow-unsafe-store if only one will ever write"
            ),
        )
    log.warning("%s; continuing because allow_unsafe_store is set", message)


def _remembered(cache: Cache, place: list[str | None]) -> int | None:
    """The number of winners when this store was checked; None: it was not."""
    known, winners = json.loads(cache.get(Fact.STORE_CHECK) or "[null, null]")
    return int(winners) if known == place else None

"""Whether the store may be trusted with a log: proved before the first append, remembered after.

Owns the verdict and its memory in the ledger. A store that ignores ``If-None-Match`` would let
two writers tear the log apart without either of them noticing; so it is refused, unless the
config takes the risk.
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

RACERS = 4  # enough for a store that looks first and writes then; doctor takes more time

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

    ``patient`` is ``store`` with retries; ``anew``: remember nothing. ``StoreUnsafe`` for a
    store that lets several win, or none.
    """
    place = [address.url, address.endpoint_url]
    winners = None if anew else _remembered(cache, place)
    if winners is None or (winners != 1 and not allow_unsafe):
        winners = probe.race_conditional_put(store, address.prefix, RACERS, patient=patient)
        cache.put(Fact.STORE_CHECK, json.dumps([place, winners]))
    if winners == 1:
        return
    told = (
        f"{address.url}: {winners} of {RACERS} writers to one key were told that they "
        "alone created it"
    )
    if not allow_unsafe:
        raise StoreUnsafe(
            told,
            hint=(
                "this store breaks If-None-Match, so two replicators could tear the log apart "
                "unnoticed; use another one, or --allow-unsafe-store where only one will ever write"
            ),
        )
    log.warning("%s; going on, for allow_unsafe_store is set", told)


def _remembered(cache: Cache, place: list[str | None]) -> int | None:
    """How many won when this very store was asked; None: it was not."""
    known, winners = json.loads(cache.get(Fact.STORE_CHECK) or "[null, null]")
    return int(winners) if known == place else None

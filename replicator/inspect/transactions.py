"""The transactions of an archive one by one, newest first, for ``history --transactions``.

Owns the walk along the finest objects, one request each, as far as the caller iterates. Refuses to
read the contents of the transactions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from replicator.archive.facts import FactsReader, require_tail_fits
from replicator.archive.index import Index, WalObject
from replicator.archive.keys import Keys
from replicator.archive.listing import list_all
from replicator.archive.locate import no_backup, url_of
from replicator.format.wal import HEADER_SIZE
from replicator.model import Kind
from replicator.store.base import Store


@dataclass(frozen=True, slots=True)
class Transaction:
    """``kind`` is commit; catch-up: the changes made without a replicator; step: transactions kept
    as one; start: of a generation; missing: no object holds ``first_txid`` … ``txid``.
    ``frames`` and ``bytes`` are those of the WAL; they are 0 where nothing was logged.
    """

    kind: Literal["commit", "catch-up", "step", "start", "missing"]
    first_txid: int
    txid: int
    committed_ms: int | None
    frames: int
    bytes: int


_ONE: dict[Kind, Literal["catch-up", "step", "start"]] = {
    Kind.CATCH_UP: "catch-up",
    Kind.GENERATION: "start",
}


def transactions(store: Store, prefix: str) -> Iterator[Transaction]:
    """Newest first; three listings, then one request an object. ``NoBackup`` if there is none,
    ``DamageError`` at an object that is damaged."""
    index, reader = Index.of(list_all(store, Keys(prefix))), FactsReader(store)
    if not index.wal:
        raise no_backup(url_of(store, prefix))
    here: int | None = None  # everything from this txid on is listed already
    for item in sorted(index.wal, key=lambda item: (-item.first, item.last)):
        if here is None or item.first < here:
            yield from _inside(reader, item, here)
            here = item.first


def _inside(reader: FactsReader, item: WalObject, before: int | None) -> Iterator[Transaction]:
    """The transactions of an object up to ``before``, newest first."""
    tail = reader.tail(item)
    require_tail_fits(item, tail)
    trailer, first = tail.trailer, item.first
    if before is not None and trailer.last_txid + 1 < before:
        yield Transaction("missing", trailer.last_txid + 1, before - 1, None, 0, 0)
    counts = trailer.commit_frames
    if tail.kind in _ONE or len(counts) != trailer.last_txid - first + 1:
        payload = max(0, trailer.payload_bytes - HEADER_SIZE)
        yield Transaction(
            _ONE.get(tail.kind, "step"),
            first,
            trailer.last_txid,
            trailer.last_commit_ms,
            sum(counts),
            payload,
        )
        return
    frame = (trailer.payload_bytes - HEADER_SIZE) // max(1, sum(counts))
    times = trailer.commit_times_ms
    for at in reversed(range(len(counts))):
        if before is None or first + at < before:
            known = times[at] if len(times) == len(counts) else None
            yield Transaction(
                "commit", first + at, first + at, known, counts[at], counts[at] * frame
            )

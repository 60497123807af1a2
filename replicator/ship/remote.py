"""What the store holds of the log, asked in as few requests as possible."""

from __future__ import annotations

from collections.abc import Callable

from ..edge.store.base import Store
from ..errors import Fenced
from ..format.envelope import HEADER_LIMIT, TAIL_LIMIT, Tail, read_header, read_tail
from ..format.keys import Keys, SnapshotKey, WalKey, parse_key
from ..format.objects import ObjectFacts, Trailer, parse_metadata
from .cache import Cache, SegmentRecord


def log_after(store: Store, keys: Keys, txid: int) -> list[WalKey]:
    """The log's objects whose first txid is ``txid`` or later, in order. One listing."""
    after = keys.wal(txid - 1) if txid > 0 else ""
    return [found for info in store.list(keys.wal_dir, start_after=after)
            if isinstance(found := parse_key(keys.prefix, info.key, info.size), WalKey)]


def remote_head(store: Store, keys: Keys) -> ObjectFacts | None:
    """The newest object of the log, found from the newest snapshot on; None: no log."""
    newest = 0
    for info in store.list(keys.snapshot_dir):
        found = parse_key(keys.prefix, info.key, info.size)
        if isinstance(found, SnapshotKey):
            newest = max(newest, found.txid)
    entries = log_after(store, keys, newest) or log_after(store, keys, 0)
    return facts_of(store, entries[-1]) if entries else None


def facts_of(store: Store, entry: WalKey) -> ObjectFacts:
    """What an object says of itself: by its metadata, or by its own header and trailer."""
    facts = parse_metadata(store.head(entry.key).metadata)
    if facts is not None:
        return facts
    header, _ = read_header(store.get(entry.key, 0, HEADER_LIMIT), entry.key)
    trailer = _trailer(store, entry)
    return ObjectFacts(
        kind=header.kind, generation=header.generation, first_txid=header.first_txid,
        last_txid=trailer.last_txid, page_size=header.page_size, pages=trailer.pages,
        checksum_before=trailer.checksum_before, checksum_after=trailer.checksum_after,
        created_ms=header.created_ms, first_commit_ms=trailer.first_commit_ms,
        last_commit_ms=trailer.last_commit_ms, sha256="", writer=header.writer)


def _trailer(store: Store, entry: WalKey) -> Trailer:
    needed = min(entry.size, TAIL_LIMIT)
    while True:
        tail = read_tail(store.get(entry.key, -needed), entry.size, entry.key)
        if isinstance(tail, Tail):
            return tail.trailer
        needed = tail


def fenced(url: str, txid: int, holder: str) -> Fenced:
    return Fenced(
        f"another writer ({holder}) holds the log at {url}: txid {txid} is taken by other data",
        hint="stop the other replicator, or restore first; --take-over starts a new generation "
             "here and keeps the old history restorable")


def settle_taken(store: Store, record: SegmentRecord, digest: Callable[[bytes], str]) -> None:
    """Return if the object at the record's key is our own write whose answer was lost;
    ``Fenced`` if somebody else's bytes are there."""
    stored = store.head(record.key).metadata
    found = stored.get("sha256") or digest(store.get(record.key))
    if found != record.sha256:
        raise fenced(store.url, record.first_txid, stored.get("writer", "of unknown name"))


def still_holds(store: Store, keys: Keys, cache: Cache, digest: Callable[[bytes], str]) -> bool:
    """Whether the store still has the newest object it acknowledged, and neither in its place
    nor after it anything that is not ours (``Fenced``). One listing and one HEAD."""
    durable = cache.durable()
    if durable is None:
        return True
    entries = log_after(store, keys, durable.first_txid)
    ours = {record.first_txid: record for record in cache.pending()}
    for entry in entries:
        if entry.first_txid <= durable.first_txid:
            continue
        if entry.first_txid not in ours:
            facts = facts_of(store, entry)
            raise fenced(store.url, entry.first_txid, facts.writer)
        settle_taken(store, ours[entry.first_txid], digest)
    if not entries or entries[0].first_txid != durable.first_txid:
        return False
    if durable.sha256:  # unknown when it was adopted from a store that keeps no metadata
        settle_taken(store, durable, digest)
    return True

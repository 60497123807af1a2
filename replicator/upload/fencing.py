"""The fencing rule: checks which writer owns the archive, in as few requests as possible.

Owns the comparison of the archive with the cache, the claim of a take-over, and the error
``Fenced``. Refuses to decide how the archive continues.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from replicator.archive.facts import FactsReader, header_of
from replicator.archive.index import EVERY_TRANSACTION, WalObject
from replicator.archive.keys import Keys
from replicator.archive.listing import list_merges, list_segments, newest_segment
from replicator.cache.cache import Cache
from replicator.cache.records import SegmentRecord
from replicator.errors import DamageError, Fenced, ObjectExists, ObjectMissing
from replicator.format.object_header import ObjectFacts, ObjectHeader, parse_metadata
from replicator.format.segment import generation_marker
from replicator.model import DatabaseState, Kind
from replicator.store.base import ObjectInfo, Store

log = logging.getLogger(__name__)


def archive_head(store: Store, keys: Keys) -> ObjectFacts | None:
    """The facts of the newest segment in the archive; None: there is none."""
    newest = newest_segment(store, keys)
    return facts_of(store, newest) if newest is not None else None


def facts_of(store: Store, item: WalObject) -> ObjectFacts:
    """The facts of an object: by its metadata, or by its own header and trailer."""
    facts = FactsReader(store).ask(item).facts
    assert facts is not None  # it was asked just now
    return facts


def author(store: Store, info: ObjectInfo) -> str:
    """The writer of an object, in words: from its metadata, else from its own header."""
    host, writer = info.metadata.get("host"), _writer(store, info)
    if host and writer:
        return f"{host} (writer {writer})"
    return host or (f"writer {writer}" if writer else "a writer of unknown name")


def _writer(store: Store, info: ObjectInfo) -> str:
    if known := info.metadata.get("writer"):
        return known
    try:
        return header_of(store, info.key).writer
    except DamageError:
        return ""


def fenced(store: Store, key: str, txid: int, own_writer: str) -> Fenced:
    """The error that names the writer of an object, its time, and both ways out."""
    info = store.head(key)
    copy = own_writer and _writer(store, info) == own_writer
    who = "another writer, with a copy of this cache," if copy else "another writer"
    since = f"{datetime.fromtimestamp(info.modified_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    holder = author(store, info)
    return Fenced(
        f"{who} owns the archive at {store.url}: txid {txid} was written by {holder} at {since}",
        holder=holder,
        url=store.url,
        txid=txid,
        hint="find out which database is the right one. If it is the one in the bucket: restore "
        "with --overwrite, then start again. If it is this one: stop the other replicator "
        "and start here with --take-over, which keeps the other history restorable",
    )


def settle_taken(
    store: Store, record: SegmentRecord, digest: Callable[[bytes], str], own_writer: str
) -> None:
    """Return if the object at the record's key is our own write whose answer was lost; ``Fenced``
    if it holds other bytes."""
    found = store.head(record.key).metadata.get("sha256") or digest(store.get(record.key))
    if found != record.sha256:
        raise fenced(store, record.key, record.first_txid, own_writer)


def still_holds(store: Store, keys: Keys, cache: Cache, digest: Callable[[bytes], str]) -> bool:
    """True if the store still has the newest object it acknowledged. False if it lost that object,
    or the snapshot of a marker in the cache, and no other writer owns the archive. ``Fenced`` if
    that object, or a later one, was not written by us. One listing and one HEAD."""
    durable = cache.durable()
    ours = {record.first_txid: record for record in cache.pending()}
    if ours and ours[min(ours)].kind is Kind.GENERATION:
        durable = None  # a new generation needs nothing before it
    if durable is None and not ours:
        return True
    known = durable.first_txid if durable is not None else min(ours)
    found = list_segments(store, keys, known)
    for item in found:
        if durable is not None and item.first == durable.first_txid:
            continue
        if item.first not in ours:
            raise fenced(store, item.key, item.first, cache.writer)
        settle_taken(store, ours[item.first], digest, cache.writer)
    if durable is None:
        return bool(found) or _has_snapshot(store, keys, ours[known])
    if not found or found[0].first != durable.first_txid:
        _refuse_foreign(store, keys, cache)
        return False
    if durable.sha256:  # unknown when it was adopted from a store that keeps no metadata
        settle_taken(store, durable, digest, cache.writer)
    return True


def _has_snapshot(store: Store, keys: Keys, first: SegmentRecord) -> bool:
    """True if the segments in the cache can begin an archive: their snapshot is in the store."""
    if first.kind is not Kind.GENERATION:
        return True
    try:
        store.head(keys.snapshot(first.first_txid, first.generation))
    except ObjectMissing:
        return False
    return True


def refuse_later(store: Store, keys: Keys, record: SegmentRecord, own_writer: str) -> None:
    """``Fenced`` if segments follow an object that we appended just now.

    If a merge already holds its transactions, its key had been freed by retention, and the object
    is deleted again; else it stays, because later segments may depend on it.
    """
    later = list_segments(store, keys, record.first_txid + 1)
    if not later:
        return
    covered = any(
        merge.level == EVERY_TRANSACTION and merge.first <= record.first_txid <= merge.last
        for merge in list_merges(store, keys)
    )
    if covered:
        store.delete(record.key)
    raise fenced(store, later[-1].key, later[-1].first, own_writer)


def _refuse_foreign(store: Store, keys: Keys, cache: Cache) -> None:
    """``Fenced`` if another writer's archive replaced ours."""
    left = list_segments(store, keys, 0)
    if left and facts_of(store, left[-1]).writer != cache.writer:
        raise fenced(store, left[-1].key, left[-1].first, cache.writer)


def claim(
    store: Store, keys: Keys, head: ObjectFacts, header: ObjectHeader, notes: dict[str, str]
) -> ObjectFacts | None:
    """Append a transaction that changes nothing to the archive of another writer, which can append
    nothing after that. None: another append was quicker, and the head changed.

    So a take-over wins even against a writer that never pauses, because it takes one small
    request; the snapshot that follows may be slow. The archive is restorable at every instant.
    """
    data, summary = generation_marker(header, state=DatabaseState(head.pages, head.checksum_after))
    metadata = summary.metadata() | notes
    try:
        store.put(keys.wal(header.first_txid), data, metadata=metadata)
    except ObjectExists:
        if store.head(keys.wal(header.first_txid)).metadata.get("sha256") != summary.sha256:
            return None
    log.info("claimed the archive at txid %d", header.first_txid)
    return parse_metadata(metadata)

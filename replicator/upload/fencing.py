"""Fencing: proves before and after an append that no other writer owns the archive.

Owns: whose object is at a key, the error that names its writer, the claim of a take-over, and the
time since the archive was last seen to be this cache's own. Refuses: leases, and the clock of
another machine.

Why time counts at all
----------------------
A key for the next append is taken once another writer appended there. Minutes later it may be
free again, because the segments were merged and the originals deleted. So after a pause the
uploader checks the archive before the next append, and after an append that took as long. Only
the length of the own pause counts, by the local clock that ran longest.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from replicator.archive.facts import FactsReader, header_of
from replicator.archive.index import EVERY_TRANSACTION, WalObject
from replicator.archive.keys import Keys
from replicator.archive.listing import list_merges, list_segments, newest_segment
from replicator.archive.seals import is_sealed
from replicator.archive.timespec import to_text
from replicator.cache.cache import Cache
from replicator.cache.records import Fact, SegmentRecord
from replicator.errors import (
    DamageError,
    Fenced,
    ObjectExists,
    ObjectMissing,
    RefusedError,
    StoreUnavailable,
    Unreadable,
)
from replicator.format.integrity import REFUSALS, place_of
from replicator.format.object_header import ObjectFacts, ObjectHeader, parse_metadata
from replicator.format.segment import generation_marker
from replicator.model import DatabaseState, Kind
from replicator.recovery.start import CHOOSE, Outcome
from replicator.store.base import ObjectInfo, Store

LONGEST_PAUSE = 60.0  # seconds; segments stay for five minutes after their merge

Reading = tuple[float, ...]

log = logging.getLogger(__name__)


# ------------------------------------------------------------------------------ the archive


def archive_head(store: Store, keys: Keys) -> ObjectFacts | None:
    """The facts of the newest segment in the archive; None: there is none."""
    newest = newest_segment(store, keys)
    return facts_of(store, newest) if newest is not None else None


def facts_of(store: Store, item: WalObject) -> ObjectFacts:
    """The facts of an object: by its metadata, or by its own header and trailer."""
    facts = FactsReader(store).ask(item).facts
    assert facts is not None  # it was asked just now
    if store.integrity is None:
        return facts
    known = parse_metadata(store.head(item.key).metadata)  # a note for people has no seal
    return facts if known is None else replace(facts, last_event=known.last_event)


def require_sealed(store: Store, keys: Keys) -> None:
    """``RefusedError`` unless one of the store's integrity keys sealed the newest object of the
    archive. One listing and one GET or two; nothing without such keys."""
    if store.integrity is None:
        return
    newest = newest_segment(store, keys)
    try:
        if newest is not None:
            FactsReader(store).prove(newest)
    except DamageError as error:
        if error.code in REFUSALS:
            raise RefusedError(
                f"the archive ends with an object that the integrity key refuses: {error}",
                code="archive_not_sealed",
                hint="an archive is sealed from its first object on: begin one at a new --prefix. "
                "The one here stays restorable without the key",
            ) from error
        raise


def seal_fact(store: Store, keys: Keys, *, sealed: bool) -> str:
    """Whether the archive is sealed, as the cache records it under ``Fact.SEALED``."""
    return f"{'sealed' if sealed else 'bare'} {store.url} {keys.prefix}"


def require_key(store: Store, keys: Keys, cache: Cache, *, anew: bool) -> bool:
    """``RefusedError`` if the archive is sealed and the store has no integrity key. One listing and
    one GET, unless the cache knows the answer; ``anew``: it does not count. A store that is away
    delays no database that its cache continues: False, the answer is not known."""
    if store.integrity is not None:
        return True
    known = None if anew else cache.get(Fact.SEALED)
    sealed: bool | None = known == seal_fact(store, keys, sealed=True)
    if known not in (seal_fact(store, keys, sealed=True), seal_fact(store, keys, sealed=False)):
        try:
            sealed = is_sealed(store, keys)
        except StoreUnavailable:
            if anew:
                raise
            return False
    if sealed:
        raise RefusedError(
            f"the archive at {store.url} is sealed, and no integrity key is set",
            code="archive_sealed",
            hint="set integrity_key to the file with its keys. If they are lost, begin an archive "
            "at a new --prefix; the sealed one stays restorable",
        )
    return True


def still_holds(store: Store, keys: Keys, cache: Cache) -> bool:
    """Checks whether the store still has the newest object that it acknowledged. ``Fenced`` if an
    object at its key or after it is of another writer. One listing and one HEAD.

    False: the store lost that object, or the snapshot of a generation whose marker waits in the
    cache, and no other writer owns the archive.
    """
    durable, waiting = cache.delivered()
    ours = {record.first_txid: record for record in waiting}
    if ours and ours[min(ours)].kind is Kind.GENERATION:
        durable = None  # a new generation does not depend on the objects before it
    if durable is None and not ours:
        return True
    known = durable.first_txid if durable is not None else min(ours)
    found = list_segments(store, keys, known)
    for item in found:
        if durable is not None and item.first == durable.first_txid:
            continue
        if item.first not in ours:
            raise fenced(store, item.key, item.first, cache.writer)
        settle_taken(store, ours[item.first], cache.writer)
    if durable is None:
        return bool(found) or _has_snapshot(store, keys, ours[known])
    if not found or found[0].first != durable.first_txid:
        _refuse_foreign(store, keys, cache)
        return False
    if durable.sha256:  # unknown if it was adopted from a store that keeps no metadata
        settle_taken(store, durable, cache.writer)
    return True


def _has_snapshot(store: Store, keys: Keys, first: SegmentRecord) -> bool:
    """True unless ``first`` is a generation's marker whose snapshot the store lost."""
    if first.kind is not Kind.GENERATION:
        return True
    try:
        store.head(keys.snapshot(first.first_txid, first.generation))
    except ObjectMissing:
        return False
    return True


def _refuse_foreign(store: Store, keys: Keys, cache: Cache) -> None:
    """``Fenced`` if the archive of another writer replaced this cache's."""
    left = list_segments(store, keys, 0)
    if left and facts_of(store, left[-1]).writer != cache.writer:
        raise fenced(store, left[-1].key, left[-1].first, cache.writer)


# ------------------------------------------------------------------------------ one object


def author(store: Store, info: ObjectInfo) -> str:
    """The writer of an object, in words: by its metadata, else by its own header."""
    host, writer = info.metadata.get("host"), _writer(store, info)
    if host and writer:
        return f"{host} (writer {writer})"
    return host or (f"writer {writer}" if writer else "a writer of unknown name")


def _writer(store: Store, info: ObjectInfo) -> str:
    if known := info.metadata.get("writer"):
        return known
    try:
        return header_of(store, info.key).writer
    except Unreadable:
        return ""


def fenced(store: Store, key: str, txid: int, own_writer: str) -> Fenced:
    """The error that names the owner of the archive, the time, and both ways out."""
    info, holder, since = _append_of(store, key)
    copy = own_writer and _writer(store, info) == own_writer
    who = "another writer, with a copy of this cache," if copy else "another writer"
    return Fenced(
        f"{who} owns the archive at {store.url}: txid {txid} was written by {holder} at {since}",
        holder=holder,
        url=store.url,
        txid=txid,
        hint=CHOOSE,
    )


def foreign(store: Store, keys: Keys, first_txid: int, reason: str, outcome: Outcome) -> Fenced:
    """The error for a database that may not continue the archive. ``first_txid`` is that of the
    newest object."""
    _, holder, since = _append_of(store, keys.wal(first_txid))
    return Fenced(
        f"{reason}; another writer owns the archive at {store.url}: txid {first_txid} was written "
        f"by {holder} at {since}",
        holder=holder,
        url=store.url,
        txid=first_txid,
        code=outcome.code,
        hint=outcome.hint,
    )


def _append_of(store: Store, key: str) -> tuple[ObjectInfo, str, str]:
    """The object at a key, its writer, and the time of its append, in words."""
    info = store.head(key)
    return info, author(store, info), to_text(info.modified_ms)


def settle_taken(store: Store, record: SegmentRecord, own_writer: str) -> None:
    """Return if the object at the record's key is this writer's own, whose answer was lost;
    ``Fenced`` if other bytes are there. ``ObjectMissing``."""
    if not is_same(store, record):
        raise fenced(store, record.key, record.first_txid, own_writer)


def is_same(store: Store, record: SegmentRecord) -> bool:
    """True if the object at the record's key has the captured bytes: by its metadata, or, where
    the store keeps none, by its content. ``ObjectMissing``."""
    found = store.head(record.key)
    if record.size and found.size != record.size:  # unknown of an object that was adopted
        return False
    known = found.metadata.get("sha256")
    return (known or hashlib.sha256(store.get(record.key)).hexdigest()) == record.sha256


def refuse_later(store: Store, keys: Keys, record: SegmentRecord, own_writer: str) -> None:
    """``Fenced`` if the archive continues behind an object that was appended just now.

    If a merge contains its transactions already, the object took a key that was free only because
    its segment was merged, and is deleted again. Else it stays, because the objects behind it may
    depend on it.
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


def claim(
    store: Store, keys: Keys, head: ObjectFacts, header: ObjectHeader, notes: dict[str, str]
) -> ObjectFacts | None:
    """Append a transaction without changes to the archive of another writer, which can append
    nothing after that. None: another writer appended first, and the head changed.

    The claim is one small request, so a take-over wins even against a writer that never pauses;
    the snapshot that follows may take its time. The archive is restorable at every instant.
    """
    key = keys.wal(header.first_txid)
    data, summary = generation_marker(
        header,
        state=DatabaseState(head.pages, head.checksum_after),
        place=place_of(store.integrity, key),
    )
    metadata = summary.metadata() | notes
    try:
        store.put(key, data, metadata=metadata)
    except ObjectExists:
        if store.head(key).metadata.get("sha256") != summary.sha256:
            return None
    log.info("claimed the archive at txid %d", header.first_txid)
    return parse_metadata(metadata)


# ------------------------------------------------------------------------------------ time


def read_clocks() -> Reading:
    """Three clocks: one stops while the machine sleeps, one may be set back, one is missing on
    some systems."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return (
        time.monotonic(),
        time.time(),
        time.monotonic() if boot is None else time.clock_gettime(boot),
    )


class Freshness:
    """Measures the time since the archive was last seen to be this cache's own. Used by the upload
    thread alone."""

    def __init__(self, clocks: Callable[[], Reading]) -> None:
        self._clocks = clocks
        self._seen: Reading = ()

    def now(self) -> Reading:
        return self._clocks()

    def seen(self, at: Reading) -> None:
        """At that time, or later, the archive was this cache's own."""
        self._seen = at

    @property
    def stale(self) -> bool:
        """True if too much may have happened since, or nothing was seen yet."""
        return not self._seen or any(
            now - then > LONGEST_PAUSE for now, then in zip(self._clocks(), self._seen, strict=True)
        )

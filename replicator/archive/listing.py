"""How the inventory comes out of a store: four listings, and a few HEADs where names do not tell.

Owns those requests. Refuses to guess: an encrypted object, which this version cannot judge,
stops everything.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from replicator.archive.inventory import (
    SEGMENTS,
    Inventory,
    LogItem,
    Object,
    PinnedPoint,
    SnapshotItem,
    doubtful,
    with_ends,
)
from replicator.archive.keys import (
    EncryptedKey,
    Keys,
    MergedKey,
    SnapshotKey,
    WalKey,
    parse_key,
    parse_pin_key,
)
from replicator.errors import ConfigError, ObjectMissing, ReplicatorError
from replicator.format.envelope import HEADER_LIMIT, TAIL_LIMIT, Tail, read_header, read_tail
from replicator.format.object_header import ObjectFacts, parse_metadata
from replicator.store.base import ObjectInfo, Store

NOTE_LIMIT = 64 * 1024  # bytes of a note worth reading


def take_inventory(store: Store, keys: Keys) -> Inventory:
    """Everything below the prefix, with what is known of the newest segment and with the
    generations judged."""
    segments, merges = list_log(store, keys)
    snapshots = list_snapshots(store, keys)
    found = [*with_ends(segments, merges), *merges]
    inventory = Inventory(
        log=tuple(found),
        snapshots=snapshots,
        pins=list_pins(store, keys),
        newest_ms=max(
            [item.stored_ms for item in found] + [item.stored_ms for item in snapshots], default=0
        ),
    )
    newest = inventory.newest_segment
    if newest is not None:
        inventory = inventory.with_items([ask(store, newest)])
    return judged(store, inventory)


def list_log(store: Store, keys: Keys) -> tuple[list[LogItem], list[LogItem]]:
    """Segments, whose ends are not known, and merges. Two listings."""
    segments, merges = [], []
    for info in store.list(keys.wal_dir):
        parsed = _parsed(keys, info)
        if isinstance(parsed, WalKey):
            segments.append(
                LogItem(
                    info.key,
                    SEGMENTS,
                    parsed.first_txid,
                    parsed.first_txid,
                    info.size,
                    info.modified_ms,
                    info.modified_ms,
                )
            )
    for info in store.list(keys.merged_dir):
        parsed = _parsed(keys, info)
        if isinstance(parsed, MergedKey):
            merges.append(
                LogItem(
                    info.key,
                    parsed.level,
                    parsed.first,
                    parsed.last,
                    info.size,
                    info.modified_ms,
                    info.modified_ms,
                )
            )
    return segments, merges


def list_snapshots(store: Store, keys: Keys) -> tuple[SnapshotItem, ...]:
    return tuple(
        SnapshotItem(
            info.key, parsed.txid, parsed.generation, info.size, info.modified_ms, info.modified_ms
        )
        for info in store.list(keys.snapshot_dir)
        if isinstance(parsed := _parsed(keys, info), SnapshotKey)
    )


def _parsed(keys: Keys, info: ObjectInfo) -> WalKey | MergedKey | SnapshotKey | None:
    parsed = parse_key(keys.prefix, info.key, info.size)
    if isinstance(parsed, EncryptedKey):
        raise ConfigError(f"{parsed.key} is encrypted, which this version cannot judge")
    return parsed


def judged(store: Store, inventory: Inventory) -> Inventory:
    """The same with every generation judged by an object of the log that contains one of its
    snapshots. One HEAD a generation."""
    asked: set[str] = set()
    while True:
        for generation, item in doubtful(inventory):
            if item.known:
                inventory = replace(inventory, rejected=inventory.rejected | {generation})
                break
            if item.key not in asked:
                asked.add(item.key)
                inventory = inventory.with_items([ask(store, item)])
                break
        else:
            return inventory


def ask(store: Store, item: LogItem) -> LogItem:
    """The item with what its object says of itself. ``ObjectMissing`` when it is gone."""
    facts = parse_metadata(store.head(item.key).metadata)
    return item.told(facts if facts is not None else read_facts(store, item.key, item.size))


def begun(store: Store, item: SnapshotItem) -> SnapshotItem:
    """The snapshot with the time at which it was begun."""
    facts = parse_metadata(store.head(item.key).metadata)
    if facts is not None:
        return replace(item, at_ms=facts.created_ms, known=True)
    header, _ = read_header(store.get(item.key, 0, HEADER_LIMIT), item.key)
    return replace(item, at_ms=header.created_ms, known=True)


def read_facts(store: Store, key: str, size: int) -> ObjectFacts:
    """The same from the object's own first and last bytes. ``DamageError``."""
    header, _ = read_header(store.get(key, 0, HEADER_LIMIT), key)
    wanted: Tail | int = TAIL_LIMIT
    while isinstance(wanted, int):
        wanted = read_tail(store.get(key, -min(size, wanted)), size, key)
    trailer = wanted.trailer
    return ObjectFacts(
        header.kind,
        header.generation,
        header.first_txid,
        trailer.last_txid,
        header.page_size,
        trailer.pages,
        trailer.checksum_before,
        trailer.checksum_after,
        header.created_ms,
        trailer.first_commit_ms,
        trailer.last_commit_ms,
        "",
        header.writer,
    )


@dataclass(frozen=True, slots=True)
class _Note:
    txid: int
    key: str


def list_pins(store: Store, keys: Keys) -> tuple[PinnedPoint, ...]:
    """Pinned restore points and their notes. One listing, and one GET a pin."""
    found = [
        _Note(txid, info.key)
        for info in store.list(keys.pin_dir)
        if (txid := parse_pin_key(keys.prefix, info.key)) is not None
    ]
    return tuple(PinnedPoint(note.txid, _note(store, note.key)) for note in found)


def _note(store: Store, key: str) -> str:
    """An unreadable note does not make the point any less pinned."""
    with contextlib.suppress(ValueError, ObjectMissing):
        document = json.loads(store.get(key, 0, NOTE_LIMIT))
        if isinstance(document, dict):
            return str(document.get("note", ""))
    return ""


def pin(store: Store, keys: Keys, point: PinnedPoint) -> None:
    """Pin a restore point, or change its note."""
    body = json.dumps({"txid": point.txid, "note": point.note}).encode()
    store.put(keys.pin(point.txid), body, if_absent=False)


def unpin(store: Store, keys: Keys, txid: int) -> None:
    """Let a pinned restore point go; ``ReplicatorError`` when it is not pinned."""
    try:
        store.head(keys.pin(txid))
    except ObjectMissing as error:
        raise ReplicatorError(f"transaction {txid} is not pinned") from error
    store.delete(keys.pin(txid))


def learn(store: Store, inventory: Inventory, items: Iterable[Object]) -> Inventory:
    """The inventory after asking some objects, without those that are gone."""
    known: list[Object] = []
    gone: list[str] = []
    for item in items:
        try:
            known.append(ask(store, item) if isinstance(item, LogItem) else begun(store, item))
        except ObjectMissing:
            gone.append(item.key)
    return judged(store, inventory.with_items(known).without(gone))

"""Pins: restore points that retention keeps until they are removed, and the names of pins.

``pins/{txid}.json`` pins a transaction. ``pins/{name}.json`` gives it a name, and pins it as well:
the transaction is in the object, so that one conditional PUT decides whose a name is, and one GET
finds it. A plain pin goes with each name, for versions that know no names: their retention would
pass them over. A restore to a txid or to a time reads none of them.
"""

from __future__ import annotations

import contextlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor

from replicator.archive.index import PinnedPoint
from replicator.archive.keys import Keys
from replicator.archive.listing import entries
from replicator.archive.names import NamedPin, PinName
from replicator.archive.point import RestorePoint, require_name
from replicator.errors import (
    AccessDenied,
    ConfigError,
    DamageError,
    ObjectExists,
    ObjectMissing,
    ReplicatorError,
)
from replicator.format.bounded_json import JsonLimits, parse_json, text_fields
from replicator.format.limits import DEFAULT_FORMAT_LIMITS
from replicator.store.base import Store

PIN_LIMITS = JsonLimits(size=64 * 1024)
READERS = 8  # requests under way
MOST_READ = 1000  # pins, and names, that are read in one listing
BY_NAME = "by_name"  # field of a plain pin that goes with the last name of its transaction
LAST_TXID = DEFAULT_FORMAT_LIMITS.last_txid

log = logging.getLogger(__name__)

# ---------------------------------------------------------------------------------- reading


def list_pins(store: Store, keys: Keys) -> tuple[PinnedPoint, ...]:
    """Pinned restore points by txid and name: one for each name, and one without a name for a
    transaction that is pinned without one, too. One listing, and one GET for each of the newest
    ``MOST_READ`` plain pins and for each of as many names."""
    plain, names = _listed(store, keys)
    named = {point.txid for point in names}
    alone = [point for point, by_name in plain if not (by_name and point.txid in named)]
    return tuple(sorted([*alone, *names], key=lambda point: (point.txid, point.name)))


def named_pin(store: Store, keys: Keys, name: str) -> PinnedPoint:
    """The pin with that name. One GET. ``ConfigError`` if there is none, ``DamageError`` if its
    object cannot be read."""
    key = keys.named_pin(require_name(name))
    try:
        return _named(name, store.get(key, 0, PIN_LIMITS.size + 1))
    except ObjectMissing as error:
        raise ConfigError(
            f"no pin has the name {name!r}",
            setting="at",
            code="unknown_name",
            hint="replicator pin lists the names; a time is written 2025-01-31T14:05:00.123Z",
        ) from error
    except ValueError as error:
        raise DamageError(
            f"{key}: the name cannot be read: {error}",
            key=key,
            code="name_damaged",
            hint="replicator pin lists the pinned transactions; choose one by its number",
        ) from error


def found(store: Store, keys: Keys, point: RestorePoint) -> RestorePoint:
    """The point with the transaction in place of a name. One GET for a name, else none."""
    return RestorePoint(named_pin(store, keys, point.name).txid) if point.name else point


def _listed(store: Store, keys: Keys) -> tuple[list[tuple[PinnedPoint, bool]], list[PinnedPoint]]:
    """The plain pins, each with whether it goes with a name; and the names."""
    found = list(entries(store, keys, keys.pin_dir))
    txids = [(name.txid, info.key) for name, info in found if isinstance(name, PinName)]
    named = [(name.name, info.key) for name, info in found if isinstance(name, NamedPin)]
    silent = len(txids) - MOST_READ
    unread = [(PinnedPoint(txid), False) for txid, _ in txids[: max(0, silent)]]
    with ThreadPoolExecutor(READERS, "pins") as pool:
        plain = pool.map(lambda pin: _plain(store, *pin), txids[max(0, silent) :])
        points = pool.map(lambda pin: _point_of(store, *pin), named[:MOST_READ])
        return [*unread, *plain], [point for point in points if point is not None]


def _plain(store: Store, txid: int, key: str) -> tuple[PinnedPoint, bool]:
    """A pin that cannot be read pins its point all the same."""
    try:
        document = parse_json(store.get(key, 0, PIN_LIMITS.size + 1), PIN_LIMITS)
        note = text_fields(document)["note"]
    except ObjectMissing:  # unpinned since it was listed
        return PinnedPoint(txid), False
    except (ValueError, KeyError) as error:
        log.warning("%s: the note of the pin cannot be read: %s", key, error)
        return PinnedPoint(txid), False
    assert isinstance(document, dict)  # it has a text field
    return PinnedPoint(txid, note), document.get(BY_NAME) is True


def _point_of(store: Store, name: str, key: str) -> PinnedPoint | None:
    """The pin with a listed name. The plain pin that goes with an unreadable one still pins."""
    try:
        return _named(name, store.get(key, 0, PIN_LIMITS.size + 1))
    except ObjectMissing:  # removed since it was listed
        return None
    except ValueError as error:
        log.warning("%s: the name of a pin cannot be read: %s", key, error)
        return None


def _named(name: str, body: bytes) -> PinnedPoint:
    """``ValueError`` if the object does not contain a transaction."""
    document = parse_json(body, PIN_LIMITS)
    txid = document.get("txid") if isinstance(document, dict) else None
    if not isinstance(txid, int) or isinstance(txid, bool) or not 1 <= txid <= LAST_TXID:
        raise ValueError("it contains no transaction")
    return PinnedPoint(txid, text_fields(document).get("note", ""), name)


# ---------------------------------------------------------------------------------- writing


def pin(
    store: Store, keys: Keys, point: PinnedPoint, *, at_ms: int = 0, move: bool = False
) -> bool:
    """Pin a restore point, or change its note; with a name, give it that name.

    The name is the first object that is written: if the rest fails, the point is pinned and found
    all the same. True if no transaction had the name before. ``ConfigError`` if another one has
    it, unless ``move``. ``at_ms`` is the present, for people.
    """
    if not point.name:
        _put_plain(store, keys, point)
        return True
    former = _former(store, keys, require_name(point.name))
    _require_free(former, point, move=move)
    if former != point:
        renewed = move or former is not None  # with another note
        _put_name(store, keys, point, at_ms, move=renewed)
    _accompany(store, keys, point)
    if former is not None and former.txid != point.txid:
        _release_if_allowed(store, keys, former)
    return former is None


def keep_pinned(store: Store, keys: Keys, point: PinnedPoint) -> None:
    """Pin a restore point without a name. One that is pinned already keeps its note."""
    with contextlib.suppress(ObjectExists):
        _put_plain(store, keys, point, again=False)


def unpin_plain(store: Store, keys: Keys, txid: int) -> None:
    """Remove the pin of a transaction that has no name."""
    store.delete(keys.pin(txid))


def unpin(store: Store, keys: Keys, which: int | str) -> tuple[PinnedPoint, ...]:
    """Remove the pin of a transaction with all of its names; or a name, and its pin with the last
    name of a transaction that is not pinned without one. The points that were removed;
    ``ReplicatorError`` when there is none."""
    if isinstance(which, str):
        point = _former(store, keys, require_name(which))
        if point is not None:
            _release(store, keys, point)
        _delete(store, keys.named_pin(which), f"no pin has the name {which}")
        return (point or PinnedPoint(0, "", which),)
    removed = tuple(point for point in list_pins(store, keys) if point.txid == which)
    if not removed:
        raise ReplicatorError(f"transaction {which} is not pinned", code="not_pinned")
    for point in removed:
        store.delete(keys.named_pin(point.name) if point.name else keys.pin(which))
    store.delete(keys.pin(which))
    return removed


def _delete(store: Store, key: str, missing: str) -> None:
    try:
        store.head(key)
    except ObjectMissing as error:
        raise ReplicatorError(missing, code="not_pinned") from error
    store.delete(key)


def _put_name(store: Store, keys: Keys, point: PinnedPoint, at_ms: int, *, move: bool) -> None:
    """The store decides between two that give the same name at the same time."""
    document = {"name": point.name, "txid": point.txid, "note": point.note, "at_ms": at_ms}
    try:
        body = json.dumps(document).encode()
        store.put(keys.named_pin(require_name(point.name)), body, if_absent=not move)
    except ObjectExists:
        _require_free(named_pin(store, keys, point.name), point, move=move)


def _require_free(there: PinnedPoint | None, point: PinnedPoint, *, move: bool) -> None:
    """``ConfigError`` if another transaction has the name, unless it moves."""
    if there is not None and there.txid != point.txid and not move:
        raise ConfigError(
            f"{point.name} is the name of transaction {there.txid} already",
            setting="name",
            code="name_taken",
            hint="choose another name, or move it here with --move",
        )


def _put_plain(
    store: Store, keys: Keys, point: PinnedPoint, *, by_name: bool = False, again: bool = True
) -> None:
    """``again``: also if the transaction is pinned already, with another note."""
    document: dict[str, object] = {"txid": point.txid, "note": point.note}
    document |= {BY_NAME: True} if by_name else {}
    store.put(keys.pin(point.txid), json.dumps(document).encode(), if_absent=by_name or not again)


def _accompany(store: Store, keys: Keys, point: PinnedPoint) -> None:
    """The plain pin of a name. Its note names it to a version that knows no names."""
    note = f"{point.name}: {point.note}" if point.note else point.name
    try:
        _put_plain(store, keys, PinnedPoint(point.txid, note), by_name=True)
    except ObjectExists:
        return


def _release(store: Store, keys: Keys, point: PinnedPoint) -> None:
    """Remove the plain pin that went with a name, unless it goes with another one."""
    plain, names = _listed(store, keys)
    others = any(each.txid == point.txid and each.name != point.name for each in names)
    if not others and any(each.txid == point.txid and by_name for each, by_name in plain):
        store.delete(keys.pin(point.txid))


def _release_if_allowed(store: Store, keys: Keys, point: PinnedPoint) -> None:
    """The name has moved already, and a pin too many keeps a point too many."""
    try:
        _release(store, keys, point)
    except AccessDenied as error:
        log.warning("transaction %d stays pinned: %s", point.txid, error)


def _former(store: Store, keys: Keys, name: str) -> PinnedPoint | None:
    """The pin with that name, if there is one; an unreadable one counts as one of nothing."""
    return _point_of(store, name, keys.named_pin(name))

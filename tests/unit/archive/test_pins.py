"""Pins and their names: the objects, every order of their changes, and older versions."""

import json
import re

import pytest

from replicator.archive.index import PinnedPoint
from replicator.archive.keys import Keys
from replicator.archive.pins import found, list_pins, named_pin, pin, unpin
from replicator.archive.point import RestorePoint
from replicator.errors import (
    AccessDenied,
    ConfigError,
    DamageError,
    ReplicatorError,
    StoreUnavailable,
)
from replicator.store.memory import MemoryStore
from tests.helpers.errors import raises
from tests.helpers.replication import HookedStore

KEYS = Keys("app.db")
# The names that versions without names of pins know, see docs/format.md.
OLDER = re.compile(r"app\.db/pins/([0-7][0-9a-f]{15})\.json")


def older_pins(store):
    """{txid: note} as a version without names lists and keeps them."""
    keys = [info.key for info in store.list("app.db/pins/")]
    listed = {int(match[1], 16): key for key in keys if (match := OLDER.fullmatch(key))}
    return {txid: json.loads(store.get(key))["note"] for txid, key in listed.items()}


def test_a_name_finds_its_transaction():
    """By one GET, and every list has it; the note belongs to the name."""
    store = HookedStore()
    assert pin(store, KEYS, PinnedPoint(7, "why", "before"), at_ms=5)
    assert list_pins(store, KEYS) == (PinnedPoint(7, "why", "before"),)
    store.calls.clear()
    assert found(store, KEYS, RestorePoint(name="before")) == RestorePoint(7)
    assert store.calls == [("get", "app.db/pins/before.json")]
    assert found(store, KEYS, RestorePoint(3)) == RestorePoint(3)
    assert json.loads(store.get("app.db/pins/before.json")) == {
        "name": "before",
        "txid": 7,
        "note": "why",
        "at_ms": 5,
    }


def test_a_version_without_names_keeps_the_point():
    """It sees a pin, with the name in its note, until the last name is gone."""
    store = MemoryStore()
    pin(store, KEYS, PinnedPoint(7, "why", "one"))
    pin(store, KEYS, PinnedPoint(7, "", "two"))
    assert older_pins(store) == {7: "one: why"}
    unpin(store, KEYS, "one")
    assert list(older_pins(store)) == [7]
    unpin(store, KEYS, "two")
    assert list(store.list("")) == []


def test_a_pin_of_an_older_version_is_as_it_was():
    """It has no name, can get one, and outlives it."""
    store = MemoryStore()
    store.put(KEYS.pin(7), b'{"txid": 7, "note": "by hand"}')
    assert list_pins(store, KEYS) == (PinnedPoint(7, "by hand"),)
    pin(store, KEYS, PinnedPoint(7, "", "named"))
    assert list_pins(store, KEYS) == (PinnedPoint(7, "by hand"), PinnedPoint(7, "", "named"))
    unpin(store, KEYS, "named")
    assert older_pins(store) == {7: "by hand"}


def test_a_name_is_taken_once():
    """A second transaction needs another name, or moves it; the same one may repeat it."""
    store = MemoryStore()
    assert pin(store, KEYS, PinnedPoint(7, "", "here"))
    assert not pin(store, KEYS, PinnedPoint(7, "with a note", "here"))
    with raises(ConfigError, "name_taken", setting="name"):
        pin(store, KEYS, PinnedPoint(8, "", "here"))
    assert list_pins(store, KEYS) == (PinnedPoint(7, "with a note", "here"),)
    assert not pin(store, KEYS, PinnedPoint(8, "", "here"), move=True)
    assert list_pins(store, KEYS) == (PinnedPoint(8, "", "here"),)
    assert list(older_pins(store)) == [8]


def test_a_name_moves_in_a_bucket_without_deletions(caplog):
    """The former point stays pinned, which loses nothing."""

    def denied(method, key):
        if method == "delete":
            raise AccessDenied("no")

    store = HookedStore()
    pin(store, KEYS, PinnedPoint(7, "", "here"))
    store.before = denied
    pin(store, KEYS, PinnedPoint(8, "", "here"), move=True)
    assert named_pin(store, KEYS, "here").txid == 8
    assert list(older_pins(store)) == [7, 8]
    assert "transaction 7 stays pinned" in caplog.text
    with pytest.raises(AccessDenied):
        unpin(store, KEYS, "here")


def test_the_store_decides_between_two():
    """The name was free when both looked, and one of them gets it."""
    store = HookedStore()

    def rival(method, key):
        if method == "put":
            store.before = lambda *_: None
            pin(store, KEYS, PinnedPoint(8, "", "here"))

    store.before = rival
    with raises(ConfigError, "name_taken"):
        pin(store, KEYS, PinnedPoint(7, "", "here"))
    assert list_pins(store, KEYS) == (PinnedPoint(8, "", "here"),)


def test_a_transaction_loses_all_of_its_names():
    """And nothing of another one."""
    store = MemoryStore()
    for txid, name in ((7, "one"), (7, "two"), (9, "other")):
        pin(store, KEYS, PinnedPoint(txid, "", name))
    assert [point.name for point in unpin(store, KEYS, 7)] == ["one", "two"]
    assert list_pins(store, KEYS) == (PinnedPoint(9, "", "other"),)
    for which in (7, "one"):
        with raises(ReplicatorError, "not_pinned"):
            unpin(store, KEYS, which)


CHANGES = {
    "name": (lambda store: pin(store, KEYS, PinnedPoint(8, "", "here")), 8),
    "move": (lambda store: pin(store, KEYS, PinnedPoint(8, "", "here"), move=True), 8),
    "remove": (lambda store: unpin(store, KEYS, "here"), None),
}


def completes(store, change, requests):
    """True if the change is complete after so many requests; the next one fails."""

    def away(method, key):
        if len(store.calls) > before + requests:
            raise StoreUnavailable("away")

    before, store.before = len(store.calls), away
    try:
        change(store)
    except StoreUnavailable:
        return False
    finally:
        store.come_back()
    return True


@pytest.mark.parametrize("kind", CHANGES)
def test_any_change_may_stop_after_any_request(kind):
    """Whatever was done by then, no name leads to a point that older versions would delete,
    unless it was not confirmed; and the repetition completes the change."""
    change, txid = CHANGES[kind]
    for requests in range(20):
        store = HookedStore()
        if kind != "name":
            pin(store, KEYS, PinnedPoint(7, "", "here"))
        if completes(store, change, requests):
            break
        names = {point.txid for point in list_pins(store, KEYS) if point.name}
        assert names <= {*older_pins(store), 8 if kind != "remove" else 7}
        change(store)
        named = [point.txid for point in list_pins(store, KEYS) if point.name]
        assert named == ([] if txid is None else [txid])
    assert 2 < requests < 19


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"txid": "7"}', b'{"txid": true}', b'{"txid": 0}', b"x" * 70_000]
)
def test_a_damaged_name_is_an_error_and_can_be_removed(body, caplog):
    """It is never taken for another transaction; its plain pin still pins."""
    store = MemoryStore()
    pin(store, KEYS, PinnedPoint(7, "", "here"))
    store.put(KEYS.named_pin("here"), body, if_absent=False)
    with raises(DamageError, "name_damaged", key="app.db/pins/here.json"):
        named_pin(store, KEYS, "here")
    assert list_pins(store, KEYS) == (PinnedPoint(7, "here"),)
    assert "cannot be read" in caplog.text
    unpin(store, KEYS, "here")
    assert [info.key for info in store.list("")] == [KEYS.pin(7)]


def test_no_name_is_an_error_with_the_way_to_the_names():
    """A typing error is no transaction."""
    with raises(ConfigError, "unknown_name", setting="at") as error:
        named_pin(MemoryStore(), KEYS, "nothing")
    assert "replicator pin" in error.value.hint

"""The probes of `doctor`: they accept every store we know, and reject an unsafe one."""

import threading

import pytest

from replicator.errors import BucketMissing, ObjectExists, StoreUnavailable, StoreUnsafe
from replicator.store import probe
from replicator.store.memory import MemoryStore
from replicator.testing import FaultyStore, answer_lost, corrupted, raising
from tests.helpers.errors import raises


class LyingStore(MemoryStore):
    """Accepts If-None-Match and ignores it, as some stores and proxies do."""

    def put(self, key, body, *, metadata=None, if_absent=True):
        super().put(key, body, metadata=metadata, if_absent=False)

    def complete_upload(self, key, upload_id, parts, *, if_absent=True):
        super().complete_upload(key, upload_id, parts, if_absent=False)


@pytest.mark.parametrize("base", ["", "/app.db"])
def test_a_good_store_passes_and_stays_clean(any_store, prefix, base):
    """Every probe; nothing is left, neither objects nor uploads."""
    place = prefix + base
    probe.check_reachable(any_store, place)
    probe.check_readable_back(any_store, place)
    assert probe.race_conditional_put(any_store, place, writers=8) == 1
    assert probe.completes_conditionally(any_store, place)
    assert probe.race_conditional_complete(any_store, place, writers=4) >= 1
    assert list(any_store.list(prefix)) == []
    assert any_store.list_uploads(prefix) == []


def test_a_probe_at_the_root_of_a_bucket_is_clean(memory_store):
    """An empty prefix makes no empty name."""
    probe.check_reachable(memory_store, "")
    assert probe.race_conditional_put(memory_store, "", writers=2) == 1
    assert probe.completes_conditionally(memory_store, "")
    assert probe.race_conditional_complete(memory_store, "", writers=2) == 1
    assert list(memory_store.list("")) == []


def test_a_store_that_lies_is_found_out():
    """All of its racers win, and a completed upload replaces the existing object."""
    store = LyingStore()
    assert probe.race_conditional_put(store, "p", writers=8) == 8
    assert not probe.completes_conditionally(store, "p")
    assert probe.race_conditional_complete(store, "p", writers=8) == 8
    assert list(store.list("")) == []
    assert store.list_uploads("") == []


def test_a_store_that_refuses_the_winner_is_found_out():
    """It refuses all but one, and keeps the bytes of another."""

    class Wrong(MemoryStore):
        def put(self, key, body, *, metadata=None, if_absent=True):
            super().put(key, b"other", metadata=metadata, if_absent=if_absent)

    store = Wrong()
    with pytest.raises(StoreUnsafe):
        probe.race_conditional_put(store, "p", writers=2)
    assert list(store.list("")) == []


def test_a_completion_that_refuses_and_replaces_is_found_out():
    """The answer alone proves nothing."""

    class Wrong(LyingStore):
        def complete_upload(self, key, upload_id, parts, *, if_absent=True):
            super().complete_upload(key, upload_id, parts)
            raise ObjectExists(key)

    assert not probe.completes_conditionally(Wrong(), "p")


def test_a_lost_answer_does_not_spoil_the_race(memory_store):
    """The winner that never heard of it is still the winner."""
    store = FaultyStore(memory_store)
    store.script("put", answer_lost)
    store.script("complete_upload", answer_lost)
    assert probe.race_conditional_put(store, "p", writers=4) == 1
    assert probe.race_conditional_complete(store, "p", writers=4) == 1


def test_a_bit_that_flips_on_its_way_back_does_not_spoil_the_race(memory_store):
    """The winner's bytes are asked for twice."""
    store = FaultyStore(memory_store)
    store.script("get", corrupted(0))
    assert probe.race_conditional_put(store, "p", writers=4) == 1
    store.script("get", corrupted(0), times=2)
    with pytest.raises(StoreUnsafe):
        probe.race_conditional_put(store, "p", writers=4)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_bytes_that_come_back_different_are_found(memory_store, nth):
    """Whole, by range or from the end."""
    store = FaultyStore(memory_store)
    store.script("get", corrupted(-1), nth=nth)
    with pytest.raises(StoreUnsafe):
        probe.check_readable_back(store, "p")
    assert list(memory_store.list("")) == []


def test_metadata_that_does_not_come_back_is_found():
    """The log compares digests by it."""

    class Forgetful(MemoryStore):
        def put(self, key, body, *, metadata=None, if_absent=True):
            super().put(key, body, if_absent=if_absent)

    with raises(StoreUnsafe, "lost_metadata", url="memory://"):
        probe.check_readable_back(Forgetful(), "p")


@pytest.mark.parametrize("error", [StoreUnavailable("503"), BucketMissing("no")])
def test_what_the_store_has_against_it_is_told(memory_store, error):
    """As the error it is."""
    store = FaultyStore(memory_store)
    store.script("list", raising(error))
    with pytest.raises(type(error)):
        probe.check_reachable(store, "p")


def test_a_machine_without_threads_ends_the_race(memory_store, monkeypatch):
    """The racers wait for each other, and not for one that cannot start."""
    start, left = threading.Thread.start, [3]

    def scarce(thread):
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    with pytest.raises(RuntimeError):
        probe.race_conditional_put(memory_store, "p", writers=8)

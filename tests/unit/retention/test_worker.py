"""The keeper, step by step in made-up time: what it asks for, and when it lets the store be."""

import hashlib
from math import inf

import pytest

from replicator.archive.inventory import PinnedPoint
from replicator.archive.listing import pin
from replicator.errors import AccessDenied, StoreUnavailable
from replicator.format.object_header import parse_metadata
from replicator.model import Kind, Retention
from replicator.retention import worker as module
from replicator.retention.merge import Source
from replicator.retention.worker import Keeper
from tests.helpers.random_archives import restorable
from tests.helpers.replication import HookedStore, wait_for
from tests.helpers.retention import DAY, HOUR, KEYS, MINUTE, SECOND, AgedArchive

FOREVER = Retention(every_transaction=inf)


@pytest.fixture
def past(tmp_path):
    made = AgedArchive(tmp_path, page_size=512)
    yield made
    made.close()


@pytest.fixture
def store(past):
    return HookedStore(past.store)


def busy(past, keeping, count, every=SECOND, step=MINUTE):
    """``count`` commits, the keeper looking once in a while."""
    looked = past.now_ms
    for _ in range(count):
        past.insert(1)
        past.wait(every)
        if past.now_ms - looked >= step:
            past.keep(keeping)
            looked = past.now_ms


def kinds(past, folder):
    return [parse_metadata(past.store.head(key).metadata).kind for key in past.keys(folder)]


def test_five_minutes_become_one_object_and_an_hour_another(past):
    """All transactions stay restorable; of the segments only the newest ones are left."""
    keeping = past.keeping(rules=FOREVER)
    keeping.step(past.now_ms)
    busy(past, keeping, 130, every=MINUTE // 2)
    past.wait(HOUR)
    past.keep(keeping)
    past.wait(HOUR)
    past.keep(keeping)
    assert restorable(past.store, past.txid) == set(range(1, past.txid + 1))
    assert set(kinds(past, "merged/1/")) == {Kind.MERGE}
    assert set(kinds(past, "merged/2/")) == {Kind.MERGE_NEWEST}
    assert 13 <= len(past.keys("merged/1/")) <= 15
    assert 2 <= len(past.keys("merged/2/")) <= 3
    assert len(past.keys("wal/")) == 2  # the marker and the newest
    assert keeping.metrics.get("merges") == len(past.keys("merged/"))
    assert keeping.metrics.get("pruned_objects") > 100


def test_nothing_is_asked_while_nothing_happens(past, store):
    """Not at the start, not in an idle month after the last merge."""
    past.insert(3)
    keeping = past.keeping(store=store, rules=FOREVER)
    for _ in range(100):
        past.keep(keeping)
        past.wait(HOUR)
    assert store.calls == []
    busy(past, keeping, 20)
    for _ in range(5):
        past.wait(HOUR)
        past.keep(keeping)
    assert store.keys("put")
    store.calls.clear()
    for _ in range(720):
        past.wait(HOUR)
        past.keep(keeping)
    assert store.calls == []


def test_what_is_in_the_cache_is_not_fetched(past, store):
    """A merge out of the cache costs one PUT and one HEAD."""
    kept = {}

    def cached(first, last):
        for item in past.appended(0):
            body = past.store.get(item.key)
            kept.setdefault(
                item.key, Source(item.key, item.first, item.last, lambda body=body: body)
            )
        return [source for source in kept.values() if first <= source.first <= last]

    keeping = past.keeping(store=store, rules=FOREVER, cached=cached)
    keeping.step(past.now_ms)
    busy(past, keeping, 40, every=20 * SECOND)
    past.wait(2 * HOUR)
    past.keep(keeping)
    assert store.keys("get") == []
    assert len(store.keys("put")) == len(past.keys("merged/"))


def test_a_bucket_that_forbids_deletions_is_asked_once_in_hours(past, store):
    """Merging goes on; the reason is there to be read, and goes when deletions succeed."""

    def before(method, key):
        if method == "delete":
            raise AccessDenied(f"DELETE {key} is forbidden")

    store.before = before
    keeping = past.keeping(store=store, rules=FOREVER)
    keeping.step(past.now_ms)
    busy(past, keeping, 60, every=10 * SECOND)
    for _ in range(20):
        past.wait(10 * MINUTE)
        past.keep(keeping)
    assert len(store.keys("delete")) == 1
    assert "forbids deletions" in keeping.refused
    assert past.keys("merged/1/")
    store.come_back()
    past.wait(7 * HOUR)
    past.keep(keeping)
    assert keeping.refused == ""
    assert len(past.keys("wal/")) == 2


def test_a_merge_that_vanished_stands_in_for_nothing(past, store):
    """Somebody deleted it: its sources stay, and it is made again."""
    keeping = past.keeping(store=store, rules=FOREVER)
    keeping.step(past.now_ms)
    busy(past, keeping, 50, every=10 * SECOND)
    merges = past.keys("merged/1/")
    assert merges
    for key in merges:
        past.store.delete(key)
    past.wait(HOUR)
    past.keep(keeping)
    past.wait(MINUTE)
    past.keep(keeping)
    assert restorable(past.store, past.txid) == set(range(1, past.txid + 1))


def test_a_foreign_object_at_the_key_of_a_merge(past):
    """It is not believed to be the merge: nothing is deleted for it."""
    for _ in range(3):
        past.insert(1)
        past.wait(SECOND)
    key = KEYS.merged(1, 2, 4)
    foreign = past.store.get(past.keys("wal/")[1])
    past.store.put(key, foreign, metadata=past.store.head(past.keys("wal/")[1]).metadata)
    past.store.delete(key)
    keeping = past.keeping(rules=FOREVER)
    store = HookedStore(past.store)
    keeping.store = store

    def before(method, put):
        if method == "put" and put == key:
            past.store.put(key, foreign, metadata=past.store.head(KEYS.wal(2)).metadata)

    store.before = before
    past.wait(HOUR)
    keeping.begin(past.now_ms)
    past.keep(keeping)
    past.wait(HOUR)
    keeping.begin(past.now_ms)
    past.keep(keeping)
    assert len(past.keys("wal/")) == 4


def test_damage_is_told_and_not_merged(past):
    """The guard hears of it; the damaged segment stays what it is, and the others too."""
    told = []
    for _ in range(5):
        past.insert(1)
        past.wait(SECOND)
    key = KEYS.wal(3)
    body, info = bytearray(past.store.get(key)), past.store.head(key)
    body[len(body) // 2] ^= 4
    past.store.put(key, bytes(body), metadata=info.metadata, if_absent=False)
    keeping = past.keeping(rules=FOREVER, on_trouble=told.append)
    past.wait(HOUR)
    keeping.begin(past.now_ms)
    past.keep(keeping)
    assert key in told[0]
    assert past.keys("merged/") == []
    assert len(past.keys("wal/")) == 6


def test_a_clock_that_jumped_ahead_deletes_nothing(past):
    """A year in the future, by its own account alone; the store knows better."""
    keeping = past.keeping(rules=Retention(every_transaction=1, hourly=0, daily=0, snapshots=1))
    keeping.step(past.now_ms)
    for _ in range(3):
        past.insert(1)
        past.snapshot()
        past.wait(10 * MINUTE)
    rules = Retention(every_transaction=30 * DAY / 1000, hourly=0, daily=0, snapshots=1)
    keeping.rules = rules
    before = past.keys("snapshots/")
    keeping.begin(past.now_ms)
    for _ in range(50):
        keeping.step(past.now_ms + 365 * DAY)
    assert past.keys("snapshots/") == before


class TestThread:
    """The thread around the steps."""

    def test_failures_make_it_wait_and_are_told(self, past, store, monkeypatch):
        """It tries again later, and forgets the failure when it succeeds."""
        monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
        monkeypatch.setattr(module, "TICK", 0.001)
        keeping = past.keeping(store=store, rules=FOREVER)
        for _ in range(3):
            past.insert(1)
        keeping.begin(past.now_ms)
        past.wait(HOUR)
        store.go_away()
        keeper = Keeper(keeping, lambda: past.now_ms)
        keeper.start()
        wait_for(lambda: keeper.waits is not None)
        assert "away" in keeper.waits
        assert isinstance(keeper.trouble, StoreUnavailable)
        store.come_back()
        wait_for(lambda: keeper.waits is None)
        wait_for(lambda: past.keys("merged/1/"))
        keeper.stop()

    def test_a_defect_never_ends_it(self, past, monkeypatch):
        """Whatever goes wrong is said; the replicator is not harmed."""
        monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
        keeping = past.keeping()
        calls = []

        def step(now_ms):
            calls.append(now_ms)
            raise ZeroDivisionError("a defect")

        keeper = Keeper(keeping, lambda: 0)
        monkeypatch.setattr(type(keeping), "step", lambda self, now_ms: step(now_ms))
        keeper.start()
        wait_for(lambda: len(calls) > 2)
        assert "defect" in keeper.waits
        keeper.stop()
        keeper.stop()


def test_digests_of_merges_are_those_of_their_bytes(past):
    """What proves a merge by a HEAD is true."""
    keeping = past.keeping(rules=FOREVER)
    keeping.step(past.now_ms)
    busy(past, keeping, 40, every=10 * SECOND)
    for key in past.keys("merged/"):
        facts = parse_metadata(past.store.head(key).metadata)
        assert facts.sha256 == hashlib.sha256(past.store.get(key)).hexdigest()


def test_the_past_is_thinned_while_nothing_is_appended(past, store):
    """When its time has come; a pin that was set meanwhile is seen before anything goes."""
    rules = Retention(every_transaction=DAY / 1000, hourly=0, daily=0, snapshots=1)
    keeping = past.keeping(store=store, rules=rules)
    keeping.step(past.now_ms)
    busy(past, keeping, 8, every=2 * HOUR, step=HOUR)
    past.snapshot()
    past.insert(1)
    past.wait(HOUR)
    past.keep(keeping)
    pin(past.store, KEYS, PinnedPoint(3))
    for _ in range(50):
        past.wait(HOUR)
        past.keep(keeping)
    left = restorable(past.store, past.txid)
    assert 3 in left
    assert not left & {4, 5, 6}
    assert {past.txid, past.txid - 1} <= left
    assert keeping.metrics.get("pruned_bytes") > 0


def test_a_merge_that_would_fetch_too_much_is_not_made(past, store, monkeypatch):
    """What is not in the cache any more costs downloads; segments stay what they are."""
    monkeypatch.setattr(module, "FETCH_BYTES", 100)
    keeping = past.keeping(store=store, rules=FOREVER)
    keeping.step(past.now_ms)
    busy(past, keeping, 50, every=10 * SECOND)
    past.wait(2 * HOUR)
    past.keep(keeping)
    assert store.keys("get") == []
    assert past.keys("merged/") == []


def test_what_cannot_be_merged_is_known_from_then_on(past):
    """A squashed segment between others, in a bucket that only a listing tells of."""
    past.insert(1)
    past.insert(1)
    past.insert(1, cut=False)
    past.insert(1, cut=False)
    past.bucket.squash()
    past.insert(1)
    past.insert(1)
    past.insert(1)
    past.wait(2 * HOUR)
    keeping = past.keeping(rules=FOREVER)
    keeping.appended = lambda since: []
    keeping.begin(past.now_ms)
    past.keep(keeping)
    assert past.keys("merged/1/") == [KEYS.merged(1, 2, 3), KEYS.merged(1, 6, 8)]
    assert past.keys("merged/2/") == [KEYS.merged(2, 2, 8)]


def test_half_a_cache_is_no_source(past, store):
    """Where it lacks a segment of a merge, the merge itself is fetched."""
    keeping = past.keeping(store=store, rules=FOREVER)
    keeping.step(past.now_ms)
    busy(past, keeping, 12, every=MINUTE)
    last = past.appended(0)[-1]
    keeping.cached = lambda *_: [Source("gone", 3, 3, lambda: b"")]
    past.wait(2 * HOUR)
    past.keep(keeping)
    assert past.keys("merged/2/")
    assert store.keys("get")
    assert restorable(past.store, past.txid) >= {last.last}


def test_a_log_that_somebody_else_went_on_with_is_listed_again(past):
    """What was appended does not follow what was known."""
    keeping = past.keeping(rules=FOREVER)
    keeping.step(past.now_ms)
    busy(past, keeping, 50, every=10 * SECOND)
    known = keeping.appended
    keeping.appended = lambda since: [i for i in known(since) if i.first > past.txid - 1]
    past.insert(1)
    past.insert(1)
    for _ in range(3):
        past.wait(HOUR)
        past.keep(keeping)
    assert restorable(past.store, past.txid) == set(range(1, past.txid + 1))
    assert len(past.keys("wal/")) < 10


def test_sources_stay_when_their_merge_vanished(past, store):
    """Proved missing at the moment of the deletion: everything is listed again."""
    keeping = past.keeping(store=store, rules=FOREVER)
    keeping.step(past.now_ms)
    busy(past, keeping, 50, every=10 * SECOND)
    segments, merges = past.keys("wal/"), past.keys("merged/1/")
    assert merges

    def before(method, key):
        if method == "head" and key in merges:
            merges.remove(key)
            past.store.delete(key)

    store.before = before
    past.wait(6 * MINUTE)
    for _ in range(3):
        keeping.step(past.now_ms)
    assert past.keys("wal/") == segments


def test_a_bucket_that_keeps_versions_is_told_of_once(past, store, monkeypatch, caplog):
    """Deletions go on; they only cost no less than before."""
    monkeypatch.setattr(HookedStore, "keeps_versions", True)
    keeping = past.keeping(store=store, rules=FOREVER)
    keeping.step(past.now_ms)
    busy(past, keeping, 120, every=10 * SECOND)
    for _ in range(5):
        past.wait(HOUR)
        past.keep(keeping)
    assert len(past.keys("wal/")) == 2
    assert caplog.text.count("keeps old versions") == 1

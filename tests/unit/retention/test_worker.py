"""Retention step by step in made-up time: its requests, and when it makes none."""

import hashlib
from math import inf

import pytest

from replicator.archive.index import PinnedPoint
from replicator.archive.pins import pin
from replicator.errors import AccessDenied, StoreUnavailable
from replicator.format.object_header import parse_metadata
from replicator.model import Cause, Kind, Retention
from replicator.retention.limits import RetentionLimits
from replicator.retention.merge import MergeSource
from replicator.retention.worker import RetentionWorker
from replicator.store.retry import RetryPolicy
from tests.helpers.mail import ReadableMailbox
from tests.helpers.random_archives import restorable
from tests.helpers.replication import HookedStore, wait_for
from tests.helpers.retention import DAY, HOUR, KEYS, MINUTE, SECOND

FOREVER = Retention(every_transaction=inf)
QUICK = RetryPolicy(first=0.001)


@pytest.fixture
def spied(aged):
    """The store of the archive, with hooks."""
    return HookedStore(aged.store)


def busy(past, steps, count, every=SECOND, step=MINUTE):
    """``count`` commits, and a step of retention once in a while."""
    looked = past.now_ms
    for _ in range(count):
        past.insert(1)
        past.wait(every)
        if past.now_ms - looked >= step:
            past.keep(steps)
            looked = past.now_ms


def kinds(past, folder):
    return [parse_metadata(past.store.head(key).metadata).kind for key in past.keys(folder)]


def test_five_minutes_become_one_object_and_an_hour_another(aged):
    """All transactions stay restorable; of the segments only the newest ones are left."""
    steps = aged.retention_steps(rules=FOREVER)
    steps.step(aged.now_ms)
    busy(aged, steps, 130, every=MINUTE // 2)
    aged.wait(HOUR)
    aged.keep(steps)
    aged.wait(HOUR)
    aged.keep(steps)
    assert restorable(aged.store, aged.txid) == set(range(1, aged.txid + 1))
    assert set(kinds(aged, "merged/1/")) == {Kind.MERGE}
    assert set(kinds(aged, "merged/2/")) == {Kind.MERGE_NEWEST}
    assert 13 <= len(aged.keys("merged/1/")) <= 15
    assert 2 <= len(aged.keys("merged/2/")) <= 3
    assert len(aged.keys("wal/")) == 2  # the marker and the newest
    assert steps.metrics.get("merges") == len(aged.keys("merged/"))
    assert steps.metrics.get("pruned_objects") > 100


def test_nothing_is_asked_while_nothing_happens(aged, spied):
    """Not at the start, not in an idle month after the last merge."""
    aged.insert(3)
    steps = aged.retention_steps(store=spied, rules=FOREVER)
    for _ in range(100):
        aged.keep(steps)
        aged.wait(HOUR)
    assert spied.calls == []
    busy(aged, steps, 20)
    for _ in range(5):
        aged.wait(HOUR)
        aged.keep(steps)
    assert spied.keys("put")
    spied.calls.clear()
    for _ in range(720):
        aged.wait(HOUR)
        aged.keep(steps)
    assert spied.calls == []


def test_what_is_in_the_cache_is_not_fetched(aged, spied):
    """A merge out of the cache costs one PUT and one HEAD."""
    kept = {}

    def cached(first, last):
        for item in aged.appended(0):
            body = aged.store.get(item.key)
            kept.setdefault(
                item.key, MergeSource(item.key, item.first, item.last, lambda body=body: body)
            )
        return [source for source in kept.values() if first <= source.first <= last]

    steps = aged.retention_steps(store=spied, rules=FOREVER, cached=cached)
    steps.step(aged.now_ms)
    busy(aged, steps, 40, every=20 * SECOND)
    aged.wait(2 * HOUR)
    aged.keep(steps)
    assert spied.keys("get") == []
    assert len(spied.keys("put")) == len(aged.keys("merged/"))


def test_a_bucket_that_forbids_deletions_is_asked_once_in_hours(aged, spied):
    """Merging goes on; the reason is there to be read, and goes when deletions succeed."""

    def before(method, key):
        if method == "delete":
            raise AccessDenied(f"DELETE {key} is forbidden")

    spied.before = before
    steps = aged.retention_steps(store=spied, rules=FOREVER)
    steps.step(aged.now_ms)
    busy(aged, steps, 60, every=10 * SECOND)
    for _ in range(20):
        aged.wait(10 * MINUTE)
        aged.keep(steps)
    assert len(spied.keys("delete")) == 1
    assert "forbids deletions" in steps.refused
    assert aged.keys("merged/1/")
    spied.come_back()
    aged.wait(7 * HOUR)
    aged.keep(steps)
    assert steps.refused == ""
    assert len(aged.keys("wal/")) == 2


def test_a_merge_that_vanished_stands_in_for_nothing(aged, spied):
    """A user deleted it: its sources stay, and it is made again."""
    steps = aged.retention_steps(store=spied, rules=FOREVER)
    steps.step(aged.now_ms)
    busy(aged, steps, 50, every=10 * SECOND)
    merges = aged.keys("merged/1/")
    assert merges
    for key in merges:
        aged.store.delete(key)
    aged.wait(HOUR)
    aged.keep(steps)
    aged.wait(MINUTE)
    aged.keep(steps)
    assert restorable(aged.store, aged.txid) == set(range(1, aged.txid + 1))


def test_a_foreign_object_at_the_key_of_a_merge(aged):
    """It is not believed to be the merge: nothing is deleted for it."""
    for _ in range(3):
        aged.insert(1)
        aged.wait(SECOND)
    key = KEYS.merged(1, 2, 4)
    foreign = aged.store.get(aged.keys("wal/")[1])
    aged.store.put(key, foreign, metadata=aged.store.head(aged.keys("wal/")[1]).metadata)
    aged.store.delete(key)
    steps = aged.retention_steps(rules=FOREVER)
    store = HookedStore(aged.store)
    steps.store = store

    def before(method, put):
        if method == "put" and put == key:
            aged.store.put(key, foreign, metadata=aged.store.head(KEYS.wal(2)).metadata)

    store.before = before
    aged.wait(HOUR)
    steps.begin(aged.now_ms)
    aged.keep(steps)
    aged.wait(HOUR)
    steps.begin(aged.now_ms)
    aged.keep(steps)
    assert len(aged.keys("wal/")) == 4


def test_damage_is_told_and_not_merged(aged):
    """The guard hears of it; the damaged segment stays what it is, and the others too."""
    mailbox = ReadableMailbox()
    for _ in range(5):
        aged.insert(1)
        aged.wait(SECOND)
    key = KEYS.wal(3)
    body, info = bytearray(aged.store.get(key)), aged.store.head(key)
    body[len(body) // 2] ^= 4
    aged.store.put(key, bytes(body), metadata=info.metadata, if_absent=False)
    steps = aged.retention_steps(rules=FOREVER, mailbox=mailbox)
    aged.wait(HOUR)
    steps.begin(aged.now_ms)
    aged.keep(steps)
    assert key in str(mailbox.of(Cause.SOURCE_DAMAGED)[0])
    assert aged.keys("merged/") == []
    assert len(aged.keys("wal/")) == 6


def test_a_clock_that_jumped_ahead_deletes_nothing(aged):
    """A year in the future, by its own account alone; the store knows better."""
    steps = aged.retention_steps(
        rules=Retention(every_transaction=1, hourly=0, daily=0, snapshots=1)
    )
    steps.step(aged.now_ms)
    for _ in range(3):
        aged.insert(1)
        aged.snapshot()
        aged.wait(10 * MINUTE)
    rules = Retention(every_transaction=30 * DAY / 1000, hourly=0, daily=0, snapshots=1)
    steps.rules = rules
    before = aged.keys("snapshots/")
    steps.begin(aged.now_ms)
    for _ in range(50):
        steps.step(aged.now_ms + 365 * DAY)
    assert aged.keys("snapshots/") == before


class TestThread:
    """The thread around the steps."""

    def test_failures_make_it_wait_and_are_told(self, aged, spied, scheduler):
        """It tries again later, and forgets the failure when it succeeds."""
        steps = aged.retention_steps(store=spied, rules=FOREVER, retries=QUICK, tick=0.001)
        for _ in range(3):
            aged.insert(1)
        steps.begin(aged.now_ms)
        aged.wait(HOUR)
        spied.go_away()
        worker = RetentionWorker(steps, lambda: aged.now_ms, scheduler)
        worker.start()
        wait_for(lambda: worker.health.error is not None)
        assert isinstance(worker.health.error, StoreUnavailable)
        spied.come_back()
        wait_for(lambda: worker.health.error is None)
        wait_for(lambda: aged.keys("merged/1/"))
        worker.stop()

    def test_a_defect_never_ends_it(self, aged, scheduler):
        """Whatever goes wrong is said; the replicator is not harmed."""
        calls = []

        class Broken:
            limits = RetentionLimits(retries=QUICK)
            refused = ""

            def step(self, now_ms):
                calls.append(now_ms)
                raise ZeroDivisionError("a defect")

        worker = RetentionWorker(Broken(), lambda: 0, scheduler)
        worker.start()
        wait_for(lambda: len(calls) > 2)
        assert "a defect" in str(worker.health.error)
        worker.stop()
        worker.stop()


def test_digests_of_merges_are_those_of_their_bytes(aged):
    """What proves a merge by a HEAD is true."""
    steps = aged.retention_steps(rules=FOREVER)
    steps.step(aged.now_ms)
    busy(aged, steps, 40, every=10 * SECOND)
    for key in aged.keys("merged/"):
        facts = parse_metadata(aged.store.head(key).metadata)
        assert facts.sha256 == hashlib.sha256(aged.store.get(key)).hexdigest()


def test_the_past_is_thinned_while_nothing_is_appended(aged, spied):
    """When its time has come; a pin that was set meanwhile is seen before anything goes."""
    rules = Retention(every_transaction=DAY / 1000, hourly=0, daily=0, snapshots=1)
    steps = aged.retention_steps(store=spied, rules=rules)
    steps.step(aged.now_ms)
    busy(aged, steps, 8, every=2 * HOUR, step=HOUR)
    aged.snapshot()
    aged.insert(1)
    aged.wait(HOUR)
    aged.keep(steps)
    pin(aged.store, KEYS, PinnedPoint(3))
    for _ in range(50):
        aged.wait(HOUR)
        aged.keep(steps)
    left = restorable(aged.store, aged.txid)
    assert 3 in left
    assert not left & {4, 5, 6}
    assert {aged.txid, aged.txid - 1} <= left
    assert steps.metrics.get("pruned_bytes") > 0


def test_a_merge_that_would_fetch_too_much_is_not_made(aged, spied):
    """What is not in the cache any more costs downloads; segments stay what they are."""
    steps = aged.retention_steps(store=spied, rules=FOREVER, fetch_bytes=100)
    steps.step(aged.now_ms)
    busy(aged, steps, 50, every=10 * SECOND)
    aged.wait(2 * HOUR)
    aged.keep(steps)
    assert spied.keys("get") == []
    assert aged.keys("merged/") == []


def test_what_cannot_be_merged_is_known_from_then_on(aged):
    """A squashed segment between others, in a bucket that only a listing tells of."""
    aged.insert(1)
    aged.insert(1)
    aged.insert(1, cut=False)
    aged.insert(1, cut=False)
    aged.bucket.squash()
    aged.insert(1)
    aged.insert(1)
    aged.insert(1)
    aged.wait(2 * HOUR)
    steps = aged.retention_steps(rules=FOREVER)
    steps.segments.appended = lambda since: []
    steps.begin(aged.now_ms)
    aged.keep(steps)
    assert aged.keys("merged/1/") == [KEYS.merged(1, 2, 3), KEYS.merged(1, 6, 8)]
    assert aged.keys("merged/2/") == [KEYS.merged(2, 2, 8)]


def test_half_a_cache_is_no_source(aged, spied):
    """Where it lacks a segment of a merge, the merge itself is fetched."""
    steps = aged.retention_steps(store=spied, rules=FOREVER)
    steps.step(aged.now_ms)
    busy(aged, steps, 12, every=MINUTE)
    last = aged.appended(0)[-1]
    steps.segments.cached = lambda *_: [MergeSource("gone", 3, 3, lambda: b"")]
    aged.wait(2 * HOUR)
    aged.keep(steps)
    assert aged.keys("merged/2/")
    assert spied.keys("get")
    assert restorable(aged.store, aged.txid) >= {last.last}


def test_a_log_that_somebody_else_went_on_with_is_listed_again(aged):
    """What was appended does not follow what was known."""
    steps = aged.retention_steps(rules=FOREVER)
    steps.step(aged.now_ms)
    busy(aged, steps, 50, every=10 * SECOND)
    known = steps.segments.appended
    steps.segments.appended = lambda since: [i for i in known(since) if i.first > aged.txid - 1]
    aged.insert(1)
    aged.insert(1)
    for _ in range(3):
        aged.wait(HOUR)
        aged.keep(steps)
    assert restorable(aged.store, aged.txid) == set(range(1, aged.txid + 1))
    assert len(aged.keys("wal/")) < 10


def test_sources_stay_when_their_merge_vanished(aged, spied):
    """Proved missing at the moment of the deletion: everything is listed again."""
    steps = aged.retention_steps(store=spied, rules=FOREVER)
    steps.step(aged.now_ms)
    busy(aged, steps, 50, every=10 * SECOND)
    segments, merges = aged.keys("wal/"), aged.keys("merged/1/")
    assert merges

    def before(method, key):
        if method == "head" and key in merges:
            merges.remove(key)
            aged.store.delete(key)

    spied.before = before
    aged.wait(6 * MINUTE)
    for _ in range(3):
        steps.step(aged.now_ms)
    assert aged.keys("wal/") == segments


def test_a_bucket_that_keeps_versions_is_told_of_once(aged, spied, monkeypatch, caplog):
    """Deletions go on; they only cost no less than before."""
    monkeypatch.setattr(HookedStore, "keeps_versions", True)
    steps = aged.retention_steps(store=spied, rules=FOREVER)
    steps.step(aged.now_ms)
    busy(aged, steps, 120, every=10 * SECOND)
    for _ in range(5):
        aged.wait(HOUR)
        aged.keep(steps)
    assert len(aged.keys("wal/")) == 2
    assert caplog.text.count("keeps old versions") == 1

"""Pruning from the bucket alone: what is asked, what is proved first, what a refusal stops."""

import contextlib
import json

import pytest

from replicator.archive.facts import FactsReader
from replicator.archive.index import PinnedPoint
from replicator.archive.pins import list_pins, pin, unpin
from replicator.archive.reachable import trust
from replicator.errors import AccessDenied, ConfigError, ReplicatorError
from replicator.model import Kind, Retention
from replicator.retention.prune import Pruner, plan_prune
from tests.helpers.errors import raises
from tests.helpers.random_archives import grown_archive, restorable
from tests.helpers.replication import HookedStore
from tests.helpers.retention import DAY, HOUR, KEYS, SECOND, AgedStore

NOTHING = Retention(every_transaction=0, hourly=0, daily=0, snapshots=1)


@pytest.fixture
def premerged(tmp_path):
    """Six segments, five of them in a merge, and a snapshot."""
    made = grown_archive(tmp_path, [("insert", SECOND)] * 3 + [("snapshot", HOUR)], merging=False)
    made.bucket.merge(2, 4)
    made.insert(1)
    made.wait(2 * HOUR)
    yield made
    made.close()


def planned(past, rules=NOTHING, **options):
    return plan_prune(past.store, KEYS, rules, past.now_ms, **options)


def applied(past, plan, store=None):
    return Pruner(store or past.store, KEYS).apply(plan, plan.decision.deletions)


def stripped(past):
    """A store that keeps no metadata."""
    bare = AgedStore()
    for info in past.store.list(""):
        bare.now_ms = info.modified_ms
        bare.put(info.key, past.store.get(info.key))
    bare.now_ms = past.now_ms
    return bare


def test_sources_go_only_with_a_merge_that_is_proved(premerged):
    """With metadata, by one HEAD a merge; where the merge vanished they stay."""
    plan = planned(premerged, Retention())
    assert [v.covered_by for v in plan.decision.deletions] == [KEYS.merged(1, 2, 4)] * 3
    store = HookedStore(premerged.store)
    done = applied(premerged, plan, store)
    assert len(done.deleted) == 3
    assert store.keys("head") == [KEYS.merged(1, 2, 4)]
    assert restorable(premerged.store, premerged.txid) == set(range(1, premerged.txid + 1))


@pytest.mark.parametrize("wrong", ["gone", "cut", "foreign"])
def test_a_merge_that_is_not_what_it_should_be(premerged, wrong):
    """Not there any more, of another length, or something else under its name."""
    plan = planned(premerged, Retention())
    key = KEYS.merged(1, 2, 4)
    info, body = premerged.store.head(key), premerged.store.get(key)
    premerged.store.delete(key)
    if wrong == "cut":
        premerged.store.put(key, body[:-1], metadata=info.metadata)
    if wrong == "foreign":
        premerged.store.put(key, body, metadata=info.metadata | {"last-txid": "3"})
    done = applied(premerged, plan)
    assert done.deleted == ()
    assert len(done.unproved) == 3


def test_a_store_without_metadata(premerged):
    """Objects are asked themselves: their first and last bytes tell the same."""
    bare = stripped(premerged)
    plan = plan_prune(bare, KEYS, Retention(), premerged.now_ms)
    expected = planned(premerged, Retention())
    assert plan.decision == expected.decision
    for attribute in ("key", "last", "kind", "generation", "at_ms"):
        assert [getattr(item, attribute, None) for item in plan.index.by_key.values()] == [
            getattr(item, attribute, None) for item in expected.index.by_key.values()
        ]
    done = Pruner(bare, KEYS).apply(plan, plan.decision.deletions)
    assert len(done.deleted) == 3
    assert restorable(premerged.store, premerged.txid) == set(range(1, premerged.txid + 1))


def test_times_of_snapshots_come_from_themselves(aged):
    """A bucket that was copied has new times of storage; what was begun on which day stays."""
    for _ in range(6):
        aged.insert(1)
        aged.snapshot()
        aged.wait(DAY)
    copied = stripped(aged)
    for info in list(copied.list("")):
        body = copied.get(info.key)
        copied.delete(info.key)
        copied.put(info.key, body)
    copied.now_ms += 8 * DAY
    rules = Retention(every_transaction=DAY / 1000, hourly=0, daily=60 * DAY / 1000, snapshots=1)
    plan = plan_prune(copied, KEYS, rules, copied.now_ms)
    assert [point.txid for point in plan.decision.points] == list(range(2, 8))


def test_a_refusal_ends_the_deletions(premerged):
    """The first one says what the others would."""

    def before(method, key):
        if method == "delete":
            raise AccessDenied("no")

    store = HookedStore(premerged.store)
    store.before = before
    done = applied(premerged, planned(premerged, Retention()), store)
    assert done.deleted == ()
    assert done.refused == "the bucket forbids deletions: no"
    assert len(store.keys("delete")) == 1


def test_what_went_is_counted(premerged):
    """In bytes as well."""
    before = sum(info.size for info in premerged.store.list(KEYS.wal_dir))
    done = applied(premerged, planned(premerged, Retention()))
    after = sum(info.size for info in premerged.store.list(KEYS.wal_dir))
    assert done.size == before - after


def test_nothing_young_goes_by_age(premerged):
    """However short the rules: a writer that slept must find the log it knew."""
    premerged.insert(1)
    premerged.snapshot()
    premerged.insert(1)
    young = premerged.keys("wal/")[-2:]
    premerged.wait(SECOND)
    plan = planned(premerged)
    assert not {v.key for v in plan.decision.deletions} & set(young)
    premerged.wait(2 * HOUR)
    assert young[0] in {v.key for v in planned(premerged).decision.deletions}


def test_a_segment_that_vanished_meanwhile_is_left_out(aged):
    """Another prune was quicker; the decision is made without it."""
    for _ in range(4):
        aged.insert(1)
    aged.snapshot()
    aged.insert(1)
    aged.wait(2 * DAY)
    store = HookedStore(aged.store)

    def before(method, key):
        if method == "head" and key == KEYS.wal(3):
            aged.store.delete(key)

    store.before = before
    pin(aged.store, KEYS, PinnedPoint(3))
    plan = plan_prune(store, KEYS, NOTHING, aged.now_ms)
    assert plan.decision.lost_pins == (3,)


def test_pins_are_small_objects(aged):
    """With a note; one that cannot be read pins all the same."""
    aged.insert(1)
    pin(aged.store, KEYS, PinnedPoint(2, "a"))
    pin(aged.store, KEYS, PinnedPoint(2, "b"))
    aged.store.put(KEYS.pin(1), b"{nonsense")
    aged.store.put(KEYS.pin(3), json.dumps([1]).encode())
    aged.store.put("app.db/pins/other.txt", b"")
    assert list_pins(aged.store, KEYS) == (
        PinnedPoint(1),
        PinnedPoint(2, "b"),
        PinnedPoint(3),
    )
    unpin(aged.store, KEYS, 2)
    with raises(ReplicatorError, "not_pinned"):
        unpin(aged.store, KEYS, 2)


def test_encrypted_objects_are_not_judged(aged):
    """Nothing is deleted by a version that cannot read them."""
    aged.store.put(KEYS.wal(9) + ".age", b"x")
    with raises(ConfigError, "encrypted"):
        planned(aged)


def test_foreign_objects_are_left_alone(aged):
    """Whatever lies beside ours is no part of a decision."""
    for folder in ("wal/", "merged/", "snapshots/"):
        aged.store.put(f"app.db/{folder}README", b"x")
    keys = {verdict.key for verdict in planned(aged).decision.verdicts}
    assert not any(key.endswith("README") for key in keys)


def test_an_empty_bucket_has_no_past():
    """Nothing is decided about nothing."""
    plan = plan_prune(AgedStore(), KEYS, NOTHING, 0)
    assert plan.decision.verdicts == ()
    assert plan.index.newest_segment is None


def test_generations_are_judged_by_the_log(aged):
    """One that began is trusted, one that never did is rejected, and goes first."""
    aged.insert(1)
    aged.start_generation()
    aged.insert(1)
    aged.bucket.snapshot(generation="00000000-0000-4000-8000-000000000001")
    aged.insert(1)
    aged.wait(2 * HOUR)
    plan = planned(aged, Retention())
    judged = trust(plan.index)
    assert list(judged.refused) == [KEYS.snapshot(4, "00000000-0000-4000-8000-000000000001")]
    assert judged.ask == ()
    assert [v.key for v in plan.decision.deletions] == [
        KEYS.snapshot(4, "00000000-0000-4000-8000-000000000001")
    ]


def test_a_pause_may_end_it(premerged):
    """Before any request that changes the bucket."""

    class Ended(Exception):
        pass

    def pause():
        raise Ended

    plan = planned(premerged, Retention())
    with contextlib.suppress(Ended):
        Pruner(premerged.store, KEYS).apply(plan, plan.decision.deletions, pause)
        raise AssertionError("it went on")
    assert len(premerged.keys("wal/")) == 5


def test_squashed_segments_stay_what_they_are(aged):
    """They are one step in the way to a point, and known for it once asked."""
    aged.insert(1, cut=False)
    aged.insert(1, cut=False)
    aged.bucket.squash()
    aged.insert(1)
    aged.wait(2 * DAY)
    item = next(item for item in planned(aged).index.wal if item.first == 2)
    asked = FactsReader(aged.store).ask(item)
    assert asked.kind is Kind.MERGE_NEWEST
    assert not asked.divisible

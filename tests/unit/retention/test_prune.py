"""Pruning from the bucket alone: what is asked, what is proved first, what a refusal stops."""

import contextlib
import json

import pytest

from replicator.archive import listing
from replicator.archive.inventory import PinnedPoint, doubtful
from replicator.errors import AccessDenied, ConfigError, ReplicatorError
from replicator.model import Kind, Retention
from replicator.retention.prune import Pruner, plan_prune
from tests.helpers.random_archives import grown_archive, restorable
from tests.helpers.replication import HookedStore
from tests.helpers.retention import DAY, HOUR, KEYS, SECOND, AgedArchive, AgedStore

NOTHING = Retention(every_transaction=0, hourly=0, daily=0, snapshots=1)


@pytest.fixture
def past(tmp_path):
    made = AgedArchive(tmp_path, page_size=512)
    yield made
    made.close()


@pytest.fixture
def merged(tmp_path):
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


def test_sources_go_only_with_a_merge_that_is_proved(merged):
    """With metadata, by one HEAD a merge; where the merge vanished they stay."""
    plan = planned(merged, Retention())
    assert [v.stands_in for v in plan.decision.deletions] == [KEYS.merged(1, 2, 4)] * 3
    store = HookedStore(merged.store)
    done = applied(merged, plan, store)
    assert len(done.deleted) == 3
    assert store.keys("head") == [KEYS.merged(1, 2, 4)]
    assert restorable(merged.store, merged.txid) == set(range(1, merged.txid + 1))


@pytest.mark.parametrize("wrong", ["gone", "cut", "foreign"])
def test_a_merge_that_is_not_what_it_should_be(merged, wrong):
    """Not there any more, of another length, or something else under its name."""
    plan = planned(merged, Retention())
    key = KEYS.merged(1, 2, 4)
    info, body = merged.store.head(key), merged.store.get(key)
    merged.store.delete(key)
    if wrong == "cut":
        merged.store.put(key, body[:-1], metadata=info.metadata)
    if wrong == "foreign":
        merged.store.put(key, body, metadata=info.metadata | {"last-txid": "3"})
    done = applied(merged, plan)
    assert done.deleted == ()
    assert len(done.unproved) == 3


def test_a_store_without_metadata(merged):
    """Objects are asked themselves: their first and last bytes tell the same."""
    bare = stripped(merged)
    plan = plan_prune(bare, KEYS, Retention(), merged.now_ms)
    assert plan == planned(merged, Retention())
    done = Pruner(bare, KEYS).apply(plan, plan.decision.deletions)
    assert len(done.deleted) == 3
    assert restorable(merged.store, merged.txid) == set(range(1, merged.txid + 1))


def test_times_of_snapshots_come_from_themselves(past):
    """A bucket that was copied has new times of storage; what was begun on which day stays."""
    for _ in range(6):
        past.insert(1)
        past.snapshot()
        past.wait(DAY)
    copied = stripped(past)
    for info in list(copied.list("")):
        body = copied.get(info.key)
        copied.delete(info.key)
        copied.put(info.key, body)
    copied.now_ms += 8 * DAY
    rules = Retention(every_transaction=DAY / 1000, hourly=0, daily=60 * DAY / 1000, snapshots=1)
    plan = plan_prune(copied, KEYS, rules, copied.now_ms)
    assert [point.txid for point in plan.decision.points] == list(range(2, 8))


def test_a_refusal_ends_the_deletions(merged):
    """The first one says what the others would."""

    def before(method, key):
        if method == "delete":
            raise AccessDenied("no")

    store = HookedStore(merged.store)
    store.before = before
    done = applied(merged, planned(merged, Retention()), store)
    assert done.deleted == ()
    assert done.refused == "the bucket forbids deletions: no"
    assert len(store.keys("delete")) == 1


def test_what_went_is_counted(merged):
    """In bytes as well."""
    before = sum(info.size for info in merged.store.list(KEYS.wal_dir))
    done = applied(merged, planned(merged, Retention()))
    after = sum(info.size for info in merged.store.list(KEYS.wal_dir))
    assert done.size == before - after


def test_nothing_young_goes_by_age(merged):
    """However short the rules: a writer that slept must find the log it knew."""
    merged.insert(1)
    merged.snapshot()
    merged.insert(1)
    young = merged.keys("wal/")[-2:]
    merged.wait(SECOND)
    plan = planned(merged)
    assert not {v.key for v in plan.decision.deletions} & set(young)
    merged.wait(2 * HOUR)
    assert young[0] in {v.key for v in planned(merged).decision.deletions}


def test_a_segment_that_vanished_meanwhile_is_left_out(past):
    """Another prune was quicker; the decision is made without it."""
    for _ in range(4):
        past.insert(1)
    past.snapshot()
    past.insert(1)
    past.wait(2 * DAY)
    store = HookedStore(past.store)

    def before(method, key):
        if method == "head" and key == KEYS.wal(3):
            past.store.delete(key)

    store.before = before
    listing.pin(past.store, KEYS, PinnedPoint(3))
    plan = plan_prune(store, KEYS, NOTHING, past.now_ms)
    assert plan.decision.lost_pins == (3,)


def test_pins_are_small_objects(past):
    """With a note; one that cannot be read pins all the same."""
    past.insert(1)
    listing.pin(past.store, KEYS, PinnedPoint(2, "a"))
    listing.pin(past.store, KEYS, PinnedPoint(2, "b"))
    past.store.put(KEYS.pin(1), b"{nonsense")
    past.store.put(KEYS.pin(3), json.dumps([1]).encode())
    past.store.put("app.db/pins/other.txt", b"")
    assert listing.list_pins(past.store, KEYS) == (
        PinnedPoint(1),
        PinnedPoint(2, "b"),
        PinnedPoint(3),
    )
    listing.unpin(past.store, KEYS, 2)
    with pytest.raises(ReplicatorError, match="not pinned"):
        listing.unpin(past.store, KEYS, 2)


def test_encrypted_objects_are_not_judged(past):
    """Nothing is deleted by a version that cannot read them."""
    past.store.put(KEYS.wal(9) + ".age", b"x")
    with pytest.raises(ConfigError, match="encrypted"):
        planned(past)


def test_foreign_objects_are_left_alone(past):
    """Whatever lies beside ours is no part of a decision."""
    for folder in ("wal/", "merged/", "snapshots/"):
        past.store.put(f"app.db/{folder}README", b"x")
    keys = {verdict.key for verdict in planned(past).decision.verdicts}
    assert not any(key.endswith("README") for key in keys)


def test_an_empty_bucket_has_no_past():
    """Nothing is decided about nothing."""
    plan = plan_prune(AgedStore(), KEYS, NOTHING, 0)
    assert plan.decision.verdicts == ()
    assert plan.inventory.newest_segment is None


def test_generations_are_judged_by_the_log(past):
    """One that began is trusted, one that never did is rejected, and goes first."""
    past.insert(1)
    past.start_generation()
    past.insert(1)
    past.bucket.snapshot(generation="00000000-0000-4000-8000-000000000001")
    past.insert(1)
    past.wait(2 * HOUR)
    plan = planned(past, Retention())
    assert plan.inventory.rejected == {"00000000-0000-4000-8000-000000000001"}
    assert not doubtful(plan.inventory)
    assert [v.key for v in plan.decision.deletions] == [
        KEYS.snapshot(4, "00000000-0000-4000-8000-000000000001")
    ]


def test_a_pause_may_end_it(merged):
    """Before any request that changes the bucket."""

    class Ended(Exception):
        pass

    def pause():
        raise Ended

    plan = planned(merged, Retention())
    with contextlib.suppress(Ended):
        Pruner(merged.store, KEYS).apply(plan, plan.decision.deletions, pause)
        raise AssertionError("it went on")
    assert len(merged.keys("wal/")) == 5


def test_squashed_segments_stay_what_they_are(past):
    """They are one step in the way to a point, and known for it once asked."""
    past.insert(1, cut=False)
    past.insert(1, cut=False)
    past.bucket.squash()
    past.insert(1)
    past.wait(2 * DAY)
    item = next(item for item in planned(past).inventory.log if item.first == 2)
    assert listing.ask(past.store, item).kind is Kind.MERGE_NEWEST
    assert not listing.ask(past.store, item).divisible

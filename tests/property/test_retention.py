"""Retention over random archives and rules: kept transactions stay restorable at every instant."""

import random
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.retention.prune import plan_prune
from tests.helpers.random_archives import (
    SteppedPrune,
    grown_archive,
    must_stay,
    promised,
    restorable,
    rules,
    sample,
    step_lists,
)
from tests.helpers.replication import HookedStore
from tests.helpers.retention import HOUR, KEYS

QUIET = settings(max_examples=25, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32)


def scratch():
    return tempfile.TemporaryDirectory(prefix="archive-")


@QUIET
@given(step_lists, rules, seeds, st.sampled_from([0, HOUR]))
def test_kept_transactions_are_restorable_after_every_deletion(steps, retention, seed, grace_ms):
    """Each promised transaction is restorable at every crash point, and random ones restore byte
    for byte."""
    rng = random.Random(seed)
    with scratch() as name:
        archive = grown_archive(Path(name), steps)
        possible = restorable(archive.store, archive.txid)
        pruning = SteppedPrune(archive, retention, grace_ms)
        expected = promised(archive, retention, archive.now_ms, possible, pruning.plan.decision)
        assert must_stay(archive, retention, archive.now_ms, possible) <= possible
        while pruning.left:
            pruning.step()
            assert expected <= restorable(archive.store, archive.txid)
        for txid in sample(rng, expected, 4):
            assert archive.restored(Path(name), txid) == archive.images[txid]
        archive.close()


@QUIET
@given(step_lists, rules, seeds)
def test_a_concurrent_restore_succeeds(steps, retention, seed):
    """A restore succeeds with deletions at any moment between its requests."""
    rng = random.Random(seed)
    with scratch() as name:
        archive = grown_archive(Path(name), steps)
        possible = restorable(archive.store, archive.txid)
        pruning = SteppedPrune(archive, retention, 0)
        expected = promised(archive, retention, archive.now_ms, possible, pruning.plan.decision)
        store = HookedStore(archive.store)
        store.before = lambda *_: [pruning.step() for _ in range(rng.randint(0, 2))]
        for txid in sample(rng, expected, 3):
            assert archive.restored(Path(name), txid, store=store) == archive.images[txid]
        archive.close()


@QUIET
@given(step_lists, rules, st.integers(0, 40))
def test_the_next_prune_completes_a_killed_one(steps, retention, deletions):
    """After a killed prune and a second one, a third finds nothing to do."""
    with scratch() as name:
        archive = grown_archive(Path(name), steps)
        possible = restorable(archive.store, archive.txid)
        killed = SteppedPrune(archive, retention, 0)
        expected = promised(archive, retention, archive.now_ms, possible, killed.plan.decision)
        for _ in range(deletions):
            killed.step()
        SteppedPrune(archive, retention, 0).all()
        assert expected <= restorable(archive.store, archive.txid)
        again = plan_prune(archive.store, KEYS, retention, archive.now_ms, grace_ms=0)
        assert not again.decision.deletions
        archive.close()

"""Retention over random pasts and rules: what is kept comes back, at every instant."""

import random
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.retention.prune import plan_prune
from tests.helpers.replication import HookedStore
from tests.helpers.retention import HOUR, KEYS
from tests.helpers.retention_story import (
    Pruning,
    lived,
    must_stay,
    promised,
    restorable,
    rules,
    some,
    stories,
)

QUIET = settings(max_examples=25, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32)


def scratch():
    return tempfile.TemporaryDirectory(prefix="past-")


@QUIET
@given(stories, rules, seeds, st.sampled_from([0, HOUR]))
def test_what_is_kept_comes_back_after_every_single_deletion(story, retention, seed, grace_ms):
    """A way leads to each promised transaction at every crash point, and random ones of them
    restore byte for byte."""
    rng = random.Random(seed)
    with scratch() as name:
        past = lived(Path(name), story)
        possible = restorable(past.store, past.txid)
        pruning = Pruning(past, retention, grace_ms)
        expected = promised(past, retention, past.now_ms, possible, pruning.plan.decision)
        assert must_stay(past, retention, past.now_ms, possible) <= possible
        while pruning.left:
            pruning.step()
            assert expected <= restorable(past.store, past.txid)
        for txid in some(rng, expected, 4):
            assert past.restored(Path(name), txid) == past.images[txid]
        past.close()


@QUIET
@given(stories, rules, seeds)
def test_a_restore_that_runs_meanwhile_succeeds(story, retention, seed):
    """However the deletions fall between its requests."""
    rng = random.Random(seed)
    with scratch() as name:
        past = lived(Path(name), story)
        possible = restorable(past.store, past.txid)
        pruning = Pruning(past, retention, 0)
        expected = promised(past, retention, past.now_ms, possible, pruning.plan.decision)
        store = HookedStore(past.store)
        store.before = lambda *_: [pruning.step() for _ in range(rng.randint(0, 2))]
        for txid in some(rng, expected, 3):
            assert past.restored(Path(name), txid, store=store) == past.images[txid]
        past.close()


@QUIET
@given(stories, rules, st.integers(0, 40))
def test_a_prune_that_was_killed_is_finished_by_the_next(story, retention, deletions):
    """It comes to the same bucket, and a prune after that finds nothing to do."""
    with scratch() as name:
        past = lived(Path(name), story)
        possible = restorable(past.store, past.txid)
        killed = Pruning(past, retention, 0)
        expected = promised(past, retention, past.now_ms, possible, killed.plan.decision)
        for _ in range(deletions):
            killed.step()
        Pruning(past, retention, 0).all()
        assert expected <= restorable(past.store, past.txid)
        again = plan_prune(past.store, KEYS, retention, past.now_ms, grace_ms=0)
        assert not again.decision.deletions
        past.close()

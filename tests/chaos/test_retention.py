"""Merging and pruning over many random pasts: nothing that is kept is ever out of reach."""

import math
import random

import pytest

from replicator.model import Retention
from tests.helpers.replication import HookedStore
from tests.helpers.retention import DAY, HOUR, MINUTE
from tests.helpers.retention_story import (
    Pruning,
    lived,
    promised,
    random_rules,
    random_story,
    restorable,
    some,
)
from tests.plugins.scoreboard import effort


@pytest.mark.timeout(3600)
def test_random_pasts(tmp_path, seed, scoreboard):
    """Rules change, time goes on, prunes are killed at random deletions, restores run at the
    same time: each kept point has a way at every crash point, and those tried are exact."""
    histories, crash_points, restores, deleted = effort(25, 1000), 0, 0, 0
    for number in range(histories):
        rng = random.Random(f"{seed}-{number}")
        past = lived(tmp_path, random_story(rng), merging=rng.random() < 0.8)
        for _ in range(2):
            possible = restorable(past.store, past.txid)
            pruning = Pruning(past, random_rules(rng), rng.choice([0, HOUR]))
            expected = promised(past, pruning.rules, past.now_ms, possible, pruning.plan.decision)
            kill_at = rng.randint(0, len(pruning.left)) if rng.random() < 0.5 else 0
            store = HookedStore(past.store)
            store.before = lambda *_, p=pruning, r=rng: [p.step() for _ in range(r.randint(0, 1))]
            for txid in some(rng, expected, 2):
                assert past.restored(tmp_path, txid, store=store) == past.images[txid]
                restores += 1
            while len(pruning.left) > kill_at:
                pruning.step()
                crash_points += 1
                assert expected <= restorable(past.store, past.txid), f"{seed}-{number}"
            deleted += pruning.deleted
            for txid in some(rng, expected, 2):
                assert past.restored(tmp_path, txid) == past.images[txid]
                restores += 1
            past.wait(rng.choice([MINUTE, HOUR, DAY, 5 * DAY]))
        past.close()
        past.bucket.path.unlink()
    assert deleted
    scoreboard(
        "retention: random pasts and rules, killed prunes, restores meanwhile",
        f"{histories} pasts, {deleted} deletions, {crash_points} crash points, "
        f"{restores} restores exact, 0 out of reach",
    )


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.timeout(3600)
def test_a_keeper_killed_at_every_request(tmp_path, seed, scoreboard):
    """Before each request and right after each took effect: the next keeper goes on, and every
    transaction can be restored at every such moment."""
    rng = random.Random(seed)
    past = lived(tmp_path, random_story(rng), merging=False)
    for _ in range(effort(14, 40)):
        past.insert(1)
        past.wait(20_000)
    past.wait(2 * HOUR)
    before = {key: (past.store.get(key), past.store.head(key)) for key in list(past.keys())}
    expected, kills, at = restorable(past.store, past.txid), 0, 0
    finished = False
    while not finished:
        refill(past, before)
        finished = not killed_at(past, at, expected)
        kills += not finished
        at += 1
    for txid in some(rng, expected, effort(10, 100)):
        assert past.restored(tmp_path, txid) == past.images[txid]
    past.close()
    scoreboard(
        "keeper killed before and after every request of merging and pruning",
        f"{kills} kills, 0 of {len(expected)} transactions out of reach",
    )


def killed_at(past, at, expected):
    """Whether the keeper was killed at that moment; the next one ends what it began."""
    store, count = HookedStore(past.store), 0

    def moment(*_):
        nonlocal count
        count += 1
        if count == at + 1:
            raise Killed

    store.before = store.after = moment
    rules = Retention(every_transaction=math.inf)
    try:
        work(past, past.keeping(store=store, rules=rules))
    except Killed:
        assert expected <= restorable(past.store, past.txid)
        work(past, past.keeping(rules=rules))
        assert expected <= restorable(past.store, past.txid)
        return True
    assert expected <= restorable(past.store, past.txid)
    return False


def work(past, keeping):
    keeping.begin(past.now_ms)
    while keeping.step(past.now_ms):
        pass


def refill(past, objects):
    """The bucket as it was."""
    for key in list(past.keys()):
        past.store.delete(key)
    now_ms = past.store.now_ms
    for key, (body, info) in objects.items():
        past.store.now_ms = info.modified_ms
        past.store.put(key, body, metadata=info.metadata)
    past.store.now_ms = now_ms

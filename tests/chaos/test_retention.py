"""Merging and pruning of many random archives never make a kept transaction unrestorable."""

import math
import random

import pytest

from replicator.model import Retention
from tests.helpers.random_archives import (
    SteppedPrune,
    grown_archive,
    promised,
    random_rules,
    random_steps,
    restorable,
    sample,
)
from tests.helpers.replication import HookedStore
from tests.helpers.retention import DAY, HOUR, MINUTE
from tests.plugins.scoreboard import effort


@pytest.mark.timeout(3600)
def test_random_pasts(tmp_path, seed, scoreboard):
    """While rules change, time advances, prunes are killed at random deletions and restores run,
    each kept transaction is restorable at every crash point, and sampled restores are exact."""
    histories, crash_points, restores, deleted = effort(25, 1000), 0, 0, 0
    for number in range(histories):
        rng = random.Random(f"{seed}-{number}")
        archive = grown_archive(tmp_path, random_steps(rng), merging=rng.random() < 0.8)
        for _ in range(2):
            possible = restorable(archive.store, archive.txid)
            pruning = SteppedPrune(archive, random_rules(rng), rng.choice([0, HOUR]))
            expected = promised(
                archive, pruning.rules, archive.now_ms, possible, pruning.plan.decision
            )
            kill_at = rng.randint(0, len(pruning.left)) if rng.random() < 0.5 else 0
            store = HookedStore(archive.store)
            store.before = lambda *_, p=pruning, r=rng: [p.step() for _ in range(r.randint(0, 1))]
            for txid in sample(rng, expected, 2):
                assert archive.restored(tmp_path, txid, store=store) == archive.images[txid]
                restores += 1
            while len(pruning.left) > kill_at:
                pruning.step()
                crash_points += 1
                assert expected <= restorable(archive.store, archive.txid), f"{seed}-{number}"
            deleted += pruning.deleted
            for txid in sample(rng, expected, 2):
                assert archive.restored(tmp_path, txid) == archive.images[txid]
                restores += 1
            archive.wait(rng.choice([MINUTE, HOUR, DAY, 5 * DAY]))
        archive.close()
        archive.bucket.path.unlink()
    assert deleted
    scoreboard(
        "retention: random archives and rules, killed prunes, concurrent restores",
        f"{histories} archives, {deleted} deletions, {crash_points} crash points, "
        f"{restores} restores exact, 0 unrestorable",
    )


class Killed(BaseException):
    """The process was killed."""


@pytest.mark.timeout(3600)
def test_a_worker_killed_at_every_request(tmp_path, seed, scoreboard):
    """A retention worker is killed before each request and right after it took effect: the next
    worker continues, and every transaction is restorable at each of these moments."""
    rng = random.Random(seed)
    archive = grown_archive(tmp_path, random_steps(rng), merging=False)
    for _ in range(effort(14, 40)):
        archive.insert(1)
        archive.wait(20_000)
    archive.wait(2 * HOUR)
    before = {
        key: (archive.store.get(key), archive.store.head(key)) for key in list(archive.keys())
    }
    expected, kills, at = restorable(archive.store, archive.txid), 0, 0
    finished = False
    while not finished:
        refill(archive, before)
        finished = not killed_at(archive, at, expected)
        kills += not finished
        at += 1
    for txid in sample(rng, expected, effort(10, 100)):
        assert archive.restored(tmp_path, txid) == archive.images[txid]
    archive.close()
    scoreboard(
        "retention worker killed before and after every request of merging and pruning",
        f"{kills} kills, 0 of {len(expected)} transactions unrestorable",
    )


def killed_at(archive, at, expected):
    """True if the worker was killed at that moment; then the next one completes its work."""
    store, count = HookedStore(archive.store), 0

    def moment(*_):
        nonlocal count
        count += 1
        if count == at + 1:
            raise Killed

    store.before = store.after = moment
    rules = Retention(every_transaction=math.inf)
    try:
        work(archive, archive.retention_steps(store=store, rules=rules))
    except Killed:
        assert expected <= restorable(archive.store, archive.txid)
        work(archive, archive.retention_steps(rules=rules))
        assert expected <= restorable(archive.store, archive.txid)
        return True
    assert expected <= restorable(archive.store, archive.txid)
    return False


def work(archive, steps):
    steps.begin(archive.now_ms)
    while steps.step(archive.now_ms):
        pass


def refill(archive, objects):
    """Restores the objects of the bucket."""
    for key in list(archive.keys()):
        archive.store.delete(key)
    now_ms = archive.store.now_ms
    for key, (body, info) in objects.items():
        archive.store.now_ms = info.modified_ms
        archive.store.put(key, body, metadata=info.metadata)
    archive.store.now_ms = now_ms

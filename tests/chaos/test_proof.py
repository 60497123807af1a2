"""A bucket where each object in turn is damaged or gone: verify finds it, drill fails loudly, and
the sidecar makes the present restorable again.

Every state is made by a live replicator: two generations, snapshots, segments. For each object
and each kind of harm the newest transaction must be restorable afterwards, page by page.
"""

import random
import shutil

import pytest

from replicator.errors import DamageError, GapError
from replicator.store.memory import MemoryStore
from replicator.verify.drill import drill
from replicator.verify.verify import verify
from tests.helpers.replication import App, replicating, restored
from tests.plugins.scoreboard import effort

PREFIX = "app.db"


def flipped(body, rng):
    at = rng.randrange(len(body))
    return body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1 :]


HARM = {
    "flipped": flipped,
    "cut": lambda body, rng: body[: rng.randrange(len(body))],
    "gone": lambda body, rng: None,
}


def history(path, store):
    """What a replicator leaves that ran, was away while the application wrote, and ran on."""
    with App(path) as app:
        with replicating(path, store) as replicator:
            for _ in range(3):
                app.insert(5)
                replicator.flush(60)
            replicator.flush(60, snapshot=True)
            app.insert(5)
            replicator.flush(60)
            replicator.repair(60)
        app.insert(8)
        with replicating(path, store) as replicator:
            replicator._parts._fresh_generation("a second one is wanted")
            app.insert(3)
            replicator.flush(60)
            app.insert(3)
            replicator.flush(60)


def objects(store):
    return [
        info.key
        for info in store.list("")
        if "/proofs/" not in info.key and not info.key.endswith(".json")
    ]


def is_found(store, key, last_txid):
    """verify names the object, or, where it is gone, nothing was lost by that."""
    report = verify(store, PREFIX, data=True, expected_txid=last_txid)
    if key in [finding.key for finding in report.findings]:
        return True
    assert report.findings == ()
    return [(w.first_txid, w.last_txid) for w in report.restorable] == [(1, last_txid)]


def copy_of(store):
    copied = MemoryStore()
    for info in store.list(""):
        copied.put(info.key, store.get(info.key), metadata=store.head(info.key).metadata)
    return copied


def harmed(store, key, how, rng):
    """A copy of the bucket in which one object is not what it was."""
    copied = copy_of(store)
    body, metadata = copied.get(key), copied.head(key).metadata
    copied.delete(key)
    if (spoilt := HARM[how](body, rng)) is not None:
        copied.put(key, spoilt, metadata=metadata)
    return copied


def drill_fails(store, scratch, last_txid):
    """Whether the newest transaction is out of reach; never is that passed over."""
    try:
        report = drill(store, PREFIX, scratch=scratch)
    except (DamageError, GapError):
        return True
    return report.restore.txid < last_txid


@pytest.mark.timeout(1200)
def test_each_object_damaged_is_found_and_the_present_is_healed(tmp_path, seed, scoreboard):
    """verify, drill and repair against every object of a bucket, one at a time; each case
    begins with the same database, the same cache and the same bucket but for one object."""
    rng = random.Random(seed)
    origin, store = tmp_path / "origin", MemoryStore()
    origin.mkdir()
    history(origin / "app.db", store)
    last_txid = verify(store, PREFIX).head_txid
    keys = objects(store)
    cases = [(key, how) for key in keys for how in HARM]
    cases = effort([(key, rng.choice(list(HARM))) for key in keys], cases)
    found = failed = made = 0
    for number, (key, how) in enumerate(cases):
        here = tmp_path / f"case-{number}"
        shutil.copytree(origin, here)
        bucket = harmed(store, key, how, rng)
        found += is_found(bucket, key, last_txid)
        fails = drill_fails(bucket, tmp_path, last_txid)
        with App(here / "app.db") as app:
            with replicating(here / "app.db", bucket) as replicator:
                answer = replicator.repair(60)
                app.insert(2)
                head = replicator.flush(60).txid
            report, image = restored(bucket, tmp_path)
            assert (report.txid, image) == (head, app.image()), (key, how)
        assert (answer.action != "none") == fails, (key, how, answer)
        assert drill(bucket, PREFIX, scratch=tmp_path).restore.txid == head
        failed, made = failed + fails, made + (answer.action != "none")
        shutil.rmtree(here)
    assert found == len(cases)
    scoreboard(
        "each object harmed in turn: verify finds it, drill fails, the present is healed",
        f"{len(cases)} harms to {len(keys)} objects: {found} found; {failed} left the "
        f"present unrestorable, as many drills failed, {made} healed",
    )

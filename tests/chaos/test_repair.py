"""Each object of an archive in turn is damaged or gone: verify finds it, drill fails, and the
replicator makes the newest transaction restorable again.

A live replicator makes the archive: two generations, snapshots, segments. For each object and each
kind of damage the newest transaction must be restorable after the repair, page by page.
"""

import random
import shutil

import pytest

from replicator.errors import DamageError, GapError
from replicator.store.memory import MemoryStore
from replicator.system.mailbox import Wanted
from replicator.verify.drill import drill
from replicator.verify.verify import verify
from tests.helpers.replication import App, replicating, restored
from tests.plugins.scoreboard import effort

PREFIX = "app.db"


def flipped(body, rng):
    at = rng.randrange(len(body))
    return body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1 :]


DAMAGE = {
    "flipped": flipped,
    "cut": lambda body, rng: body[: rng.randrange(len(body))],
    "gone": lambda body, rng: None,
}


def history(path, store):
    """The archive of a replicator that ran, stopped while the application wrote, and ran again."""
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
            engine = replicator._engine
            txid = engine.mailbox.ask(Wanted.GENERATION, "a second one is wanted").result(60)
            engine.uploader.watermark.wait(txid, 60)
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
    """True if verify names the object, or if its absence loses no transaction."""
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


def damaged(store, key, how, rng):
    """A copy of the bucket in which one object is damaged or gone."""
    copied = copy_of(store)
    body, metadata = copied.get(key), copied.head(key).metadata
    copied.delete(key)
    if (spoilt := DAMAGE[how](body, rng)) is not None:
        copied.put(key, spoilt, metadata=metadata)
    return copied


def drill_fails(store, scratch, last_txid):
    """True if the drill fails because the newest transaction cannot be restored."""
    try:
        report = drill(store, PREFIX, scratch=scratch)
    except (DamageError, GapError):
        return True
    return report.restore.txid < last_txid


@pytest.mark.timeout(1200)
def test_each_damaged_object_is_found_and_repaired(tmp_path, seed, scoreboard):
    """Runs verify, drill and repair against damage to each object; each case starts with the same
    database, cache and bucket except for one object."""
    rng = random.Random(seed)
    origin, store = tmp_path / "origin", MemoryStore()
    origin.mkdir()
    history(origin / "app.db", store)
    last_txid = verify(store, PREFIX).head_txid
    keys = objects(store)
    cases = [(key, how) for key in keys for how in DAMAGE]
    cases = effort([(key, rng.choice(list(DAMAGE))) for key in keys], cases)
    found = failed = made = 0
    for number, (key, how) in enumerate(cases):
        here = tmp_path / f"case-{number}"
        shutil.copytree(origin, here)
        bucket = damaged(store, key, how, rng)
        found += is_found(bucket, key, last_txid)
        fails = drill_fails(bucket, tmp_path, last_txid)
        with App(here / "app.db") as app:
            with replicating(here / "app.db", bucket) as replicator:
                replicator.repair(60)  # it may find that the failed drill led to a repair already
                repairs = replicator.metrics.get("repairs")
                app.insert(2)
                head = replicator.flush(60).txid
            report, image = restored(bucket, tmp_path)
            assert (report.txid, image) == (head, app.image()), (key, how)
        assert repairs == fails, (key, how, repairs)
        assert drill(bucket, PREFIX, scratch=tmp_path).restore.txid == head
        failed, made = failed + fails, made + repairs
        shutil.rmtree(here)
    assert found == len(cases)
    scoreboard(
        "each object damaged in turn: verify finds it, drill fails, repair works",
        f"{len(cases)} damages to {len(keys)} objects: {found} found; {failed} made the newest "
        f"transaction unrestorable, as many drills failed, {made} repaired",
    )

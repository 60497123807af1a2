"""kill −9 of the application, alone or together with the replicator."""

import random

import pytest
from fix_command import wait_for
from fix_live import LONG
from fix_scoreboard import effort


def kill_under_way(scene, rng, *others, **options):
    """Start two writers, let them commit some, kill them and ``others``."""
    before = scene.total()
    writers = [scene.start(n, seed=rng.randrange(1 << 30), **options) for n in (1, 2)]
    some = before + rng.randint(20, 400)
    wait_for(lambda: scene.total() >= some)
    for process in rng.sample([*writers, *others], 2 + len(others)):
        process.kill()


def kill_in_transaction(writer, replicator):
    """Kill it once frames of its one large transaction are seen in the log."""
    wait_for(lambda: replicator.status().lag_bytes > 1 << 20 or not writer.running)
    writer.kill()


@pytest.mark.parametrize("options", [
    {"autocheckpoint": 20}, {"autocheckpoint": 0}, {"truncate_every": 10}, {"large": 48 << 20},
], ids=str)
def test_writers_killed(scene, options):
    """Writers die in transactions and checkpoints, others go on where they were; the replica
    follows through it without losing its place."""
    rng = random.Random(7)
    scene.begin()
    with scene.replicating() as replicator:
        for _ in range(6):
            if "large" in options:
                kill_in_transaction(scene.start(1, **options), replicator)
            else:
                kill_under_way(scene, rng, **options)
            scene.write(writers=2, commits=10)
        replicator.flush(LONG)
        assert replicator.metrics.get("generations") == 1
    scene.exact()


@pytest.mark.timeout(120 + 30 * effort(10, 300))
def test_both_killed(scene, seed, scoreboard):
    """Application and sidecar die together, SQLite recovers the log, whoever is back first;
    all commits are replicated in the end, and those flushed are never missing."""
    rng = random.Random(seed)
    scene.begin()
    for _ in range(effort(10, 300)):
        sidecar = scene.sidecar(roll_over=rng.choice((20, 1000)))
        sidecar.until_following()
        txid, before = scene.flush(), scene.committed()
        kill_under_way(scene, rng, sidecar, autocheckpoint=rng.choice((0, 20, 1000)))
        copy, report = scene.restore()
        assert report.txid >= txid
        scene.prefix_holds(copy, at_least=before)
        copy.unlink()
        if rng.random() < 0.5:
            scene.write(writers=2, commits=rng.randint(1, 20))
    sidecar = scene.sidecar()
    sidecar.until_following()
    scene.flush()
    assert sidecar.stop() == 0
    scene.exact()
    scoreboard("kill -9 of the application and the sidecar together",
               f"{effort(10, 300)} kills, {scene.total()} commits acknowledged, 0 lost, "
               "0 failed restores")

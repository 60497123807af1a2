"""kill −9 of the application, alone or together with the replicator."""

import random

import pytest

from replicator.sidecar.control import ask
from tests.helpers.command import cache_of, wait_for
from tests.helpers.live import LONG
from tests.plugins.scoreboard import effort

ALONE, BOTH = effort(12, 300), effort(10, 300)
WRITERS = (
    {"autocheckpoint": 20},
    {"autocheckpoint": 0},
    {"truncate_every": 10},
    {"reopen_every": 15},
    {"vacuum_every": 8},
)


def kill_under_way(scene, rng, *others, **options):
    """Start two writers, let them commit some, kill them and ``others``."""
    before = scene.total()
    writers = [scene.start(n, seed=rng.randrange(1 << 30), **options) for n in (1, 2)]
    some = before + rng.randint(20, 400)
    wait_for(lambda: scene.total() >= some)
    for process in rng.sample([*writers, *others], 2 + len(others)):
        process.kill()


def kill_in_transaction(writer, lag_bytes):
    """Kill it once frames of its one large transaction are seen in the log."""
    wait_for(lambda: lag_bytes() > 1 << 20 or not writer.running)
    writer.kill()


@pytest.mark.parametrize(
    "options",
    [
        {"autocheckpoint": 20},
        {"autocheckpoint": 0},
        {"truncate_every": 10},
        {"large": 48 << 20},
    ],
    ids=str,
)
def test_writers_killed(scene, options):
    """Writers die in transactions and checkpoints, others go on where they were; the replica
    follows through it without losing its place."""
    rng = random.Random(7)
    scene.begin()
    with scene.replicating() as replicator:
        for _ in range(6):
            if "large" in options:
                kill_in_transaction(
                    scene.start(1, **options), lambda: replicator.status().lag_bytes
                )
            else:
                kill_under_way(scene, rng, **options)
            scene.write(writers=2, commits=10)
        replicator.flush(LONG)
        assert replicator.metrics.get("generations") == 1
    scene.exact()


def kill_somehow(scene, rng, sidecar):
    if rng.random() < 0.1:
        kill_in_transaction(
            scene.start(1, large=8 << 20, seed=rng.randrange(1 << 30)),
            lambda: sidecar.status()["lag_bytes"],
        )
    else:
        kill_under_way(scene, rng, **rng.choice(WRITERS))


@pytest.mark.timeout(120 + 20 * ALONE)
def test_application_killed(scenes, seed, scoreboard):
    """The application dies again and again while the sidecar goes on: after each death a flush
    makes all that was acknowledged restorable, and no generation begins for that reason."""
    rng = random.Random(seed)
    commits = 0
    for scene, kills in scenes(ALONE):
        scene.begin()
        sidecar = scene.sidecar("--snapshot-interval", "1s", roll_over=rng.choice((20, 1000)))
        sidecar.until_following()
        for _ in range(kills):
            kill_somehow(scene, rng, sidecar)
            before = scene.committed()
            txid = ask(cache_of(scene.path), {"command": "flush"})["txid"]
            restored_with(scene, txid, before)
        assert ask(cache_of(scene.path), {"command": "metrics"})["generations"] == 1
        assert sidecar.stop() == 0
        scene.exact()
        commits += scene.total()
    scoreboard(
        "kill -9 of the application alone, under load",
        f"{ALONE} kills, {commits} commits acknowledged, 0 lost, 0 failed restores",
    )


@pytest.mark.timeout(120 + 30 * BOTH)
def test_both_killed(scenes, seed, scoreboard):
    """Application and sidecar die together, SQLite recovers the log, whoever is back first;
    all commits are replicated in the end, and those flushed are never missing."""
    rng = random.Random(seed)
    commits = 0
    for scene, kills in scenes(BOTH):
        scene.begin()
        for _ in range(kills):
            sidecar = scene.sidecar(roll_over=rng.choice((20, 1000)))
            sidecar.until_following()
            txid, before = scene.flush(), scene.committed()
            kill_under_way(scene, rng, sidecar, autocheckpoint=rng.choice((0, 20, 1000)))
            restored_with(scene, txid, before)
            if rng.random() < 0.5:
                scene.write(writers=2, commits=rng.randint(1, 20))
        sidecar = scene.sidecar()
        sidecar.until_following()
        scene.flush()
        assert sidecar.stop() == 0
        scene.exact()
        commits += scene.total()
    scoreboard(
        "kill -9 of the application and the sidecar together",
        f"{BOTH} kills, {commits} commits acknowledged, 0 lost, 0 failed restores",
    )


def restored_with(scene, txid, commits):
    """The store alone gives back at least that."""
    copy, report = scene.restore()
    assert report.txid >= txid
    scene.prefix_holds(copy, at_least=commits)
    copy.unlink()

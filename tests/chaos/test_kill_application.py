"""SIGKILL of the application, alone or together with the replicator."""

import random

import pytest

from replicator.sidecar.control_client import ask
from tests.helpers.command_line import cache_of
from tests.helpers.replication import LONG, wait_for
from tests.plugins.scoreboard import effort

ALONE, BOTH = effort(12, 300), effort(10, 300)
WRITERS = (
    {"autocheckpoint": 20},
    {"autocheckpoint": 0},
    {"truncate_every": 10},
    {"reopen_every": 15},
    {"vacuum_every": 8},
)


def kill_under_way(deployment, rng, *others, **options):
    """Starts two writers, lets them commit, and kills them and ``others``."""
    before = deployment.total()
    writers = [deployment.start(n, seed=rng.randrange(1 << 30), **options) for n in (1, 2)]
    some = before + rng.randint(20, 400)
    wait_for(lambda: deployment.total() >= some)
    for process in rng.sample([*writers, *others], 2 + len(others)):
        process.kill()


def kill_in_transaction(writer, lag_bytes):
    """Kills the writer once frames of its one large transaction are in the WAL."""
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
def test_writers_killed(deployment, options):
    """Writers die in transactions and checkpoints, others continue; the replicator follows
    without a new generation, and the archive is exact."""
    rng = random.Random(7)
    deployment.create()
    with deployment.replicating() as replicator:
        for _ in range(6):
            if "large" in options:
                kill_in_transaction(
                    deployment.start(1, **options), lambda: replicator.status().lag_bytes
                )
            else:
                kill_under_way(deployment, rng, **options)
            deployment.write(writers=2, commits=10)
        replicator.flush(LONG)
        assert replicator.metrics.get("generations") == 1
    deployment.check_exact()


def kill_somehow(deployment, rng, sidecar):
    if rng.random() < 0.1:
        kill_in_transaction(
            deployment.start(1, large=8 << 20, seed=rng.randrange(1 << 30)),
            lambda: sidecar.status()["lag_bytes"],
        )
    else:
        kill_under_way(deployment, rng, **rng.choice(WRITERS))


@pytest.mark.timeout(120 + 20 * ALONE)
def test_application_killed(deployments, seed, scoreboard):
    """The application dies repeatedly under a running sidecar: after each death a flush makes all
    acknowledged commits restorable, and no new generation begins."""
    rng = random.Random(seed)
    commits = 0
    for deployment, kills in deployments(ALONE):
        deployment.create()
        sidecar = deployment.sidecar("--snapshot-interval", "1s", roll_over=rng.choice((20, 1000)))
        sidecar.until_following()
        for _ in range(kills):
            kill_somehow(deployment, rng, sidecar)
            before = deployment.committed()
            txid = ask(cache_of(deployment.path), {"command": "flush"})["txid"]
            restored_with(deployment, txid, before)
        assert ask(cache_of(deployment.path), {"command": "metrics"})["generations"] == 1
        assert sidecar.stop() == 0
        deployment.check_exact()
        commits += deployment.total()
    scoreboard(
        "kill -9 of the application alone, under load",
        f"{ALONE} kills, {commits} commits acknowledged, 0 lost, 0 failed restores",
    )


@pytest.mark.timeout(120 + 30 * BOTH)
def test_both_killed(deployments, seed, scoreboard):
    """Application and sidecar die together, and SQLite recovers the WAL whichever starts first;
    all commits are replicated in the end, and flushed ones are never missing."""
    rng = random.Random(seed)
    commits = 0
    for deployment, kills in deployments(BOTH):
        deployment.create()
        for _ in range(kills):
            sidecar = deployment.sidecar(roll_over=rng.choice((20, 1000)))
            sidecar.until_following()
            txid, before = deployment.flush(), deployment.committed()
            kill_under_way(deployment, rng, sidecar, autocheckpoint=rng.choice((0, 20, 1000)))
            restored_with(deployment, txid, before)
            if rng.random() < 0.5:
                deployment.write(writers=2, commits=rng.randint(1, 20))
        sidecar = deployment.sidecar()
        sidecar.until_following()
        deployment.flush()
        assert sidecar.stop() == 0
        deployment.check_exact()
        commits += deployment.total()
    scoreboard(
        "kill -9 of the application and the sidecar together",
        f"{BOTH} kills, {commits} commits acknowledged, 0 lost, 0 failed restores",
    )


def restored_with(deployment, txid, commits):
    """Checks that a restore gives at least that txid and those commits."""
    copy, report = deployment.restore()
    assert report.txid >= txid
    deployment.check_commits(copy, at_least=commits)
    copy.unlink()

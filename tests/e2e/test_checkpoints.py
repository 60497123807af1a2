"""The application's own checkpoints, in all four modes, during replication."""

import threading

import pytest

from tests.helpers.other_app import OtherApp
from tests.helpers.replication import LONG, replicating, wait_for
from tests.programs import workload


@pytest.mark.parametrize("seed", [1, 2])
def test_no_checkpoint_of_the_application_waits_in_vain(deployment, seed):
    """A process that calls a checkpoint of a random mode after every third commit, some at once
    and some after a rest, never waits until its busy timeout; the restore is exact."""
    deployment.create()
    sidecar = deployment.sidecar(roll_over=60)
    sidecar.until_following()
    for rate, commits in ((0, 90), (40, 20)):
        deployment.write(seed=seed, commits=commits, checkpoint_every=3, rate=rate)
    assert sidecar.stop() == 0
    deployment.check_exact()


def test_checkpoints_beside_other_writers(deployment):
    """The same while two more processes write and checkpoint at every commit, on their own."""
    deployment.create()
    sidecar = deployment.sidecar()
    sidecar.until_following()
    writers = [
        deployment.start(1, commits=60, checkpoint_every=5),
        deployment.start(2, commits=150, autocheckpoint=1, rate=200),
        deployment.start(3, commits=150, autocheckpoint=1, rate=200),
    ]
    for writer in writers:
        writer.finish()
    assert sidecar.stop() == 0
    deployment.check_exact()


@pytest.mark.parametrize("events", [True, False], ids=["with events", "without events"])
@pytest.mark.parametrize("mode", ["FULL", "RESTART", "TRUNCATE"])
def test_a_checkpoint_of_an_idle_database(app, store, request, mode, events):
    """An application at rest calls a checkpoint, after its passive checkpoint copied everything
    and without one. No commit announces it, and it does not wait for its busy timeout."""
    if not events:
        request.getfixturevalue("no_events")
    poll = LONG if events else 0.05
    with (
        replicating(app.path, store, poll_interval=poll) as replicator,
        OtherApp(app.path) as other,
    ):
        for passive in (True, False):
            other.run("INSERT INTO t(body) VALUES (randomblob(3000))")
            replicator.flush(LONG)
            if passive:
                assert other.run("PRAGMA wal_checkpoint(PASSIVE)")[0][0] == 0
            wait_for(lambda: replicator.status().lag_bytes == 0)
            assert other.run(f"PRAGMA wal_checkpoint({mode})")[0][0] == 0


def test_checkpoints_in_the_process_of_the_replicator(deployment):
    """A thread of the application checkpoints in the replicator's own process, whose locks the
    kernel does not report as those of another."""
    deployment.create()
    with deployment.replicating() as replicator:
        options = ["--commits", "60", "--checkpoint-every", "10", "--rate", "200"]
        arguments = [str(deployment.path), str(deployment.log(1)), *options]
        thread = threading.Thread(target=workload.main, args=[workload.parse(arguments)])
        thread.start()
        thread.join()
        replicator.flush(LONG)
    assert deployment.committed() == {1: 61}
    deployment.check_exact()

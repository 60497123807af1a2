"""Live replication under each pattern of writes, in the library and as a sidecar.

Each run ends the same way: after a flush a restore from the store equals the source page by page,
with every commit that any writer knows of.
"""

import pytest

from tests.helpers.deployment import Deployment
from tests.helpers.replication import LONG, wait_for

WAYS = {
    "one writer": {"commits": 8000},
    "three writers": {"writers": 3, "commits": 1500},
    "one writer at 200 a second": {"commits": 200, "rate": 200},
    "three writers at 200 a second": {"writers": 3, "commits": 100, "rate": 70},
    "no autocheckpoint": {"commits": 8000, "autocheckpoint": 0},
    "three writers, no autocheckpoint": {"writers": 3, "commits": 1500, "autocheckpoint": 0},
    "checkpoint at every commit": {"commits": 3000, "autocheckpoint": 1},
    "TRUNCATE checkpoints": {"commits": 1000, "truncate_every": 25},
    "TRUNCATE checkpoints of three": {"writers": 3, "commits": 400, "truncate_every": 25},
    "grow, VACUUM and shrink": {"commits": 1200, "vacuum_every": 60},
    "VACUUM among three": {"writers": 3, "commits": 400, "vacuum_every": 100},
    "reopened connections": {"commits": 1000, "reopen_every": 10},
    "reopened and truncated by three": {
        "writers": 3,
        "commits": 300,
        "reopen_every": 7,
        "truncate_every": 11,
    },
    "small pages": {"commits": 3000, "page_size": 512},
    "small pages and VACUUM": {"commits": 600, "page_size": 512, "vacuum_every": 60},
    "large pages": {"commits": 1500, "page_size": 65536},
    "large pages of three": {
        "writers": 3,
        "commits": 300,
        "page_size": 65536,
        "truncate_every": 50,
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_in_the_library(deployment, way):
    """A replicator in another process than the writers loses no page and no commit, and no writer
    meets an error. Only commits at the moment in which the last connection closes and SQLite
    removes the WAL may be caught up as one transaction."""
    deployment.create(**WAYS[way])
    with deployment.replicating() as replicator:
        wait_for(lambda: replicator.status().txid)
        deployment.write(**WAYS[way])
        position = replicator.flush(LONG)
        status = replicator.status()
        assert status.durable_txid == status.txid == position.txid
        assert status.txid >= deployment.total() or replicator.metrics.get("catch_ups")
    assert deployment.check_exact().txid == position.txid


def test_before_the_database_exists(deployment):
    """A replicator that starts first follows the database once it appears, under writes."""
    with deployment.replicating() as replicator:
        deployment.write(writers=3, commits=500)
        replicator.flush(LONG)
    deployment.check_exact()


def test_in_the_middle_of_writes(deployment):
    """A replicator that starts under writes takes its first snapshot without stopping the writers,
    and follows from there."""
    deployment.write(commits=3000)
    writers = [deployment.start(n, commits=3000, rate=2000) for n in (1, 2)]
    with deployment.replicating() as replicator:
        for writer in writers:
            writer.finish()
        replicator.flush(LONG)
        assert replicator.status().txid > 1
    deployment.check_exact()


def test_each_flush_covers_what_was_committed_before_it(deployment):
    """Under writes, a restore of the position of each flush holds every commit that returned
    before the call, and later restores of the same txid are the same."""
    with deployment.replicating() as replicator:
        writer = deployment.start(commits=1500, rate=1000)
        promised = []
        while writer.running:
            before = deployment.committed()
            promised.append((replicator.flush(LONG).txid, before))
        writer.finish()
        replicator.flush(LONG)
    for txid, before in promised[:: max(1, len(promised) // 10)]:
        if before:
            copy, report = deployment.restore(txid=txid)
            assert report.txid == txid
            deployment.check_commits(copy, at_least=before)
    deployment.check_exact()


@pytest.mark.parametrize("roll_over", [20, 1000])
def test_as_a_sidecar(deployment, roll_over):
    """A sidecar with a directory as the store does the same; SIGTERM ends it with exit code 0 once
    every commit is stored, also those after the last flush."""
    deployment.create()
    sidecar = deployment.sidecar(roll_over=roll_over)
    sidecar.until_following()
    deployment.write(writers=3, commits=1000, truncate_every=40)
    assert deployment.flush() >= deployment.total()
    deployment.write(writers=2, commits=100)
    assert sidecar.stop() == 0
    deployment.check_exact()


def test_as_a_sidecar_on_s3(seaweed_credentials, prefix, tmp_path):
    """A sidecar with a real S3 server and credentials in the environment does the same."""
    deployment = Deployment(
        tmp_path,
        url=f"s3://{seaweed_credentials.bucket}",
        endpoint_url=seaweed_credentials.endpoint_url,
        prefix=prefix,
    )
    try:
        deployment.create()
        sidecar = deployment.sidecar()
        sidecar.until_following()
        deployment.write(writers=3, commits=1000, truncate_every=40)
        assert deployment.flush() >= deployment.total()
        deployment.write(writers=2, commits=100)
        assert sidecar.stop() == 0
        deployment.check_exact()
    finally:
        deployment.close()

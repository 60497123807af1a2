"""Side effects of replication: none on the application, no request of an idle replicator."""

import contextlib
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from replicator.errors import ReplicatorError
from replicator.recovery.api import restore
from replicator.store.directory import DirectoryStore
from tests.helpers.counting import CountingStore
from tests.helpers.replication import LONG, HookedStore, wait_for
from tests.programs import workload


@pytest.fixture
def deployed(deployment):
    """The store of the deployment, with hooks."""
    return HookedStore(DirectoryStore(deployment.directory / "store"))


@pytest.mark.parametrize("events", [True, False], ids=["with events", "without events"])
def test_a_lone_commit_reaches_the_store(deployment, request, events):
    """A single commit without a flush reaches the store."""
    if not events:
        request.getfixturevalue("no_events")
    deployment.create()
    with deployment.replicating(poll_interval=0.05, sync_interval=0.2) as replicator:
        replicator.flush(LONG)
        wal = deployment.directory / "store" / "app.db" / "wal"
        for _ in range(3):
            known = set(wal.iterdir())
            deployment.write(commits=1)
            wait_for(
                lambda known=known: {p for p in wal.iterdir() if p.name.endswith(".zst")} - known
            )
            copy, _ = deployment.restore()
            deployment.check_commits(copy, at_least=deployment.committed())
        wait_for(lambda: replicator.status().lag_bytes == 0)
    deployment.check_exact()


def test_idle_costs_no_request(deployment, deployed):
    """Once everything is durable, a hundred rounds of the capture make no request."""
    deployment.create()
    with deployment.replicating(store=deployed, poll_interval=0.01) as replicator:
        deployment.write(commits=50)
        replicator.flush(LONG)
        calls, rounds = len(deployed.calls), replicator.metrics.get("wake_ups")
        wait_for(lambda: replicator.metrics.get("wake_ups") >= rounds + 100)
        assert deployed.calls[calls:] == []
        deployment.write(commits=1)
        replicator.flush(LONG)
        assert [method for method, _ in deployed.calls[calls:]] == ["put"]
    deployment.check_exact()


def test_a_steady_stream_costs_one_request_per_cut(deployment, deployed):
    """Each segment costs one PUT and no other request; the first one is read back."""
    deployment.create()
    with deployment.replicating(store=deployed) as replicator:
        replicator.flush(LONG)
        deployment.write(commits=1)
        replicator.flush(LONG)
        calls, segments = len(deployed.calls), replicator.metrics.get("segments")
        deployment.write(writers=2, commits=300, rate=500)
        replicator.flush(LONG)
        assert {method for method, _ in deployed.calls[calls:]} == {"put"}
        assert len(deployed.calls) - calls == replicator.metrics.get("segments") - segments
    deployment.check_exact()


def locks(database):
    """(inode, kind, byte) of each POSIX lock of this process on the database and its index.
    Neighbouring locks are one line in proc(5), so the function expands them to bytes. A lock to
    the end of the file, which SQLite never sets, would be an error here."""
    inodes = {os.stat(f"{database}{suffix}").st_ino for suffix in ("", "-shm")}
    found = set()
    for line in Path("/proc/locks").read_text().splitlines():
        _, style, _, kind, pid, file, first, last = line.replace("-> ", "").split()
        inode = int(file.rpartition(":")[2])
        if (style, int(pid)) == ("POSIX", os.getpid()) and inode in inodes:
            found |= {(inode, kind, byte) for byte in range(int(first), int(last) + 1)}
    return found


def test_the_application_in_the_same_process_is_left_alone(deployment):
    """A replicator in the application's own process keeps its locks through start, flush, snapshot,
    restore, status and stop (O5), adds no table, writes nothing through another connection, and
    leaves its read transaction intact."""
    connection = workload.open_database(str(deployment.path))
    connection.executescript(workload.SCHEMA)
    deployment.write(commits=20)
    schema = connection.execute("SELECT * FROM sqlite_master ORDER BY 2").fetchall()
    version = connection.execute("PRAGMA data_version").fetchone()
    connection.execute("BEGIN")
    seen = connection.execute("SELECT count(*) FROM done").fetchone()
    before = locks(deployment.path)
    assert before
    replicator = deployment.replicator(cache_dir=deployment.directory / "cache")
    for _ in range(2):
        replicator.start()
        for ask in (
            lambda: replicator.flush(LONG),
            lambda: replicator.snapshot(LONG),
            lambda: replicator.restore(output=deployment.directory / "copy.db", overwrite=True),
            replicator.status,
        ):
            ask()
            assert before <= locks(deployment.path)
        replicator.stop()
        assert locks(deployment.path) == before
    assert connection.execute("SELECT count(*) FROM done").fetchone() == seen
    connection.execute("COMMIT")
    assert connection.execute("PRAGMA data_version").fetchone() == version
    assert connection.execute("SELECT * FROM sqlite_master ORDER BY 2").fetchall() == schema
    connection.close()
    deployment.check_exact()


def test_writers_in_the_same_process(deployment):
    """Threads of the application write in the process of the replicator, each with connections
    that open and close."""
    workload.main(workload.parse([str(deployment.path), str(deployment.log(1)), "--commits", "1"]))
    with deployment.replicating() as replicator:
        threads = [
            threading.Thread(
                target=workload.main,
                args=[
                    workload.parse(
                        [
                            str(deployment.path),
                            str(deployment.log(n)),
                            "--writer",
                            str(n),
                            "--commits",
                            "300",
                            "--reopen-every",
                            "25",
                            "--truncate-every",
                            "40",
                        ]
                    )
                ],
            )
            for n in (1, 2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        replicator.flush(LONG)
    assert deployment.committed() == {1: 301, 2: 300}
    deployment.check_exact()


def test_restores_during_replication(deployment, deployed):
    """Restores during replication under writes each give a committed state."""
    deployment.create()
    counting = CountingStore(DirectoryStore(deployment.directory / "store"))
    with deployment.replicating(store=deployed) as replicator:
        writer = deployment.start(commits=600, rate=600)
        last = 0
        while writer.running:
            before = deployment.committed()
            promised = replicator.flush(LONG).txid
            copy = deployment.directory / f"live-{promised}.db"
            report = restore(store=counting, prefix="app.db", output=copy, overwrite=True)
            assert report.txid >= promised >= last
            last = report.txid
            deployment.check_commits(copy, at_least=before)
            copy.unlink()
        writer.finish()
        replicator.flush(LONG)
    deployment.check_exact()


def test_an_outage_is_survived(deployment, deployed):
    """The store goes away under writes; no writer meets an error, and once it is back all commits
    of the outage are uploaded, transaction by transaction."""
    deployment.create()
    with deployment.replicating(store=deployed) as replicator:
        replicator.flush(LONG)
        for _ in range(3):
            deployed.go_away()
            writer = deployment.start(commits=300)
            writer.finish()
            with pytest.raises(ReplicatorError):
                replicator.flush(0.2)
            deployed.come_back()
            replicator.flush(LONG)
            assert replicator.status().txid >= deployment.total()
    deployment.check_exact()
    with contextlib.closing(sqlite3.connect(deployment.path)) as connection:
        assert workload.violations(connection) == []

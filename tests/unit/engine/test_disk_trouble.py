"""The cache's disk is in trouble for a while: what is said of it, and for how long."""

import errno
import os
import time

import pytest

from replicator.cache.cache import Cache
from replicator.engine.in_process import InProcessReplicator
from replicator.errors import DiskFull, LocalIOError, ReplicatorError
from replicator.store.retry import RetryPolicy
from replicator.system.files import Files
from replicator.upload.uploader import Uploader
from tests.helpers.disk_faults import name_of
from tests.helpers.errors import raises
from tests.helpers.files import StrikingFiles
from tests.helpers.limits import limits_for
from tests.helpers.replication import (
    LONG,
    App,
    HookedStore,
    config_for,
    replicator_for,
    wait_for,
)

QUICK = {"loop": {"retries": RetryPolicy(first=0.002, cap=0.002)}}


@pytest.fixture
def files():
    """A disk that a test can strike with faults."""
    return StrikingFiles(name_of)


@pytest.fixture
def struck_replicator(tmp_path, files):
    """One that has caught up with its database, and joins its log every few milliseconds while
    it meets trouble."""
    config = config_for(tmp_path / "app.db")
    limits = limits_for(config, QUICK)
    made = InProcessReplicator(config, store=HookedStore(), files=files, limits=limits)
    with App(tmp_path / "app.db") as app:
        app.insert()
        made.start()
        made.flush(LONG)
        made.app = app
        yield made
        files.clear()
        made.stop()


def test_it_is_never_healthy_while_nothing_can_be_captured(struck_replicator, files):
    """Each attempt follows the log for a moment before it fails; that is no health. What is
    behind is as old as the commit that waits, not as the newest attempt. Then it mends itself."""
    files.strike(
        ("open to write", "draft"),
        files.seen["open to write", "draft"] + 1,
        errno.EIO,
        lasting=True,
    )
    struck_replicator.app.insert()
    wait_for(lambda: struck_replicator.status().last_error)
    since = time.monotonic()
    while files.struck < 30:
        status, waited = struck_replicator.status(), time.monotonic() - since
        assert not status.healthy
        assert "input/output error" in status.last_error
    assert struck_replicator.status().lag_seconds >= waited - 0.002  # which counts milliseconds
    files.clear()
    struck_replicator.flush(LONG)
    wait_for(lambda: struck_replicator.status().healthy)
    assert struck_replicator.status().lag_seconds == 0


@pytest.mark.parametrize("point", [("mkdir", "scratch"), ("pwrite", "rebuilt")])
def test_a_drill_that_meets_it_says_so(struck_replicator, files, point):
    """The drill uses the replicator's own door to the disk; its trouble is none of the backup,
    and no defect."""
    monitor = struck_replicator._engine.monitor
    files.strike(point, 1, errno.ENOSPC, lasting=False)
    with raises(DiskFull, errno=28):
        monitor._drill()
    assert files.struck
    assert monitor.health.error is None
    monitor._drill()
    assert monitor.proven.txid == struck_replicator.status().durable_txid


def test_what_was_recorded_before_the_disk_failed_is_sent(tmp_path, monkeypatch):
    """The disk fails right after the marker of a generation was recorded, before the uploader
    was told: the next join continues there, and has to tell it."""
    reload, calls = Uploader.reload, []

    def failing(self):
        calls.append(self)
        if len(calls) == 1:
            raise LocalIOError("disk i/o error")
        reload(self)

    monkeypatch.setattr(Uploader, "reload", failing)
    made = replicator_for(tmp_path / "app.db", HookedStore(), limits=QUICK)
    with App(tmp_path / "app.db") as app:
        app.insert()
        made.start()
        assert made.flush(LONG).txid == 1
        made.stop()
    assert len(calls) == 2


@pytest.mark.parametrize("point", [("write", "hashes"), ("DELETE", "ledger")])
def test_page_hashes_that_cannot_be_written_keep_nobody_waiting(
    struck_replicator, files, monkeypatch, caplog, point
):
    """They save a comparison at the next start and no more: it is said, and commits go on
    becoming durable."""
    monkeypatch.setattr(Cache, "hashes_due", lambda self: True)
    files.strike(point, files.seen[point] + 1, errno.EIO, lasting=True)
    for _ in range(3):
        struck_replicator.app.insert()
        struck_replicator.flush(LONG)
    wait_for(lambda: "the page hashes are written later" in caplog.text)
    assert struck_replicator.status().healthy


class DefectiveFiles(Files):
    """Once it is broken, each file that is made meets a defect of the program."""

    broken = False

    def system(self, call, /, *args, **kwargs):
        if self.broken and call is os.open and args[1] & os.O_CREAT:
            raise ZeroDivisionError
        return super().system(call, *args, **kwargs)


def test_a_defect_of_the_capture_reaches_every_waiter(app, store):
    """The capture ends, the status has the error, and so does each flush."""
    files = DefectiveFiles()
    replicator = replicator_for(app.path, store, files=files)
    replicator.start()
    replicator.flush(LONG)
    files.broken = True
    app.insert()
    for _ in range(2):
        with raises(ReplicatorError, "defect"):
            replicator.flush(LONG)
    status = replicator.status()
    assert (status.state, status.healthy) == ("failed", False)
    files.broken = False
    replicator.stop()

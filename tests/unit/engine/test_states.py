"""Every state of a replicator: what its status, the exit code, the metrics and the log say of it.

One table. Each row brings a real replicator into a state; then `replicator status` is asked over
the real control socket, and all that it says must agree.
"""

import contextlib
import json
import logging
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator import cli
from replicator.engine.health import MIRRORED
from replicator.errors import NotDurable
from replicator.sidecar.control_client import ask
from tests.helpers.control import answering
from tests.helpers.files import FullFiles
from tests.helpers.replication import (
    LONG,
    App,
    HookedStore,
    replicating,
    replicator_for,
    wait_for,
)

IMPATIENT = {"health_window": 0.001}
ALWAYS = 1 << 60


class Rig:
    """A database, its replicator, and the means to harm them."""

    def __init__(self, directory, cleanup):
        self.path = directory / "app.db"
        self.cleanup = cleanup
        self.files = FullFiles("write")
        self.store = HookedStore()
        self.app = None
        self.settings = {}
        self.limits = {}
        self.gates = []

    def open(self):
        self.app = self.cleanup.enter_context(App(self.path))
        self.app.insert(5)

    def start(self):
        self.replicator = replicator_for(
            self.path, self.store, limits=self.limits, files=self.files, **self.settings
        )
        self.replicator.start()
        self.cleanup.callback(self.replicator.stop)
        self.cleanup.enter_context(answering(self.replicator.config.cache, self.replicator))

    def follow(self):
        self.open()
        self.start()
        self.replicator.flush(LONG)

    def gate(self):
        """What is closed until the test ends."""
        self.gates.append(threading.Event())
        return self.gates[-1]

    def hold(self, method, part):
        """Calls that begin now are not answered before the test ends."""
        go_on = self.gate()

        def before(called, key):
            if called == method and part in key:
                assert go_on.wait(LONG)

        self.store.before = before

    def until(self, condition):
        wait_for(lambda: condition(self.replicator.status()))


def healthy(rig):
    rig.follow()


def commits_on_their_way(rig):
    rig.follow()
    rig.hold("put", "wal/")
    rig.app.insert()
    rig.until(lambda status: status.lag_bytes and status.pending_segments)


def lagging(rig):
    rig.limits = IMPATIENT
    commits_on_their_way(rig)
    rig.until(lambda status: status.lag_seconds > 0.001)


def store_away(rig):
    rig.follow()
    rig.store.go_away("wal/")
    rig.app.insert()
    rig.until(lambda status: status.failed_uploads)


def store_away_at_the_start(rig):
    rig.store.go_away("")
    rig.open()
    rig.start()
    rig.until(lambda status: status.last_error)


def fenced(rig):
    rig.follow()
    other = rig.path.with_name("other.db")
    with App(other), replicating(other, HookedStore(rig.store.inner), take_over=True) as taker:
        taker.flush(LONG)
    rig.app.insert()
    wait_for(lambda: rig.replicator.failed)


def cache_full(rig):
    rig.settings = {"max_cache_bytes": 1 << 20, "segment_max_bytes": 128 << 10}
    rig.follow()
    rig.store.go_away("wal/")
    for _ in range(20):
        rig.app.insert(1, 150_000)
        with contextlib.suppress(NotDurable):
            rig.replicator.flush(0.05)
    rig.until(lambda status: status.state == "stalled")


def disk_full(rig):
    rig.follow()
    rig.files.left = ALWAYS
    rig.cleanup.callback(lambda: setattr(rig.files, "left", 0))
    rig.app.insert()
    rig.until(lambda status: status.state == "stalled")


def no_database_yet(rig):
    rig.start()
    rig.until(lambda status: status.state == "waiting")


def database_gone(rig):
    rig.follow()
    rig.app.close()
    rig.path.unlink()
    rig.until(lambda status: status.state == "waiting")


def comparing(rig):
    rig.hold("put", "snapshots/")
    rig.open()
    rig.start()
    rig.until(lambda status: status.state == "starting")


def capture_stuck(rig):
    """The thread that looks at the log hangs in a system call; nothing ever failed."""
    rig.limits = IMPATIENT
    rig.follow()
    session = rig.replicator._engine.capture._session
    entered, go_on = threading.Event(), rig.gate()

    def hanging(requests):
        entered.set()
        assert go_on.wait(LONG)
        return ()

    session.serve_snapshots, session.poll_interval = hanging, 0.0
    assert entered.wait(LONG)
    rig.until(lambda status: not status.healthy)


@dataclass(frozen=True)
class Says:
    """What is expected: ``lag`` whether something committed is known not to be durable, ``error``
    a part of the last error, ``log`` a part of a warning or an error in the log."""

    state: str
    healthy: bool
    lag: bool = False
    error: str | None = None
    log: str | None = None
    running: bool = True


TABLE = {
    healthy: Says("following", healthy=True),
    commits_on_their_way: Says("following", healthy=True, lag=True),
    lagging: Says("following", healthy=False, lag=True),
    store_away: Says(
        "following",
        healthy=False,
        lag=True,
        error="the store is away",
        log="attempt 1 failed: the store is away",
    ),
    store_away_at_the_start: Says(
        "stalled",
        healthy=False,
        lag=True,
        error="the store is away",
        log="the store is away; trying again",
    ),
    fenced: Says(
        "failed",
        healthy=False,
        lag=True,
        error="another writer owns the archive",
        log="another writer owns the archive",
        running=False,
    ),
    cache_full: Says(
        "stalled", healthy=False, lag=True, error="", log="which may hold 1048576; trying again"
    ),
    disk_full: Says(
        "stalled",
        healthy=False,
        lag=True,
        error="no space left",
        log="no space left on the test's disk; trying again",
    ),
    no_database_yet: Says(
        "waiting", healthy=False, error="does not exist", log="does not exist, or is empty; waiting"
    ),
    database_gone: Says(
        "waiting", healthy=False, error="does not exist", log="was replaced or deleted"
    ),
    comparing: Says("starting", healthy=False, lag=True),
    capture_stuck: Says("following", healthy=False),
}


@pytest.fixture
def rig():
    """A replicator that the test brings into each of its states."""
    with tempfile.TemporaryDirectory(prefix="short-") as home, contextlib.ExitStack() as cleanup:
        rig = Rig(Path(home), cleanup)
        yield rig
        for gate in rig.gates:
            gate.set()


def ask_status(rig, capsys, *options):
    code = cli.call(["status", str(rig.path), *options])
    return code, capsys.readouterr().out


@pytest.mark.parametrize("reach", TABLE, ids=lambda reach: reach.__name__)
def test_all_that_is_said_agrees(rig, reach, capsys, caplog):
    """Status, exit code, metrics and log tell one story, and it is the true one."""
    caplog.set_level(logging.INFO, "replicator")
    expected = TABLE[reach]
    reach(rig)
    code, out = ask_status(rig, capsys, "--json")
    status = json.loads(out)
    assert (status["state"], status["healthy"], status["running"]) == (
        expected.state,
        expected.healthy,
        expected.running,
    )
    assert code == (0 if expected.healthy else 5)
    assert bool(status["lag_bytes"]) == expected.lag
    assert expected.lag or not status["lag_seconds"]
    assert (expected.error or "") in (status["last_error"] or "")
    assert expected.error is None or status["last_error_at"]
    warned = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert (expected.log is None and not warned) or any(expected.log in line for line in warned)
    assert not expected.healthy or status["durable_txid"] == status["txid"] or expected.lag
    if expected.running:
        figures = ask(rig.replicator.config.cache, {"command": "metrics"})
        assert bool(figures["healthy"]) == expected.healthy
        still = [name for name in MIRRORED if not name.startswith("lag")]
        assert {name: figures[name] for name in still} == {name: status[name] for name in still}
    code, text = ask_status(rig, capsys)
    assert code == (0 if expected.healthy else 5)
    verdict = "● healthy" if expected.healthy else "● NOT HEALTHY"
    assert text.startswith(f"{verdict}  {expected.state}")
    assert ("which is all of it" in text) == (expected.state == "following" and not expected.lag)


def test_nobody_answers_for_a_replicator_that_ended(rig, capsys):
    """Exit code 1, apart from 5: it is not late, it is not there."""
    rig.follow()
    cache = rig.replicator.config.cache
    rig.cleanup.close()
    for gone in (False, True):
        if gone:
            shutil.rmtree(cache)
        assert cli.call(["status", str(rig.path)]) == 1
        assert "no sidecar answers" in capsys.readouterr().err
    status = rig.replicator.status()
    assert (status.state, status.running, status.healthy) == ("stopped", False, False)

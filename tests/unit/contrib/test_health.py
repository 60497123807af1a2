"""The health check of an application: it is true, cheap, and never late."""

import dataclasses
import os
import threading

import pytest

from replicator.contrib.health import UNKNOWN, HealthProbe, HealthTimes
from replicator.errors import NotRunning
from replicator.model import unstarted
from tests.helpers.replication import LONG, wait_for

STATUS = dataclasses.replace(
    unstarted("/srv/app.db", "s3://bucket/app.db"),
    healthy=True,
    state="following",
    txid=9,
    durable_txid=8,
    pending_bytes=100,
    lag_seconds=0.5,
    last_wal_sync=1_700_000_000_000,
    last_error="s3://bucket does not answer",
)


class Sidecar:
    """Answers a question once ``free`` is set; counts the questions."""

    def __init__(self, answer=STATUS, *, hangs=False):
        self.answer, self.asked, self.free = answer, 0, threading.Event()
        if not hangs:
            self.free.set()

    def status(self):
        self.asked += 1
        assert self.free.wait(LONG)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Clock:
    """Moves when a test moves it."""

    now = 0.0

    def __call__(self):
        return self.now


def test_a_report_has_the_figures_and_no_address():
    """A path, an address or an error would be public: load balancers ask without a password."""
    report = HealthProbe(Sidecar().status).report()
    assert report.to_dict() == {
        "healthy": True,
        "state": "following",
        "txid": 9,
        "durable_txid": 8,
        "pending_bytes": 100,
        "lag_seconds": 0.5,
        "last_wal_sync": 1_700_000_000_000,
        "last_snapshot": None,
        "last_verified_ms": None,
    }
    assert report.http_status == 200


@pytest.mark.parametrize(
    ("answer", "state"),
    [(dataclasses.replace(STATUS, healthy=False, state="stalled"), "stalled"),
     (NotRunning("no sidecar answers"), "unknown")],
)  # fmt: skip
def test_what_is_not_healthy_is_unavailable(answer, state):
    """Status code 503, also if no sidecar runs."""
    report = HealthProbe(Sidecar(answer).status).report()
    assert (report.http_status, report.state) == (503, state)


def test_checks_within_a_second_ask_once():
    """A flood of checks costs the sidecar one question a second."""
    sidecar, clock = Sidecar(), Clock()
    probe = HealthProbe(sidecar.status, HealthTimes(fresh=1.0), clock)
    assert {probe.report().txid for _ in range(100)} == {9}
    assert sidecar.asked == 1
    clock.now += 1.0
    sidecar.answer = dataclasses.replace(STATUS, txid=10)
    assert probe.report().txid == 10


def test_a_sidecar_that_hangs_delays_no_check_for_long():
    """After its patience each check gets its answer at once, and no further thread waits."""
    sidecar, clock = Sidecar(hangs=True), Clock()
    probe = HealthProbe(sidecar.status, HealthTimes(patience=0.0), clock)
    assert [probe.report() for _ in range(50)] == [UNKNOWN] * 50
    assert sidecar.asked == 1
    sidecar.free.set()
    wait_for(lambda: probe.report().healthy)


def test_a_forked_child_asks_anew():
    """The thread that asked for the parent does not exist in the child."""
    sidecar = Sidecar(hangs=True)
    probe = HealthProbe(sidecar.status, HealthTimes(patience=0.0))
    assert probe.report() == UNKNOWN
    pid = os.fork()
    if pid == 0:  # pragma: no cover - the child
        sidecar.free = threading.Event()
        sidecar.free.set()
        probe._times = HealthTimes(patience=LONG)
        os._exit(0 if probe.report().healthy else 1)
    sidecar.free.set()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_fault_of_the_question_leaves_no_check_waiting():
    """An error that is not ours is UNKNOWN too, and is raised in the thread that asked."""
    seen = []
    before, threading.excepthook = threading.excepthook, lambda given: seen.append(given.exc_type)
    try:
        sidecar = Sidecar(KeyError("x"))
        assert HealthProbe(sidecar.status).report() == UNKNOWN
        wait_for(lambda: seen == [KeyError])
    finally:
        threading.excepthook = before

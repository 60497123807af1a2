"""system/scheduler.py: work that is due now and then, in threads that come and go."""

import threading

import pytest

from replicator.system import scheduler as module
from replicator.system.scheduler import Errands

LONG = 60.0


@pytest.fixture
def errands():
    errands = Errands()
    yield errands
    errands.stop()


class Work:
    """Says when it wants to run again, and lets a test wait for its runs."""

    def __init__(self, *delays):
        self.delays = list(delays)
        self.runs = 0
        self._ran = threading.Semaphore(0)

    def __call__(self):
        self.runs += 1
        self._ran.release()
        return self.delays.pop(0) if self.delays else None

    def ran(self):
        assert self._ran.acquire(timeout=LONG)


def test_an_errand_runs_when_it_says(errands):
    """At once, then after its own delays, then only when it is woken."""
    work = Work(0.0, 0.01)
    errand = errands.add(work)
    for _ in range(3):
        work.ran()
    errand.wake()
    work.ran()
    assert work.runs == 4


def test_one_that_waits_to_be_woken_takes_no_thread(errands):
    """Nothing is due, so nobody has to watch the clock."""
    before = threading.active_count()
    work = Work()
    errand = errands.add(work, delay=None)
    assert threading.active_count() == before
    errand.wake()
    work.ran()


def test_a_wake_while_it_runs_is_not_lost(errands):
    """It runs once more, and never twice at the same time."""
    entered, go, second = threading.Event(), threading.Event(), threading.Event()

    def work():
        if entered.is_set():
            second.set()
        entered.set()
        assert go.wait(LONG)

    errand = errands.add(work)
    assert entered.wait(LONG)
    errand.wake()
    errand.wake()
    assert not second.is_set()
    go.set()
    assert second.wait(LONG)


def test_one_that_hangs_keeps_no_other_one_waiting(errands):
    """A further thread watches the clock, up to a bound."""
    go, hang = threading.Event(), threading.Barrier(module.MOST, timeout=LONG)

    def work():
        if hang.wait() == 0:
            go.set()

    for _ in range(module.MOST):
        errands.add(work)
    assert go.wait(LONG)


def test_threads_that_are_not_needed_end(monkeypatch):
    """But for one, if something is due some day."""
    monkeypatch.setattr(module, "LINGER", 0.01)
    errands = Errands()
    gate = threading.Barrier(4, timeout=LONG)

    def work():
        gate.wait()
        return 3600.0

    for _ in range(4):
        errands.add(work)
    tick = threading.Event()
    for _ in range(int(LONG / 0.01)):
        if len(errands._threads) == 1 and gate.n_waiting == 0 and len(errands._due) == 4:
            break
        tick.wait(0.01)
    assert len(errands._threads) == 1
    errands.stop()
    assert not errands._threads


def test_a_stopped_errand_has_ended(errands):
    """Stop waits for the run under way; no wake starts another."""
    entered, go = threading.Event(), threading.Event()
    ended = []

    def work():
        entered.set()
        assert go.wait(LONG)
        ended.append(True)
        return 0.0

    errand = errands.add(work)
    assert entered.wait(LONG)
    threading.Timer(0.01, go.set).start()
    errand.stop()
    assert ended == [True]
    errand.wake()
    errand.stop()
    assert ended == [True]
    assert errands._next() is None


def test_a_defect_ends_neither_the_errand_nor_the_thread(errands, monkeypatch):
    """It is tried again, later."""
    monkeypatch.setattr(module, "AFTER_DEFECT", 0.01)
    again = threading.Event()
    tries = []

    def work():
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("made to fail")
        again.set()

    errands.add(work)
    assert again.wait(LONG)


def test_nothing_begins_after_the_end():
    """Neither what was due nor what comes."""
    errands = Errands()
    work = Work()
    errands.add(work, delay=3600.0)
    errands.stop()
    errands.add(work)
    errands.stop()
    assert work.runs == 0

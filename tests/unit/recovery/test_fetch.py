"""Parallel work in order, with a bounded window."""

import threading

import pytest

from replicator.errors import DamageError, StoreUnavailable
from replicator.recovery.fetch import Fetcher
from replicator.recovery.limits import RecoveryLimits
from replicator.recovery.progress import Meter
from replicator.store.memory import MemoryStore
from replicator.store.retry import retry_damaged
from replicator.system.pagefile import PageFile
from tests.helpers.counting import CountingStore


@pytest.fixture
def fetcher():
    """A fetcher on an empty store, with a window of 10 bytes."""
    with Fetcher(MemoryStore(), Meter(None), RecoveryLimits(window_bytes=10)) as made:
        yield made


def test_results_in_order_within_the_window(fetcher):
    """However jobs finish, results come in order, and what is under way or held never exceeds
    the window (but for one job larger than it)."""
    lock, held, peak = threading.Lock(), [0], [0]

    def job(n):
        def work():
            return n

        return work

    def jobs():
        for n, size in enumerate([3, 3, 3, 12, 5, 5, 5, 1]):
            with lock:
                held[0] += size
                peak[0] = max(peak[0], held[0] if held[0] != size else 0)
            yield size, job((n, size))

    found = []
    for n, size in fetcher.in_order(jobs()):
        held[0] -= size
        found.append(n)
    assert found == list(range(8))
    assert peak[0] <= 10 + 12  # the job that waits for room was already asked for


def test_a_failure_ends_it_after_the_others_have(fetcher):
    """When a job fails, the error comes out, and no job is running any more: none could still
    write to a file that is closed by then."""
    inside, failing, running = threading.Event(), threading.Event(), []

    def slow():
        running.append("in")
        inside.set()
        failing.wait()
        sum(range(2_000_000))  # still busy while the error travels
        running.append("out")

    def fail():
        inside.wait()
        failing.set()
        raise StoreUnavailable("no")

    with pytest.raises(StoreUnavailable):
        list(fetcher.in_order([(1, fail), (1, slow), (1, slow)]))
    assert running.count("in") == running.count("out") > 0


def test_persistence():
    """Damage is tried three times, anything else once."""
    calls = []

    def damaged():
        calls.append(1)
        raise DamageError("x")

    def down():
        calls.append(1)
        raise StoreUnavailable("x")

    with pytest.raises(DamageError):
        retry_damaged(damaged)
    assert len(calls) == 3
    with pytest.raises(StoreUnavailable):
        retry_damaged(down)
    assert len(calls) == 4


def test_spooling_copies_by_ranges(tmp_path):
    """An object arrives whole, by several requests."""
    store = CountingStore(MemoryStore())
    body = bytes(range(100))
    store.inner.put("k", body)
    limits, meter = RecoveryLimits(range_bytes=7), Meter(None)
    with Fetcher(store, meter, limits) as fetcher, PageFile(tmp_path / "f") as file:
        fetcher.spool("k", 100, file)
        assert file.pread(200, 0) == body
    assert store.count("get") == 15
    assert meter.downloaded == 100

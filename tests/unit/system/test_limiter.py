"""system/limiter.py: how many threads do one kind of work at the same time."""

import threading
from concurrent.futures import ThreadPoolExecutor

from replicator.system.limiter import CapacityLimiter


def test_no_more_slots_are_taken_than_allowed():
    """The other threads wait, and each gets a slot."""
    limiter, most, now = CapacityLimiter(3), [], []
    lock = threading.Lock()

    def work(number):
        with limiter.slot():
            with lock:
                now.append(number)
                most.append(len(now))
            with lock:
                now.remove(number)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(200)))
    assert max(most) <= 3


def test_a_cancelled_caller_enters_without_a_slot():
    """And releases none."""
    limiter = CapacityLimiter(1, poll=0.01)
    assert limiter.try_acquire()
    with limiter.slot(lambda: True):
        assert not limiter.try_acquire()
    assert not limiter.try_acquire()
    limiter.release()
    assert limiter.try_acquire()


def test_a_caller_that_waits_asks_again_until_a_slot_is_free():
    """It is not cancelled, so it enters with the slot that is given back."""
    limiter, asked = CapacityLimiter(1, poll=0.001), []
    assert limiter.try_acquire()

    def cancelled():
        asked.append(True)
        if len(asked) == 3:
            limiter.release()
        return False

    with limiter.slot(cancelled):
        assert len(asked) == 3
        assert not limiter.try_acquire()
    assert limiter.try_acquire()

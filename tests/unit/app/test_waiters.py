"""The requests of the waiters of one process: who takes part, who gets which error."""

import contextlib
import socket
import threading
import time

import pytest

from replicator.app.place import DatabasePlace
from replicator.app.waiters import Waiters, WaiterTimes
from replicator.errors import Fenced, NotDurable, NotRunning, ReplicatorError
from replicator.model import Position
from replicator.sidecar.control_client import SOCKET_NAME
from tests.helpers.errors import raises
from tests.helpers.replication import LONG


class PlayedWaiters(Waiters):
    """Whose requests the test answers. ``answers`` are positions and errors."""

    def __init__(self, path, *answers, **times):
        path.touch()
        super().__init__(DatabasePlace(path, path.parent), WaiterTimes(**times))
        self.answers = list(answers)
        self.requests = 0
        self.arrived, self.release = threading.Semaphore(0), threading.Semaphore(0)

    def _flush(self, until):
        self.requests += 1
        self.arrived.release()
        assert self.release.acquire(timeout=LONG)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


FIRST, SECOND = Position("g", 1), Position("g", 2)


def test_who_comes_during_a_request_is_in_the_next(path):
    """The first request began before their commits."""
    waiters = PlayedWaiters(path, FIRST, SECOND)
    first = waiters.add(LONG)
    assert waiters.arrived.acquire(timeout=LONG)
    others = [waiters.add(LONG) for _ in range(9)]
    waiters.release.release()
    assert first.wait(0.0) == FIRST
    assert not any(each.done() for each in others)
    waiters.release.release()
    assert {each.wait(0.0) for each in others} == {SECOND}
    assert waiters.requests == 2


def test_those_who_were_served_take_part_again(path):
    """The request waits for them, as long as the times allow."""
    waiters = PlayedWaiters(path, FIRST, SECOND, gather=1e9, longest_gather=LONG)
    waiters.release.release(2)
    with waiters._changed:
        waiting = [waiters.add(LONG) for _ in range(3)]
    assert [each.wait(0.0) for each in waiting] == [FIRST] * 3
    again = [waiters.add(LONG) for _ in range(3)]
    assert [each.wait(0.0) for each in again] == [SECOND] * 3
    assert waiters.requests == 2


def test_an_error_that_stays_is_for_all_at_once(path):
    """Each gets one of its own; a traceback belongs to one thread."""
    waiters = PlayedWaiters(path, Fenced("lost", holder="another"))
    waiters.release.release()
    with waiters._changed:
        waiting = [waiters.add(LONG), waiters.add(None)]
    caught = []
    for each in waiting:
        with raises(Fenced, holder="another") as error:
            each.wait(0.0)
        caught.append(error.value)
    assert caught[0] is not caught[1]


@pytest.mark.parametrize(
    "error", [NotDurable("late"), ReplicatorError("late", code="sidecar_hangs")]
)
def test_a_request_that_is_late_is_repeated_for_those_who_have_time(path, error):
    """Those who have none get the error."""
    waiters = PlayedWaiters(path, error, FIRST)
    with waiters._changed:
        hasty, patient = waiters.add(0.0), waiters.add(LONG)
    waiters.release.release(2)
    with raises(type(error), error.code):
        hasty.wait(LONG)
    assert patient.wait(0.0) == FIRST


def test_a_deadline_passes_without_an_answer(path):
    """NotDurable; the answer that comes later does no harm."""
    waiters = PlayedWaiters(path, FIRST, SECOND)
    with raises(NotDurable):
        waiters.add(0.0).wait(0.0)
    waiters.release.release(2)
    assert waiters.add(LONG).wait(0.0) in (FIRST, SECOND)


def test_a_sidecar_that_left_a_trace_is_waited_for(path):
    """A killed one leaves its socket; without a trace the error comes at once."""
    waiters = PlayedWaiters(path, *[NotRunning("no", path=path)] * 3, FIRST, pause=0.001)
    waiters.release.release(9)
    with raises(NotRunning):
        waiters.add(LONG).wait(0.0)
    with raises(NotRunning):
        waiters.require()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(str(path.parent / SOCKET_NAME))
    waiters.require()
    assert waiters.add(LONG).wait(0.0) == FIRST


def test_a_defect_ends_no_thread(path):
    """It is an error for those who wait, and the next request is made."""
    waiters = PlayedWaiters(path, ValueError("defect"), FIRST)
    waiters.release.release(2)
    with raises(ReplicatorError):
        waiters.add(LONG).wait(0.0)
    assert waiters.add(LONG).wait(0.0) == FIRST


def test_the_thread_ends_without_waiters(path):
    """And the next waiter starts another one."""
    waiters = PlayedWaiters(path, FIRST, SECOND, idle=0.0)
    waiters.release.release(2)
    assert waiters.add(LONG).wait(0.0) == FIRST
    while waiters._thread is not None:
        time.sleep(0.001)
    assert waiters.add(LONG).wait(0.0) == SECOND

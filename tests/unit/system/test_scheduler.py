"""system/scheduler.py: periodic tasks in a small elastic thread pool."""

import threading

from replicator.system.scheduler import MOST_THREADS, Scheduler

LONG = 60.0


class Work:
    """Asks for its next run after given delays, and lets a test wait for its runs."""

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


def test_a_task_runs_after_the_delays_it_asks_for(scheduler):
    """At once, then after its own delays, then only when it is woken."""
    work = Work(0.0, 0.01)
    task = scheduler.add(work)
    for _ in range(3):
        work.ran()
    task.wake()
    work.ran()
    assert work.runs == 4


def test_a_task_that_waits_for_a_wake_takes_no_thread(scheduler):
    """Nothing is due, so no thread waits for it."""
    before = threading.active_count()
    work = Work()
    task = scheduler.add(work, delay=None)
    assert threading.active_count() == before
    task.wake()
    work.ran()


def test_a_wake_while_it_runs_is_not_lost(scheduler):
    """It runs once more, and never twice at the same time."""
    entered, go, second = threading.Event(), threading.Event(), threading.Event()

    def work():
        if entered.is_set():
            second.set()
        entered.set()
        assert go.wait(LONG)

    task = scheduler.add(work)
    assert entered.wait(LONG)
    task.wake()
    task.wake()
    assert not second.is_set()
    go.set()
    assert second.wait(LONG)


def test_a_task_that_hangs_delays_no_other(scheduler):
    """A further thread starts, up to a limit."""
    go, hang = threading.Event(), threading.Barrier(MOST_THREADS, timeout=LONG)

    def work():
        if hang.wait() == 0:
            go.set()

    for _ in range(MOST_THREADS):
        scheduler.add(work)
    assert go.wait(LONG)


def test_superfluous_threads_end():
    """All but one, if something is due later."""
    scheduler = Scheduler(linger=0.01)
    gate, runs = threading.Barrier(4, timeout=LONG), Work()

    def work():
        gate.wait()
        runs()
        return 3600.0

    for _ in range(4):
        scheduler.add(work)
    tick = threading.Event()
    for _ in range(int(LONG / 0.01)):
        if scheduler.thread_count == 1 and runs.runs == 4:
            break
        tick.wait(0.01)
    assert scheduler.thread_count == 1
    scheduler.stop()
    assert not scheduler.thread_count


def test_a_stopped_task_has_ended(scheduler):
    """Stop waits for the run under way; no wake starts another."""
    entered, go = threading.Event(), threading.Event()
    ended = []

    def work():
        entered.set()
        assert go.wait(LONG)
        ended.append(True)
        return 0.0

    task = scheduler.add(work)
    assert entered.wait(LONG)
    threading.Timer(0.01, go.set).start()
    task.stop()
    assert ended == [True]
    task.wake()
    task.stop()
    assert ended == [True]
    assert scheduler._next() is None


def test_an_unexpected_error_ends_neither_the_task_nor_the_thread():
    """The task runs again, later."""
    scheduler = Scheduler(after_failure=0.01)
    again = threading.Event()
    tries = []

    def work():
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("made to fail")
        again.set()

    scheduler.add(work)
    assert again.wait(LONG)
    scheduler.stop()


def test_nothing_begins_after_the_end():
    """Neither a scheduled task nor a new one."""
    scheduler = Scheduler()
    work = Work()
    scheduler.add(work, delay=3600.0)
    scheduler.stop()
    scheduler.add(work)
    scheduler.stop()
    assert work.runs == 0


def test_one_idle_thread_always_watches_the_clock():
    """Although two idle threads wake at the same time, again and again: the next run is never
    late. Before, both could wait as the second one, which costs this test its patience."""
    scheduler = Scheduler(most=2, linger=3600.0)
    both = threading.Barrier(2, timeout=LONG)

    def meet():
        both.wait()

    for _ in range(2):
        scheduler.add(meet)  # which takes two threads
    for _ in range(2000):
        work = Work(0.0005)
        task = scheduler.add(work, delay=None)
        task.wake()
        work.ran()
        work.ran()
        task.stop()
    scheduler.stop()

"""A small elastic thread pool for periodic tasks.

Owns the threads and the time of each task's next run. Refuses to know the work, and to run one
task twice at the same time.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

MOST_THREADS = 16  # so that tasks that wait for a hanging store do not delay the others
LINGER = 5.0  # seconds that a thread without work stays while another one waits for the next task
AFTER_FAILURE = 60.0  # seconds until a task runs again after an unexpected error

Work: TypeAlias = Callable[[], float | None]
"""Does the work that is due. Returns the seconds until the next run; None: only after a wake."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """A handle on one periodic task; made by :meth:`Scheduler.add`."""

    wake: Callable[[], None]
    """Run the task now, or once more if it is running."""
    stop: Callable[[], None]
    """Never run the task again. Returns after the current run. The task itself must not call it."""


@dataclass(slots=True, eq=False)
class _Entry:
    """The state of one task; the scheduler's lock guards it."""

    work: Work
    ticket: int = 0  # of the valid element of the heap, 0: none
    running: bool = False
    woken: bool = False  # while it ran
    stopped: bool = False


class Scheduler:
    """Starts threads as tasks become due, up to ``most``; :meth:`stop` ends them all.

    Within a pool, at most one thread without work stays for good, to wait for the next task; a
    second one ends after ``linger`` seconds.
    """

    def __init__(
        self,
        name: str = "replicator-task",
        *,
        most: int = MOST_THREADS,
        linger: float = LINGER,
        after_failure: float = AFTER_FAILURE,
    ) -> None:
        self._name = name
        self._most = most
        self._linger = linger
        self._after_failure = after_failure
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, _Entry]] = []
        self._tickets = itertools.count(1)
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._watched = False  # an idle thread waits until the next task is due
        self._stopped = False

    def add(self, work: Work, *, delay: float | None = 0.0) -> Task:
        """Run ``work`` after ``delay`` seconds (None: after a wake), then as ``work`` asks."""
        entry = _Entry(work)
        with self._changed:
            self._schedule(entry, delay)
        return Task(partial(self._wake, entry), partial(self._stop_one, entry))

    def stop(self) -> None:
        """Start no further run, and wait for the current ones."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    @property
    def thread_count(self) -> int:
        with self._changed:
            return len(self._threads)

    # ---------------------------------------------------------------- for tasks

    def _wake(self, entry: _Entry) -> None:
        with self._changed:
            entry.woken = entry.running
            if not entry.running:
                self._schedule(entry, 0.0)

    def _stop_one(self, entry: _Entry) -> None:
        with self._changed:
            entry.stopped = True
            entry.ticket = 0
            self._changed.wait_for(lambda: not entry.running)

    def _schedule(self, entry: _Entry, delay: float | None) -> None:
        """Replace the entry's next run. The caller holds the lock."""
        entry.ticket = 0
        if delay is None or entry.stopped or self._stopped:
            return
        entry.ticket = next(self._tickets)
        heapq.heappush(self._due, (time.monotonic() + delay, entry.ticket, entry))
        self._start_worker()

    # ---------------------------------------------------------------- the threads

    def _start_worker(self) -> None:
        """Make sure that one thread waits for the next task while the others work."""
        if self._idle:
            self._changed.notify_all()
        elif self._due and len(self._threads) < self._most:
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._threads.add(thread)
            thread.start()

    def _serve(self) -> None:
        with self._changed:
            while not self._stopped:
                entry = self._next()
                if entry is not None:
                    self._run(entry)
                elif not self._wait():
                    break
            self._threads.discard(threading.current_thread())

    def _next(self) -> _Entry | None:
        """The entry that is due, None if there is none."""
        while self._due:
            when, ticket, entry = self._due[0]
            if ticket == entry.ticket and when > time.monotonic():
                return None
            heapq.heappop(self._due)
            if ticket == entry.ticket:
                return entry
        return None

    def _wait(self) -> bool:
        """Wait for the next task. Returns False if this thread is superfluous.

        One idle thread watches the clock; only that thread gives up the watch, once it runs
        again. If each woken thread counted the others instead, two that wake at the same time
        could both wait as the second one, and no thread would watch.
        """
        watches = not self._watched
        self._watched = True
        self._idle += 1
        notified = self._changed.wait(self._until_due() if watches else self._linger)
        self._idle -= 1
        if watches:
            self._watched = False
        return notified or watches or not self._watched

    def _until_due(self) -> float | None:
        return self._due[0][0] - time.monotonic() if self._due else None

    def _run(self, entry: _Entry) -> None:
        """Run the work without the lock. The caller holds it before and after."""
        entry.running = True
        self._start_worker()
        self._changed.release()
        try:
            delay = entry.work()
        except Exception:
            log.exception("unexpected error (bug) in a periodic task")
            delay = self._after_failure
        finally:
            self._changed.acquire()
            entry.running = False
        woken, entry.woken = entry.woken, False
        self._schedule(entry, 0.0 if woken else delay)
        self._changed.notify_all()

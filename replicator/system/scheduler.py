"""Work that is due now and then, for many, in a few threads that come and go.

Owns the threads, and when each errand is run next. Refuses: to know what the work is, and to run
one errand twice at the same time.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

MOST = 16  # threads at once; what waits for a store that hangs must not keep the others waiting
LINGER = 5.0  # seconds that a thread without work stays while another one watches the clock
AFTER_DEFECT = 60.0

Work: TypeAlias = Callable[[], float | None]
"""Does what is due; seconds until the next time, None: not before somebody wakes it."""

log = logging.getLogger(__name__)


class Errands:
    """Threads are started when there is work for them; :meth:`stop` ends them all."""

    def __init__(self, name: str = "replicator-errand", *, most: int = MOST) -> None:
        self._name = name
        self._most = most
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Errand]] = []
        self._tickets = itertools.count(1)
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._stopped = False

    def add(self, work: Work, *, delay: float | None = 0.0) -> Errand:
        """Run ``work`` after ``delay`` seconds (None: once it is woken), then as it says."""
        errand = Errand(self, work)
        with self._changed:
            self._schedule(errand, delay)
        return errand

    def stop(self) -> None:
        """Begin nothing more, and wait for what is being done."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    # ---------------------------------------------------------------- for errands

    def _schedule(self, errand: Errand, delay: float | None) -> None:
        """With the lock held. What was scheduled before does not count any more."""
        errand._ticket = 0  # noqa: SLF001 - the two classes are one
        if delay is None or errand._stopped or self._stopped:  # noqa: SLF001
            return
        errand._ticket = next(self._tickets)  # noqa: SLF001
        heapq.heappush(self._due, (time.monotonic() + delay, errand._ticket, errand))  # noqa: SLF001
        self._reinforce()

    def _wake(self, errand: Errand) -> None:
        with self._changed:
            errand._again = errand._running  # noqa: SLF001
            if not errand._running:  # noqa: SLF001
                self._schedule(errand, 0.0)

    def _end(self, errand: Errand) -> None:
        with self._changed:
            errand._stopped = True  # noqa: SLF001
            errand._ticket = 0  # noqa: SLF001
            self._changed.wait_for(lambda: not errand._running)  # noqa: SLF001

    # ---------------------------------------------------------------- the threads

    def _reinforce(self) -> None:
        """See that somebody watches the clock while the others work."""
        if self._idle:
            self._changed.notify_all()
        elif self._due and len(self._threads) < self._most:
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._threads.add(thread)
            thread.start()

    def _serve(self) -> None:
        with self._changed:
            while not self._stopped:
                errand = self._next()
                if errand is not None:
                    self._run(errand)
                elif not self._rest():
                    break
            self._threads.discard(threading.current_thread())

    def _next(self) -> Errand | None:
        """The errand that is due, None while none is."""
        while self._due:
            when, ticket, errand = self._due[0]
            if ticket == errand._ticket and when > time.monotonic():  # noqa: SLF001
                return None
            heapq.heappop(self._due)
            if ticket == errand._ticket:  # noqa: SLF001
                return errand
        return None

    def _rest(self) -> bool:
        """Wait for the next one; False: this thread is not needed."""
        until = self._due[0][0] - time.monotonic() if self._due else None
        alone = not self._idle
        self._idle += 1
        heard = self._changed.wait(until if alone else LINGER)
        self._idle -= 1
        return heard or alone or not self._idle

    def _run(self, errand: Errand) -> None:
        """Called with the lock held, which is let go while the errand runs."""
        errand._running = True  # noqa: SLF001
        self._reinforce()
        self._changed.release()
        try:
            delay = errand._work()  # noqa: SLF001
        except Exception:
            log.exception("an errand met a defect")
            delay = AFTER_DEFECT
        finally:
            self._changed.acquire()
            errand._running = False  # noqa: SLF001
        again, errand._again = errand._again, False  # noqa: SLF001
        self._schedule(errand, 0.0 if again else delay)
        self._changed.notify_all()


class Errand:
    """One piece of work; made by :meth:`Errands.add`."""

    def __init__(self, errands: Errands, work: Work) -> None:
        self._errands = errands
        self._work = work
        self._ticket = 0  # of the entry that counts, 0: none
        self._running = False
        self._again = False  # it was woken while it ran
        self._stopped = False

    def wake(self) -> None:
        """Run it now, or once more if it is running."""
        self._errands._wake(self)  # noqa: SLF001

    def stop(self) -> None:
        """Never run it again; returns once it does not run. Not from within."""
        self._errands._end(self)  # noqa: SLF001

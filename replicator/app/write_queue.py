"""A queue of writes: any thread adds, one thread writes, and writes that wait share a commit.

    db.queue.post("INSERT INTO visits (page) VALUES (?)", ("/",))               # and forget it
    future = db.queue.execute("UPDATE users SET seen = 1")                      # Written, later
    future = db.queue.submit(lambda connection: import_all(connection, rows))   # its result

Owns the thread, which exists while there is something to write, and the futures. Refuses writes
after :meth:`WriteQueue.close`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from replicator.app.group_commit import GroupedWrite
from replicator.app.pending import Pending, QueueLimits
from replicator.app.statements import Parameters, Written, written
from replicator.errors import DatabaseBusy, QueueFull, ReplicatorError

if TYPE_CHECKING:
    from replicator.app.database import Database

T = TypeVar("T")
LINGER = 0.5  # seconds until the thread ends without work; the end of a program waits for it

log = logging.getLogger(__name__)


@dataclass(slots=True)
class QueueFigures:
    """Counts since the database was opened."""

    done: int = 0
    failed: int = 0
    refused: int = 0
    dropped: int = 0
    commits: int = 0


@dataclass(slots=True, eq=False)
class QueuedWrite(Generic[T]):
    """A write with its future, None for one whose result is not wanted."""

    write: GroupedWrite
    future: Future[T] | None = None
    durable: float | None = None  # seconds to wait until it is in the bucket


class WriteQueue:
    """Of one database. Any thread may add. In a forked child it is empty."""

    def __init__(self, database: Database, limits: QueueLimits) -> None:
        self.limits = limits
        self.figures = QueueFigures()
        self._database = database
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._pending: Pending[QueuedWrite[Any]] = Pending(self.limits)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._confirming: ThreadPoolExecutor | None = None
        self._reached = 0  # number of the newest item that was written
        self._progress = threading.Condition()

    def __len__(self) -> int:
        """The number of writes that wait."""
        return len(self._pending)

    # ------------------------------------------------------------------------------ adding

    def post(self, sql: str, parameters: Parameters = ()) -> None:
        """Add a statement whose result is not wanted; a failure is in the log. ``QueueFull`` if it
        is full, by the policy of the limits."""
        self._add(QueuedWrite(_statement(sql, parameters)))

    def execute(
        self, sql: str, parameters: Parameters = (), *, durable: float | None = None
    ) -> Future[Written]:
        """Add a statement; the future has its result after the commit, and with ``durable`` when
        it is in the bucket, or ``NotDurable`` after this number of seconds."""
        return self._future(_statement(sql, parameters), durable)

    def submit(
        self, work: Callable[[sqlite3.Connection], T], *, durable: float | None = None
    ) -> Future[T]:
        """Add a function, which gets the connection within a transaction. It runs again if another
        write of the same transaction ends that one, so it should only write. It must not wait for
        another write of the queue. In ``asyncio``: ``await asyncio.wrap_future(future)``."""
        name = getattr(work, "__qualname__", repr(work))
        return self._future(GroupedWrite(work, name), durable)

    def _future(self, write: GroupedWrite, durable: float | None) -> Future[Any]:
        future: Future[Any] = Future()
        self._add(QueuedWrite(write, future, durable))
        return future

    def _add(self, queued: QueuedWrite[Any]) -> None:
        if self._process != os.getpid():
            self._begin()
        try:
            dropped = self._pending.put(queued)
        except QueueFull:
            with self._progress:
                self.figures.refused += 1
            raise
        if dropped is not None:
            self._drop(dropped)
        if self._thread is None:
            self._start()

    def _drop(self, dropped: QueuedWrite[Any]) -> None:
        with self._progress:
            self.figures.dropped += 1
        error = QueueFull(
            "a newer write took the room of this one",
            capacity=self.limits.capacity,
            code="queue_dropped",
        )
        self._resolve(dropped, None, error)

    # ----------------------------------------------------------------------------- writing

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                # No daemon: the end of the program waits until everything is written.
                self._thread = threading.Thread(target=self._run, name="replicator-writes")
                self._thread.start()

    def _run(self) -> None:
        while self._write_some() or not self._ends():
            pass

    def _ends(self) -> bool:
        """True if this thread ends; the next write starts another one."""
        with self._lock:
            self._thread = None
            if not len(self._pending):  # after the line above: a write that comes now starts one
                return True
            self._thread = threading.current_thread()
            return False

    def _write_some(self) -> bool:
        """False if nothing came for a while."""
        batch = self._pending.take(self.limits.batch, LINGER)
        if not batch:
            return False
        self._write([queued for _, queued in batch if _is_wanted(queued)])
        with self._progress:
            self._reached = batch[-1][0]
            self._progress.notify_all()
        return True

    def _write(self, batch: list[QueuedWrite[Any]]) -> None:
        writes = [each.write for each in batch]
        try:
            self.figures.commits += self._database.commit_group(writes)
        except (sqlite3.Error, ReplicatorError) as error:
            for each in writes:
                each.error = error
        late = [each for each in batch if each.durable is not None and each.write.error is None]
        for queued in batch:
            if queued.durable is None or queued.write.error is not None:
                self._resolve(queued, queued.write.result, queued.write.error)
        if late:
            self._confirm(late)

    def _confirm(self, late: list[QueuedWrite[Any]]) -> None:
        """Another thread waits for the bucket, once for all of them."""
        if self._confirming is None:
            self._confirming = ThreadPoolExecutor(1, "replicator-durable")
        self._confirming.submit(self._wait_durable, late)

    def _wait_durable(self, late: list[QueuedWrite[Any]]) -> None:
        error: BaseException | None = None
        try:
            self._database.wait_durable(max(each.durable or 0.0 for each in late))
        except Exception as failure:  # noqa: BLE001 - it is the outcome of the writes
            error = failure
        for each in late:
            self._resolve(each, each.write.result, error)

    def _resolve(self, queued: QueuedWrite[Any], result: Any, error: BaseException | None) -> None:
        with self._progress:
            self.figures.done += error is None
            self.figures.failed += error is not None
        if queued.future is None:
            if error is not None:
                log.error("a write of the queue failed: %s: %s", error, queued.write.text)
        elif error is not None:
            queued.future.set_exception(error)
        else:
            queued.future.set_result(result)

    # --------------------------------------------------------------------------------- end

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until everything that was added before is written; False after ``timeout``
        seconds."""
        if self._process != os.getpid():
            return True
        target = self._pending.newest
        with self._progress:
            return self._progress.wait_for(lambda: self._reached >= target, timeout)

    def close(self, timeout: float) -> None:
        """Refuse further writes, and make those that wait. After ``timeout`` seconds those that
        are left fail: ``DatabaseBusy``, code ``queue_not_drained``."""
        until = time.monotonic() + timeout
        self._pending.close()
        thread = self._thread
        if thread is not None and self._process == os.getpid():
            thread.join(timeout)
        left = self._pending.take(self.limits.capacity, 0.0)
        error = DatabaseBusy(
            f"{len(left)} writes of the queue were not made",
            path=self._database.path,
            code="queue_not_drained",
            hint="close with a longer timeout",
        )
        for _, each in left:
            self._resolve(each, None, error)
        if self._confirming is not None and time.monotonic() < until:
            self._confirming.shutdown()
        if left:
            raise error


def _statement(sql: str, parameters: Parameters) -> GroupedWrite:
    return GroupedWrite(
        lambda connection: written(connection, sql, parameters), sql, statement=True
    )


def _is_wanted(queued: QueuedWrite[Any]) -> bool:
    """False if its future was cancelled."""
    return queued.future is None or queued.future.set_running_or_notify_cancel()

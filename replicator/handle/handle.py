"""The library's front door: a handle on the sidecar process of one database.

    config = SqliteReplicatorConfig(db_path="app.db", bucket="backups")
    with SqliteReplicator(config) as replicator:
        ...                                   # the application writes as it always did
        replicator.flush()                    # every commit so far is in the bucket

POSIX locks belong to a process: a process that opened the database for its application and for us
would drop the locks of one when the other closes it. So a process of its own replicates.

Owns: the lease of this process, and the requests to the sidecar. Refuses: to open the database, its
WAL or its shared memory.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from replicator.config.settings import SqliteReplicatorConfig
from replicator.errors import (
    DatabaseMissing,
    NotDurable,
    NotRunning,
    ReplicatorError,
    from_dict,
)
from replicator.handle import ends
from replicator.handle.aio import AsyncSqliteReplicator
from replicator.handle.bell import Bell, left, sooner
from replicator.handle.connect import Connector, ConnectTimes
from replicator.handle.events import EventStream, follow
from replicator.handle.figures import SidecarMetrics
from replicator.handle.lease import Lease
from replicator.handle.restoring import restore
from replicator.handle.supervisor import Supervisor, SupervisorTimes
from replicator.model import (
    Position,
    Repair,
    ReplicationEvent,
    ReplicationStatus,
    RestoreReport,
    unstarted,
)
from replicator.sidecar.control_client import HANGS, LEAVE, ask
from replicator.system.paths import expanded, resolved

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HandleTimes:
    """In seconds."""

    final_flush: float = 30.0  # to make the rest durable at the end of a block or of the program
    end: float = 40.0  # for the sidecar to end after its last lease: its own flush takes 30 s
    late_end: float = 1.0  # the same after a flush that was too late: it ends without us
    restart: float = 60.0  # for another sidecar to start, during a request
    answer: float = 5.0  # for the end of a sidecar that no longer answers
    connect: ConnectTimes = field(default_factory=ConnectTimes)
    supervisor: SupervisorTimes = field(default_factory=SupervisorTimes)


class SqliteReplicator:
    """Replicates one database while started, in a sidecar process. Any thread, and any forked
    child, may call its methods.

    The first handle of a database starts the sidecar; further ones, in this process or others,
    attach to it. It ends after the last process that has a handle, however that ends, and makes
    everything durable before. ``prepare`` names a function of the application as
    ``module:function``; the sidecar imports it, and passes each connection of a drill to it first,
    to register collations and functions. ``log`` is a file for the log of the sidecar, in place of
    standard error.

    As a context manager it starts, and at the end of the block flushes (30 s at most) and
    stops, also after an exception; ``NotDurable`` names the transactions that did not reach the
    bucket yet. ``async with`` does the same, and gives the methods to be awaited.

    >>> with SqliteReplicator(config) as replicator:
    ...     position = replicator.flush(timeout=30)
    """

    def __init__(
        self,
        config: SqliteReplicatorConfig,
        *,
        prepare: str = "",
        log: str | os.PathLike[str] | None = None,
        times: HandleTimes | None = None,
    ) -> None:
        self.config = config
        self.metrics = SidecarMetrics(self._figures)
        self._times = times or HandleTimes()
        self._connector = Connector(config, prepare, log, self._times.connect)
        self._last = unstarted(str(config.database), config.address.url)
        self._started = False  # here or in a parent process, and not stopped here
        self._inherited: list[Lease] = []  # of the parent processes; this one only holds them
        self._begin()

    def _begin(self) -> None:
        """The state of a process that has no lease of its own yet."""
        self._process = os.getpid()
        self._lock = threading.RLock()  # a handler of a signal may stop what it interrupts
        self._supervisor: Supervisor | None = None

    # ------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Begins to replicate. Returns once the database is followed or waited for.

        Starts a sidecar, or attaches to the one that replicates this database, also a
        ``replicator run``. ``ConfigError`` if that one has another destination, ``AlreadyRunning``
        if it does not answer, and the errors of a start: ``DatabaseUnusable``,
        ``DatabaseMissing`` if there is no directory for the database, ``RefusedError`` for a start
        that could bury the archive, ``StoreUnavailable``, and those of a restore. The log has a
        warning if two SQLite libraries have the database open in this process.
        """
        self._enter_process()
        with self._lock:
            if self._supervisor is not None:
                raise ReplicatorError("this replicator is running already", code="already_started")
            try:
                self._supervised()
            except BaseException as error:
                self._last = replace(
                    self._last, state="failed", last_error=str(error), last_error_at=_now_ms()
                )
                raise

    def _supervised(self) -> Supervisor:
        """Get a lease for this process."""
        again = self._again()
        bell = Bell()
        try:
            lease = (again if self._started else self._connector).connect(bell)
        finally:
            bell.close()
        self._supervisor = Supervisor(lease, again.connect, again.attach, self._times.supervisor)
        self._started = True
        ends.add(self)
        return self._supervisor

    def _again(self) -> Connector:
        """The sidecar of a handle that was started before."""
        return replace(self._connector, config=_continued(self.config))

    def stop(self) -> None:
        """Stops, at once if another process still replicates the database. The last one waits
        until the sidecar has made everything durable and has ended, 40 s at most."""
        self._stop(self._times.end)

    def _stop(self, seconds: float) -> None:
        """Stop, and wait for the end of the sidecar up to ``seconds``."""
        self._enter_process()
        with self._lock:
            supervisor, self._supervisor = self._supervisor, None
            inherited, self._inherited = self._inherited, []
            self._started = False
        ends.discard(self)
        if supervisor is not None:
            self._leave(supervisor, time.monotonic() + seconds)
        for each in inherited:
            each.close()
        self._last = replace(self._last, running=False, healthy=False, state="stopped")

    def _leave(self, supervisor: Supervisor, until: float) -> None:
        """Give up the lease; if it was the last one, wait for the end of the sidecar. Another one
        brings the last commits to the bucket if this one was killed."""
        lease = supervisor.stop(left(until))
        self._remember(self._asked({"command": "status"}))
        if lease is not None:
            if self._leave_sidecar(lease, until):
                return
        elif not isinstance(supervisor.error, NotRunning):
            return  # no sidecar can be started
        bell = Bell()
        alarm = threading.Timer(left(until), bell.ring)
        alarm.start()
        try:
            self._leave_sidecar(self._again().connect(bell), until)
        except ReplicatorError as error:
            _warn(error)
        finally:
            alarm.cancel()
            alarm.join()
            bell.close()

    def _leave_sidecar(self, lease: Lease, until: float) -> bool:
        """False if the sidecar ended without a last answer."""
        bell = Bell()
        try:
            if not lease.hosted:
                return True
            answer = self._last_answer(lease, left(until))
            lease.release()
            if answer is None:
                return not lease.wait_end(bell, left(until))
            self._remember(answer.get("status"))
            if answer.get("error"):
                _warn(from_dict(answer["error"]))
            if answer["last"]:
                lease.wait_end(bell, left(until))
            return True
        finally:
            lease.close()
            bell.close()

    def _last_answer(self, lease: Lease, seconds: float) -> dict[str, Any] | None:
        """Release the lease while a connection for the request exists: the sidecar may end fast."""
        request = {"command": LEAVE, "timeout": seconds}
        try:
            return ask(self.config.cache, request, connected=lease.release)
        except ReplicatorError:
            return None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        patience = self._times.late_end
        try:
            self.flush(self._times.final_flush)
            patience = self._times.end
        except ReplicatorError as failure:
            if error is None:
                raise
            log.error("the last flush failed: %s", failure)
            error.add_note(f"the last flush of {self.config.database} failed: {failure}")
        finally:
            self._stop(patience)

    async def __aenter__(self) -> AsyncSqliteReplicator:
        return await AsyncSqliteReplicator(self).enter()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await AsyncSqliteReplicator(self).exit(kind, error, trace)

    def at_exit(self) -> None:
        """The end of the program came without :meth:`stop`: flushes, and keeps the lease for
        commits that follow."""
        if self._process != os.getpid() or self._supervisor is None:
            return
        try:
            self.flush(self._times.final_flush)
        except ReplicatorError as error:
            _warn(error)

    def after_fork(self) -> None:
        """In a forked child: hold the leases of the parent, and use nothing of it."""
        supervisor = self._supervisor
        lease = None if supervisor is None else supervisor.lease
        if lease is not None:
            self._inherited.append(lease)
        self._begin()

    def _enter_process(self) -> None:
        if self._process != os.getpid():  # a fork that Python did not notice
            self.after_fork()

    # ---------------------------------------------------------------------------- requests

    def flush(self, timeout: float | None = None, *, snapshot: bool = False) -> Position:
        """Makes every transaction committed before the call durable; returns the newest of them.

        ``timeout`` is in seconds. ``NotDurable`` when it is over first (nothing is lost then,
        and the call can be repeated), ``Fenced`` when another writer owns the archive. With
        ``snapshot`` a snapshot of that state is in the store too.
        """
        return Position(**self._request("flush", timeout, snapshot=snapshot))

    def snapshot(self, timeout: float | None = None) -> int:
        """Takes a snapshot now, unless the newest one is current; its txid once it is stored.

        ``timeout`` and errors as for :meth:`flush`."""
        txid: int = self._request("snapshot", timeout)["txid"]
        return txid

    def repair(self, timeout: float | None = None, reason: str = "requested") -> Repair:
        """Verifies that the newest transaction can be restored; if it cannot, takes a snapshot or
        begins a generation so that it can. Reads every byte that a restore would read; ``timeout``
        and errors as for :meth:`flush`."""
        return Repair(**self._request("repair", timeout, reason=reason))

    def mark(
        self, name: str, timeout: float | None = None, *, note: str = "", move: bool = False
    ) -> Position:
        """Flushes, and gives that state a name: it stays restorable until it is unpinned, and
        ``at=name`` finds it.

        Whatever was committed before the call is in it. ``timeout`` is in seconds, as for
        :meth:`flush`. ``ConfigError`` if another transaction has the name, unless ``move``, or if
        no pin can have it; ``NotDurable``, and then there is no such name.
        """
        return Position(**self._request("mark", timeout, name=name, note=note, move=move))

    def restore(self, **options: Any) -> RestoreReport | None:
        """Restores to the database's path from the config's bucket; None: no backup found.

        Takes the options of :func:`replicator.restore`. Not while it is replicated, unless to
        another ``output``.
        """
        output = expanded(options.setdefault("output", self.config.database))
        if self._started and resolved(output) == self.config.database:
            raise ReplicatorError(
                "the database is being replicated; stop first", code="still_started"
            )
        return restore(address=self.config.address, **options)

    def events(self, *, past: bool = False) -> Iterator[ReplicationEvent]:
        """The events while the handle is started; each ``next()`` waits for one. They begin with
        the first ``next()``, with ``past`` with the newest 200 that the sidecar remembers.

        They continue across the end of a sidecar (``sidecar_ended``) and the start of another.
        """
        stream = EventStream(partial(ask, self.config.cache), past=past)
        return follow(stream, lambda: self.started)

    @property
    def started(self) -> bool:
        """True from :meth:`start`, here or in a parent process, until :meth:`stop`."""
        return self._started

    def _request(self, command: str, timeout: float | None, **values: Any) -> dict[str, Any]:
        """The answer of the sidecar; repeated if it ends and another one starts meanwhile."""
        supervisor = self._running()
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            lease = supervisor.wait_lease(sooner(until, time.monotonic() + self._times.restart))
            try:
                return ask(
                    self.config.cache,
                    {
                        "command": command,
                        "timeout": None if until is None else left(until),
                        **values,
                    },
                )
            except NotRunning as error:
                if not lease.ends_by(sooner(until, time.monotonic() + self._times.answer)):
                    raise _not_durable(error, "") from error
            except ReplicatorError as error:
                if error.code != HANGS:
                    raise
                raise _not_durable(error, HANGS) from error

    def status(self) -> ReplicationStatus:
        """The state now; after :meth:`stop`, the last one before it."""
        self._enter_process()
        supervisor = self._supervisor
        if not self._started:
            return self._last
        answer = self._asked({"command": "status"})
        self._remember(answer)
        if answer is not None:
            return self._last
        error = supervisor.error if supervisor is not None else None
        reason = str(error or "the sidecar does not answer")
        return replace(
            self._last,
            running=False,
            healthy=False,
            state="failed",
            last_error=reason,
            last_error_at=_now_ms(),
        )

    @property
    def failed(self) -> ReplicatorError | None:
        """Why nothing is replicated, None while it is; another sidecar starts if one ended."""
        self._enter_process()
        supervisor = self._supervisor
        if not self._started:
            return None
        if supervisor is not None and supervisor.error is not None:
            return supervisor.error
        answer = self._asked({"command": "failure"})
        if answer is None:
            return NotRunning(f"no sidecar answers in {self.config.cache}", path=self.config.cache)
        return from_dict(answer["error"]) if answer.get("error") else None

    def _figures(self) -> dict[str, float] | None:
        self._enter_process()
        if not self._started:
            return None
        return self._asked({"command": "metrics"})

    def _asked(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The answer of the sidecar; None if it gives none."""
        try:
            return ask(self.config.cache, request)
        except ReplicatorError:
            return None

    def _remember(self, status: dict[str, Any] | None) -> None:
        if status is not None:
            self._last = ReplicationStatus(**status)

    def _running(self) -> Supervisor:
        """That of this process; a forked child gets a lease of its own here."""
        self._enter_process()
        with self._lock:
            if not self._started:
                raise ReplicatorError(
                    "the replicator is not running", code="not_started", hint="call start() first"
                )
            return self._supervisor or self._supervised()


def _not_durable(error: ReplicatorError, code: str) -> NotDurable:
    return NotDurable(str(error), code=code, hint="nothing is lost; try again")


def _continued(config: SqliteReplicatorConfig) -> SqliteReplicatorConfig:
    """The settings of a start while the application runs: it has the database open, and the orders
    for a first start were carried out."""
    return replace(config, auto_restore=False, restore=False, take_over=False, expect="any")


def _warn(error: ReplicatorError) -> None:
    if not isinstance(error, DatabaseMissing):  # then there is nothing to lose
        log.warning("not everything is in the bucket: %s", error)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

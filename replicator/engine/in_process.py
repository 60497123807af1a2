"""One replicator for one database, in this process.

A sidecar runs one for each of its databases. An application uses the handle
:class:`replicator.SqliteReplicator`, because locks on its database belong to its process.

Owns: the resources of a replicator, which it makes unless they are given, and its lock. Refuses: to
know the stages; see :mod:`.engine`.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from replicator.archive.keys import Keys
from replicator.config.settings import SqliteReplicatorConfig
from replicator.engine.engine import Engine, LastFlush
from replicator.engine.limits import Limits
from replicator.engine.preparation import Place, Preparation, asked_of
from replicator.engine.shared import SharedResources
from replicator.errors import AlreadyRunning, DatabaseMissing, ReplicatorError
from replicator.metrics import Metrics
from replicator.model import Position, Repair, ReplicationStatus, RestoreReport, unstarted
from replicator.recovery.api import restore as restore_from
from replicator.recovery.start import RESTORING, Command
from replicator.sqlite.connect import Prepare, unprepared
from replicator.store.base import Store
from replicator.store.sealed import sealed
from replicator.system import clock
from replicator.system.files import Files
from replicator.system.locks import ReplicatorLock
from replicator.system.paths import expanded, resolved
from replicator.system.scratch import discard

FINAL_FLUSH = 30.0  # seconds to make the rest durable at the end of a ``with`` block


class InProcessReplicator:
    """Replicates one database while started. Any thread may call its methods.

    ``store`` and ``files`` (every access to the local disk) are for tests and special needs; by
    default the config names the store. ``shared`` are the resources that several replicators of a
    process share; by default each has its own. ``limits`` are the numbers that follow from the
    config, unless a test needs smaller ones. ``prepare`` receives each connection of a drill first,
    to register the collations and functions of the application.

    As a context manager it starts, and at the end of the block flushes (30 s at most) and
    stops; ``NotDurable`` names the transactions that did not reach the bucket yet.
    """

    def __init__(
        self,
        config: SqliteReplicatorConfig,
        *,
        store: Store | None = None,
        files: Files | None = None,
        shared: SharedResources | None = None,
        limits: Limits | None = None,
        prepare: Prepare = unprepared,
    ) -> None:
        self._prepare = prepare
        self.config = config
        self.limits = limits or Limits.of(config)
        self.metrics = Metrics(collect=self.status)
        self._store = None if store is None else sealed(store, config.address.integrity)
        self._files = files or Files()
        self._shared = shared
        self._using = shared
        self._resources = contextlib.ExitStack()  # those made here
        self._lock = ReplicatorLock(config.database, config.cache, self._files)
        self._made_cache = False  # its directory was made for this start
        self._prepared = False  # the lock is held, and the start is decided as far as possible
        self._engine: Engine | None = None
        self._last = unstarted(str(config.database), config.address.url)

    def prepare(self, command: Command | None = None) -> RestoreReport | None:
        """Restores the database if the start demands it; the report, None if nothing was restored.

        ``command`` is the one that starts, by default that of the config. :meth:`start` calls this
        unless it was called before. ``AlreadyRunning``, ``DatabaseMissing`` if there is no
        directory for the database, ``RefusedError`` for a start that could bury the archive,
        ``StoreUnavailable``, ``Cancelled`` if the process ends meanwhile, and the errors of
        :meth:`restore`.
        """
        command = command or self._command
        try:
            report = self._require_directory(command)
            self.claim()
            report = report or self._preparation(command).run()
            self._prepared = True
        except BaseException:
            self._halt()
            raise
        return report

    def claim(self) -> None:
        """Takes the lock, unless it is held; ``AlreadyRunning``. :meth:`prepare` calls this."""
        if not self._lock.held:
            self._made_cache = not self.config.cache.exists()
            self._lock.acquire()

    def wait_for_lock(self) -> None:
        """Returns once no other process replicates the database; :meth:`start` is next."""
        self._lock.acquire(wait=True)

    def announce(self) -> None:
        """An application may use the database from now on: it will not be restored. Other sidecars
        learn it from the lock."""
        self._lock.announce()

    def decide_in_use(self, other: AlreadyRunning) -> None:
        """Decides the start around a command while the process of ``other`` replicates the
        database. Raises what :meth:`prepare` would raise, and ``RefusedError`` in place of a
        restore."""
        try:
            self._preparation(Command.AROUND, in_use=other).run()
        finally:
            self._halt()

    @property
    def _command(self) -> Command:
        return Command.AUTO_RESTORE if self.config.auto_restore else Command.RUN

    def _preparation(
        self, command: Command, *, in_use: AlreadyRunning | None = None
    ) -> Preparation:
        config, store = self.config, self._open()
        assert self._using is not None  # it is open now
        return Preparation(
            Place(config.database, config.cache, store, Keys(config.address.prefix)),
            asked_of(config, command),
            wait_store=config.wait_store,
            files=self._files,
            ending=self._using.ending,
            in_use=in_use,
        )

    def start(self) -> None:
        """Begins to replicate. Returns once the database is followed or waited for.

        ``AlreadyRunning``, ``DatabaseUnusable``, ``ConfigError``, and the errors of
        :meth:`prepare`.
        """
        if self._engine is not None:
            raise ReplicatorError("this replicator is running already", code="already_started")
        try:
            if not self._prepared:
                self.prepare()
            self._engine = self._make_engine()
            self._engine.start()
        except BaseException as error:
            self._halt()
            self._last = replace(
                self._last, state="failed", last_error=str(error), last_error_at=clock.now_ms()
            )
            raise

    def _require_directory(self, command: Command) -> RestoreReport | None:
        """``DatabaseMissing`` if no application can create the database at its path, unless a
        restore brings it back: its report. No directory is made for a path that may be wrong."""
        directory = self.config.database.parent
        report = None
        if command in RESTORING and not directory.exists():
            if (self.config.cache / "state.db").exists():
                self.claim()  # what waits there is sent first
            report = self._preparation(command).run()
            self._lock.release()  # of the cache alone, because the directory was missing
        if not directory.is_dir():
            raise DatabaseMissing(
                f"{directory}, the directory of the database, does not exist",
                path=self.config.source,
                code="directory_missing",
                hint="create or mount it, or correct the path",
            )
        return report

    def _make_engine(self) -> Engine:
        store = self._open()
        assert self._using is not None  # it is open now
        return Engine(
            self.config,
            self.limits,
            store,
            self.metrics,
            self._files,
            self._using,
            prepare=self._prepare,
        )

    def _open(self) -> Store:
        """The store; makes the resources that are not given."""
        if self._using is None:
            self._using = self._resources.enter_context(SharedResources())
        return self._store or self._using.stores.open(self.config.address)

    @property
    def decided(self) -> bool:
        """True once it is known how the database continues its archive, or that this cannot be
        known yet."""
        return self._engine is not None and self._engine.capture.decided

    def stop(self) -> None:
        """Ends at once; segments that are not durable yet stay in the cache. See :meth:`flush`."""
        self._halt()

    def _halt(self) -> None:
        engine, self._engine = self._engine, None
        try:
            if engine is not None:
                self._last = engine.status(running=False)
                engine.stop()
                self._remove_unused_cache(engine)
        finally:
            self._prepared, self._using = False, self._shared
            self._resources.close()
            self._lock.release()

    def _remove_unused_cache(self, engine: Engine) -> None:
        """For a path without a database, which may be wrong, nothing is left behind."""
        unused = self._made_cache and not engine.followed and not self._last.generation
        if unused and not os.path.lexists(self.config.database):
            discard(self.config.cache)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.flush(FINAL_FLUSH)
        finally:
            self.stop()

    def flush(self, timeout: float | None = None, *, snapshot: bool = False) -> Position:
        """Makes every transaction committed before the call durable; returns the newest of them.

        ``timeout`` is in seconds. ``NotDurable`` when it is over first (nothing is lost then,
        and the call can be repeated), ``Fenced`` when another writer owns the archive. With
        ``snapshot`` a snapshot of that state is in the store too.
        """
        return self._running().flush(timeout, snapshot=snapshot)

    def mark(
        self, name: str, timeout: float | None = None, *, note: str = "", move: bool = False
    ) -> Position:
        """Flushes, and gives that state a name: it stays restorable until it is unpinned, and
        ``at=name`` finds it.

        Whatever was committed before the call is in it. ``timeout`` is in seconds, as for
        :meth:`flush`. ``ConfigError`` if another transaction has the name, unless ``move``, or if
        no pin can have it; ``NotDurable``, and then there is no such name.
        """
        return self._running().mark(name, timeout, note=note, move=move)

    def finish(self, timeout: float, last: LastFlush) -> None:
        """As :meth:`flush`, before the end. After ``NotDurable`` a further call with the same
        ``last`` continues with the same transactions; writers that are faster than the store would
        delay it for ever."""
        self._running().finish(timeout, last)

    def snapshot(self, timeout: float | None = None) -> int:
        """Takes a snapshot now, unless the newest one is current; its txid once it is stored."""
        return self._running().snapshot(timeout)

    def repair(self, timeout: float | None = None, reason: str = "requested") -> Repair:
        """Verifies that the newest transaction can be restored; if it cannot, takes a snapshot or
        begins a generation so that it can. Reads every byte that a restore would read."""
        return self._running().repair(timeout, reason)

    def events(self, log: str, after: int | None, seconds: float) -> dict[str, Any]:
        """See :meth:`Engine.events`."""
        return self._running().events(log, after, seconds)

    def look_at_proofs(self) -> None:
        """Reads the proof records in the bucket soon, because a drill added one."""
        self._running().monitor.read_records()

    def restore(self, **options: Any) -> RestoreReport | None:
        """Restores to the database's path from the config's bucket; None: no backup found.

        Takes the options of :func:`replicator.restore`. Not while it is replicated, unless to
        another ``output``.
        """
        output = expanded(options.setdefault("output", self.config.database))
        if self._engine is not None and resolved(output) == self.config.database:
            raise ReplicatorError(
                "the database is being replicated; stop first", code="still_started"
            )
        return restore_from(
            address=self.config.address, store=self._store, files=self._files, **options
        )

    def status(self) -> ReplicationStatus:
        """The state now; after :meth:`stop`, the last one before it."""
        engine = self._engine
        status = engine.status(running=True) if engine is not None else self._last
        return replace(status, standby=self._lock.waiting())

    @property
    def failed(self) -> ReplicatorError | None:
        """Why replication ended, None while it runs."""
        return self._engine.failed if self._engine is not None else None

    def _running(self) -> Engine:
        if self._engine is None:
            raise ReplicatorError(
                "the replicator is not running", code="not_started", hint="call start() first"
            )
        return self._engine

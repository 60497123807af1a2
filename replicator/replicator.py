"""The library's front door: one replicator for one database.

    config = SqliteReplicatorConfig(db_path="app.db", bucket="backups")
    with SqliteReplicator(config) as replicator:
        ...                                   # the application writes as it always did
        replicator.flush()                    # every commit so far is in the bucket

Owns: the resources of a replicator, which it makes unless they are given, and its lock. Refuses: to
know the stages; see :mod:`.engine`.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from replicator.config.settings import SqliteReplicatorConfig
from replicator.engine import health
from replicator.engine.engine import Engine
from replicator.engine.limits import Limits
from replicator.engine.shared import SharedResources
from replicator.errors import DatabaseMissing, ReplicatorError
from replicator.metrics import Metrics
from replicator.model import Position, Repair, ReplicationStatus, RestoreReport
from replicator.recovery.api import restore as restore_from
from replicator.sqlite.connect import Prepare, unprepared
from replicator.store.base import Store
from replicator.system import clock
from replicator.system.files import Files
from replicator.system.locks import ReplicatorLock
from replicator.system.paths import expanded, resolved

FINAL_FLUSH = 30.0  # seconds to make the rest durable at the end of a ``with`` block


class SqliteReplicator:
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
        self._store = store
        self._files = files or Files()
        self._shared = shared
        self._resources = contextlib.ExitStack()  # those made here
        self._lock = ReplicatorLock(config.database, config.cache, self._files)
        self._engine: Engine | None = None
        self._last = health.stopped(str(config.database), config.address.url)

    def start(self) -> None:
        """Begins to replicate. Returns once the database is followed or waited for.

        ``AlreadyRunning``, ``DatabaseUnusable`` (``DatabaseMissing`` if there is no directory for
        the database), ``ConfigError``, and with ``auto_restore`` the
        errors of :meth:`restore`.
        """
        if self._engine is not None:
            raise ReplicatorError("this replicator is running already")
        try:
            self._require_directory()
            self._lock.acquire()
            if self.config.auto_restore:
                self.restore(if_missing=True)
            self._engine = self._make_engine()
            self._engine.start()
        except BaseException as error:
            self._halt()
            self._last = replace(
                self._last, state="failed", last_error=str(error), last_error_at=clock.now_ms()
            )
            raise

    def _require_directory(self) -> None:
        """``DatabaseMissing`` if no application can create the database at its path, unless a
        restore brings it back. No directory is made for a path that may be wrong."""
        directory = self.config.database.parent
        if self.config.auto_restore and not directory.exists():
            self.restore(if_missing=True)
        if not directory.is_dir():
            raise DatabaseMissing(
                f"{directory}, the directory of the database, does not exist",
                path=self.config.source,
                code="directory_missing",
                hint="create or mount it, or correct the path",
            )

    def _make_engine(self) -> Engine:
        shared = self._shared or self._resources.enter_context(SharedResources())
        store = self._store or shared.stores.open(self.config.address)
        return Engine(
            self.config,
            self.limits,
            store,
            self.metrics,
            self._files,
            shared,
            prepare=self._prepare,
        )

    def stop(self) -> None:
        """Ends at once; segments that are not durable yet stay in the cache. See :meth:`flush`."""
        self._halt()

    def _halt(self) -> None:
        engine, self._engine = self._engine, None
        try:
            if engine is not None:
                self._last = engine.status(running=False)
                engine.stop()
        finally:
            self._resources.close()
            self._lock.release()

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

    def snapshot(self, timeout: float | None = None) -> int:
        """Takes a snapshot now, unless the newest one is current; its txid once it is stored."""
        return self._running().snapshot(timeout)

    def repair(self, timeout: float | None = None, reason: str = "requested") -> Repair:
        """Verifies that the newest transaction can be restored; if it cannot, takes a snapshot or
        begins a generation so that it can. Reads every byte that a restore would read."""
        return self._running().repair(timeout, reason)

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
            raise ReplicatorError("the database is being replicated; stop first")
        return restore_from(
            address=self.config.address, store=self._store, files=self._files, **options
        )

    def status(self) -> ReplicationStatus:
        """The state now; after :meth:`stop`, the last one before it."""
        engine = self._engine
        return engine.status(running=True) if engine is not None else self._last

    @property
    def failed(self) -> ReplicatorError | None:
        """Why replication ended, None while it runs."""
        return self._engine.failed if self._engine is not None else None

    def _running(self) -> Engine:
        if self._engine is None:
            raise ReplicatorError("the replicator is not running", hint="call start() first")
        return self._engine

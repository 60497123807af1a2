"""The library's front door: one replicator for one database.

    config = SqliteReplicatorConfig(db_path="app.db", bucket="backups")
    with SqliteReplicator(config) as replicator:
        ...                                   # the application writes as it always did
        replicator.flush()                    # every commit so far is in the bucket

Owns the wiring: cache, store, upload thread, capture thread. It can be used from any thread.
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from replicator._version import __version__
from replicator.archive.keys import Keys
from replicator.cache.cache import Cache
from replicator.cache.records import SegmentRecord
from replicator.config.settings import SqliteReplicatorConfig
from replicator.engine.capture_thread import Pipeline
from replicator.engine.limits import Limits
from replicator.engine.resume import Joiner
from replicator.engine.shared import SharedResources
from replicator.errors import Cancelled, Fenced, LocalIOError, NotDurable, ReplicatorError
from replicator.metrics import Metrics
from replicator.model import Position, Repair, ReplicationStatus, RestoreReport
from replicator.recovery.api import restore as restore_from
from replicator.retention.api import keeper_for
from replicator.store.base import Store
from replicator.store.retry import Clock, RetryingStore
from replicator.store.timeouts import TimedStore
from replicator.system import clock
from replicator.system.files import Files
from replicator.system.locks import ReplicatorLock
from replicator.system.paths import wal_path
from replicator.upload.uploader import Uploader
from replicator.verify.monitor import Guard, Levers

FINAL_FLUSH = 30.0  # seconds to make the rest durable at the end of a ``with`` block
MIRRORED = (
    "txid",
    "durable_txid",
    "healthy",
    "lag_seconds",
    "lag_bytes",
    "pending_segments",
    "pending_bytes",
)  # fields of the status that are figures too
_Seen: TypeAlias = tuple[list[SegmentRecord], SegmentRecord | None, int]  # waiting, newest, bytes
POLL = 0.2  # seconds between two looks whether a wait was given up


class SqliteReplicator:
    """Replicates one database while started. ``store`` and ``files`` (every access to the local
    disk) are for tests and special needs; by default the config says which store. ``shared``
    are the resources that several replicators of a process share; by default each has its own.
    ``limits`` are the numbers that follow from the config, unless a test needs smaller ones.

    As a context manager it starts, and at the end of the block flushes (30 s at most) and
    stops; ``NotDurable`` then says what did not reach the bucket yet.
    """

    def __init__(
        self,
        config: SqliteReplicatorConfig,
        *,
        store: Store | None = None,
        files: Files | None = None,
        shared: SharedResources | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.config = config
        self.limits = limits or Limits.of(config)
        self._given_shared = shared
        self.metrics = Metrics()
        self._given_store = store
        self._files = files or Files()
        self._lock = ReplicatorLock(config.database, config.cache, self._files)
        self._parts: _Parts | None = None
        self._last: ReplicationStatus | None = None

    def start(self) -> None:
        """Begin to replicate. Returns once the database is being followed or waited for.

        ``AlreadyRunning``, ``DatabaseUnusable``, ``ConfigError``, and with ``auto_restore``
        whatever :meth:`restore` raises.
        """
        if self._parts is not None:
            raise ReplicatorError("this replicator is running already")
        try:
            self._lock.acquire()
            if self.config.auto_restore:
                self.restore(if_missing=True)
            self._parts = _Parts(
                self.config,
                self.limits,
                self._given_store,
                self.metrics,
                self._files,
                self._given_shared,
            )
            self._parts.start()
        except BaseException as error:
            self._halt()
            self._last = replace(
                self.status(), state="failed", last_error=str(error), last_error_at=clock.now_ms()
            )
            raise

    def stop(self) -> None:
        """End at once; what is not durable yet stays in the cache. See :meth:`flush`."""
        self._halt()

    def _halt(self) -> None:
        parts, self._parts = self._parts, None
        try:
            if parts is not None:
                self._last = parts.status(self.config, running=False)
                parts.stop()
        finally:
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
        """Make every transaction committed before the call durable, and say how far that is.

        ``timeout`` is in seconds; ``NotDurable`` when it is over first (nothing is lost then,
        and the call can be repeated), ``Fenced`` when another writer holds the log. With
        ``snapshot`` a snapshot of that state is in the store too.
        """
        parts = self._running()
        until = None if timeout is None else time.monotonic() + timeout
        txid = self._make_durable(parts, until)
        if snapshot:
            self.snapshot(_left(until))
        head = parts.cache.head()
        return Position(head.generation if head else "", txid)

    @staticmethod
    def _make_durable(parts: _Parts, until: float | None) -> int:
        """The txid of the state that is durable now, in the log as it is now."""
        while True:
            numbering = parts.uploader.numbering
            txid = _result(parts.pipeline.capture_all(), until, "captured", parts)
            if parts.uploader.wait_durable(txid, _left(until), numbering):
                return txid

    def snapshot(self, timeout: float | None = None) -> int:
        """Take a snapshot now, unless the newest one is current; its txid once it is stored."""
        parts = self._running()
        until = None if timeout is None else time.monotonic() + timeout
        return _result(parts.pipeline.take_snapshot(), until, "stored as a snapshot", parts)

    def repair(self, timeout: float | None = None, reason: str = "somebody asked for it") -> Repair:
        """Prove that the newest transaction can be restored, and if it cannot, take a snapshot
        or begin a generation so that it can. Reads what a restore would read."""
        parts = self._running()
        try:
            return parts.guard.suspect(reason).result(timeout)
        except FutureTimeout as error:
            raise NotDurable(
                "the present was not proved in time", hint="it goes on; look at the status"
            ) from error

    def look_at_proofs(self) -> None:
        """Somebody left a note of a drill in the bucket: the status will know it soon."""
        self._running().guard.look_again()

    def restore(self, **options: Any) -> RestoreReport | None:
        """Restore to the database's path from the config's bucket; None: no backup found.

        Takes the options of :func:`replicator.restore`. Not while it is replicated, unless to
        another ``output``.
        """
        output = Path(options.setdefault("output", self.config.database)).expanduser()
        if self._parts is not None and output.resolve() == self.config.database:
            raise ReplicatorError("the database is being replicated; stop first")
        return restore_from(
            address=self.config.address, store=self._given_store, files=self._files, **options
        )

    def status(self) -> ReplicationStatus:
        """The state now; after :meth:`stop`, the last one before it."""
        if self._parts is not None:
            return self._parts.status(self.config, running=True)
        return self._last or _nothing(self.config)

    @property
    def failed(self) -> ReplicatorError | None:
        """Why replication ended by itself, None while it goes on."""
        return self._parts.pipeline.failed if self._parts is not None else None

    def _running(self) -> _Parts:
        if self._parts is None:
            raise ReplicatorError("the replicator is not running", hint="call start() first")
        return self._parts


class _Parts:
    """What exists only while a replicator runs."""

    def __init__(
        self,
        config: SqliteReplicatorConfig,
        limits: Limits,
        store: Store | None,
        metrics: Metrics,
        files: Files,
        shared: SharedResources | None,
    ) -> None:
        self._own_shared = SharedResources() if shared is None else None
        shared = shared or self._own_shared
        assert shared is not None  # given, or our own
        endpoint = shared.endpoint(config.address)
        self._window = limits.health_window
        keys = Keys(config.address.prefix)
        self.metrics = metrics
        self.cache = Cache.open(config.cache, files, limits.cache)
        self._seen: _Seen = [], None, 0
        self.store = TimedStore(
            shared.stores.open(config.address) if store is None else store,
            alarms=shared.alarms,
            patience=limits.answer_patience,
            on_overdue=lambda error: self.pipeline.warn(error),  # noqa: PLW0108 - made below
        )
        self.uploader = Uploader(
            self.store,
            keys,
            self.cache,
            metrics,
            limits.upload,
            on_log_lost=self._log_lost,
            on_overtaken=self._overtaken,
            on_damage=self._damaged,
            limiter=endpoint.appends,
        )
        self._ending = threading.Event()
        patient = RetryingStore(
            self.store,
            limits.snapshot_retries,
            Clock(sleep=self._pause),
            on_failure=lambda error: self.pipeline.warn(error),  # noqa: PLW0108 - made below
        )
        self.joiner = Joiner(
            config,
            limits,
            self.store,
            patient,
            keys,
            self.cache,
            self.uploader,
            metrics,
            f"replicator {__version__}",
            endpoint.joins,
            files,
        )
        self.pipeline = Pipeline(
            config, limits.loop, self.cache, self.uploader, metrics, self.joiner, shared
        )
        self.guard = Guard(
            self.store,
            keys,
            Levers(
                lambda: self.uploader.durable_txid, self._fresh_snapshot, self._fresh_generation
            ),
            metrics,
            scratch=_scratch(config, self.cache),
            interval=config.drill_interval,
            bandwidth=config.drill_bandwidth,
            files=files,
            scheduler=shared.scheduler,
        )
        self.keeper = (
            keeper_for(
                config,
                self.store,
                self.cache,
                metrics,
                created_by=f"replicator {__version__}",
                durable_txid=lambda: self.uploader.durable_txid,
                pause=self._pause,
                on_trouble=self.guard.suspect,
                scheduler=shared.scheduler,
            )
            if config.keep
            else None
        )

    def _pause(self, seconds: float) -> None:
        if self._ending.wait(seconds):
            raise Cancelled("the replicator stops")

    def _damaged(self, first_txid: int) -> None:
        self.joiner.damaged_from = first_txid
        self.pipeline.rejoin("a segment in the cache was damaged")

    def _log_lost(self) -> None:
        self.joiner.remote_lost = True
        self.pipeline.rejoin("the bucket no longer holds the log")

    def _overtaken(self, error: Fenced) -> None:
        self.joiner.overtaken = error
        self.pipeline.rejoin("another writer went on with the log in the bucket")

    def _fresh_snapshot(self) -> int:
        request = self.pipeline.take_snapshot(whole=True)
        while not self._ending.is_set():
            with contextlib.suppress(FutureTimeout):
                return request.result(POLL)
        raise Cancelled("the replicator stops")

    def _fresh_generation(self, reason: str) -> int:
        """Begin one with the database as it is; its txid once it is durable."""
        before = self._generation()
        self.joiner.unrestorable = True
        self.pipeline.rejoin(reason)
        while self._generation() == before:
            self._pause(POLL)
            if self.pipeline.failed is not None:
                raise self.pipeline.failed
        head = self.cache.head()
        assert head is not None  # its generation was just seen
        while True:
            with contextlib.suppress(NotDurable):
                self.uploader.wait_durable(head.last_txid, POLL)
                return head.last_txid
            self._pause(0)

    def _generation(self) -> str:
        head = self.cache.head()
        return head.generation if head else ""

    def start(self) -> None:
        self.uploader.start(held=self.joiner.take_over)
        self.pipeline.start()
        self.guard.start()
        if self.keeper is not None:
            self.keeper.start()

    def stop(self) -> None:
        self._ending.set()
        if self.keeper is not None:
            self.keeper.stop()
        self.guard.stop()
        self.pipeline.stop()
        self.uploader.stop()
        self.cache.close()
        self.store.stop()
        if self._own_shared is not None:
            self._own_shared.close()

    def status(self, config: SqliteReplicatorConfig, *, running: bool) -> ReplicationStatus:
        (pending, head, used), refusal = self._seen_in_cache()
        session, figures = self.pipeline.session, self.metrics.snapshot()
        noticed = session.noticed_ms if session else None
        oldest = min(
            [r.first_commit_ms for r in pending] + ([noticed] if noticed else []), default=None
        )
        lag_ms = max(0, clock.now_ms() - oldest) if oldest is not None else 0
        if self.pipeline.state in ("starting", "stalled"):  # what was committed since, nobody knows
            lag_ms = max(lag_ms, round(1000 * (time.monotonic() - self.pipeline.looked)))
        error = (
            self.uploader.failing
            or self.pipeline.failed
            or self.pipeline.failing
            or self.store.overdue
            or refusal
            or (self.guard.trouble.error if self.guard.trouble else None)
        )
        failures = [
            (trouble.at_ms, str(trouble.error))
            for trouble in (self.pipeline.trouble, self.guard.trouble)
            if trouble
        ]
        failures += [self.uploader.newest_failure] if self.uploader.newest_failure else []
        failures += [(clock.now_ms(), str(refusal))] if refusal else []
        last_error_at, last_error = max(failures, default=(None, None))
        snapshot = session.snapshots.last if session else None
        status = ReplicationStatus(
            running=running and self.pipeline.failed is None,
            healthy=running
            and error is None
            and lag_ms < 1000 * self._window
            and self._would_notice(head),
            state=self.pipeline.state if running else "stopped",
            database=str(config.database),
            url=config.address.url,
            generation=head.generation if head else "",
            txid=head.last_txid if head else 0,
            durable_txid=self.uploader.durable_txid,
            pending_segments=len(pending),
            pending_bytes=sum(r.size for r in pending),
            lag_seconds=lag_ms / 1000,
            lag_bytes=sum(r.raw_bytes for r in pending)
            + (session.uncaptured if session else 0)
            + (0 if head else _unsaved_bytes(config)),
            wal_frame_count=session.wal_frames if session else 0,
            last_wal_sync=int(figures["last_upload_ms"]) or None,
            last_snapshot=snapshot.at_ms if snapshot else None,
            last_snapshot_txid=snapshot.txid if snapshot else None,
            failed_uploads=int(figures["failed_uploads"]),
            uploaded_bytes=int(figures["uploaded_bytes"]),
            uploaded_objects=int(figures["uploaded_objects"]),
            roll_overs=int(figures["roll_overs"]),
            write_lock_holds=int(figures["write_lock_holds"]),
            longest_write_lock_ms=figures["longest_write_lock_ms"],
            last_error=last_error,
            last_error_at=last_error_at,
            last_verified_txid=self.guard.proven.txid if self.guard.proven else None,
            last_verified_ms=self.guard.proven.at_ms if self.guard.proven else None,
            retention_error=self.keeper.waits if self.keeper is not None else None,
        )
        self._export(status, used)
        return status

    def _seen_in_cache(self) -> tuple[_Seen, LocalIOError | None]:
        """What the cache holds; what it held last, and why, while its disk refuses to tell."""
        try:
            self._seen = self.cache.pending(), self.cache.head(), self.cache.usage()
        except LocalIOError as refusal:
            return self._seen, refusal
        return self._seen, None

    def _would_notice(self, head: SegmentRecord | None) -> bool:
        """Whether a commit would be noticed: the log was looked at within the health window,
        or there has never been a database."""
        session = self.pipeline.session
        if self.pipeline.state == "waiting" or session is None:
            return self.pipeline.state == "waiting" and head is None
        longest = session.poll_interval + self._window
        return (
            self.pipeline.state == "following" and time.monotonic() - self.pipeline.looked < longest
        )

    def _export(self, status: ReplicationStatus, cache_bytes: int) -> None:
        """Keep the gauges that mirror the status as live as it is."""
        for name in MIRRORED:
            self.metrics.set(name, getattr(status, name))
        self.metrics.set("wal_frames", status.wal_frame_count)
        self.metrics.set("cache_bytes", cache_bytes)


def _scratch(config: SqliteReplicatorConfig, cache: Cache) -> Path:
    """A directory that no other replicator uses."""
    if config.drill_scratch is None:
        return config.cache / "scratch"
    return Path(config.drill_scratch).expanduser() / f"replicator-{cache.writer}"


def _unsaved_bytes(config: SqliteReplicatorConfig) -> int:
    """Size of a database of which nothing is in the bucket yet, with its log."""
    total = 0
    for path in (config.database, wal_path(config.database)):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


def _result(request: Future[int], until: float | None, what: str, parts: _Parts) -> int:
    try:
        return request.result(_left(until))
    except FutureTimeout as error:
        reason = parts.uploader.failing
        raise NotDurable(
            f"not everything was {what} in time" + (f": {reason}" if reason else ""),
            hint="nothing is lost; try again, or look at the status",
        ) from error


def _nothing(config: SqliteReplicatorConfig) -> ReplicationStatus:
    """The status of a replicator that was never started."""
    return ReplicationStatus(
        running=False,
        healthy=False,
        state="stopped",
        database=str(config.database),
        url=config.address.url,
        generation="",
        txid=0,
        durable_txid=0,
        pending_segments=0,
        pending_bytes=0,
        lag_seconds=0.0,
        lag_bytes=0,
        wal_frame_count=0,
        last_wal_sync=None,
        last_snapshot=None,
        last_snapshot_txid=None,
        failed_uploads=0,
        uploaded_bytes=0,
        uploaded_objects=0,
        roll_overs=0,
        write_lock_holds=0,
        longest_write_lock_ms=0.0,
        last_error=None,
        last_error_at=None,
    )

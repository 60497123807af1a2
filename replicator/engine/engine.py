"""The engine of one replicator: makes its stages, wires them, and runs them.

Owns: the stages and their start and stop, from the time the replicator starts until it stops. A
stage gets values and resources, never another stage that comes after it. Refuses: to open or close
the resources that it is given.
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from replicator._version import __version__
from replicator.archive.keys import Keys
from replicator.cache.cache import Cache
from replicator.cache.quota import CacheQuota
from replicator.capture.segmenter import Author
from replicator.config.settings import SqliteReplicatorConfig
from replicator.engine.capture_thread import CaptureThread
from replicator.engine.context import Context
from replicator.engine.health import CacheFigures, Observations, export, fold
from replicator.engine.incidents import OpenIncidents, StoreFailures
from replicator.engine.limits import Limits
from replicator.engine.marks import Marker
from replicator.engine.resume import Resume
from replicator.engine.sessions import Sessions
from replicator.engine.shared import SharedResources
from replicator.engine.wakeups import Wakeups
from replicator.errors import Cancelled, DatabaseMissing, LocalIOError, NotDurable, ReplicatorError
from replicator.metrics import Metrics
from replicator.model import (
    Cause,
    Health,
    Incident,
    Position,
    Repair,
    ReplicationEvent,
    ReplicationStatus,
)
from replicator.recovery.start import Asked, Expect
from replicator.retention.api import retention_worker
from replicator.retention.segments import CachedSegments
from replicator.retention.worker import RetentionWorker
from replicator.sqlite.connect import Prepare, extensions, unprepared
from replicator.sqlite.live import identity
from replicator.store.base import Store
from replicator.store.retry import Clock, RetryingStore
from replicator.store.timeouts import TimedStore
from replicator.system import clock
from replicator.system.files import Files
from replicator.system.host import process_label
from replicator.system.mailbox import Mailbox, Wanted
from replicator.system.paths import expanded, resolved, wal_path
from replicator.upload.uploader import Uploader
from replicator.verify.monitor import DrillRule, Monitor

HEALTH_LOOK = 1.0  # seconds between two looks at the health while someone listens to events
PROGRAM = f"replicator {__version__}"


@dataclass(slots=True)
class LastFlush:
    """The newest transaction that a flush has captured, None before it has, and the numbering of
    the archive then."""

    txid: int | None = None
    numbering: int = 0


class Engine:
    """Exists only while a replicator runs. Any thread may call its methods."""

    def __init__(
        self,
        config: SqliteReplicatorConfig,
        limits: Limits,
        store: Store,
        metrics: Metrics,
        files: Files,
        shared: SharedResources,
        *,
        prepare: Prepare = unprepared,
    ) -> None:
        """``prepare`` registers what the schema needs at the connections of drills."""
        self._config = config
        if config.drill_extension:  # before anything is opened, because it may be refused
            prepare = extensions([Path(config.drill_extension)])
        self._prepare = prepare
        self._limits = limits
        self._metrics = metrics
        self._ending = threading.Event()
        self._contents = CacheFigures()
        self.mailbox = Mailbox()
        self.cache = Cache.open(config.cache, files, limits.cache)
        self.store = TimedStore(store, self.mailbox, shared.alarms, patience=limits.answer_patience)
        context = self._context(files)
        endpoint = shared.endpoint(config.address)
        self.uploader = Uploader(
            self.store,
            context.keys,
            self.cache,
            metrics,
            limits.upload,
            self.mailbox,
            endpoint.appends,
        )
        self.monitor = self._monitor(context, shared)
        self.retention = self._retention_worker(shared) if config.keep else None
        self.capture = self._capture_thread(context, shared)
        self._marker = self._make_marker(context)

    def _make_marker(self, context: Context) -> Marker:
        retention = self.retention
        return Marker(
            self.store,
            context.keys,
            self.cache,
            self.uploader.watermark,
            lambda until: self._make_durable(LastFlush(), until),
            lambda: 0 if retention is None else retention.listings,
            self._pause,
        )

    def _context(self, files: Files) -> Context:
        config, limits = self._config, self._limits
        patient = RetryingStore(
            self.store,
            limits.snapshot_retries,
            Clock(sleep=self._pause),
            on_failure=StoreFailures(self.mailbox).report,
        )
        return Context(
            database=config.database,
            source=config.source,
            address=config.address,
            limits=limits,
            author=Author(self.cache.writer, PROGRAM, process_label(), self.store.integrity),
            store=self.store,
            patient=patient,
            keys=Keys(config.address.prefix),
            cache=self.cache,
            mailbox=self.mailbox,
            metrics=self._metrics,
            files=files,
            allow_unsafe_store=config.allow_unsafe_store,
            asked=Asked(expect=Expect(config.expect)),
        )

    def _monitor(self, context: Context, shared: SharedResources) -> Monitor:
        config = self._config
        return Monitor(
            self.store,
            context.keys,
            self.uploader.watermark,
            self.mailbox,
            self._metrics,
            DrillRule(
                interval=config.drill_interval,
                bandwidth=config.drill_bandwidth,
                prepare=self._prepare,
            ),
            shared.scheduler,
            scratch=_scratch(config, self.cache),
            files=context.files,
        )

    def _retention_worker(self, shared: SharedResources) -> RetentionWorker:
        return retention_worker(
            self._config,
            self.store,
            CachedSegments(self.cache, self.uploader.watermark),
            self._metrics,
            self.mailbox,
            shared.scheduler,
            self._limits.retention,
            created_by=PROGRAM,
            pause=self._pause,
        )

    def _capture_thread(self, context: Context, shared: SharedResources) -> CaptureThread:
        config, endpoint = self._config, shared.endpoint(self._config.address)
        quota = CacheQuota(
            self.cache,
            self._metrics,
            self.mailbox,
            max_bytes=config.max_cache_bytes,
            level=config.compression_level,
            created_by=PROGRAM,
            integrity=self.store.integrity,
        )
        incidents = OpenIncidents()
        if config.take_over:
            incidents.add(Incident(Cause.TAKE_OVER))
        sessions = Sessions(context, quota, self.uploader.watermark, endpoint.joins)
        return CaptureThread(
            context,
            Resume(context, sessions, self.uploader, incidents),
            incidents,
            self.uploader,
            self.monitor,
            quota,
            Wakeups(config.source, shared.file_watcher, self.mailbox, self._limits.loop),
            joins=endpoint.joins,
            captures=shared.captures,
            busy_timeout=config.busy_timeout,
            switch_in_use=config.switch_in_use,
        )

    def _pause(self, seconds: float) -> None:
        if self._ending.wait(seconds):
            raise Cancelled("the replicator stops")

    def start(self) -> None:
        """Returns once the database is followed, or waited for; raises if it cannot be."""
        self.uploader.start(held=self._config.take_over)
        self.capture.start()
        self.monitor.start()
        if self.retention is not None:
            self.retention.start()

    def stop(self) -> None:
        self._ending.set()
        if self.retention is not None:
            self.retention.stop()
        self.monitor.stop()
        self.capture.stop()
        self.uploader.stop()
        self.cache.close()
        self.store.stop()

    @property
    def followed(self) -> bool:
        """True if the database was ever followed."""
        return self.capture.figures is not None

    @property
    def failed(self) -> ReplicatorError | None:
        return self.capture.failed

    # --------------------------------------------------------------------------- requests

    def flush(self, timeout: float | None, *, snapshot: bool) -> Position:
        """Every transaction committed before the call is durable when it returns."""
        until = _until(timeout)
        txid = self._make_durable(LastFlush(), until)
        if snapshot:
            self.snapshot(_left(until))
        head = self.cache.head()
        return Position(head.generation if head else "", txid)

    def finish(self, timeout: float, last: LastFlush) -> None:
        """As :meth:`flush`, before the end: a further call with the same ``last`` continues with
        the transactions that the first one has captured, and not with those committed since."""
        self._make_durable(last, _until(timeout))

    def _make_durable(self, last: LastFlush, until: float | None) -> int:
        """The txid of the durable state, in the archive as it is numbered now."""
        watermark = self.uploader.watermark
        while True:
            if last.txid is None:
                last.numbering = watermark.state.numbering
                last.txid = self._captured(until)
            if watermark.wait(last.txid, _left(until), last.numbering):
                return last.txid
            last.txid = None

    def _captured(self, until: float | None) -> int:
        try:
            return self._result(self.mailbox.ask(Wanted.CAPTURE), until, "captured")
        except DatabaseMissing:
            self._deliver(until)
            raise

    def _deliver(self, until: float | None) -> None:
        """Makes what was captured durable."""
        watermark, head = self.uploader.watermark, self.cache.head()
        if head is not None:
            watermark.wait(head.last_txid, _left(until), watermark.state.numbering)

    def mark(self, name: str, timeout: float | None, *, note: str, move: bool) -> Position:
        """Flush, and pin that state under a name. It contains every transaction committed before
        the call, and none after it returned."""
        return self._marker.mark(name, _until(timeout), note=note, move=move)

    def snapshot(self, timeout: float | None) -> int:
        """Txid of a snapshot of the newest state, once it is in the store."""
        request = self.mailbox.ask(Wanted.SNAPSHOT)
        return self._result(request, _until(timeout), "stored as a snapshot")

    def _result(self, request: Future[int], until: float | None, done: str) -> int:
        try:
            return request.result(_left(until))
        except FutureTimeout as error:
            reason = self.uploader.health.error
            raise NotDurable(
                f"not everything was {done} in time" + (f": {reason}" if reason else ""),
                hint="nothing is lost; try again, or look at the status",
            ) from error

    def repair(self, timeout: float | None, reason: str) -> Repair:
        try:
            return self.monitor.suspect(reason).result(timeout)
        except FutureTimeout as error:
            raise NotDurable(
                "could not verify the newest transaction within the timeout",
                hint="the verification continues; look at the status",
            ) from error

    def events(self, log: str, after: int | None, seconds: float) -> dict[str, Any]:
        """The events after number ``after`` of the log with the id ``log``, waited for up to
        ``seconds``; those after now, so none, if ``after`` is None; all of another log."""
        events, until = self.mailbox.events, time.monotonic() + seconds
        found: list[ReplicationEvent] = []
        if after is not None:
            start = after if log == events.id else 0
            while not found:
                status = self.status(running=True)
                events.health(healthy=status.healthy, reason=status.last_error or status.state)
                left = until - time.monotonic()
                found = events.after(start, max(0.0, min(left, HEALTH_LOOK)))
                if left <= 0 or self._ending.is_set():
                    break
        newest = found[-1].number if found else (events.newest if after is None else after)
        return {"log": events.id, "after": newest, "events": [asdict(event) for event in found]}

    # ----------------------------------------------------------------------------- status

    def status(self, *, running: bool) -> ReplicationStatus:
        refusal = self._read_cache()
        metrics = self._metrics.values()  # before the errors that explain its counters
        status = fold(
            Observations(
                database=str(self._config.source),
                url=self._config.address.url,
                running=running,
                now_ms=clock.now_ms(),
                window=self._limits.health_window,
                unseen=time.monotonic() - self.capture.wakeups.looked,
                capture=self.capture.health,
                upload=self.uploader.watermark.state,
                store=self.store.health,
                cache=Health("refusing" if refusal else "readable", refusal),
                monitor=self.monitor.health,
                retention=self.retention.health if self.retention is not None else None,
                newest=self.mailbox.newest,
                contents=self._contents,
                session=self.capture.figures,
                source=_identity(self._config.source),
                metrics=metrics,
                proven=self.monitor.proven,
                unsaved_bytes=_unsaved_bytes(self._config.source, self._contents),
            )
        )
        export(status, self._contents.used_bytes, self._metrics)
        return status

    def _read_cache(self) -> LocalIOError | None:
        """Reads the contents of the cache; the error of a disk that refuses, if it does."""
        try:
            self._contents = CacheFigures(
                self.cache.pending(), self.cache.head(), self.cache.usage()
            )
        except LocalIOError as refusal:
            return refusal
        return None


def _scratch(config: SqliteReplicatorConfig, cache: Cache) -> Path:
    """A directory that no other replicator uses."""
    if config.drill_scratch is None:
        return config.cache / "scratch"
    return expanded(config.drill_scratch) / f"replicator-{cache.writer}"


def _identity(source: Path) -> tuple[int, int] | None:
    """(device, inode) of the file that the path names now; None if none can be seen there."""
    try:
        return identity(source)
    except LocalIOError:
        return None


def _unsaved_bytes(database: Path, contents: CacheFigures) -> int:
    """Size of the database with its WAL, if nothing of it is in the bucket yet."""
    if contents.head is not None:
        return 0
    total = 0
    real = resolved(database)
    for path in (real, wal_path(real)):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _until(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())

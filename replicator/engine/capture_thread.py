"""The capture thread: waits for the database, joins the log, follows it until told to stop.

Owns the order of things. Every way of losing track (a replaced file, a log that changed behind
us, a cache that is full, a disk that refuses) ends the same way: let go of the database, and
join the log again, which proves continuity or says why not.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from replicator.cache.cache import Cache
from replicator.config.settings import SqliteReplicatorConfig
from replicator.engine.limits import LoopLimits
from replicator.engine.resume import Joiner
from replicator.engine.session import Session
from replicator.engine.shared import SharedResources
from replicator.errors import (
    AccessDenied,
    Cancelled,
    ChangedOutside,
    ConfigError,
    ContinuityLost,
    DatabaseReplaced,
    DatabaseUnusable,
    LedgerDamaged,
    LocalIOError,
    RefusedError,
    ReplicatorError,
)
from replicator.metrics import Metrics
from replicator.snapshot.schedule import Request
from replicator.sqlite.live import LiveDatabase, identity
from replicator.store.retry import Pauses
from replicator.system import clock
from replicator.system.watch import Watch
from replicator.upload.uploader import Uploader

Asked = TypeVar("Asked", bound=Future[Any])

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong last, and when (ms)."""

    error: ReplicatorError
    at_ms: int


class Pipeline:
    """One thread per database. Ask it from any thread; it does all the work itself."""

    def __init__(
        self,
        config: SqliteReplicatorConfig,
        limits: LoopLimits,
        cache: Cache,
        uploader: Uploader,
        metrics: Metrics,
        joiner: Joiner,
        shared: SharedResources,
    ) -> None:
        self._config = config
        self._limits = limits
        self._shared = shared
        self._joins = shared.endpoint(config.address).joins
        self._cache = cache
        self._uploader = uploader
        self._metrics = metrics
        self._joiner = joiner
        self._wake = threading.Event()
        uploader.on_trouble = self._wake.set
        self._unannounced = False  # what wakes us is a change that no file event told of
        self._watch: Watch | None = None
        self._stopping = threading.Event()
        self._settled = threading.Event()  # opened, waiting or failed: start() may return
        self._requests: list[Future[int]] = []
        self._snapshot_requests: list[Request] = []
        self._lock = threading.Lock()
        name = f"replicator-capture:{config.address.prefix}"  # what is logged tells whose it is
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._rejoin: ContinuityLost | None = None
        self._pauses = Pauses(self._limits.retries)
        self.session: Session | None = None
        self._looked = time.monotonic()  # when the log was looked at last, or the start
        self.state = "starting"
        self.failed: ReplicatorError | None = None
        self.failing: ReplicatorError | None = None  # until all that is known of was captured
        self.trouble: Trouble | None = None

    @property
    def looked(self) -> float:
        """When the log was last known to hold nothing unnoticed (monotonic)."""
        return max(self._looked, self._watch.checked if self._watch is not None else 0.0)

    def start(self) -> None:
        """Begin; raises at once when the database cannot be followed."""
        self._thread.start()
        self._settled.wait()
        if self.failed is not None:
            raise self.failed

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._refuse_requests(Cancelled("the replicator stopped"))

    def warn(self, error: ReplicatorError) -> None:
        """A failure that is being repeated elsewhere: say so, once for the same words."""
        if self.trouble is None or str(self.trouble.error) != str(error):
            log.warning("%s; trying again", error)
        self._note(error)

    def rejoin(self, reason: str) -> None:
        """Let go of the log and prove anew how it goes on."""
        self._rejoin = ContinuityLost(reason)
        self._wake.set()

    def capture_all(self) -> Future[int]:
        """Resolves to the head's txid once everything committed before the call is captured."""
        return self._ask(Future(), self._requests)

    def take_snapshot(self, *, whole: bool = False) -> Future[int]:
        """Resolves to the snapshot's txid once it is in the store; ``whole``: without any
        bytes that were there before."""
        return self._ask(Request(whole=whole), self._snapshot_requests)

    def _ask(self, request: Asked, queue: list[Asked]) -> Asked:
        with self._lock:
            if self.failed is not None or self._stopping.is_set():
                request.set_exception(self.failed or Cancelled("the replicator stopped"))
            else:
                queue.append(request)
        self._wake.set()
        return request

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow_once()
            except (ContinuityLost, DatabaseReplaced) as reason:
                self._joiner.distrusted |= isinstance(reason, ChangedOutside)
                self._joiner.because = str(reason)
                log.warning("%s; checking how the log goes on", reason)
            except LedgerDamaged as error:
                self._begin_cache_anew(error)
            except ReplicatorError as error:
                if self._is_final(error):
                    self._fail(error)
                    return
                self._recover_from(error)
            except Exception as error:
                log.exception("the capture thread met a defect")
                self._fail(ReplicatorError(f"defect in the capture thread: {error!r}"))
                return
        self.state = "stopped"
        self._settled.set()

    def _begin_cache_anew(self, error: LedgerDamaged) -> None:
        """The cache was lost under us. What it held and the store does not is in the database."""
        self._recover_from(error)
        try:
            self._cache.reopen()
            self._uploader.begin_anew()
        except ReplicatorError as trouble:
            self._recover_from(trouble)

    def _is_final(self, error: ReplicatorError) -> bool:
        """What no waiting mends: the first refusal of a wrong setting, and being fenced."""
        if error is self._uploader.dead:
            return True
        if isinstance(error, DatabaseUnusable):
            return not self._settled.is_set()
        if isinstance(error, (ConfigError, AccessDenied)):
            with contextlib.suppress(LocalIOError):  # of a cache in trouble nothing is known
                return self._cache.head() is None
            return False
        return isinstance(error, RefusedError)

    def _fail(self, error: ReplicatorError) -> None:
        self._note(error)
        log.error("%s", error)
        with self._lock:
            self.state, self.failed = "failed", error
        self._uploader.die(error)
        self._refuse_requests(error)
        self._settled.set()

    def _refuse_requests(self, error: ReplicatorError) -> None:
        with self._lock:
            waiting = [*self._requests, *self._snapshot_requests]
            self._requests, self._snapshot_requests = [], []
        for request in waiting:
            if not request.done():
                request.set_exception(error)

    def _note(self, error: ReplicatorError) -> None:
        self.trouble = Trouble(error, clock.now_ms())

    def _recover_from(self, error: ReplicatorError) -> None:
        pause = self._pauses.next()
        if not isinstance(error, Cancelled):
            self.state, self._joiner.because = "stalled", str(error)
            self._joiner.distrusted |= isinstance(error, DatabaseUnusable)
            self.failing = error
            self._note(error)
            log.warning("%s; trying again in %.2g s", error, pause)
        self._settled.set()
        self._stopping.wait(pause)

    def _follow_once(self) -> None:
        if not self._wait_until(self._database_exists, "waiting"):
            return
        if not self._wait_until(self._cache_has_room, "stalled"):
            return
        self.state = "starting"
        database = LiveDatabase(
            self._config.database, busy_timeout=self._config.busy_timeout, files=self._joiner.files
        )
        try:
            if database.switched:
                log.info("%s was switched to WAL mode", database.path)
            self._settled.set()
            with self._joins.slot(self._stopping.is_set):
                session = self._joiner.join(database, self._stopping.is_set)
            self._pauses.reset()
            self._follow(session)
        finally:
            database.close()

    def _wait_until(self, ready: Callable[[], bool], state: str) -> bool:
        while not ready():
            if self.state != state:
                log.info(
                    "%s",
                    {
                        "waiting": f"waiting for {self._config.database} to exist",
                        "stalled": "the cache is full; waiting for the store",
                    }[state],
                )
                self.state = state
            self._settled.set()
            if self._uploader.dead is not None:
                raise self._uploader.dead
            if state == "waiting":
                self._nothing_to_capture()
            if self._stopping.wait(self._limits.wait_for_database):
                return False
        return True

    def _nothing_to_capture(self) -> None:
        """Without a database, all there is has been captured, and no snapshot can be had."""
        head = self._cache.head()
        with self._lock:
            requests, snapshots = self._requests.copy(), self._snapshot_requests.copy()
        if self._database_exists():  # it came, and whoever asked may have written to it
            return
        with self._lock:
            del self._requests[: len(requests)]
            del self._snapshot_requests[: len(snapshots)]
        for request in requests:
            request.set_result(head.last_txid if head else 0)
        for request in snapshots:
            if not request.done():
                request.set_exception(
                    ReplicatorError(
                        f"{self._config.database} does not exist, so there is nothing to snapshot"
                    )
                )

    def _database_exists(self) -> bool:
        return identity(self._config.database) is not None

    def _cache_has_room(self) -> bool:
        # what is damaged among the waiting segments is dropped when the log is joined
        return self._joiner.damaged_from is not None or self._joiner.room.half_is_free()

    def _follow(self, session: Session) -> None:
        if self.session is not None:
            session.noticed_ms = self.session.noticed_ms  # what still waits does not get younger
        self.session = session  # and it stays for those who ask for the status
        self._looked = time.monotonic()
        self.state = "following"
        watch = Watch(self._shared.file_watcher, self._config.database, self._changed)
        self._watch = watch
        try:
            self._capture_until_stopped(session, watch)
        finally:
            self._watch = None
            watch.stop()
            session.close()

    def _changed(self, announced: bool) -> None:
        self._unannounced = not announced
        self._wake.set()

    def _capture_until_stopped(self, session: Session, watch: Watch) -> None:
        woken = True
        while not self._stopping.is_set():
            if self._uploader.dead is not None:
                raise self._uploader.dead
            if self._uploader.ledger_lost is not None:
                raise self._uploader.ledger_lost
            if self._rejoin is not None:
                reason, self._rejoin = self._rejoin, None
                raise reason
            self._metrics.add("wake_ups")
            self._looked = time.monotonic()
            more = session.look(hinted=woken)
            self._serve(session, more=more)
            woken = self._sleep(session, watch, in_vain=woken and not more)
        session.look(hinted=True)  # once more: is it still the same file?
        session.capture()

    def _serve(self, session: Session, *, more: bool) -> None:
        """Capture for those who wait. They leave the queues only once they have their answer,
        so whoever meets trouble here is served after the next join, or refused at the end."""
        with self._lock:
            requests = self._requests.copy()
            self._snapshot_requests = [r for r in self._snapshot_requests if not r.done()]
            snapshots = self._snapshot_requests.copy()
        cut = bool(requests) or (more and session.due())
        if cut:
            with self._shared.captures.slot():
                session.capture()
        if cut or not more:
            session.see_to_file(promised=bool(requests))
        session.serve_snapshots(snapshots)
        if session.noticed_ms is None:
            self.failing = None
        with self._lock:
            del self._requests[: len(requests)]
        for request in requests:
            request.set_result(session.head.txid)

    def _sleep(self, session: Session, watch: Watch, *, in_vain: bool) -> bool:
        """Wait for the next look; whether something woke us before the time was over.

        ``in_vain``: what woke us was no commit, such as a connection that closed. They may come
        by the thousand, so the next event has to wait a little.
        """
        if in_vain and self._wake.wait(self._limits.rest):
            self._wake.clear()
            return True
        if session.busy:
            timeout = min(session.calm(), self._limits.calm_tick) or self._limits.tick
        else:
            watch.arm()
            timeout = session.poll_interval
            if session.at_rest:  # then somebody else looks at the files every so often
                timeout = watch.rest(timeout)
            if session.look(hinted=True):
                return True
        woken = self._wake.wait(timeout)
        self._wake.clear()
        unannounced, self._unannounced = self._unannounced, False
        return woken and not unannounced

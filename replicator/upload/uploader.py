"""The upload worker: cached segments into the store, strictly one append after another.

Owns: the order of appends, their retries, and the watermark, which only an answer of the store
moves. Transient failures are retried for ever with full jitter; a refusal (403, missing bucket)
is retried too, slowly, because credentials come back. An append that finds other bytes at its key
means that another writer owns the archive: the uploader appends nothing after that.

Refuses: to decide how the archive continues. It reports to the mailbox, and holds its appends
until :meth:`Uploader.reload`.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator

from replicator.archive.keys import Keys
from replicator.cache.cache import Cache
from replicator.cache.records import SegmentRecord
from replicator.errors import (
    Cancelled,
    DamageError,
    Fenced,
    LedgerDamaged,
    ReplicatorError,
    StoreUnavailable,
)
from replicator.metrics import Metrics
from replicator.model import Cause, Health, Incident
from replicator.store.base import Store
from replicator.store.retry import backoff
from replicator.system import clock
from replicator.system.limiter import CapacityLimiter
from replicator.system.mailbox import STORE_FAILING, Mailbox
from replicator.upload.appender import Appender
from replicator.upload.fencing import Reading, read_clocks
from replicator.upload.limits import UploadLimits
from replicator.upload.watermark import ENDED, FAILING, WORKING, Watermark

log = logging.getLogger(__name__)


class Uploader:
    """One thread that drains the cache. Any thread may call its methods."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        cache: Cache,
        metrics: Metrics,
        limits: UploadLimits,
        mailbox: Mailbox,
        limiter: CapacityLimiter,
        *,
        clocks: Callable[[], Reading] = read_clocks,
    ) -> None:
        """``limiter`` bounds the appends of this process that are under way at once."""
        self._store = store
        self._keys = keys
        self._cache = cache
        self._metrics = metrics
        self._limits = limits
        self._mailbox = mailbox
        self._limiter = limiter
        self._appender = Appender(
            store, keys, cache, limits, interrupted=self._pause, clocks=clocks
        )
        self._changed = threading.Condition()
        self._stopping = False
        self._held = False  # the archive in the store is not the one that the cache continues
        self._anew = False  # the archive is to be checked once more
        self._rests = 0  # blocks of resting() that were asked for and have not ended
        self._renumbering = False  # the cache may continue another archive than the watermark
        self._attempting = threading.Lock()  # while a request about the cache's segments runs
        self._thread: threading.Thread | None = None
        self.watermark = Watermark(store.url, self._durable_txid(), limits.budget)

    def _durable_txid(self) -> int:
        durable = self._cache.durable()
        return durable.last_txid if durable else 0

    def start(self, *, held: bool = False) -> None:
        """Begin; ``held``: append nothing before :meth:`reload`, because a take-over begins."""
        self._held = held
        name = f"replicator-upload:{self._keys.prefix}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; pending segments stay in the cache."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self.watermark.change(stopped=True)
        if self._thread is not None:
            self._thread.join()

    def wake(self) -> None:
        """A new segment is in the cache."""
        with self._changed:
            self.watermark.change(idle=False)
            self._changed.notify_all()

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """No request of the uploader is under way inside the block: the store's answers about
        waiting segments are final, and the block may change them in the cache. Afterwards the
        uploader checks whether the archive agrees with the cache."""
        with self._changed:
            self._rests += 1
            self._changed.notify_all()
        try:
            with self._attempting:
                yield
        finally:
            with self._changed:
                self._rests -= 1
                self._anew = True
                self._changed.notify_all()

    def begin_anew(self) -> None:
        """The cache was opened again: check once more whether the archive agrees with it.

        Waits for the attempt under way, because only then the end of the archive is known.
        """
        with self.resting():
            self._resume_from(self._durable_txid())

    def _resume_from(self, durable_txid: int) -> None:
        with self._changed:
            self.watermark.change(durable_txid=durable_txid)
            self._held = False
            self._changed.notify_all()

    def reload(self) -> None:
        """The cache continues the archive as the store has it, or a new generation of it."""
        durable_txid = self._durable_txid()
        with self._changed:
            self._held = False
            self.watermark.renumber(durable_txid)
            self._set_health(WORKING)
            self._changed.notify_all()

    def renumbering(self) -> None:
        """The cache is about to continue another archive, or another generation of it."""
        self._renumbering = True

    def announce(self) -> None:
        """The engine follows the database. Reloads the cache first if it was renumbered, also by
        a join that failed afterwards: the failure may have been in :meth:`reload`."""
        if self._renumbering:
            self.reload()
            self._renumbering = False
        self.wake()

    @property
    def health(self) -> Health:
        return self.watermark.state.health

    def _set_health(self, state: str, error: ReplicatorError | None = None) -> None:
        """Only the first error ends the upload, and nothing brings it back."""
        with self._changed:
            health = self.health
            if health.state != ENDED:
                self.watermark.change(health=health.after(state, error, at_ms=clock.now_ms()))

    def end(self, error: ReplicatorError) -> None:
        """Append nothing from now on; every waiter gets ``error``."""
        with self._changed:
            self._set_health(ENDED, error)
            self._changed.notify_all()
        self._mailbox.report(Incident(Cause.UPLOAD_ENDED, error=error))

    @property
    def _leaving(self) -> bool:
        return self._stopping or self.health.state == ENDED

    @property
    def _interrupted(self) -> bool:
        """True if work under way, and every pause, has to end."""
        return self._leaving or self._anew or self._rests > 0

    def _run(self) -> None:
        try:
            while not self._leaving:
                with self._changed:
                    self._changed.wait_for(lambda: self._leaving or not self._rests)
                    self._anew = False
                if self._held or self._check_archive():
                    self._drain()
        except Exception as defect:
            log.exception("unexpected error in the upload thread (bug)")
            text = f"unexpected error in the upload thread (bug): {defect!r}"
            self.end(ReplicatorError(text, code="defect"))

    def _drain(self) -> None:
        """Upload the waiting segments, oldest first, until stopped."""
        failures = 0  # attempts in a row that the cache's own disk spoiled
        while not self._interrupted:
            try:
                self._upload_next()
                failures = 0
            except ReplicatorError as error:
                failures += 1
                if isinstance(error, LedgerDamaged):
                    self._mailbox.report(Incident(Cause.LEDGER_LOST, error=error))
                self._fail(error, failures)
                self._rest(error, failures)

    def _upload_next(self) -> None:
        with self._changed:
            waiting = None if self._held else self._cache.next_pending()
            self.watermark.change(idle=waiting is None)
            if waiting is None and not self._interrupted:
                if not self._held:
                    self._set_health(WORKING)
                self._changed.wait()
        if waiting is None:
            return
        with self._limiter.slot(lambda: self._leaving), self._attempting:
            record = None if self._interrupted else self._cache.uploading(waiting.first_txid)
            if record is not None:  # else it was dropped since
                self._attempt(record)

    def _check_archive(self) -> bool:
        """Before anything is appended: is the archive as this cache left it? False: stopped, or
        to be checked anew.

        Segments that continue a lost archive must not be appended to an empty one, nor to the
        transactions of another writer: they are held until it is decided how to continue.
        """
        attempt = 0
        while not self._interrupted:
            try:
                with self._limiter.slot(lambda: self._leaving), self._attempting:
                    self._look()
            except Fenced as error:
                self._overtaken(error)
                return True
            except ReplicatorError as error:
                attempt += 1
                self._fail(error, attempt)
                self._rest(error, attempt)
            else:
                self._works()
                return True
        return False

    def _look(self) -> bool:
        """Checks whether the archive is as this cache left it; if not, holds all appends."""
        holds = self._appender.look()
        if not holds:
            self._lost()
        return holds

    def _lost(self) -> None:
        log.warning("%s no longer holds the archive", self._store.url)
        self._held = True
        self._mailbox.report(Incident(Cause.ARCHIVE_LOST, "the bucket no longer holds the archive"))

    def _overtaken(self, error: Fenced) -> None:
        log.warning("%s", error)
        with self._changed:
            self._held = True
            self._set_health(FAILING, error)
        reason = "another writer continued the archive in the bucket"
        self._mailbox.report(Incident(Cause.OVERTAKEN, reason, error=error))

    def _attempt(self, record: SegmentRecord) -> None:
        budget = self.watermark.state.budget
        self.watermark.change(budget=budget.spend(time.monotonic()))
        try:
            if self._appender.stale and not self._look():
                return
            if not self._appender.append(record):
                self._lost()
                return
            done = self._cache.uploaded(record.first_txid, clock.now_ms())
        except Fenced as error:
            log.error("%s", error)
            self.end(error)
        except Cancelled:
            pass  # the segment is confirmed by its next append, which finds it at its key
        except ReplicatorError as error:
            if isinstance(error, DamageError):
                reason = "a segment in the cache was damaged"
                self._mailbox.report(Incident(Cause.SEGMENT_DAMAGED, reason, record.first_txid))
            self._later(record, error)
        else:
            if done is not None:
                self._acknowledged(record)

    def _works(self) -> None:
        if self.health.error is not None:
            log.warning("%s answers again", self._store.url)
        self._mailbox.events.works(STORE_FAILING, "store_answers")
        self._set_health(WORKING)

    def _acknowledged(self, record: SegmentRecord) -> None:
        self._works()
        self._metrics.add("uploaded_objects")
        self._metrics.add("uploaded_bytes", record.size)
        self._metrics.set("last_upload_ms", clock.now_ms())
        self.watermark.change(durable_txid=record.last_txid)
        log.debug("txid %d is durable", record.last_txid)
        self._cache.trim(self._limits.keep_bytes)

    def _later(self, record: SegmentRecord, error: ReplicatorError) -> None:
        """Record the reason in the ledger, and wait."""
        attempts = record.delivery.attempts
        try:
            self._cache.failed(record.first_txid, str(error), clock.now_ms())
        except ReplicatorError as trouble:  # the ledger's disk fails too
            log.warning("the failure could not be recorded: %s", trouble)
        self._fail(error, attempts)
        self._metrics.add("failed_uploads")  # only now, because the status has to show the reason
        self._rest(error, attempts)

    def _fail(self, error: ReplicatorError, attempt: int) -> None:
        """Report it; log the first attempt that failed, and each doubling of their number."""
        if self.health.error is None or attempt & (attempt - 1) == 0:
            log.warning("%s: attempt %d failed: %s", self._store.url, attempt, error)
        self._set_health(FAILING, error)
        self._mailbox.report(Incident(Cause.UPLOAD_FAILED, error=error))

    def _rest(self, error: ReplicatorError, attempt: int) -> None:
        """Wait with full jitter."""
        transient = isinstance(error, StoreUnavailable)
        policy = self._limits.transient if transient else self._limits.refused
        self._pause(backoff(attempt, policy, random.random))

    def _pause(self, seconds: float) -> bool:
        """Waits; True if the work under way has to end."""
        with self._changed:
            return self._changed.wait_for(lambda: self._interrupted, seconds)

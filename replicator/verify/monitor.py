"""The monitor of a running replicator: it drills on time, and keeps the newest transaction
restorable.

One task, which rests unless a drill is due or damage is suspected. A drill is a restore to a
scratch directory, read slowly; an idle database whose newest transaction is proved needs none.

Owns: that task, and the newest proof. Refuses: to repair; ``repair.py`` does, on suspicion or after
a failed drill.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from replicator.archive.keys import Keys
from replicator.archive.records import (
    PROVEN,
    ProofRecord,
    latest,
    list_records,
    unresolved_failure,
)
from replicator.errors import Cancelled, ReplicatorError
from replicator.metrics import Metrics
from replicator.model import Health, Repair
from replicator.sqlite.connect import Prepare, unprepared
from replicator.sqlite.isolated import SqlLimits
from replicator.store.bandwidth import ThrottledStore
from replicator.store.base import Store
from replicator.store.retry import (
    BACKGROUND_RETRY,
    MONITOR_RETRIES,
    Clock,
    RetryingStore,
    RetryPolicy,
)
from replicator.system import clock
from replicator.system.files import Files
from replicator.system.mailbox import Mailbox
from replicator.system.scheduler import Scheduler, Task
from replicator.system.scratch import discard
from replicator.upload.watermark import Watermark
from replicator.verify.drill import drill
from replicator.verify.repair import UNRESTORABLE, Repairs

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillRule:
    """The interval and the speed of drills. Times are seconds."""

    interval: float = 0.0  # between two drills; 0: none
    bandwidth: int = 0  # bytes a second; 0: any
    again: float = BACKGROUND_RETRY  # until failed work runs again
    retries: RetryPolicy = MONITOR_RETRIES
    prepare: Prepare = unprepared  # registers what the schema needs


class Monitor:
    """Start it once; stop ends its work. Any thread may call the other methods."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        watermark: Watermark,
        mailbox: Mailbox,
        metrics: Metrics,
        rule: DrillRule,
        scheduler: Scheduler,
        *,
        scratch: Path,
        files: Files,
    ) -> None:
        """``scratch`` is a directory of the monitor's own, emptied at the start; ``scheduler`` runs
        its task."""
        self._keys = keys
        self._watermark = watermark
        self._metrics = metrics
        self._rule = rule
        self._scratch = scratch
        self._files = files
        self._stopping = threading.Event()
        self._events = mailbox.events
        self._store = self._patient(ThrottledStore(store, 0, self._stopping))
        self._slow = self._patient(ThrottledStore(store, rule.bandwidth, self._stopping))
        self._repairs = Repairs(self._store, keys, watermark, mailbox, metrics, self._stopping)
        self._lock = threading.Lock()
        self._asked: list[Future[Repair]] = []
        self._suspicion = ""  # the reason to verify the newest transaction, "" for none
        self._not_before = 0.0  # monotonic: no drill until then
        self._records_read = False
        self._scheduler = scheduler
        self._task: Task | None = None
        self.proven: ProofRecord | None = None

    @property
    def health(self) -> Health:
        """Whether the newest transaction can be restored."""
        return self._repairs.health

    def _patient(self, store: Store) -> Store:
        def sleep(seconds: float) -> None:
            if self._stopping.wait(seconds):
                raise Cancelled("given up, because the replicator stops")

        return RetryingStore(store, self._rule.retries, Clock(sleep=sleep))

    def start(self) -> None:
        discard(self._scratch)  # leftovers of a kill
        self._task = self._scheduler.add(self._turn)

    def stop(self) -> None:
        self._stopping.set()
        if self._task is not None:
            self._task.stop()
        self._refuse(Cancelled("the replicator stopped"))

    def suspect(self, reason: str) -> Future[Repair]:
        """Verify the newest transaction, and repair the archive until it can be restored. Resolves
        once that is proved, or to the error."""
        request: Future[Repair] = Future()
        with self._lock:
            self._asked.append(request)
            self._suspicion = reason
        if self._stopping.is_set():
            self._refuse(Cancelled("the replicator stopped"))
        self._wake()
        return request

    def read_records(self) -> None:
        """Another program added proof records: read them."""
        self._records_read = False
        self._wake()

    def _wake(self) -> None:
        if self._task is not None:
            self._task.wake()

    # ------------------------------------------------------------------------------ the task

    def _turn(self) -> float | None:
        """Does all due work. Returns the seconds until the next turn; None: until it is woken."""
        try:
            self._round()
            return self._pause()
        except ReplicatorError as error:
            if not self._stopping.is_set():
                log.warning("%s; the monitor tries again in %.0f s", error, self._rule.again)
            self._refuse(error)
        except Exception as error:
            log.exception("unexpected error in the monitor (bug)")
            text = f"unexpected error in the monitor (bug): {error!r}"
            self._refuse(ReplicatorError(text, code="defect"))
        return self._rule.again

    def _round(self) -> None:
        """All work that is due."""
        self._learn()
        while self._suspicion and self._watermark.txid:
            self._repair(self._suspicion)
        if self._drill_due():
            self._drill()

    def _pause(self) -> float | None:
        """Seconds until the next turn; None: until it is woken."""
        rule = self._rule
        waits = [rule.again] if self._suspicion else []
        waits += [min(rule.again, rule.interval)] if rule.interval else []
        return min(waits, default=None)

    def _learn(self) -> None:
        """Read the proof records once, and again after :meth:`read_records`: the newest proof, and
        any damage that was found."""
        if self._records_read:
            return
        self._records_read = True
        try:
            found = list_records(self._store, self._keys)
        except BaseException:
            self._records_read = False
            raise
        self._prove(latest(found, PROVEN))
        failure = unresolved_failure(found)
        if failure is not None:
            self._suspicion = self._suspicion or f"{failure.key} reports damage"

    def _prove(self, proof: ProofRecord | None) -> None:
        if proof is not None and (self.proven is None or proof.at_ms > self.proven.at_ms):
            self.proven = proof
            self._metrics.set("last_verified_ms", proof.at_ms)
            self._metrics.set("last_verified_txid", proof.txid)

    # ------------------------------------------------------------------------------ drills

    def _drill_due(self) -> bool:
        txid = self._watermark.txid
        if not self._rule.interval or not txid or time.monotonic() < self._not_before:
            return False
        if self.proven is None or self.health.error is not None:
            return True
        age = clock.now_ms() - self.proven.at_ms
        return txid != self.proven.txid and age >= self._rule.interval * 1000

    def _drill(self) -> None:
        self._not_before = time.monotonic() + min(self._rule.interval, self._rule.again)
        self._metrics.add("drills")
        try:
            self._files.mkdir(self._scratch)
            report = drill(
                self._slow,
                self._keys.prefix,
                scratch=self._scratch,
                files=self._files,
                recorder=self._store,
                sql=SqlLimits(cancelled=self._stopping.is_set),
                prepare=self._rule.prepare,
            )
        except UNRESTORABLE as error:
            self._failed(error)
            log.error("the drill failed: %s", error)
            self._repair(f"a drill failed: {error}")
            return
        except ReplicatorError as error:
            self._failed(error)
            self._not_before = time.monotonic() + self._rule.interval
            raise
        self._repairs.found(None)
        self._prove(ProofRecord(report.recorded or "", report.at_ms, PROVEN, report.restore.txid))
        self._events.add("drill_passed", txid=report.restore.txid)
        for reason in report.inconclusive:
            log.warning("the drill is exact to the byte, but inconclusive: %s", reason)
        log.info(
            "proven: transaction %d can be restored, %.1f s", report.restore.txid, report.seconds
        )

    def _failed(self, error: ReplicatorError) -> None:
        self._metrics.add("failed_drills")
        if not isinstance(error, Cancelled):
            self._events.add("drill_failed", str(error), code=error.code)

    # ------------------------------------------------------------------------------ repair

    def _repair(self, reason: str) -> None:
        """Requests that come during the repair wait for the next one, because this one's proof may
        be older than their suspicion."""
        with self._lock:
            asked, self._asked, self._suspicion = self._asked, [], ""
        try:
            repair = self._repairs.repair(reason)
        except BaseException:
            with self._lock:
                self._asked[:0] = asked
                self._suspicion = self._suspicion or reason
            raise
        for request in asked:
            request.set_result(repair)

    def _refuse(self, error: ReplicatorError) -> None:
        with self._lock:
            asked, self._asked = self._asked, []
        for request in asked:
            request.set_exception(error)

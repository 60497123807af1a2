"""The guard of a running replicator: it proves on time, and keeps *now* restorable.

One task, which rests unless a drill is due or somebody suspects something. A drill is a
restore to scratch, read slowly; an idle database whose newest transaction is proven is left in
peace. When the present cannot be restored, the guard has a snapshot taken, and if that does not
do, a new generation begun; it believes neither until every byte was read back.

Owns: that task, the newest proof, and the trouble nobody could mend. Refuses: to touch the
database or its log, which it asks others to do through :class:`Levers`.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from replicator.archive.keys import Keys
from replicator.archive.records import (
    PROVEN,
    REPAIRED,
    ProofRecord,
    add_record,
    latest,
    list_records,
    unresolved_failure,
)
from replicator.errors import (
    Cancelled,
    DamageError,
    GapError,
    NoBackup,
    ObjectMissing,
    ReplicatorError,
)
from replicator.metrics import Metrics
from replicator.model import Repair
from replicator.store.bandwidth import ThrottledStore
from replicator.store.base import Store
from replicator.store.retry import BACKGROUND_RETRY, MONITOR_RETRIES, Clock, RetryingStore
from replicator.system import clock
from replicator.system.files import Files
from replicator.system.scheduler import Scheduler, Task
from replicator.verify.drill import drill
from replicator.verify.latest import verify_latest

UNRESTORABLE = (DamageError, GapError, NoBackup)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Levers:
    """What the guard may ask of the rest of the replicator. The last two return once it is in
    the store, and raise when the replicator stops."""

    durable_txid: Callable[[], int]
    take_snapshot: Callable[[], int]
    start_over: Callable[[str], int]  # begin a generation, for a reason in words


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the present cannot be restored, as of then (ms)."""

    error: ReplicatorError
    at_ms: int


class Guard:
    """Start it once; stop ends what it does. Everything else may be called from any thread."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        levers: Levers,
        metrics: Metrics,
        *,
        scratch: Path,
        interval: float = 0.0,
        bandwidth: int = 0,
        files: Files | None = None,
        scheduler: Scheduler | None = None,
    ) -> None:
        """``interval`` in seconds, 0: no drills; ``bandwidth`` in bytes a second, 0: any.
        ``scratch`` is a directory of the guard's own, emptied at the start; ``scheduler`` runs it,
        beside those of others, by default in a thread of its own."""
        self._keys = keys
        self._levers = levers
        self._metrics = metrics
        self._scratch = scratch
        self._files = files or Files()
        self._interval = interval
        self._stopping = threading.Event()
        self._store = self._patient(ThrottledStore(store, 0, self._stopping))
        self._slow = self._patient(ThrottledStore(store, bandwidth, self._stopping))
        self._lock = threading.Lock()
        self._asked: list[Future[Repair]] = []
        self._suspicion = ""  # why to look at the present, "" for no reason
        self._not_before = 0.0  # monotonic: no drill until then
        self._read_notes = False
        self._newest = 0  # the transaction that was proved last without a drill
        self._scheduler = scheduler or Scheduler("replicator-guard")
        self._own_scheduler = scheduler is None
        self._task: Task | None = None
        self.proven: ProofRecord | None = None
        self.trouble: Trouble | None = None

    def _patient(self, store: Store) -> Store:
        def sleep(seconds: float) -> None:
            if self._stopping.wait(seconds):
                raise Cancelled("given up, because the replicator stops")

        return RetryingStore(store, MONITOR_RETRIES, Clock(sleep=sleep))

    def start(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)  # what a kill in the middle left
        self._task = self._scheduler.add(self._turn)

    def stop(self) -> None:
        self._stopping.set()
        if self._task is not None:
            self._task.stop()
        if self._own_scheduler:
            self._scheduler.stop()
        self._refuse(Cancelled("the replicator stopped"))

    def suspect(self, reason: str) -> Future[Repair]:
        """Look whether the present can be restored, and see to it that it can; resolves when
        that is proved, or to why not."""
        request: Future[Repair] = Future()
        with self._lock:
            self._asked.append(request)
            self._suspicion = reason
        if self._stopping.is_set():
            self._refuse(Cancelled("the replicator stopped"))
        self._wake()
        return request

    def look_again(self) -> None:
        """Notes were left in the bucket: read them."""
        self._read_notes = False
        self._wake()

    def _wake(self) -> None:
        if self._task is not None:
            self._task.wake()

    # ------------------------------------------------------------------------------ the task

    def _turn(self) -> float | None:
        """Do what is to be done now; seconds until the next look, None: until somebody calls."""
        try:
            self._round()
            return self._pause()
        except ReplicatorError as error:
            if not self._stopping.is_set():
                log.warning("%s; the guard tries again in %.0f s", error, BACKGROUND_RETRY)
            self._refuse(error)
        except Exception as error:
            log.exception("the guard met a defect")
            self._refuse(ReplicatorError(f"defect in the guard: {error!r}"))
        return BACKGROUND_RETRY

    def _round(self) -> None:
        """Whatever is to be done now."""
        self._learn()
        if self._suspicion and self._levers.durable_txid():
            self._repair(self._suspicion)
        if self._drill_due():
            self._drill()

    def _pause(self) -> float | None:
        """Seconds until the next look; None: until somebody calls."""
        waits = [BACKGROUND_RETRY] if self._suspicion else []
        if self._interval:
            waits.append(min(BACKGROUND_RETRY, self._interval))
        return min(waits, default=None)

    def _learn(self) -> None:
        """Read the notes, once unless told: what was proven, whether there is word of damage."""
        if self._read_notes:
            return
        self._read_notes = True
        try:
            found = list_records(self._store, self._keys)
        except BaseException:
            self._read_notes = False
            raise
        self._prove(latest(found, PROVEN))
        trouble = unresolved_failure(found)
        if trouble is not None:
            self._suspicion = self._suspicion or f"{trouble.key} tells of damage"

    def _prove(self, proof: ProofRecord | None) -> None:
        if proof is not None and (self.proven is None or proof.at_ms > self.proven.at_ms):
            self.proven = proof
            self._metrics.set("last_verified_ms", proof.at_ms)
            self._metrics.set("last_verified_txid", proof.txid)

    # ------------------------------------------------------------------------------ drills

    def _drill_due(self) -> bool:
        txid = self._levers.durable_txid()
        if not self._interval or not txid or time.monotonic() < self._not_before:
            return False
        if self.proven is None or self.trouble is not None:
            return True
        age = clock.now_ms() - self.proven.at_ms
        return txid != self.proven.txid and age >= self._interval * 1000

    def _drill(self) -> None:
        self._not_before = time.monotonic() + min(self._interval, BACKGROUND_RETRY)
        self._metrics.add("drills")
        try:
            self._files.mkdir(self._scratch)
            report = drill(
                self._slow,
                self._keys.prefix,
                scratch=self._scratch,
                files=self._files,
                recorder=self._store,
                cancelled=self._stopping.is_set,
            )
        except UNRESTORABLE as error:
            self._metrics.add("failed_drills")
            log.error("the drill failed: %s", error)
            self._repair(f"a drill failed: {error}")
            return
        except ReplicatorError:
            self._metrics.add("failed_drills")
            self._not_before = time.monotonic() + self._interval
            raise
        self.trouble = None
        self._prove(ProofRecord(report.recorded or "", report.at_ms, PROVEN, report.restore.txid))
        log.info(
            "proven: transaction %d can be restored, %.1f s", report.restore.txid, report.seconds
        )

    # ------------------------------------------------------------------------------ repair

    def _repair(self, reason: str) -> None:
        """Prove the present, after as little as it takes."""
        log.info("looking whether the present can be restored: %s", reason)
        done, error = "none", self._present_error()
        for action, act in (
            ("snapshot", self._levers.take_snapshot),
            ("generation", lambda: self._levers.start_over(reason)),
        ):
            if error is None:
                break
            log.warning("the present cannot be restored: %s; making a new %s", error, action)
            act()
            done, error = action, self._present_error()
        self._settle(reason, done, error)

    def _present_error(self) -> ReplicatorError | None:
        """None: it was proved."""
        try:
            self._newest = verify_latest(
                self._store, self._keys.prefix, at_least=self._levers.durable_txid()
            )
        except (*UNRESTORABLE, ObjectMissing) as error:
            self.trouble = Trouble(error, clock.now_ms())
            return error
        self.trouble = None
        return None

    def _settle(self, reason: str, action: str, error: ReplicatorError | None) -> None:
        self._suspicion = "" if error is None else reason
        if error is not None:
            raise error
        if action != "none":
            self._metrics.add("repairs")
        log.info("the present can be restored; done for that: %s", action)
        made = add_record(
            self._store,
            self._keys,
            REPAIRED,
            self._newest,
            clock.now_ms(),
            {"reason": reason, "action": action},
        )
        with self._lock:
            asked, self._asked = self._asked, []
        for request in asked:
            request.set_result(Repair(self._newest, action, reason, made.at_ms))

    def _refuse(self, error: ReplicatorError) -> None:
        with self._lock:
            asked, self._asked = self._asked, []
        for request in asked:
            request.set_exception(error)

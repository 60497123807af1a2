"""Repairs the archive until its newest transaction can be restored.

If it cannot, the repair requests a snapshot, and if that does not help, a new generation; it trusts
neither before it has read every byte back.

Owns: the order of repairs, and whether the newest transaction can be restored. Refuses: to touch
the archive's head; it sends requests to the mailbox of the thread that may.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from concurrent.futures import TimeoutError as FutureTimeout

from replicator.archive.keys import Keys
from replicator.archive.records import REPAIRED, add_record
from replicator.errors import (
    Cancelled,
    DamageError,
    GapError,
    NoBackup,
    NotDurable,
    ObjectMissing,
    ReplicatorError,
)
from replicator.metrics import Metrics
from replicator.model import Cause, Health, Incident, Repair
from replicator.store.base import Store
from replicator.system import clock
from replicator.system.mailbox import Mailbox, Request, Wanted
from replicator.upload.watermark import Watermark
from replicator.verify.latest import verify_latest

POLL = 0.2  # seconds between two checks whether a wait was cancelled
UNRESTORABLE = (DamageError, GapError, NoBackup)

log = logging.getLogger(__name__)


class Repairs:
    """Used by one thread; any thread may read :attr:`health`."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        watermark: Watermark,
        mailbox: Mailbox,
        metrics: Metrics,
        stopping: threading.Event,
    ) -> None:
        self._store = store
        self._keys = keys
        self._watermark = watermark
        self._mailbox = mailbox
        self._metrics = metrics
        self._stopping = stopping
        self._newest = 0  # the transaction that was proved last without a drill
        self.health = Health("restorable")  # or unrestorable

    def repair(self, reason: str) -> Repair:
        """Verifies the newest transaction, after the smallest repair that suffices, and records
        that in the archive. Raises the error that remains after the largest repair."""
        log.info("verifying the newest transaction: %s", reason)
        done, error = "none", self._newest_error()
        for action, wanted in (
            ("snapshot", Wanted.WHOLE_SNAPSHOT),
            ("generation", Wanted.GENERATION),
        ):
            if error is None:
                break
            log.warning(
                "the newest transaction cannot be restored: %s; making a new %s", error, action
            )
            self._wait_durable(self._answer(self._mailbox.ask(wanted, reason)))
            done, error = action, self._newest_error()
        if error is not None:
            raise error
        return self._record(reason, done)

    def _record(self, reason: str, action: str) -> Repair:
        if action != "none":
            self._metrics.add("repairs")
        log.info("the newest transaction can be restored; repair: %s", action)
        notes = {"reason": reason, "action": action}
        made = add_record(self._store, self._keys, REPAIRED, self._newest, clock.now_ms(), notes)
        return Repair(self._newest, action, reason, made.at_ms)

    def found(self, error: ReplicatorError | None) -> None:
        """The newest transaction can be restored, or cannot because of ``error``."""
        state = "restorable" if error is None else "unrestorable"
        self.health = self.health.after(state, error, at_ms=clock.now_ms())
        if error is not None:
            self._mailbox.report(Incident(Cause.UNRESTORABLE, error=error))

    def _newest_error(self) -> ReplicatorError | None:
        """The error that prevents a restore of the newest transaction; None: it was proved."""
        try:
            self._newest = verify_latest(
                self._store, self._keys.prefix, at_least=self._watermark.txid
            )
        except (*UNRESTORABLE, ObjectMissing) as error:
            self.found(error)
            return error
        self.found(None)
        return None

    def _answer(self, request: Request) -> int:
        """The txid of the snapshot, which is in the store then, or of the generation."""
        while not self._stopping.is_set():
            with contextlib.suppress(FutureTimeout):
                return request.result(POLL)
        raise Cancelled("the replicator stops")

    def _wait_durable(self, txid: int) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(NotDurable):
                self._watermark.wait(txid, POLL)
                return
        raise Cancelled("the replicator stops")

"""Marks: the newest state of a running replicator gets a name, and is kept under it.

Owns: the order (durable first, then named), the deadline of both, and the choice of a transaction
that can be restored exactly. Refuses: the objects of a pin; see :mod:`replicator.archive.pins`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

from replicator.archive.index import DIVISIBLE, PinnedPoint
from replicator.archive.keys import Keys
from replicator.archive.pins import pin, unpin
from replicator.archive.point import require_name
from replicator.cache.cache import Cache
from replicator.errors import NotDurable, ReplicatorError, StoreUnavailable
from replicator.model import Position
from replicator.retention.api import is_restorable
from replicator.store.base import Store
from replicator.store.retry import MARK_RETRIES, Clock, RetryingStore
from replicator.system import clock
from replicator.upload.watermark import Watermark

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Marker:
    """``flush`` makes every commit so far durable until a time (monotonic) and returns the newest
    of them; ``listings`` counts the listings of the pins by the retention; ``pause`` waits, and
    raises once the replicator stops."""

    store: Store
    keys: Keys
    cache: Cache
    watermark: Watermark
    flush: Callable[[float | None], int]
    listings: Callable[[], int]
    pause: Callable[[float], None]

    def mark(self, name: str, until: float | None, *, note: str, move: bool) -> Position:
        """Name the state of a moment during the call: see :meth:`Engine.mark`."""
        require_name(name)
        while True:
            numbering, listings = self.watermark.state.numbering, self.listings()
            position = self._restorable(self.flush(until))
            self._name(PinnedPoint(position.txid, note, name), until, move=move)
            if self.watermark.state.numbering == numbering and (
                self.listings() == listings or is_restorable(self.store, self.keys, position.txid)
            ):
                return position
            move = True  # the name is ours, of a state that is gone or has another number

    def _restorable(self, txid: int) -> Position:
        """``txid``, or the next one at which a restore can stop: a full cache may have squashed
        transactions to one step. It is durable, and was committed during the call."""
        record = self.cache.holding(txid)
        if record is None:
            head = self.cache.head()
            return Position(head.generation if head else "", txid)
        end = txid if record.kind in DIVISIBLE else record.last_txid
        return Position(record.generation, end)

    def _name(self, point: PinnedPoint, until: float | None, *, move: bool) -> None:
        """A name that reaches the store after the deadline is removed again."""

        def work() -> bool:
            store = RetryingStore(self.store, MARK_RETRIES, Clock(sleep=pause))
            return pin(store, self.keys, point, at_ms=clock.now_ms(), move=move)

        def pause(seconds: float) -> None:
            if until is not None and time.monotonic() + seconds > until:
                raise FutureTimeout
            self.pause(seconds)

        def late(created: bool) -> None:
            if created:
                log.warning("%s reached the store too late, and is removed again", point.name)
                unpin(self.store, self.keys, point.name)

        try:
            _within(until, work, late)
        except (StoreUnavailable, FutureTimeout) as error:
            raise NotDurable(
                f"transaction {point.txid} is durable, but did not get the name {point.name} in "
                f"time" + (f": {error}" if str(error) else ""),
                hint="replicator pin lists the names; try again, with --move if it is there",
                txid=point.txid,
                durable_txid=point.txid,
                code="not_named",
            ) from error


def _within(until: float | None, work: Callable[[], bool], late: Callable[[bool], None]) -> None:
    """Do the work in a thread; ``TimeoutError`` at the deadline. ``late`` gets a later result."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            if done.set_running_or_notify_cancel():
                done.set_exception(error)
            return
        if done.set_running_or_notify_cancel():
            done.set_result(None)
            return
        try:
            late(result)
        except ReplicatorError as error:
            log.warning("%s", error)

    threading.Thread(target=run, name="replicator-mark", daemon=True).start()
    try:
        done.result(None if until is None else max(0.0, until - time.monotonic()))
    except FutureTimeout:
        if done.cancel():
            raise
        done.result()

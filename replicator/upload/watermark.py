"""The watermark: the newest transaction that the store acknowledged, with every one before it.

Owns: the state of the upload as a frozen value, and the threads that wait for it to move. Refuses:
to move on its own; only the uploader moves it, and only after an answer of the store.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any

from replicator.errors import NotDurable
from replicator.model import Health
from replicator.upload.budget import UploadBudget

WORKING, FAILING, ENDED = "working", "failing", "ended"  # states of its health
WORKS = Health(WORKING)
NO_WAIT = UploadBudget(interval=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadState:
    """The upload at one instant."""

    durable_txid: int
    numbering: int = 0  # grows when the cache continues another archive: txids mean other things
    idle: bool = True  # no segment waits
    budget: UploadBudget = NO_WAIT  # of appends that serve no flush
    health: Health = WORKS  # its error is why the next transaction is not durable yet
    stopped: bool = False

    @property
    def ended(self) -> bool:
        """True if nothing will be appended from now on."""
        return self.health.state == ENDED


class Watermark:
    """One uploader changes it; any thread may read it and wait."""

    def __init__(self, url: str, durable_txid: int, budget: UploadBudget = NO_WAIT) -> None:
        self._url = url
        self._changed = threading.Condition()
        self._state = UploadState(durable_txid=durable_txid, budget=budget)

    @property
    def state(self) -> UploadState:
        return self._state

    @property
    def txid(self) -> int:
        return self._state.durable_txid

    def change(self, **fields: Any) -> None:
        """Replace fields of the state."""
        with self._changed:
            self._state = replace(self._state, **fields)
            self._changed.notify_all()

    def renumber(self, durable_txid: int) -> None:
        """The cache continues another archive, or another generation of it."""
        with self._changed:
            self.change(durable_txid=durable_txid, numbering=self._state.numbering + 1)

    def wait(self, txid: int, timeout: float | None, numbering: int | None = None) -> bool:
        """Return once ``txid`` is durable; ``NotDurable`` if it is not in time (seconds).

        False: the numbering is no longer the given one, so ``txid`` belongs to an archive that
        this cache does not continue. Raises the error with which the upload ended.
        """

        def renumbered() -> bool:
            return numbering not in (None, self._state.numbering)

        with self._changed:
            in_time = self._changed.wait_for(
                lambda: (
                    renumbered() or self.txid >= txid or self._state.ended or self._state.stopped
                ),
                timeout,
            )
            state, gone = self._state, renumbered()
        if gone or state.durable_txid >= txid:
            return not gone
        if state.ended and state.health.error is not None:
            raise state.health.error
        raise self._not_durable(state, txid, "before the end" if in_time else "in time")

    def _not_durable(self, state: UploadState, txid: int, when: str) -> NotDurable:
        missing = txid - state.durable_txid
        reason = f": {state.health.error}" if state.health.error else ""
        return NotDurable(
            f"{missing} transaction(s) up to txid {txid} did not reach {self._url} {when}{reason}",
            txid=txid,
            durable_txid=state.durable_txid,
            hint="they are safe in the cache directory and will be sent at the next start",
        )

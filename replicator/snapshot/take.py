"""Takes one snapshot: chooses its base, sends it, and publishes it once it may be trusted.

Owns: the gate before publication. A snapshot appears only if its pages are the captured state, and
after the store has every transaction that it contains. Refuses: to decide when.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from replicator.archive.keys import Keys
from replicator.capture.image import Image
from replicator.errors import Cancelled, ChangedOutside, CopyRefused, NotDurable
from replicator.format.object_header import ObjectHeader
from replicator.format.page_hashes import PageHashes
from replicator.model import DatabaseState
from replicator.snapshot.base import BaseFinder, BaseUnusable, SnapshotBase
from replicator.snapshot.limits import SnapshotLimits
from replicator.snapshot.multipart import UploadDiffers
from replicator.snapshot.published import describe
from replicator.snapshot.resume import UploadJournal
from replicator.snapshot.schedule import SnapshotFacts
from replicator.snapshot.stream import SentSnapshot, send_snapshot
from replicator.store.base import Store
from replicator.system import clock
from replicator.upload.watermark import Watermark

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SnapshotTaker:
    """Of the database called ``name``. Used by one thread at a time."""

    name: str
    store: Store
    keys: Keys
    journal: UploadJournal
    bases: BaseFinder
    watermark: Watermark
    limits: SnapshotLimits

    def take(
        self,
        image: Image,
        header: ObjectHeader,
        state: DatabaseState,
        last: SnapshotFacts | None,
        *,
        read: threading.Event,
        cancelled: Callable[[], bool],
    ) -> tuple[SnapshotFacts, SentSnapshot]:
        """Send ``image``, whose pages must be ``state``; copy blocks of the ``last`` snapshot
        inside the store, unless it is None. ``read`` is set once the image was read to its end.
        """

        def gate(hashes: PageHashes) -> None:
            read.set()
            if hashes.state != state:
                raise ChangedOutside(
                    "the database file changed outside its WAL; the snapshot "
                    f"of txid {header.first_txid} was not published"
                )
            self._wait_durable(header.first_txid, cancelled)

        shipped = self._send(image, header, gate, cancelled, self._base(last, header))
        facts = SnapshotFacts(header.first_txid, clock.now_ms(), shipped.summary.size)
        describe(self.store, self.keys, self.name, facts)
        return facts, shipped

    def _base(self, last: SnapshotFacts | None, header: ObjectHeader) -> SnapshotBase | None:
        if last is None:
            return None
        return self.bases.find(self.keys.snapshot(last.txid, header.generation), header.created_ms)

    def _send(
        self,
        image: Image,
        header: ObjectHeader,
        gate: Callable[[PageHashes], None],
        cancelled: Callable[[], bool],
        base: SnapshotBase | None,
    ) -> SentSnapshot:
        earlier = self.journal.find(header.first_txid, header.generation)
        try:
            return send_snapshot(
                image,
                self.store,
                replace(header, created_ms=earlier.created_ms) if earlier else header,
                self.keys.snapshot(header.first_txid, header.generation),
                self.journal,
                limits=self.limits,
                gate=gate,
                cancelled=cancelled,
                base=base,
            )
        except (CopyRefused, UploadDiffers, BaseUnusable) as reason:
            log.info("the snapshot of txid %d starts over: %s", header.first_txid, reason)
            if isinstance(reason, CopyRefused):
                self.bases.refused(reason)
            again = base if isinstance(reason, UploadDiffers) else None
            return self._send(image, header, gate, cancelled, again)

    def _wait_durable(self, txid: int, cancelled: Callable[[], bool]) -> None:
        until = time.monotonic() + self.limits.gate_timeout
        while not cancelled():
            try:
                self.watermark.wait(txid, self.limits.gate_poll)
                return
            except NotDurable:
                if time.monotonic() >= until:
                    raise
        raise Cancelled("the snapshot was cancelled before its transactions were durable")

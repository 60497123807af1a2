"""Begins a generation: its snapshot into the store, then its marker into the cache.

Owns: the order of the two, and the resumption of a snapshot that was interrupted before its
marker. Refuses: to decide that a generation begins.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable
from dataclasses import replace

from replicator.capture.image import Image
from replicator.capture.segmenter import Segmenter
from replicator.capture.tip import Head
from replicator.engine.append import append
from replicator.engine.context import Context
from replicator.engine.evidence import remember
from replicator.engine.incidents import OpenIncidents
from replicator.engine.session import Session
from replicator.engine.sessions import Sessions
from replicator.format.page_hashes import PageHashes
from replicator.model import Cause, Kind
from replicator.snapshot.multipart import UploadDiffers
from replicator.snapshot.published import describe
from replicator.snapshot.schedule import SnapshotFacts
from replicator.snapshot.stream import SentSnapshot, send_snapshot
from replicator.sqlite.live import Hold, LiveDatabase
from replicator.system import clock
from replicator.upload.uploader import Uploader

log = logging.getLogger(__name__)


class Generations:
    """Used by the capture thread alone."""

    def __init__(
        self, context: Context, sessions: Sessions, uploader: Uploader, incidents: OpenIncidents
    ) -> None:
        self._context = context
        self._sessions = sessions
        self._uploader = uploader
        self._incidents = incidents

    def begin(
        self,
        database: LiveDatabase,
        hold: Hold,
        head: Head,
        reason: str,
        cancelled: Callable[[], bool],
    ) -> Session:
        """Begin a generation after ``head`` with the database as it is."""
        context = self._context
        with Image(database, context.limits.capture) as image:
            # Only now: whatever is committed during the check follows the image.
            context.check_store()
            segmenter = self._sessions.segmenter(PageHashes(image.page_size), head)
            self._sessions.journal.sweep()
            sent = self._send_snapshot(image, segmenter, cancelled)
            position = image.position
            remember(context.cache, image)
        context.cache.save_hashes(head.txid + 1, sent.hashes)
        self._uploader.renumbering()
        generation = sent.summary.header.generation
        record = append(
            context.cache,
            segmenter.tip,
            segmenter.generation_marker(generation, sent.hashes, position, reason),
        )
        self._incidents.settle(Cause.ARCHIVE_LOST, Cause.CHANGED_OUTSIDE, Cause.UNRESTORABLE)
        context.metrics.add("generations")
        context.mailbox.events.add("generation", reason, txid=record.last_txid)
        session = self._sessions.open(database, hold, segmenter, position)
        facts = SnapshotFacts(record.last_txid, clock.now_ms(), sent.summary.size)
        describe(context.store, context.keys, context.database.name, facts)
        session.snapshots.took(facts, sent)
        return session

    def _send_snapshot(
        self, image: Image, segmenter: Segmenter, cancelled: Callable[[], bool]
    ) -> SentSnapshot:
        """The snapshot of a new generation, every byte of it sent. Resumes a snapshot whose
        upload was interrupted before its marker was appended, if the database is the same."""
        context, journal = self._context, self._sessions.journal
        txid = segmenter.tip.head.txid + 1
        earlier = journal.find(txid)
        generation = earlier.generation if earlier else new_generation()
        header = segmenter.describe(Kind.SNAPSHOT, generation, txid)
        log.info("generation %s begins at txid %d", generation, txid)
        try:
            return send_snapshot(
                image,
                context.patient,
                replace(header, created_ms=earlier.created_ms) if earlier else header,
                context.keys.snapshot(txid, generation),
                journal,
                limits=context.limits.snapshot,
                gate=lambda _: None,
                cancelled=cancelled,
            )
        except UploadDiffers as reason:
            log.info("the snapshot of txid %d starts over: %s", txid, reason)
            return self._send_snapshot(image, segmenter, cancelled)


def new_generation() -> str:
    """A UUIDv7 (RFC 9562): sorts by the time it was made."""
    stamp = clock.now_ms() << 80
    random = int.from_bytes(os.urandom(10), "big")
    value = stamp | (0x7 << 76) | (random & ((1 << 76) - 1))
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return str(uuid.UUID(int=value))

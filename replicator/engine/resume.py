"""Joins the archive: from an open database and the known facts to a session that follows it.

Owns: the collection of facts for :func:`.decide.decide`, and the way that it chooses. Refuses: to
assume continuity.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from replicator.cache.records import Fact, SegmentRecord
from replicator.capture.image import Image
from replicator.capture.reader import wal_contains
from replicator.capture.segmenter import Segmenter
from replicator.capture.tip import head_of
from replicator.engine.append import append
from replicator.engine.context import Context
from replicator.engine.decide import Decision, Facts, LocalFacts, RemoteFacts, Way, decide
from replicator.engine.generation import Generations
from replicator.engine.incidents import OpenIncidents
from replicator.engine.session import Session
from replicator.engine.sessions import Sessions
from replicator.engine.take_over import TakeOver, head_after, record_of
from replicator.errors import Cancelled, LocalIOError, ObjectMissing
from replicator.format.object_header import ObjectFacts
from replicator.format.page_hashes import PageHashes
from replicator.model import Cause, WalPosition
from replicator.snapshot.published import newest_stored
from replicator.sqlite.live import Hold, LiveDatabase
from replicator.system import clock
from replicator.system.directory import hold_directory
from replicator.system.restore_marker import remove_restore_marker, restored_txid
from replicator.upload.fencing import archive_head, is_same
from replicator.upload.uploader import Uploader

log = logging.getLogger(__name__)

Stop = Callable[[], bool]  # True once the replicator stops


class Resume:
    """Used by the capture thread alone."""

    def __init__(
        self, context: Context, sessions: Sessions, uploader: Uploader, incidents: OpenIncidents
    ) -> None:
        self._context = context
        self._sessions = sessions
        self._uploader = uploader
        self._incidents = incidents
        self._generations = Generations(context, sessions, uploader, incidents)
        self._take_over = TakeOver(context, sessions)

    def join(self, database: LiveDatabase, cancelled: Stop) -> Session:
        """Continue, catch up, or begin a generation. Raises the errors of the store and
        the disk, and ``Fenced`` when another writer owns the archive."""
        context, incidents = self._context, self._incidents
        restored = restored_txid(context.database)
        if restored is not None and not incidents.reason:
            incidents.reason = f"it was restored to txid {restored}"
        session = self._join(database, cancelled)
        self._uploader.announce()
        incidents.reason = ""
        try:
            with hold_directory(context.database.parent, context.files) as place:
                remove_restore_marker(place, context.database.name, context.files)
        except LocalIOError as error:
            log.warning("could not remove the restore marker: %s", error)
        return session

    def _join(self, database: LiveDatabase, cancelled: Stop) -> Session:
        incidents = self._incidents
        damaged = incidents.get(Cause.SEGMENT_DAMAGED)
        if damaged is not None:
            with self._uploader.resting():  # otherwise a dropped segment could still be sent
                self._drop_damaged(damaged.txid or 0)
            incidents.settle(Cause.SEGMENT_DAMAGED)
        record = self._context.cache.head()
        if Cause.TAKE_OVER in incidents.causes:
            return self._by_order(database, record, cancelled)
        if record is None or Cause.OVERTAKEN in incidents.causes:
            return self._by_comparison(database, cancelled)
        return self._with_record(database, record, cancelled)

    def _drop_damaged(self, first_txid: int) -> None:
        """Forgets the waiting segments from the damaged one on. It may be in the store already, if
        only the answer to an attempt was lost; then it is durable. An intact one was captured
        again after an earlier report of the same damage."""
        cache = self._context.cache
        record = next((r for r in cache.pending() if r.first_txid >= first_txid), None)
        if record is None or cache.intact(record):
            return
        if record.delivery.attempts and self._is_stored(record):
            cache.uploading(record.first_txid)
            cache.uploaded(record.first_txid, clock.now_ms())
            self._uploader.reload()
            first_txid = record.last_txid + 1
        cache.drop_pending(first_txid)

    def _is_stored(self, record: SegmentRecord) -> bool:
        try:
            return is_same(self._context.store, record)
        except ObjectMissing:
            return False

    # ------------------------------------------------------------------ with a local record

    def _with_record(
        self, database: LiveDatabase, record: SegmentRecord, cancelled: Stop
    ) -> Session:
        context, incidents = self._context, self._incidents
        hold = database.hold()
        hashes = context.cache.load_hashes(record.last_txid)
        facts = self._local_facts(database, record, hashes)
        decision = self._log(decide(Facts(facts, incidents=incidents.causes)))
        if decision.way is Way.NEW_GENERATION or hashes is None:
            if Cause.ARCHIVE_LOST in incidents.causes:
                context.cache.drop_pending()
            return self._generations.begin(
                database, hold, head_of(record), decision.reason, cancelled
            )
        segmenter = self._sessions.segmenter(hashes, head_of(record))
        position = record.end
        if decision.way is Way.CATCH_UP:
            position = self._catch_up(database, segmenter, decision.reason)
            incidents.settle(Cause.CHANGED_OUTSIDE)
        return self._sessions.open(
            database, hold, segmenter, position, anchored=decision.way is not Way.CONTINUE
        )

    def _local_facts(
        self, database: LiveDatabase, record: SegmentRecord, hashes: PageHashes | None
    ) -> LocalFacts:
        context = self._context
        return LocalFacts(
            same_page_size=database.header().page_size == record.end.page_size,
            same_file=context.cache.get(Fact.DATABASE) == self._sessions.identity_of(database),
            wal_contains_position=wal_contains(database.wal, record.end, context.limits.capture),
            hashes_trusted=hashes is not None,
            claimed=self._take_over.claimed(record.last_txid),
        )

    def _log(self, decision: Decision) -> Decision:
        """The decision, whose reason names what led to it if this is not the first join."""
        reason, why = decision.reason, self._incidents.reason
        if why and decision.way is not Way.CONTINUE:
            reason = f"{reason} ({why})"
        log.info("%s: %s", decision.way.value, reason)
        return replace(decision, reason=reason)

    def _catch_up(self, database: LiveDatabase, segmenter: Segmenter, reason: str) -> WalPosition:
        with Image(database, self._context.limits.capture) as image:
            encoding = segmenter.catch_up(image, reason)
            if encoding is None:
                log.info("nothing changed while no replicator followed the WAL")
            else:
                record = append(self._context.cache, segmenter.tip, encoding)
                log.warning(
                    "%s: caught up with txid %d, %d bytes", reason, record.last_txid, record.size
                )
                self._context.metrics.add("catch_ups")
            return image.position

    # --------------------------------------------------------------- without a local record

    def _by_comparison(self, database: LiveDatabase, cancelled: Stop) -> Session:
        """No local record counts: only a database that equals the head of the archive continues
        it."""
        context, overtaken = self._context, self._incidents.get(Cause.OVERTAKEN)
        hold, found = database.hold(), archive_head(context.store, context.keys)
        with Image(database, context.limits.capture) as image:
            hashes, position = PageHashes(image.page_size), image.position
            if found is not None:
                hashes = hash_image(image, context.limits.session.hash_bytes, cancelled)
        state = hashes.state if found is not None else None
        facts = RemoteFacts(found, hashes.page_size, state)
        decision = self._log(decide(Facts(remote=facts, incidents=self._incidents.causes)))
        if decision.way is Way.REFUSE and overtaken is not None and overtaken.error is not None:
            raise overtaken.error
        if decision.way is Way.CONTINUE and found is not None:
            return self._adopt(database, hold, found, hashes, position)
        if found is not None:
            log.warning(
                "writer %s wrote the archive until now; this database, which differs from it, "
                "continues it with a new generation",
                found.writer,
            )
        return self._generations.begin(
            database, hold, head_after(found), decision.reason, cancelled
        )

    def _adopt(
        self,
        database: LiveDatabase,
        hold: Hold,
        found: ObjectFacts,
        hashes: PageHashes,
        position: WalPosition,
    ) -> Session:
        """Continue an archive that another cache wrote, from a database that equals its head."""
        context = self._context
        self._uploader.renumbering()
        record = context.cache.adopt(record_of(found, context.keys, position))
        context.cache.save_hashes(record.last_txid, hashes)
        self._incidents.settle(Cause.OVERTAKEN)
        snapshot = newest_stored(context.patient, context.keys, found.generation)
        segmenter = self._sessions.segmenter(hashes, head_of(record))
        session = self._sessions.open(database, hold, segmenter, position)
        if snapshot is not None:  # else one would be due at the first commit
            session.snapshots.know(snapshot)
        return session

    def _by_order(
        self, database: LiveDatabase, record: SegmentRecord | None, cancelled: Stop
    ) -> Session:
        """Take the archive over from its writer."""
        head, found, holder = self._take_over.claim(record, cancelled)
        facts = RemoteFacts(found, database.header().page_size, None)
        decision = self._log(decide(Facts(remote=facts, taken_from=holder)))
        session = self._generations.begin(
            database, database.hold(), head, decision.reason, cancelled
        )
        self._incidents.settle(Cause.TAKE_OVER)
        return session


def hash_image(image: Image, chunk_bytes: int, cancelled: Stop) -> PageHashes:
    """The hash of every page of an image, which is read ``chunk_bytes`` at a time."""
    hashes = PageHashes(image.page_size)
    step = max(1, chunk_bytes // image.page_size)
    for first in range(1, image.pages + 1, step):
        if cancelled():
            raise Cancelled("the replicator stops")
        hashes.extend(first, image.read(first, min(step, image.pages + 1 - first)))
    return hashes

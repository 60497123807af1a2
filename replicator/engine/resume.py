"""Joining: from an open database and what is known of it to a session that follows its log."""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from replicator.archive.keys import Keys
from replicator.archive.listing import newest_segment
from replicator.cache.cache import Cache
from replicator.cache.quota import CacheQuota
from replicator.cache.records import Delivery, Fact, SegmentRecord, Status
from replicator.capture.holds import WalHolds
from replicator.capture.image import Image
from replicator.capture.reader import WalReader, no_wal, wal_contains
from replicator.capture.segmenter import EVENTS, Author, Head, Segmenter, head_of
from replicator.config.settings import SqliteReplicatorConfig
from replicator.engine.append import append
from replicator.engine.decide import Decision, Facts, LocalFacts, RemoteFacts, Way, decide, state_of
from replicator.engine.limits import Limits
from replicator.engine.session import Session
from replicator.errors import Cancelled, Fenced, LocalIOError, ObjectMissing
from replicator.format.object_header import ObjectFacts
from replicator.format.page_hashes import PageHashes
from replicator.metrics import Metrics
from replicator.model import DatabaseState, Kind, WalPosition
from replicator.snapshot.base import Sources
from replicator.snapshot.multipart import Differs
from replicator.snapshot.resume import Unfinished
from replicator.snapshot.schedule import SnapshotFacts, Snapshots, describe, newest_stored
from replicator.snapshot.stream import Shipped, ship_snapshot
from replicator.sqlite.live import Hold, LiveDatabase
from replicator.store.base import Store
from replicator.system import clock
from replicator.system.files import Files
from replicator.system.host import process_label
from replicator.system.limiter import CapacityLimiter
from replicator.system.restore_marker import remove_restore_marker, restored_txid
from replicator.upload.fencing import archive_head, author, claim, facts_of
from replicator.upload.store_check import require_conditional_put
from replicator.upload.uploader import Uploader

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Joiner:
    """Everything a session stands on. ``patient`` is ``store`` with retries, for snapshots."""

    config: SqliteReplicatorConfig
    limits: Limits
    store: Store
    patient: Store
    keys: Keys
    cache: Cache
    uploader: Uploader
    metrics: Metrics
    created_by: str
    limiter: CapacityLimiter  # of snapshots beside the capture
    files: Files = field(default_factory=Files)
    damaged_from: int | None = None  # first txid of a cached segment that is not what it was
    remote_lost: bool = False
    overtaken: Fenced | None = None  # the log in the bucket went on without this cache
    unrestorable: bool = False  # the bucket was found unable to give the present back
    distrusted: bool = False  # the file was found to differ from what its log made of it
    because: str = ""  # why the log is joined once more, in words
    take_over: bool = field(init=False)
    room: CacheQuota = field(init=False)
    unfinished: Unfinished = field(init=False)
    sources: Sources = field(init=False)
    _renumbered: bool = False  # the cache may continue another log than the uploader knows

    def __post_init__(self) -> None:
        self.take_over = self.config.take_over
        self.unfinished = Unfinished(self.cache, self.store, self.keys)
        self.sources = Sources(self.patient)
        self.room = CacheQuota(
            self.config, self.cache, self.uploader, self.metrics, self.created_by
        )

    def join(self, database: LiveDatabase, cancelled: Callable[[], bool]) -> Session:
        """Continue, catch up, or start a generation. Raises what the store or disk raises, and
        ``Fenced`` when somebody else holds the log."""
        restored = restored_txid(self.config.database)
        if restored is not None and not self.because:
            self.because = f"it was restored to txid {restored}"
        session = self._join(database, cancelled)
        self._announce()
        self.because = ""
        try:
            remove_restore_marker(self.config.database, self.files)
        except LocalIOError as error:
            log.warning("%s; the next start will speak of that restore again", error)
        return session

    def _join(self, database: LiveDatabase, cancelled: Callable[[], bool]) -> Session:
        if self.damaged_from is not None:
            with self.uploader.resting():  # else what is dropped could still get into the store
                self._drop_damaged(self.damaged_from)
            self.damaged_from = None
        record = self.cache.head()
        if self.take_over:
            return self._take_over(database, record, cancelled)
        if record is None or self.overtaken is not None:
            return self._by_comparison(database, cancelled)
        return self._with_record(database, record, cancelled)

    def _announce(self) -> None:
        """Tell the uploader what was recorded since it looked, also by a join that failed later:
        an attempt to tell it may be what failed."""
        if self._renumbered:
            self.uploader.reload()
            self._renumbered = False
        self.uploader.wake()

    def _drop_damaged(self, first_txid: int) -> None:
        """Forget the waiting segments from ``first_txid`` on; but the first may be in the store
        already, if only the answer to an attempt was lost, and then it is durable."""
        record = next((r for r in self.cache.pending() if r.first_txid >= first_txid), None)
        if record is not None and record.delivery.attempts and self._is_stored(record):
            self.cache.uploading(record.first_txid)
            self.cache.uploaded(record.first_txid, clock.now_ms())
            self.uploader.reload()
            first_txid = record.last_txid + 1
        self.cache.drop_pending(first_txid)

    def _is_stored(self, record: SegmentRecord) -> bool:
        try:
            return self.store.head(record.key).metadata.get("sha256") == record.sha256
        except ObjectMissing:
            return False

    def _with_record(
        self, database: LiveDatabase, record: SegmentRecord, cancelled: Callable[[], bool]
    ) -> Session:
        hold = database.hold()
        hashes = self.cache.load_hashes(record.last_txid)
        decision = self._said(
            decide(
                Facts(
                    LocalFacts(
                        same_page_size=database.header().page_size == record.end.page_size,
                        same_file=self.cache.get(Fact.DATABASE) == _identity(database),
                        wal_contains_position=wal_contains(
                            database.wal, record.end, self.limits.capture
                        ),
                        hashes_trusted=hashes is not None,
                        remote_lost=self.remote_lost,
                        file_trusted=not self.distrusted,
                        restorable=not self.unrestorable,
                        claimed=self._claimed(record.last_txid),
                    )
                )
            )
        )
        if decision.way is Way.NEW_GENERATION or hashes is None:
            if self.remote_lost:
                self.cache.drop_pending()
            return self._begin(database, hold, head_of(record), decision, cancelled)
        segmenter = self._segmenter(hashes, head_of(record))
        position = record.end
        if decision.way is Way.CATCH_UP:
            position = self._catch_up(database, segmenter, decision)
            self.distrusted = False
        return self._session(
            database, hold, segmenter, position, anchored=decision.way is not Way.CONTINUE
        )

    def _said(self, decision: Decision) -> Decision:
        """The decision, in the log, with what led to it if it was not a start."""
        known = decision.way is Way.CONTINUE or not self.because
        reason = decision.reason if known else f"{decision.reason} ({self.because})"
        log.info("%s: %s", decision.way.value, reason)
        return Decision(decision.way, reason)

    def _catch_up(
        self, database: LiveDatabase, segmenter: Segmenter, decision: Decision
    ) -> WalPosition:
        with Image(database, self.limits.capture) as image:
            encoding = segmenter.catch_up(image, decision.reason)
            if encoding is None:
                log.info("nothing changed while nobody followed the log")
            else:
                record = append(self.cache, segmenter, encoding)
                log.warning(
                    "%s: caught up with txid %d, %d bytes",
                    decision.reason,
                    record.last_txid,
                    record.size,
                )
                self.metrics.add("catch_ups")
            return image.position

    def _by_comparison(self, database: LiveDatabase, cancelled: Callable[[], bool]) -> Session:
        """No record counts here: only a database that equals the log's head continues it."""
        hold, head = database.hold(), archive_head(self.store, self.keys)
        with Image(database, self.limits.capture) as image:
            hashes, position = PageHashes(image.page_size), image.position
            if head is not None:
                hashes = hash_image(image, self.limits.session.hash_bytes, cancelled)
        decision = self._said(
            decide(
                Facts(
                    remote=RemoteFacts(
                        head,
                        hashes.page_size,
                        hashes.state if head is not None else None,
                        overtaken=self.overtaken is not None,
                    )
                )
            )
        )
        if decision.way is Way.REFUSE and self.overtaken is not None:
            raise self.overtaken
        if decision.way is Way.CONTINUE and head is not None:
            return self._adopt(database, hold, head, hashes, position)
        if head is not None:
            log.warning(
                "the log was written by writer %s until now, and goes on from here with "
                "another database",
                head.writer,
            )
        return self._begin(database, hold, _after(head), decision, cancelled)

    def _adopt(
        self,
        database: LiveDatabase,
        hold: Hold,
        head: ObjectFacts,
        hashes: PageHashes,
        position: WalPosition,
    ) -> Session:
        """Continue a log that another cache wrote, from a database that equals its head."""
        self._renumbered = True
        record = self.cache.adopt(_record_of(head, self.keys, position))
        self.cache.save_hashes(record.last_txid, hashes)
        self.overtaken = None
        snapshot = newest_stored(self.patient, self.keys, head.generation)
        session = self._session(database, hold, self._segmenter(hashes, head_of(record)), position)
        if snapshot is not None:  # else one would be due at the first commit
            session.snapshots.know(snapshot)
        return session

    def _take_over(
        self, database: LiveDatabase, record: SegmentRecord | None, cancelled: Callable[[], bool]
    ) -> Session:
        """Claim the log, so that whoever holds it can append no more; then start over."""
        self._require_trust(anew=True)
        self.cache.drop_pending()
        head, holder = self._claim(cancelled)
        start = _after(head)
        if head is None and record is not None:  # the bucket is empty; no txid is used twice
            start = replace(start, txid=record.last_txid, commit_ms=record.commit_ms)
        decision = self._said(
            decide(
                Facts(
                    taken_from=holder, remote=RemoteFacts(head, database.header().page_size, None)
                )
            )
        )
        session = self._begin(database, database.hold(), start, decision, cancelled)
        self.take_over = False
        return session

    def _claim(self, cancelled: Callable[[], bool]) -> tuple[ObjectFacts | None, str]:
        """The head of the log, which is ours to continue then, and who held it before."""
        while not cancelled():
            entry = newest_segment(self.store, self.keys)
            if entry is None:
                return None, ""
            head = facts_of(self.store, entry)
            if self._claimed(head.last_txid) and head.writer == self.cache.writer:
                return head, "another writer"
            holder = author(self.store, self.store.head(entry.key))
            segmenter = self._segmenter(PageHashes(head.page_size), _after(head))
            claimed = claim(
                self.store,
                self.keys,
                head,
                segmenter.describe(Kind.CATCH_UP, head.generation, head.last_txid + 1),
                segmenter.notes(f"the log is taken over from {holder}"),
            )
            if claimed is not None:
                self.cache.adopt(_record_of(claimed, self.keys, no_wal(head.page_size)))
                self.cache.put(Fact.CLAIM, str(claimed.last_txid))
                return claimed, holder
        raise Cancelled("the replicator stops")

    def _claimed(self, txid: int) -> bool:
        return self.cache.get(Fact.CLAIM) == str(txid)

    def _begin(
        self,
        database: LiveDatabase,
        hold: Hold,
        head: Head,
        decision: Decision,
        cancelled: Callable[[], bool],
    ) -> Session:
        """Start a generation: its snapshot into the store, then its marker into the log."""
        with Image(database, self.limits.capture) as image:
            self._require_trust()  # only now, for what is committed meanwhile follows the image
            segmenter = self._segmenter(PageHashes(image.page_size), head)
            self.unfinished.sweep()
            shipped = self._ship_first(image, segmenter, cancelled)
            hashes, summary = shipped.hashes, shipped.summary
            position = image.position
        self.cache.save_hashes(head.txid + 1, hashes)
        self._renumbered = True
        marker = segmenter.generation_marker(
            summary.header.generation, hashes, position, decision.reason
        )
        record = append(self.cache, segmenter, marker)
        self.remote_lost = self.distrusted = self.unrestorable = False
        self.metrics.add("generations")
        session = self._session(database, hold, segmenter, position)
        facts = SnapshotFacts(record.last_txid, clock.now_ms(), summary.size)
        describe(self.store, self.keys, self.config.database.name, facts)
        session.snapshots.took(facts, shipped)
        return session

    def _ship_first(
        self, image: Image, segmenter: Segmenter, cancelled: Callable[[], bool]
    ) -> Shipped:
        """The snapshot of a new generation, every byte of it sent; of one whose upload was
        interrupted before its marker was appended, if the database is still the same."""
        txid = segmenter.head.txid + 1
        begun = self.unfinished.find(txid)
        generation = begun.generation if begun else new_generation()
        header = segmenter.describe(Kind.SNAPSHOT, generation, txid)
        log.info("generation %s begins at txid %d", generation, txid)
        try:
            return ship_snapshot(
                image,
                self.patient,
                replace(header, created_ms=begun.created_ms) if begun else header,
                self.keys.snapshot(txid, generation),
                self.unfinished,
                limits=self.limits.snapshot,
                gate=lambda _: None,
                cancelled=cancelled,
            )
        except Differs as reason:
            log.info("the snapshot of txid %d starts over: %s", txid, reason)
            return self._ship_first(image, segmenter, cancelled)

    def _require_trust(self, *, anew: bool = False) -> None:
        require_conditional_put(self.config, self.store, self.patient, self.cache, anew=anew)

    def _segmenter(self, hashes: PageHashes, head: Head) -> Segmenter:
        author = Author(self.cache.writer, self.created_by, process_label())
        return Segmenter(
            author, self.keys, hashes, head, self.limits.capture, clock_ms=clock.now_ms
        )

    def _session(
        self,
        database: LiveDatabase,
        hold: Hold,
        segmenter: Segmenter,
        position: WalPosition,
        *,
        anchored: bool = True,
    ) -> Session:
        self._require_trust()
        self.cache.put(Fact.DATABASE, _identity(database))
        reader = WalReader(database.wal, position, self.limits.capture, anchored=anchored)
        holds = WalHolds(database, reader, hold, self.metrics, self.limits.capture)
        snapshots = Snapshots(
            self.config.database.name,
            self.limits.snapshot_rule,
            self.limits.snapshot,
            self.limits.capture,
            self.patient,
            self.keys,
            self.cache,
            self.unfinished,
            self.sources,
            self.uploader,
            self.metrics,
            self.limiter,
        )
        return Session(
            self.limits,
            database,
            reader,
            holds,
            segmenter,
            snapshots,
            self.cache,
            self.room,
            self.uploader,
            self.metrics,
        )


def _after(head: ObjectFacts | None) -> Head:
    """What a new generation follows in a log that ends at ``head``."""
    if head is None:
        return Head("", 0, DatabaseState(0, 0), 0)
    return Head(
        "", head.last_txid, state_of(head), head.last_commit_ms or head.created_ms, _event(head)
    )


def _event(head: ObjectFacts) -> int:
    return head.first_txid if head.kind in EVENTS else head.last_event


def hash_image(image: Image, chunk_bytes: int, cancelled: Callable[[], bool]) -> PageHashes:
    """The hash of every page of an image, which is read ``chunk_bytes`` at a time."""
    hashes = PageHashes(image.page_size)
    step = max(1, chunk_bytes // image.page_size)
    for first in range(1, image.pages + 1, step):
        if cancelled():
            raise Cancelled("the replicator stops")
        hashes.extend(first, image.read(first, min(step, image.pages + 1 - first)))
    return hashes


def new_generation() -> str:
    """A UUIDv7 (RFC 9562): sorts by the time it was made."""
    stamp = (clock.now_ms()) << 80
    random = int.from_bytes(os.urandom(10), "big")
    value = stamp | (0x7 << 76) | (random & ((1 << 76) - 1))
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return str(uuid.UUID(int=value))


def _identity(database: LiveDatabase) -> str:
    return json.dumps(database.identity)


def _record_of(head: ObjectFacts, keys: Keys, end: WalPosition) -> SegmentRecord:
    """The ledger's row for an object that this cache did not write."""
    return SegmentRecord(
        first_txid=head.first_txid,
        last_txid=head.last_txid,
        generation=head.generation,
        kind=head.kind,
        key=keys.wal(head.first_txid),
        size=0,
        raw_bytes=0,
        sha256=head.sha256,
        end=end,
        state=state_of(head),
        checksum_before=head.checksum_before,
        first_commit_ms=head.first_commit_ms or head.created_ms,
        commit_ms=head.last_commit_ms or head.created_ms,
        created_ms=head.created_ms,
        metadata={"last-event": str(head.last_event)},
        delivery=Delivery(status=Status.UPLOADED),
    )

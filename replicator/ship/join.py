"""Joining: from an open database and what is known of it to a session that follows its log."""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ..config import SqliteReplicatorConfig
from ..edge.sqlite import LiveDatabase, Pin
from ..edge.store.base import Store
from ..format.database import PageHashes
from ..format.keys import Keys
from ..format.objects import ObjectFacts
from ..metrics import Metrics
from ..model import DatabaseState, Kind, LogPosition
from .cache import Cache, SegmentRecord, Status
from .cut import Cutter, Head
from .decide import Decision, LocalFacts, Way, decide, decide_without_record, state_of
from .image import Image
from .reader import LogReader, log_holds
from .remote import remote_head
from .session import Session
from .snapshot import Cancelled, ship_snapshot
from .snapshots import SnapshotFacts, Snapshots, describe, newest_stored
from .tail import Follower
from .trust import require_trust
from .upload import Uploader, now_ms

HASH_BYTES = 4 << 20  # one read of the database while its pages are hashed

log = logging.getLogger("replicator")


@dataclass(slots=True)
class Joiner:
    """Everything a session stands on. ``patient`` is ``store`` with retries, for snapshots."""

    config: SqliteReplicatorConfig
    store: Store
    patient: Store
    keys: Keys
    cache: Cache
    uploader: Uploader
    metrics: Metrics
    created_by: str
    damaged_from: int | None = None  # first txid of a cached segment that is not what it was
    remote_lost: bool = False
    distrusted: bool = False  # the file was found to differ from what its log made of it
    take_over: bool = field(init=False)

    def __post_init__(self) -> None:
        self.take_over = self.config.take_over

    def join(self, database: LiveDatabase, cancelled: Callable[[], bool]) -> Session:
        """Continue, catch up, or start a generation. Raises what the store or disk raises."""
        if self.damaged_from is not None:
            self.cache.drop_pending(self.damaged_from)
            self.damaged_from = None
        record = self.cache.head()
        page_size = database.header().page_size
        head = remote_head(self.store, self.keys) if record is None or self.take_over else None
        if self.take_over:
            return self._take_over(database, record, head, cancelled)
        pin = database.pin()
        if record is not None:
            return self._with_record(database, pin, record, cancelled)
        state = self._hash(database, cancelled).state if head is not None else None
        decision = decide_without_record(head, page_size, state)
        if decision.way is Way.CONTINUE and head is not None:
            return self._adopt(database, pin, head, decision, cancelled)
        return self._begin(database, pin, _after(head), decision, cancelled)

    def _with_record(self, database: LiveDatabase, pin: Pin, record: SegmentRecord,
                     cancelled: Callable[[], bool]) -> Session:
        hashes = self.cache.load_hashes(record.last_txid)
        decision = decide(LocalFacts(
            same_page_size=database.header().page_size == record.end.page_size,
            same_file=self.cache.get("database") == _identity(database),
            log_holds_position=log_holds(database.log, record.end),
            hashes_trusted=hashes is not None, remote_lost=self.remote_lost,
            file_trusted=not self.distrusted))
        head = Head(record.generation, record.last_txid, record.state, record.commit_ms)
        if decision.way is Way.NEW_GENERATION or hashes is None:
            if self.remote_lost:
                self.cache.drop_pending()
            return self._begin(database, pin, head, decision, cancelled)
        log.info("%s: %s", decision.way.value, decision.reason)
        cutter = self._cutter(hashes, head)
        position = record.end
        if decision.way is Way.CATCH_UP:
            position = self._catch_up(database, cutter, decision)
            self.distrusted = False
        return self._session(database, pin, cutter, position,
                             anchored=decision.way is not Way.CONTINUE)

    def _catch_up(self, database: LiveDatabase, cutter: Cutter,
                  decision: Decision) -> LogPosition:
        with Image(database) as image:
            record = cutter.catch_up(image)
            if record is None:
                log.info("nothing changed while nobody followed the log")
            else:
                log.warning("%s: caught up with txid %d, %d bytes", decision.reason,
                            record.last_txid, record.size)
                self.metrics.add("catch_ups")
                self.uploader.wake()
            return image.position

    def _adopt(self, database: LiveDatabase, pin: Pin, head: ObjectFacts, decision: Decision,
               cancelled: Callable[[], bool]) -> Session:
        """Continue a log that another cache wrote, from a database that equals its head."""
        with Image(database) as image:
            hashes = hash_image(image, cancelled)
            position = image.position
        if hashes.state != state_of(head):
            changed = Decision(Way.NEW_GENERATION, "the database changed while it was compared")
            return self._begin(database, pin, _after(head), changed, cancelled)
        log.info("continuing the log: %s", decision.reason)
        record = self.cache.adopt(_record_of(head, self.keys, position))
        self.cache.save_hashes(record.last_txid, hashes)
        self.uploader.reload()
        cutter = self._cutter(hashes, Head(record.generation, record.last_txid, record.state,
                                           record.commit_ms))
        snapshot = newest_stored(self.patient, self.keys, head.generation)
        session = self._session(database, pin, cutter, position)
        if snapshot is not None:  # else one would be due at the first commit
            session.snapshots.know(snapshot)
        return session

    def _take_over(self, database: LiveDatabase, record: SegmentRecord | None,
                   head: ObjectFacts | None, cancelled: Callable[[], bool]) -> Session:
        self._require_trust(anew=True)
        self.cache.drop_pending()
        start = _after(head)
        if record is not None:
            start = replace(start, txid=max(start.txid, record.last_txid),
                            commit_ms=max(start.commit_ms, record.commit_ms))
        decision = Decision(Way.NEW_GENERATION, "taken over from another writer")
        session = self._begin(database, database.pin(), start, decision, cancelled)
        self.take_over = False
        return session

    def _begin(self, database: LiveDatabase, pin: Pin, head: Head, decision: Decision,
               cancelled: Callable[[], bool]) -> Session:
        """Start a generation: its snapshot into the store, then its marker into the log."""
        generation, txid = new_generation(), head.txid + 1
        log.info("new generation %s at txid %d: %s", generation, txid, decision.reason)
        with Image(database) as image:
            self._require_trust()  # only now, for what is committed meanwhile follows the image
            cutter = self._cutter(PageHashes(image.page_size), head)
            hashes, summary = ship_snapshot(
                image, self.patient, self.keys.snapshot(txid, generation),
                cutter.describe(Kind.SNAPSHOT, generation, txid),
                level=self.config.compression_level, gate=lambda _: None, cancelled=cancelled)
            position = image.position
        self.cache.save_hashes(txid, hashes)
        record = cutter.mark_generation(generation, hashes, position, decision.reason)
        self.remote_lost = self.distrusted = False
        self.uploader.reload()
        self.uploader.wake()
        self.metrics.add("generations")
        session = self._session(database, pin, cutter, position)
        facts = SnapshotFacts(record.last_txid, now_ms(), summary.size)
        describe(self.store, self.keys, self.config.database.name, facts)
        session.snapshots.took(facts)
        return session

    def _hash(self, database: LiveDatabase, cancelled: Callable[[], bool]) -> PageHashes:
        with Image(database) as image:
            return hash_image(image, cancelled)

    def _require_trust(self, *, anew: bool = False) -> None:
        require_trust(self.config, self.store, self.patient, self.cache, anew=anew)

    def _cutter(self, hashes: PageHashes, head: Head) -> Cutter:
        return Cutter(self.cache, self.keys, hashes, head, level=self.config.compression_level,
                      created_by=self.created_by, clock_ms=now_ms)

    def _session(self, database: LiveDatabase, pin: Pin, cutter: Cutter,
                 position: LogPosition, *, anchored: bool = True) -> Session:
        self._require_trust()
        self.cache.put("database", _identity(database))
        reader = LogReader(database.log, position, anchored=anchored)
        follower = Follower(database, reader, pin, self.metrics)
        snapshots = Snapshots(self.config, self.patient, self.keys, self.cache, self.uploader,
                              self.metrics)
        return Session(self.config, database, reader, follower, cutter, snapshots, self.cache,
                       self.uploader, self.metrics)


def _after(head: ObjectFacts | None) -> Head:
    """What a new generation follows in a log that ends at ``head``."""
    if head is None:
        return Head("", 0, DatabaseState(0, 0), 0)
    return Head("", head.last_txid, state_of(head), head.last_commit_ms or head.created_ms)


def hash_image(image: Image, cancelled: Callable[[], bool]) -> PageHashes:
    """The hash of every page of an image."""
    hashes = PageHashes(image.page_size)
    step = max(1, HASH_BYTES // image.page_size)
    for first in range(1, image.pages + 1, step):
        if cancelled():
            raise Cancelled("the replicator stops")
        hashes.extend(first, image.read(first, min(step, image.pages + 1 - first)))
    return hashes


def new_generation() -> str:
    """A UUIDv7 (RFC 9562): sorts by the time it was made."""
    stamp = (time.time_ns() // 1_000_000) << 80
    random = int.from_bytes(os.urandom(10), "big")
    value = stamp | (0x7 << 76) | (random & ((1 << 76) - 1))
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return str(uuid.UUID(int=value))


def _identity(database: LiveDatabase) -> str:
    return json.dumps(database.identity)


def _record_of(head: ObjectFacts, keys: Keys, end: LogPosition) -> SegmentRecord:
    """The ledger's row for an object that this cache did not write."""
    return SegmentRecord(
        first_txid=head.first_txid, last_txid=head.last_txid, generation=head.generation,
        kind=head.kind, key=keys.wal(head.first_txid), size=0, raw_bytes=0, sha256=head.sha256,
        end=end, state=state_of(head),
        checksum_before=head.checksum_before,
        first_commit_ms=head.first_commit_ms or head.created_ms,
        commit_ms=head.last_commit_ms or head.created_ms, created_ms=head.created_ms,
        status=Status.UPLOADED)

"""Joins the archive: from an open database and the known facts to a session that follows it.

Owns: the collection of facts for :func:`.decide.decide`, and the way that it chooses. Refuses: to
assume continuity.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from replicator.archive.listing import newest_segment
from replicator.cache.records import Fact, SegmentRecord
from replicator.capture.image import Image
from replicator.capture.reader import no_wal
from replicator.capture.segmenter import Segmenter
from replicator.capture.tip import head_of
from replicator.engine.append import append
from replicator.engine.context import Context
from replicator.engine.decide import (
    Decision,
    Facts,
    LocalFacts,
    RemoteFacts,
    Way,
    decide,
    state_of,
)
from replicator.engine.evidence import Evidence, counters_fact, remember
from replicator.engine.generation import Generations
from replicator.engine.incidents import OpenIncidents
from replicator.engine.pinning import pin_before, pin_replaced, pin_state
from replicator.engine.session import Session
from replicator.engine.sessions import Sessions
from replicator.engine.take_over import TakeOver, head_after, record_of
from replicator.errors import (
    Cancelled,
    Fenced,
    LocalIOError,
    ObjectMissing,
    RefusedError,
    ReplicatorError,
)
from replicator.format.object_header import ObjectFacts
from replicator.format.page_hashes import PageHashes
from replicator.model import Cause, Incident, WalPosition
from replicator.recovery.start import Act, Archive, Local, Outcome, decide_start, log_line
from replicator.snapshot.published import newest_stored
from replicator.sqlite.live import Hold, LiveDatabase
from replicator.sqlite.local_file import examine_file
from replicator.system import clock
from replicator.system.directory import hold_directory
from replicator.system.restore_marker import read_restore_marker, remove_restore_marker
from replicator.upload.fencing import (
    archive_head,
    foreign,
    is_same,
    require_key,
    require_sealed,
    seal_fact,
    still_holds,
)
from replicator.upload.uploader import Uploader

log = logging.getLogger(__name__)

Stop = Callable[[], bool]  # True once the replicator stops
# A database with another content than the recorded one, which a user may not have meant.
CHANGED = frozenset({Local.REPLACED, Local.REWRITTEN, Local.DIFFERENT})


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
        self._joined = False  # since the process started
        self._seal_known = False  # whether the archive is sealed
        self.decided = False  # how the database continues the archive

    def join(self, database: LiveDatabase, cancelled: Stop) -> Session:
        """Continue, catch up, or begin a generation. Raises the errors of the store and
        the disk, and ``Fenced`` when another writer owns the archive."""
        context, incidents = self._context, self._incidents
        restored = read_restore_marker(database.path)
        if restored is not None and not incidents.reason:
            incidents.reason = f"it was restored to txid {restored.txid}"
        if not self._joined:
            require_sealed(context.patient, context.keys)
            self._seal_known = context.cache.head() is None or self._require_key(anew=False)
        session = self._join(database, cancelled)
        if self._seal_known:
            self._remember_seal()
        self._joined = True
        self._uploader.announce()
        incidents.reason = ""
        try:
            with hold_directory(database.path.parent, context.files) as place:
                remove_restore_marker(place, database.path.name, context.files)
        except LocalIOError as error:
            log.warning("could not remove the restore marker: %s", error)
        return session

    def _require_key(self, *, anew: bool) -> bool:
        context = self._context
        return require_key(context.store, context.keys, context.cache, anew=anew)

    def _remember_seal(self) -> None:
        """The archive ends with an object of this writer, or of one with the same keys."""
        cache, store = self._context.cache, self._context.store
        fact = seal_fact(store, self._context.keys, sealed=store.integrity is not None)
        if cache.get(Fact.SEALED) != fact:
            cache.put(Fact.SEALED, fact)

    def without_database(self) -> ReplicatorError | None:
        """Asks the archive while there is no database: the reason why a user has to act, None if
        there is none. Raises the errors of the store."""
        context = self._context
        local = Local[examine_file(context.database, context.files).name]
        if context.cache.head() is not None:
            return None  # it was followed here
        found = newest_segment(context.store, context.keys)
        archive = Archive.NONE if found is None else Archive.HISTORY
        outcome = decide_start(local, archive, context.asked)
        log.info("%s", log_line(local, archive, context.asked, outcome))
        if outcome.code == "awaited" or outcome.act is Act.FOLLOW:
            return None
        reason = f"{context.database} is {local.value}; archive: {archive.value}"
        return refused_by(outcome, reason, context.address.url)

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
        facts = self._local_facts(database, record, hashes, cancelled)
        decision = self._log(decide(self._facts(record=facts)))
        if decision.way is Way.REFUSE and decision.outcome is not None:
            if self._passed(record):
                database.release(hold)
                return self._by_comparison(database, cancelled)
            raise refused_by(decision.outcome, decision.reason, context.address.url)
        decision = self._protect(database, decision, record, fresh=facts.fresh)
        if decision.way is Way.NEW_GENERATION or hashes is None:
            self._keep(decision, record, facts)
            if Cause.ARCHIVE_LOST in incidents.causes:
                context.cache.drop_pending()
            return self._generations.begin(
                database, hold, head_of(record), decision.reason, cancelled
            )
        segmenter = self._sessions.segmenter(hashes, head_of(record))
        position = record.end
        if decision.way is Way.CATCH_UP:
            keep = partial(self._keep, decision, record, facts)
            position = self._catch_up(database, segmenter, decision.reason, keep)
            incidents.settle(Cause.CHANGED_OUTSIDE)
        return self._sessions.open(
            database, hold, segmenter, position, anchored=decision.way is not Way.CONTINUE
        )

    def _passed(self, record: SegmentRecord) -> bool:
        """True if another writer continued the archive since this cache followed it. The database
        may then be a restored one, although it differs from the record."""
        found = archive_head(self._context.store, self._context.keys)
        if found is None or found.last_txid <= record.last_txid:
            return False
        self._incidents.add(Incident(Cause.OVERTAKEN, "another writer continued the archive"))
        return True

    def _local_facts(
        self,
        database: LiveDatabase,
        record: SegmentRecord,
        hashes: PageHashes | None,
        cancelled: Stop,
    ) -> LocalFacts:
        context, limits = self._context, self._context.limits
        pages = limits.session.likeness_pages
        evidence = Evidence(database, context.cache, record, hashes, limits.capture, pages)
        return evidence.facts(
            outside=Cause.CHANGED_OUTSIDE in self._incidents.causes,
            claimed=self._take_over.claimed(record.last_txid),
            fresh=self._is_fresh(database, record, cancelled),
        )

    def _is_fresh(self, database: LiveDatabase, record: SegmentRecord, cancelled: Stop) -> bool:
        """True if the database has no table, and is not the recorded state."""
        content = database.content()
        if content.tables or content.pages != record.state.pages:
            return not content.tables
        return self._hash(database, cancelled)[0].state != record.state

    def _facts(self, record: LocalFacts | None = None, remote: RemoteFacts | None = None) -> Facts:
        incidents, asked = self._incidents.causes, self._context.asked
        return Facts(record, remote, incidents=incidents, first=not self._joined, asked=asked)

    def _log(self, decision: Decision) -> Decision:
        """The decision, whose reason names what led to it if this is not the first join."""
        self.decided = decision.way is not Way.REFUSE
        reason, why = decision.reason, self._incidents.reason
        if why and decision.way is not Way.CONTINUE:
            reason = f"{reason} ({why})"
        log.info("%s: %s", decision.way.value, reason)
        if decision.line:
            log.info("%s", decision.line)
        return replace(decision, reason=reason)

    def _protect(
        self,
        database: LiveDatabase,
        decision: Decision,
        before: SegmentRecord | ObjectFacts,
        *,
        fresh: bool,
        always: bool = False,
    ) -> Decision:
        """Pins the state ``before`` if the database shrank since, or ``always``; the reason
        mentions it."""
        if self._joined and decision.way is Way.CONTINUE:
            return decision
        state = before.state if isinstance(before, SegmentRecord) else state_of(before)
        context, txid = self._context, before.last_txid
        if always:
            pin_state(context, txid, decision.reason)
        shrunk = pin_before(context, database, txid, state, fresh=fresh)
        return replace(decision, reason=f"{decision.reason}; {shrunk}") if shrunk else decision

    def _keep(self, decision: Decision, record: SegmentRecord, facts: LocalFacts) -> None:
        """Pins the recorded state if another content takes its place."""
        txid, restored = record.last_txid, facts.restored
        if decision.local in CHANGED and not facts.claimed:
            why = f" ({facts.likeness})" if facts.likeness is not None else ""
            pin_replaced(self._context, txid, f"{decision.reason}{why}")
        elif restored is not None and restored < txid:
            pin_state(self._context, txid, decision.reason)

    def _catch_up(
        self,
        database: LiveDatabase,
        segmenter: Segmenter,
        reason: str,
        keep: Callable[[], None],
    ) -> WalPosition:
        """``keep`` is called before a change is captured."""
        with Image(database, self._context.limits.capture) as image:
            encoding = segmenter.catch_up(image, reason)
            if encoding is None:
                log.info("nothing changed while no replicator followed the WAL")
            else:
                keep()
                record = append(self._context.cache, segmenter.tip, encoding)
                log.warning(
                    "%s: caught up with txid %d, %d bytes", reason, record.last_txid, record.size
                )
                self._context.metrics.add("catch_ups")
            remember(self._context.cache, image)
            return image.position

    # --------------------------------------------------------------- without a local record

    def _by_comparison(self, database: LiveDatabase, cancelled: Stop) -> Session:
        """No local record counts: only a database that equals the head of the archive continues
        it."""
        context = self._context
        hold, found = database.hold(), archive_head(context.store, context.keys)
        if found is None:
            return self._first(database, hold, cancelled)
        self._require_key(anew=True)
        hashes, position = self._hash(database, cancelled)
        facts = self._remote_facts(database, found, hashes)
        decision = self._log(decide(self._facts(remote=facts)))
        if decision.way is Way.REFUSE:
            raise self._refusal(decision, found)
        if decision.way is Way.CONTINUE:
            return self._adopt(database, hold, found, hashes, position)
        unproved = facts.mine and facts.restored is None and not self._joined
        decision = self._protect(database, decision, found, fresh=facts.fresh, always=unproved)
        if context.cache.head() is not None:  # of an archive that another writer continued
            context.cache.adopt(record_of(found, context.keys, no_wal(found.page_size)))
        self._incidents.settle(Cause.OVERTAKEN)
        return self._generations.begin(
            database, hold, head_after(found), decision.reason, cancelled
        )

    def _first(self, database: LiveDatabase, hold: Hold, cancelled: Stop) -> Session:
        """The archive is empty."""
        facts = RemoteFacts(None, database.header().page_size, None)
        decision = self._log(decide(self._facts(remote=facts)))
        if decision.outcome is not None and decision.way is Way.REFUSE:
            raise refused_by(decision.outcome, "there is no archive", self._context.address.url)
        return self._generations.begin(database, hold, head_after(None), decision.reason, cancelled)

    def _hash(self, database: LiveDatabase, cancelled: Stop) -> tuple[PageHashes, WalPosition]:
        """The hash of every page, and the position of that state."""
        with Image(database, self._context.limits.capture) as image:
            size = self._context.limits.session.hash_bytes
            return hash_image(image, size, cancelled), image.position

    def _remote_facts(
        self, database: LiveDatabase, found: ObjectFacts, hashes: PageHashes
    ) -> RemoteFacts:
        return RemoteFacts(
            found,
            hashes.page_size,
            hashes.state,
            mine=found.writer == self._context.cache.writer,
            restored=restored_here(database, found),
            fresh=not database.content().tables,
        )

    def _refusal(self, decision: Decision, head: ObjectFacts) -> ReplicatorError:
        """The error of a start that is refused."""
        context, overtaken = self._context, self._incidents.get(Cause.OVERTAKEN)
        if overtaken is not None and overtaken.error is not None:
            return overtaken.error
        outcome = decision.outcome or Outcome(Act.REFUSE, "refused")
        return foreign(context.store, context.keys, head.first_txid, decision.reason, outcome)

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
        context.cache.put(Fact.COUNTERS, counters_fact(database.header()))
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
        """Take the archive over from its writer, which may be this cache."""
        if record is not None and self._owns_archive():
            return self._by_own_order(database, record, cancelled)
        head, found, holder = self._take_over.claim(record, cancelled)
        facts = RemoteFacts(found, database.header().page_size, None)
        decision = self._log(decide(Facts(remote=facts, taken_from=holder)))
        if found is not None:
            fresh = not database.content().tables
            decision = self._protect(database, decision, found, fresh=fresh)
        session = self._generations.begin(
            database, database.hold(), head, decision.reason, cancelled
        )
        self._incidents.settle(Cause.TAKE_OVER)
        return session

    def _owns_archive(self) -> bool:
        """True if no other writer appended to the archive that the cache continues."""
        try:
            return still_holds(self._context.store, self._context.keys, self._context.cache)
        except Fenced:
            return False

    def _by_own_order(
        self, database: LiveDatabase, record: SegmentRecord, cancelled: Stop
    ) -> Session:
        """The local database is the right one, although it is not the one that was followed. What
        waits in the cache is of the one before, and is appended first."""
        reason = "the local database is the right one, by order"
        decision = self._log(Decision(Way.NEW_GENERATION, reason))
        fresh = not database.content().tables
        decision = self._protect(database, decision, record, fresh=fresh)
        session = self._generations.begin(
            database, database.hold(), head_of(record), decision.reason, cancelled
        )
        self._incidents.settle(Cause.TAKE_OVER)
        return session


def restored_here(database: LiveDatabase, found: ObjectFacts) -> int | None:
    """The txid to which exactly this file was restored, from the archive that ends with ``found``;
    None if it was not, or was replaced since."""
    marker = read_restore_marker(database.path)
    if marker is None or not marker.names(database.identity, database.header().change_counter):
        return None
    other = marker.txid == found.last_txid and marker.state != state_of(found)
    return None if other else marker.txid


def refused_by(outcome: Outcome, reason: str, url: str) -> RefusedError:
    """The error of an outcome of the table of starts."""
    return RefusedError(f"{url}: {reason}", code=outcome.code, hint=outcome.hint)


def hash_image(image: Image, chunk_bytes: int, cancelled: Stop) -> PageHashes:
    """The hash of every page of an image, which is read ``chunk_bytes`` at a time."""
    hashes = PageHashes(image.page_size)
    step = max(1, chunk_bytes // image.page_size)
    for first in range(1, image.pages + 1, step):
        if cancelled():
            raise Cancelled("the replicator stops")
        hashes.extend(first, image.read(first, min(step, image.pages + 1 - first)))
    return hashes

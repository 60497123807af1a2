"""Takes an archive over: claims it, so that its writer can append no more, then starts over.

Owns: the claim, which is one small request and therefore wins even against a writer that never
pauses, and its resumption after an interruption. Refuses: to begin without an order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from replicator.archive.keys import Keys
from replicator.archive.listing import newest_segment
from replicator.cache.records import Delivery, Fact, SegmentRecord, Status
from replicator.capture.reader import no_wal
from replicator.capture.tip import EVENTS, Head
from replicator.engine.context import Context
from replicator.engine.decide import state_of
from replicator.engine.sessions import Sessions
from replicator.errors import Cancelled
from replicator.format.object_header import ObjectFacts
from replicator.format.page_hashes import PageHashes
from replicator.model import DatabaseState, Kind, WalPosition
from replicator.upload.fencing import author, claim, facts_of


class TakeOver:
    """Used by the capture thread alone."""

    def __init__(self, context: Context, sessions: Sessions) -> None:
        self._context = context
        self._sessions = sessions

    def claim(
        self, record: SegmentRecord | None, cancelled: Callable[[], bool]
    ) -> tuple[Head, ObjectFacts | None, str]:
        """The head that a new generation follows, the object at the end of the archive (None: it
        is empty), and the writer that owned it before. ``record`` is the head of the cache."""
        self._context.check_store(anew=True)
        self._context.cache.drop_pending()
        found, holder = self._claim(cancelled)
        head = head_after(found)
        if found is None and record is not None:  # the bucket is empty; no txid is used twice
            head = replace(head, txid=record.last_txid, commit_ms=record.commit_ms)
        return head, found, holder

    def _claim(self, cancelled: Callable[[], bool]) -> tuple[ObjectFacts | None, str]:
        context = self._context
        while not cancelled():
            entry = newest_segment(context.store, context.keys)
            if entry is None:
                return None, ""
            head = facts_of(context.store, entry)
            if self.claimed(head.last_txid) and head.writer == context.cache.writer:
                return head, "another writer"
            holder = author(context.store, context.store.head(entry.key))
            segmenter = self._sessions.segmenter(PageHashes(head.page_size), head_after(head))
            claimed = claim(
                context.store,
                context.keys,
                head,
                segmenter.describe(Kind.CATCH_UP, head.generation, head.last_txid + 1),
                segmenter.notes(f"the archive is taken over from {holder}"),
            )
            if claimed is not None:
                position = no_wal(head.page_size)
                context.cache.adopt(record_of(claimed, context.keys, position))
                context.cache.put(Fact.CLAIM, str(claimed.last_txid))
                return claimed, holder
        raise Cancelled("the replicator stops")

    def claimed(self, txid: int) -> bool:
        """True if this cache claimed the archive at ``txid``."""
        return self._context.cache.get(Fact.CLAIM) == str(txid)


def head_after(found: ObjectFacts | None) -> Head:
    """The head that a new generation follows in an archive that ends with ``found``."""
    if found is None:
        return Head("", 0, DatabaseState(0, 0), 0)
    event = found.first_txid if found.kind in EVENTS else found.last_event
    commit_ms = found.last_commit_ms or found.created_ms
    return Head("", found.last_txid, state_of(found), commit_ms, event)


def record_of(found: ObjectFacts, keys: Keys, end: WalPosition) -> SegmentRecord:
    """The ledger's row for an object that this cache did not write."""
    return SegmentRecord(
        first_txid=found.first_txid,
        last_txid=found.last_txid,
        generation=found.generation,
        kind=found.kind,
        key=keys.wal(found.first_txid),
        size=0,
        raw_bytes=0,
        sha256=found.sha256,
        end=end,
        state=state_of(found),
        checksum_before=found.checksum_before,
        first_commit_ms=found.first_commit_ms or found.created_ms,
        commit_ms=found.last_commit_ms or found.created_ms,
        created_ms=found.created_ms,
        metadata={"last-event": str(found.last_event)},
        delivery=Delivery(status=Status.UPLOADED),
    )

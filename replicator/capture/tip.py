"""The tip of the archive: its newest captured transaction, and the page hashes of that state.

The next object follows it. It moves in one direction: to an object that is durable in the cache.

Owns: the head, its page hashes, and the pages that changed lately. Refuses: to know how an object
is made or stored.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from replicator.cache.records import SegmentRecord
from replicator.capture.limits import CaptureLimits
from replicator.format.buffers import U32
from replicator.format.page_hashes import PageHashes
from replicator.model import DatabaseState, Kind

# Kinds that do not simply continue the archive, transaction by transaction.
EVENTS = frozenset({Kind.CATCH_UP, Kind.GENERATION, Kind.MERGE_NEWEST})


@dataclass(frozen=True, slots=True)
class Head:
    """The newest transaction of the archive, which the next segment continues."""

    generation: str
    txid: int
    state: DatabaseState
    commit_ms: int
    event: int = 0  # txid of the newest catch-up or start of a generation; 0: none is known


def head_of(record: SegmentRecord) -> Head:
    """The head of an archive whose newest segment is ``record``."""
    known = record.metadata.get("last-event") or "0"
    event = record.first_txid if record.kind in EVENTS else int(known)
    return Head(record.generation, record.last_txid, record.state, record.commit_ms, event)


class Tip:
    """Used by the capture thread alone."""

    def __init__(self, hashes: PageHashes, head: Head, limits: CaptureLimits) -> None:
        self._of_segment = limits.keep_of_segment
        self.changed: deque[int] = deque(maxlen=limits.keep_changed)  # pages, newest last
        self.hashes = hashes
        self.head = head

    def move(self, record: SegmentRecord, hashes: PageHashes, pgnos: U32) -> None:
        """Moves to an object that is durable: its page hashes, and the pages with a new image."""
        self.hashes = hashes
        self.head = head_of(record)
        if record.kind is Kind.SEGMENT:
            self.changed.extend(pgnos[-self._of_segment :].tolist())

"""Whether the local database continues the log: the decision. Pure; reasons are words.

Continuity is proved, never assumed: the same log file still holds the frame that was captured
last; or the known hash of every page tells which pages differ; or a new generation starts. Where
somebody else wrote to the log in the bucket, or nothing is known here, only a database that
equals the log's head page by page goes on.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from replicator.format.object_header import ObjectFacts
from replicator.model import DatabaseState


class Way(enum.Enum):
    CONTINUE = "continue"  # the next frame follows the captured one, or the log's head
    CATCH_UP = "catch up"  # the pages that differ bridge the gap
    NEW_GENERATION = "new generation"  # a snapshot starts over
    REFUSE = "refuse"  # somebody must say which database is the right one


@dataclass(frozen=True, slots=True)
class Decision:
    way: Way
    reason: str


@dataclass(frozen=True, slots=True)
class LocalFacts:
    """What is known here when a database with a recorded position is opened."""

    same_page_size: bool
    same_file: bool  # device and inode are the recorded ones
    wal_contains_position: bool  # the frame captured last is in the log, unchanged
    hashes_trusted: bool  # page hashes are there and agree with the record
    remote_lost: bool = False  # the store no longer has what it acknowledged
    file_trusted: bool = True  # not found to differ from what its log made of it
    restorable: bool = True  # not found that the bucket cannot give the present back
    claimed: bool = False  # the record is the first step of a take-over that did not end


@dataclass(frozen=True, slots=True)
class RemoteFacts:
    """The log in the bucket, asked where no record counts; ``state`` is the local database's,
    None where there is nothing to compare it with."""

    head: ObjectFacts | None
    page_size: int
    state: DatabaseState | None
    overtaken: bool = False  # the record here is older than what another writer appended


@dataclass(frozen=True, slots=True)
class Facts:
    """All there is to go by: the record, or in its stead the log, or an order."""

    record: LocalFacts | None = None
    remote: RemoteFacts | None = None
    taken_from: str = ""  # who held the log that is to be taken over


def decide(facts: Facts) -> Decision:
    """How the log goes on. What the log in the bucket says counts for more than the record."""
    if facts.taken_from:
        return Decision(Way.NEW_GENERATION, f"taken over from {facts.taken_from}")
    if facts.remote is not None:
        return _by_comparison(facts.remote)
    if facts.record is None:
        return Decision(Way.NEW_GENERATION, "nothing is known")
    return _by_record(facts.record)


def _by_record(facts: LocalFacts) -> Decision:
    if facts.remote_lost:
        return Decision(Way.NEW_GENERATION, "the bucket no longer holds the log")
    if facts.claimed:
        return Decision(Way.NEW_GENERATION, "a take-over that was interrupted goes on")
    if not facts.restorable:
        return Decision(Way.NEW_GENERATION, "the bucket could not give the database back")
    if not facts.same_page_size:
        return Decision(Way.NEW_GENERATION, "the page size changed")
    if not facts.hashes_trusted:
        return Decision(Way.NEW_GENERATION, "the page hashes were lost")
    if not facts.file_trusted:
        return Decision(Way.CATCH_UP, "the database file was changed outside its log")
    if facts.same_file and facts.wal_contains_position:
        return Decision(Way.CONTINUE, "the log still holds the captured position")
    if not facts.same_file:
        return Decision(Way.CATCH_UP, "the database file is another one")
    return Decision(Way.CATCH_UP, "the log was reset while nobody followed it")


def _by_comparison(facts: RemoteFacts) -> Decision:
    head = facts.head
    if head is None:
        return Decision(Way.NEW_GENERATION, "the first start")
    place = f"the log's head, txid {head.last_txid}"
    if facts.page_size == head.page_size and facts.state == state_of(head):
        return Decision(Way.CONTINUE, f"the database equals {place}")
    if facts.overtaken:
        return Decision(Way.REFUSE, f"another writer appended; the database differs from {place}")
    return Decision(Way.NEW_GENERATION, f"no local record; the database differs from {place}")


def state_of(facts: ObjectFacts) -> DatabaseState:
    """The database after the object's last transaction."""
    return DatabaseState(facts.pages, facts.checksum_after)

"""Decides how the local database continues the archive. Pure; every decision has a reason.

Continuity is proved, never assumed: the WAL still contains the last captured frame, unchanged; or
the known hash of every page shows which pages differ; or a new generation begins. If another
writer appended, or this cache has no record, only a database that equals the head of the archive,
page by page, continues it.

Owns: the order in which facts and incidents count. Refuses: to ask for a fact.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from replicator.format.object_header import ObjectFacts
from replicator.model import Cause, DatabaseState


class Way(enum.Enum):
    CONTINUE = "continue"  # the next frame follows the captured one, or the archive's head
    CATCH_UP = "catch up"  # the pages that differ bridge the gap
    NEW_GENERATION = "new generation"  # a snapshot starts over
    REFUSE = "refuse"  # a user has to choose the right database


@dataclass(frozen=True, slots=True)
class Decision:
    way: Way
    reason: str


@dataclass(frozen=True, slots=True)
class LocalFacts:
    """The local database, compared with the recorded position."""

    same_page_size: bool
    same_file: bool  # device and inode are the recorded ones
    wal_contains_position: bool  # the WAL contains the last captured frame, unchanged
    hashes_trusted: bool  # page hashes exist and agree with the record
    claimed: bool = False  # the record is the first step of a take-over that did not end


@dataclass(frozen=True, slots=True)
class RemoteFacts:
    """The archive, asked where no record counts; ``state`` is the local database's, None if there
    is nothing to compare it with."""

    head: ObjectFacts | None
    page_size: int
    state: DatabaseState | None


@dataclass(frozen=True, slots=True)
class Facts:
    """The cache's record, or the archive's if the cache has none, or the order to take over; with
    the causes of the open incidents."""

    record: LocalFacts | None = None
    remote: RemoteFacts | None = None
    taken_from: str = ""  # the writer that owned the archive before the ordered take-over
    incidents: frozenset[Cause] = frozenset()


def decide(facts: Facts) -> Decision:
    """Decides how to continue. The archive counts for more than the record, an order for more than
    both."""
    if facts.taken_from:
        return Decision(Way.NEW_GENERATION, f"taken over from {facts.taken_from}")
    if facts.remote is not None:
        return _by_comparison(facts.remote, overtaken=Cause.OVERTAKEN in facts.incidents)
    if facts.record is None:
        return Decision(Way.NEW_GENERATION, "nothing is known")
    return _by_record(facts.record, facts.incidents)


def _by_record(facts: LocalFacts, incidents: frozenset[Cause]) -> Decision:
    if Cause.ARCHIVE_LOST in incidents:
        return Decision(Way.NEW_GENERATION, "the bucket no longer holds the archive")
    if facts.claimed:
        return Decision(Way.NEW_GENERATION, "an interrupted take-over continues")
    if Cause.UNRESTORABLE in incidents:
        return Decision(Way.NEW_GENERATION, "the archive could not restore the database")
    if not facts.same_page_size:
        return Decision(Way.NEW_GENERATION, "the page size changed")
    if not facts.hashes_trusted:
        return Decision(Way.NEW_GENERATION, "the page hashes were lost")
    if Cause.CHANGED_OUTSIDE in incidents:
        return Decision(Way.CATCH_UP, "the database file was changed outside its WAL")
    if facts.same_file and facts.wal_contains_position:
        return Decision(Way.CONTINUE, "the WAL still contains the captured position")
    if not facts.same_file:
        return Decision(Way.CATCH_UP, "the database file was replaced")
    return Decision(Way.CATCH_UP, "the WAL was reset while no replicator followed it")


def _by_comparison(facts: RemoteFacts, *, overtaken: bool) -> Decision:
    head = facts.head
    if head is None:
        return Decision(Way.NEW_GENERATION, "the first start")
    place = f"the head of the archive, txid {head.last_txid}"
    if facts.page_size == head.page_size and facts.state == state_of(head):
        return Decision(Way.CONTINUE, f"the database equals {place}")
    if overtaken:
        return Decision(Way.REFUSE, f"another writer appended; the database differs from {place}")
    return Decision(Way.NEW_GENERATION, f"no local record; the database differs from {place}")


def state_of(facts: ObjectFacts) -> DatabaseState:
    """The database after the object's last transaction."""
    return DatabaseState(facts.pages, facts.checksum_after)

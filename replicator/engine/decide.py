"""Decides how the local database continues the archive. Pure; every decision has a reason.

Continuity is proved, never assumed: the WAL still contains the last captured frame, unchanged; or
the known hash of every page shows which pages differ; or a new generation begins. A start on
another file than the one that was followed continues only if most of its pages are the known ones.
If another writer appended, or this cache has no record, a database continues the archive only if it
equals the head, page by page; or if it was restored from the head and written since; or if this
very cache wrote the head. Every other database is refused by the table of starts.

Owns: the order in which facts and incidents count. Refuses: to ask for a fact.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from replicator.format.object_header import ObjectFacts
from replicator.model import Cause, DatabaseState
from replicator.recovery.start import (
    PLAIN_RUN,
    Act,
    Archive,
    Asked,
    Local,
    Outcome,
    decide_start,
    log_line,
)

TELLING = 16  # pages; of fewer, most change between two runs of a replicator


class Way(enum.Enum):
    CONTINUE = "continue"  # the next frame follows the captured one, or the archive's head
    CATCH_UP = "catch up"  # the pages that differ bridge the gap
    NEW_GENERATION = "new generation"  # a snapshot starts over
    REFUSE = "refuse"  # a user has to choose the right database


@dataclass(frozen=True, slots=True)
class Decision:
    """``outcome`` is that of the table of starts, if it was asked; ``line`` are its inputs.
    ``local`` is the database as it compares with the cache's record, if there is one."""

    way: Way
    reason: str
    outcome: Outcome | None = None
    line: str = ""
    local: Local | None = None


@dataclass(frozen=True, slots=True)
class Likeness:
    """A comparison of pages with their known hashes."""

    compared: int
    differing: int

    @property
    def other(self) -> bool:
        """True if most of the pages differ, or there is none to compare."""
        return 2 * self.differing > self.compared or not self.compared

    def __str__(self) -> str:
        return f"{self.differing:,} of {self.compared:,} compared pages differ"


@dataclass(frozen=True, slots=True)
class LocalFacts:
    """The local database, compared with the recorded position."""

    same_page_size: bool
    same_file: bool  # device and inode are the recorded ones
    wal_contains_position: bool  # the WAL contains the last captured frame, unchanged
    hashes_trusted: bool  # page hashes exist and agree with the record
    claimed: bool = False  # the record is the first step of a take-over that did not end
    fresh: bool = False  # it has no table, and the recorded state was another one
    same_birth: bool = False  # it was made at the recorded time
    went_back: bool = False  # a counter in its header is lower than the recorded one
    restored: int | None = None  # the txid to which exactly this file was restored
    likeness: Likeness | None = None  # None if the WAL proves the position, or without hashes

    @property
    def proved(self) -> bool:
        """True if the WAL itself leads from the record to the database."""
        return self.same_file and self.wal_contains_position

    @property
    def followed(self) -> bool:
        """True if it is the file of the record, or was restored from its archive. A file that is
        known for certain may have gone back: a power cut takes the newest commits from it."""
        certain = self.same_file and (self.same_birth or not self.went_back)
        return self.restored is not None or certain


@dataclass(frozen=True, slots=True)
class RemoteFacts:
    """The archive, asked where no record counts; ``state`` is the local database's, None if there
    is nothing to compare it with."""

    head: ObjectFacts | None
    page_size: int
    state: DatabaseState | None
    mine: bool = False  # this cache wrote the head, and lost its records since
    restored: int | None = None  # the txid to which exactly this file was restored
    fresh: bool = False  # the database has no table


@dataclass(frozen=True, slots=True)
class Facts:
    """The cache's record, or the archive's if the cache has none, or the order to take over; with
    the causes of the open incidents."""

    record: LocalFacts | None = None
    remote: RemoteFacts | None = None
    taken_from: str = ""  # the writer that owned the archive before the ordered take-over
    incidents: frozenset[Cause] = frozenset()
    first: bool = False  # the first join since the process started
    asked: Asked = PLAIN_RUN


def decide(facts: Facts) -> Decision:
    """Decides how to continue. The archive counts for more than the record, an order for more than
    both."""
    if facts.taken_from:
        return Decision(Way.NEW_GENERATION, f"taken over from {facts.taken_from}")
    if facts.remote is not None:
        overtaken = Cause.OVERTAKEN in facts.incidents
        return _by_comparison(facts.remote, facts.asked, overtaken=overtaken)
    if facts.record is None:
        return Decision(Way.NEW_GENERATION, "nothing is known")
    outside = Cause.CHANGED_OUTSIDE in facts.incidents
    local = continued(facts.record, outside=outside)
    if not facts.first:
        return replace(_by_record(facts.record, facts.incidents), local=local)
    if facts.record.fresh and not facts.record.proved:
        local = Local.FRESH
    return _start(facts, facts.record, local)


def continued(facts: LocalFacts, *, outside: bool = False) -> Local:
    """The local database, compared with what the cache knows. ``outside``: it was written without
    its WAL."""
    if facts.proved and not outside:
        return Local.CONTINUED
    likeness = facts.likeness
    if facts.followed:
        enough = likeness is not None and likeness.compared >= TELLING and likeness.other
        if facts.restored is not None or not (enough or facts.went_back):
            return Local.CONTINUED
        return Local.REWRITTEN if enough else Local.REPLACED
    return Local.DIFFERENT if likeness is None or likeness.other else Local.REPLACED


def _start(facts: Facts, record: LocalFacts, local: Local) -> Decision:
    """A start with a record. Without the archive, or in the middle of a take-over, any database
    with tables begins a generation."""
    decision = _by_record(record, facts.incidents)
    outcome = decide_start(local, Archive.HISTORY, facts.asked)
    line = log_line(local, Archive.HISTORY, facts.asked, outcome)
    begins = record.claimed or {Cause.ARCHIVE_LOST, Cause.UNRESTORABLE} & facts.incidents
    if outcome.act is not Act.FOLLOW and (local is Local.FRESH or not begins):
        return Decision(Way.REFUSE, _difference(record, local), outcome, line, local)
    return replace(decision, outcome=outcome, line=line, local=local)


def _difference(record: LocalFacts, local: Local) -> str:
    if local is Local.FRESH:
        return "the database has no table, the archive has"
    if not record.same_page_size:
        return "the database file is another one: its page size differs"
    if record.likeness is None:
        return "the database file is another one, and the page hashes were lost"
    return f"the database file is another one: {record.likeness}"


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
    if facts.proved:
        return Decision(Way.CONTINUE, "the WAL still contains the captured position")
    if not facts.same_file:
        return Decision(Way.CATCH_UP, "the database file was replaced")
    if facts.went_back:
        return Decision(Way.CATCH_UP, "an older file took the place of the database")
    return Decision(Way.CATCH_UP, "the WAL was reset while no replicator followed it")


def _by_comparison(facts: RemoteFacts, asked: Asked, *, overtaken: bool) -> Decision:
    local = compared(facts, overtaken=overtaken)
    archive = Archive.NONE if facts.head is None else Archive.HISTORY
    outcome = decide_start(local, archive, asked)
    reason = _reason(facts, local, overtaken=overtaken)
    line = log_line(local, archive, asked, outcome)
    if outcome.act is not Act.FOLLOW:
        return Decision(Way.REFUSE, reason, outcome, line)
    way = Way.CONTINUE if local is Local.EQUAL else Way.NEW_GENERATION
    return Decision(way, reason, outcome, line)


def compared(facts: RemoteFacts, *, overtaken: bool) -> Local:
    """The local database, compared with the head of the archive."""
    head = facts.head
    if head is not None and facts.page_size == head.page_size and facts.state == state_of(head):
        return Local.EQUAL
    if facts.fresh:
        return Local.FRESH
    if head is None:
        return Local.DIFFERENT
    if facts.restored == head.last_txid:
        return Local.SUCCESSOR
    if facts.mine and not overtaken:  # a copy of this cache has the same writer
        return Local.CONTINUED
    return Local.OLDER if facts.restored is not None else Local.DIFFERENT


def _reason(facts: RemoteFacts, local: Local, *, overtaken: bool) -> str:
    head = facts.head
    if head is None:
        return "the first start"
    place, restored = f"the head of the archive, txid {head.last_txid}", facts.restored
    if local is Local.EQUAL:
        return f"the database equals {place}"
    if overtaken and local is not Local.SUCCESSOR:
        return f"another writer appended; the database differs from {place}"
    return {
        Local.FRESH: f"the database has no table; it differs from {place}",
        Local.CONTINUED: f"the ledger was lost; this cache wrote {place}",
        Local.SUCCESSOR: f"the database was restored from {place}, and written since",
        Local.OLDER: f"the database was restored to txid {restored}, and is older than {place}",
    }.get(local, f"no local record; the database differs from {place}")


def state_of(facts: ObjectFacts) -> DatabaseState:
    """The database after the object's last transaction."""
    return DatabaseState(facts.pages, facts.checksum_after)

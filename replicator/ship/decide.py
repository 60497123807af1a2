"""Whether the local database continues the log: the decision. Pure; reasons are words.

Continuity is proved, never assumed: the same log file still holds the frame that was captured
last; or the known hash of every page tells which pages differ; or a new generation starts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..format.objects import ObjectFacts
from ..model import DatabaseState


class Way(enum.Enum):
    CONTINUE = "continue"  # the next frame follows the captured one
    CATCH_UP = "catch up"  # the pages that differ bridge the gap
    NEW_GENERATION = "new generation"  # a snapshot starts over


@dataclass(frozen=True, slots=True)
class Decision:
    way: Way
    reason: str


@dataclass(frozen=True, slots=True)
class LocalFacts:
    """What is known here when a database with a recorded position is opened."""

    same_page_size: bool
    same_file: bool  # device and inode are the recorded ones
    log_holds_position: bool  # the frame captured last is in the log, unchanged
    hashes_trusted: bool  # page hashes are there and agree with the record
    remote_lost: bool = False  # the store no longer has what it acknowledged
    file_trusted: bool = True  # not found to differ from what its log made of it


def decide(facts: LocalFacts) -> Decision:
    """How the log goes on for a database whose position was recorded."""
    if facts.remote_lost:
        return Decision(Way.NEW_GENERATION, "the bucket no longer holds the log")
    if not facts.same_page_size:
        return Decision(Way.NEW_GENERATION, "the page size changed")
    if not facts.hashes_trusted:
        return Decision(Way.NEW_GENERATION, "the page hashes were lost")
    if not facts.file_trusted:
        return Decision(Way.CATCH_UP, "the database file was changed outside its log")
    if facts.same_file and facts.log_holds_position:
        return Decision(Way.CONTINUE, "the log still holds the captured position")
    if not facts.same_file:
        return Decision(Way.CATCH_UP, "the database file is another one")
    return Decision(Way.CATCH_UP, "the log was reset while nobody followed it")


def decide_without_record(head: ObjectFacts | None, page_size: int,
                          state: DatabaseState | None) -> Decision:
    """The same for a database without a record: only equality with the log's head counts."""
    if head is None:
        return Decision(Way.NEW_GENERATION, "the first start")
    if state is not None and page_size == head.page_size and state == state_of(head):
        return Decision(Way.CONTINUE, f"the database equals the log's head, txid {head.last_txid}")
    return Decision(Way.NEW_GENERATION, "no local record, and the database differs from the "
                                        f"log's head, txid {head.last_txid}")


def state_of(facts: ObjectFacts) -> DatabaseState:
    """The database after the object's last transaction."""
    return DatabaseState(facts.pages, facts.checksum_after)

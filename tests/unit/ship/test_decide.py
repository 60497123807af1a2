"""How the log goes on: every combination of what is known."""

import itertools

import pytest

from replicator.format.objects import ObjectFacts
from replicator.model import DatabaseState, Kind
from replicator.ship.decide import LocalFacts, Way, decide, decide_without_record, state_of

NAMES = ("same_page_size", "same_file", "log_holds_position", "hashes_trusted", "remote_lost",
         "file_trusted")


def expected(facts):
    """The design's section 4, in its plainest form."""
    if facts["remote_lost"] or not facts["same_page_size"] or not facts["hashes_trusted"]:
        return Way.NEW_GENERATION
    held = facts["same_file"] and facts["log_holds_position"] and facts["file_trusted"]
    return Way.CONTINUE if held else Way.CATCH_UP


@pytest.mark.parametrize("values", itertools.product((False, True), repeat=len(NAMES)))
def test_every_combination_with_a_record(values):
    """Continue only where everything is proved; a generation only where hashes cannot help."""
    facts = dict(zip(NAMES, values, strict=True))
    decision = decide(LocalFacts(**facts))
    assert decision.way is expected(facts)
    assert decision.reason


def test_the_reasons_tell_the_cases_apart():
    """Whoever reads the log knows which of the facts decided."""
    base = dict.fromkeys(NAMES, True) | {"remote_lost": False}
    reasons = {decide(LocalFacts(**base | {name: not base[name]})).reason for name in NAMES}
    assert len(reasons) == len(NAMES)


HEAD = ObjectFacts(
    kind=Kind.SEGMENT, generation="g", first_txid=7, last_txid=9, page_size=4096, pages=12,
    checksum_before=1, checksum_after=2, created_ms=5, first_commit_ms=4, last_commit_ms=4,
    sha256="", writer="w")


@pytest.mark.parametrize(("head", "page_size", "state", "way"), [
    (None, 4096, None, Way.NEW_GENERATION),
    (None, 4096, DatabaseState(12, 2), Way.NEW_GENERATION),
    (HEAD, 4096, DatabaseState(12, 2), Way.CONTINUE),
    (HEAD, 4096, DatabaseState(12, 3), Way.NEW_GENERATION),
    (HEAD, 4096, DatabaseState(13, 2), Way.NEW_GENERATION),
    (HEAD, 8192, DatabaseState(12, 2), Way.NEW_GENERATION),
    (HEAD, 4096, None, Way.NEW_GENERATION),
])
def test_without_a_record_only_equality_continues(head, page_size, state, way):
    """No record: the database must equal the log's head in page size, pages and checksum."""
    decision = decide_without_record(head, page_size, state)
    assert decision.way is way
    assert ("9" in decision.reason) == (head is not None)


def test_the_state_of_an_object_is_the_one_after_it():
    """Not the one before."""
    assert state_of(HEAD) == DatabaseState(12, 2)

"""How the log goes on: every combination of what is known."""

import itertools

import pytest

from replicator.engine.decide import Facts, LocalFacts, RemoteFacts, Way, decide, state_of
from replicator.format.object_header import ObjectFacts
from replicator.model import DatabaseState, Kind

NAMES = (
    "same_page_size",
    "same_file",
    "wal_contains_position",
    "hashes_trusted",
    "remote_lost",
    "file_trusted",
    "claimed",
    "restorable",
)
NORMAL = dict.fromkeys(NAMES, True) | {"remote_lost": False, "claimed": False}


def expected(facts):
    """The design, in its plainest form."""
    if facts["remote_lost"] or facts["claimed"] or not facts["restorable"]:
        return Way.NEW_GENERATION
    if not facts["same_page_size"] or not facts["hashes_trusted"]:
        return Way.NEW_GENERATION
    held = facts["same_file"] and facts["wal_contains_position"] and facts["file_trusted"]
    return Way.CONTINUE if held else Way.CATCH_UP


@pytest.mark.parametrize("values", list(itertools.product((False, True), repeat=len(NAMES))))
def test_every_combination_with_a_record(values):
    """Continue only where everything is proved; a generation only where hashes cannot help."""
    facts = dict(zip(NAMES, values, strict=True))
    decision = decide(Facts(LocalFacts(**facts)))
    assert decision.way is expected(facts)
    assert decision.reason


def test_the_reasons_tell_the_cases_apart():
    """Whoever reads the log knows which of the facts decided."""
    reasons = {
        decide(Facts(LocalFacts(**NORMAL | {name: not NORMAL[name]}))).reason for name in NAMES
    }
    assert len(reasons) == len(NAMES)


HEAD = ObjectFacts(
    kind=Kind.SEGMENT,
    generation="g",
    first_txid=7,
    last_txid=9,
    page_size=4096,
    pages=12,
    checksum_before=1,
    checksum_after=2,
    created_ms=5,
    first_commit_ms=4,
    last_commit_ms=4,
    sha256="",
    writer="w",
)


@pytest.mark.parametrize("overtaken", [False, True])
@pytest.mark.parametrize(
    ("head", "page_size", "state", "equal"),
    [
        (HEAD, 4096, DatabaseState(12, 2), True),
        (HEAD, 4096, DatabaseState(12, 3), False),
        (HEAD, 4096, DatabaseState(13, 2), False),
        (HEAD, 8192, DatabaseState(12, 2), False),
        (HEAD, 4096, None, False),
    ],
)
def test_against_the_log_only_equality_continues(head, page_size, state, equal, overtaken):
    """The database must equal the log's head in page size, pages and checksum. If it does not,
    it is refused where somebody else appended, and starts over where nothing was known."""
    decision = decide(Facts(remote=RemoteFacts(head, page_size, state, overtaken)))
    different = Way.REFUSE if overtaken else Way.NEW_GENERATION
    assert decision.way is (Way.CONTINUE if equal else different)
    assert "txid 9" in decision.reason


@pytest.mark.parametrize("overtaken", [False, True])
def test_without_any_log_there_is_nobody_to_respect(overtaken):
    """An empty bucket: the first generation."""
    decision = decide(Facts(remote=RemoteFacts(None, 4096, None, overtaken)))
    assert decision.way is Way.NEW_GENERATION


@pytest.mark.parametrize("record", [None, LocalFacts(**NORMAL)])
def test_the_log_in_the_bucket_counts_for_more_than_the_record(record):
    """A record that would continue does not, once somebody else appended."""
    state = DatabaseState(1, 1)
    facts = Facts(record, RemoteFacts(HEAD, 4096, state, overtaken=True))
    assert decide(facts).way is Way.REFUSE


@pytest.mark.parametrize("record", [None, LocalFacts(**NORMAL)])
@pytest.mark.parametrize("remote", [None, RemoteFacts(HEAD, 4096, DatabaseState(12, 2))])
def test_an_order_counts_for_more_than_all_facts(record, remote):
    """--take-over starts over, whatever is known, and says whose log it was."""
    decision = decide(Facts(record, remote, taken_from="process 1 on web-1"))
    assert decision.way is Way.NEW_GENERATION
    assert "process 1 on web-1" in decision.reason


def test_without_any_fact_nothing_is_assumed():
    """No record and no answer from the store: never a silent continuation."""
    assert decide(Facts()).way is Way.NEW_GENERATION


def test_the_state_of_an_object_is_the_one_after_it():
    """Not the one before."""
    assert state_of(HEAD) == DatabaseState(12, 2)

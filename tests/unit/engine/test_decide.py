"""How the log goes on: every combination of what is known."""

import itertools
from dataclasses import replace

import pytest

from replicator.engine.decide import (
    TELLING,
    Facts,
    Likeness,
    LocalFacts,
    RemoteFacts,
    Way,
    continued,
    decide,
    state_of,
)
from replicator.format.object_header import ObjectFacts
from replicator.model import Cause, DatabaseState, Kind
from replicator.recovery.start import Asked, Expect, Local

FACTS = (
    "same_page_size",
    "same_file",
    "wal_contains_position",
    "hashes_trusted",
    "claimed",
    "fresh",
    "went_back",
)
SAME, OTHER_PAGES = Likeness(TELLING, TELLING // 2), Likeness(TELLING, TELLING // 2 + 1)
INCIDENTS = (Cause.ARCHIVE_LOST, Cause.CHANGED_OUTSIDE, Cause.UNRESTORABLE)
BACK = {"wal_contains_position": False, "went_back": True, "same_birth": True}
NORMAL = dict.fromkeys(FACTS, True) | {"claimed": False, "fresh": False, "went_back": False}


def with_record(facts, incidents=(), *, first=False):
    return decide(Facts(LocalFacts(**facts), incidents=frozenset(incidents), first=first))


def expected(facts, incidents, *, first):
    """The design, in its plainest form."""
    proved = facts["same_file"] and facts["wal_contains_position"]
    if first and facts["fresh"] and not proved:
        return Way.REFUSE
    if facts["claimed"] or {Cause.ARCHIVE_LOST, Cause.UNRESTORABLE} & incidents:
        return Way.NEW_GENERATION
    other = not facts["same_file"] or facts["went_back"]
    proved_here = proved and Cause.CHANGED_OUTSIDE not in incidents
    if first and not proved_here and other and facts["likeness"] is not SAME:
        return Way.REFUSE
    if not facts["same_page_size"] or not facts["hashes_trusted"]:
        return Way.NEW_GENERATION
    return Way.CONTINUE if proved and Cause.CHANGED_OUTSIDE not in incidents else Way.CATCH_UP


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("likeness", [None, SAME, OTHER_PAGES], ids=["unknown", "same", "other"])
def test_every_combination_with_a_record(likeness, first):
    """Continue only where everything is proved; a generation only where hashes cannot help. A
    database that lost its tables while no replicator ran is refused, unless the WAL proves it; and
    so is another file, unless most of its pages are the known ones."""
    for values in itertools.product((False, True), repeat=len(FACTS) + len(INCIDENTS)):
        facts = dict(zip(FACTS, values, strict=False)) | {"likeness": likeness}
        rest = values[len(FACTS) :]
        incidents = {cause for cause, is_open in zip(INCIDENTS, rest, strict=True) if is_open}
        decision = with_record(facts, incidents, first=first)
        assert decision.way is expected(facts, incidents, first=first), (facts, incidents)
        assert bool(decision.outcome) == first
        assert decision.reason


def test_the_reasons_tell_the_cases_apart():
    """The log shows which of the facts or incidents decided."""
    names = [name for name in FACTS if name not in ("fresh", "went_back")]
    reasons = {with_record(NORMAL | {name: not NORMAL[name]}).reason for name in names}
    reasons.add(with_record(NORMAL | {"went_back": True, "wal_contains_position": False}).reason)
    reasons |= {with_record(NORMAL, [cause]).reason for cause in INCIDENTS}
    reasons.add(
        with_record(NORMAL | {"fresh": True, "wal_contains_position": False}, first=True).reason
    )
    assert len(reasons) == len(FACTS) + len(INCIDENTS)


@pytest.mark.parametrize(
    ("facts", "likeness", "local"),
    [
        ({}, None, Local.CONTINUED),
        ({"wal_contains_position": False}, None, Local.CONTINUED),
        ({"wal_contains_position": False}, SAME, Local.CONTINUED),
        ({"wal_contains_position": False}, OTHER_PAGES, Local.REWRITTEN),
        ({"wal_contains_position": False}, Likeness(TELLING - 1, 9), Local.CONTINUED),
        ({"wal_contains_position": False}, Likeness(TELLING - 1, 60), Local.CONTINUED),
        ({"wal_contains_position": False, "went_back": True}, SAME, Local.REPLACED),
        ({"wal_contains_position": False, "went_back": True}, OTHER_PAGES, Local.DIFFERENT),
        (BACK, SAME, Local.REPLACED),
        (BACK, OTHER_PAGES, Local.REWRITTEN),
        (BACK, Likeness(3, 3), Local.REPLACED),
        (BACK, None, Local.REPLACED),
        ({"same_file": False}, SAME, Local.REPLACED),
        ({"same_file": False}, Likeness(3, 1), Local.REPLACED),
        ({"same_file": False}, Likeness(3, 2), Local.DIFFERENT),
        ({"same_file": False}, Likeness(0, 0), Local.DIFFERENT),
        ({"same_file": False}, None, Local.DIFFERENT),
        ({"same_file": False, "restored": 3}, OTHER_PAGES, Local.CONTINUED),
        ({"same_file": False, "restored": 3}, None, Local.CONTINUED),
    ],
)
def test_the_database_as_its_cache_knows_it(facts, likeness, local):
    """Device, inode and counters make it the same file; else the pages decide. A page that
    changed outside the WAL counts although the WAL proves the position."""
    known = LocalFacts(**NORMAL | facts | {"likeness": likeness})
    assert continued(known) is local
    if not known.proved:
        assert continued(known, outside=True) is local
    elif likeness is None:
        changed = replace(known, likeness=OTHER_PAGES)
        assert continued(changed, outside=True) is Local.REWRITTEN


def test_the_reason_of_a_refusal_names_the_comparison():
    """It has the pages that were compared, or why none were."""
    other = NORMAL | {"same_file": False, "likeness": OTHER_PAGES}
    assert str(OTHER_PAGES) in with_record(other, first=True).reason
    lost = NORMAL | {"same_file": False, "hashes_trusted": False}
    assert "hashes were lost" in with_record(lost, first=True).reason
    size = NORMAL | {"same_file": False, "same_page_size": False}
    refused = with_record(size, first=True)
    assert "page size" in refused.reason
    assert refused.outcome.code == "different_database"
    assert refused.outcome.code in refused.line


@pytest.mark.parametrize("cause", [c for c in Cause if c not in (*INCIDENTS, Cause.OVERTAKEN)])
def test_other_incidents_do_not_count(cause):
    """Whatever else was reported: a proved position continues."""
    assert with_record(NORMAL, [cause]).way is Way.CONTINUE


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


def against(facts, *, overtaken, record=None):
    incidents = {Cause.OVERTAKEN} if overtaken else set()
    return decide(Facts(record, facts, incidents=frozenset(incidents)))


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
    it is refused, whether or not anything was known before."""
    decision = against(RemoteFacts(head, page_size, state), overtaken=overtaken)
    assert decision.way is (Way.CONTINUE if equal else Way.REFUSE)
    assert decision.outcome.code == ("equal" if equal else "different_database")
    assert "txid 9" in decision.reason
    assert decision.outcome.code in decision.line


OTHER = RemoteFacts(HEAD, 4096, DatabaseState(12, 3))


@pytest.mark.parametrize("overtaken", [False, True])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"mine": True}, "continued"),
        ({"restored": 9}, "restored_here"),
        ({"restored": 9, "mine": True}, "restored_here"),
        ({"restored": 8}, "older_database"),
        ({"fresh": True}, "fresh_over_history"),
        ({"fresh": True, "restored": 9}, "fresh_over_history"),
        ({"fresh": True, "mine": True}, "fresh_over_history"),
    ],
)
def test_what_proves_that_a_database_follows_the_head(change, code, overtaken):
    """It was restored from the head, or this cache wrote the head and no other writer appended. A
    database without tables follows nothing."""
    if overtaken and code == "continued":
        code = "different_database"  # the other writer has a copy of this cache
    decision = against(replace(OTHER, **change), overtaken=overtaken)
    assert decision.outcome.code == code
    follows = code in {"continued", "restored_here"}
    assert decision.way is (Way.NEW_GENERATION if follows else Way.REFUSE)


@pytest.mark.parametrize(
    ("head", "expect", "code"),
    [
        (None, Expect.EXISTING, "expected_existing"),
        (None, Expect.NEW, "first_start"),
        (HEAD, Expect.NEW, "expected_new"),
        (HEAD, Expect.EXISTING, "different_database"),
    ],
)
def test_an_expectation_counts_when_a_database_appears_later(head, expect, code):
    """The archive that is found must be the expected one."""
    facts = RemoteFacts(head, 4096, DatabaseState(12, 3))
    assert decide(Facts(remote=facts, asked=Asked(expect=expect))).outcome.code == code


@pytest.mark.parametrize("overtaken", [False, True])
def test_without_any_log_there_is_nobody_to_respect(overtaken):
    """An empty bucket: the first generation."""
    decision = against(RemoteFacts(None, 4096, None), overtaken=overtaken)
    assert decision.way is Way.NEW_GENERATION


@pytest.mark.parametrize("record", [None, LocalFacts(**NORMAL)])
def test_the_log_in_the_bucket_counts_for_more_than_the_record(record):
    """A record that would continue does not, once another writer appended."""
    state = DatabaseState(1, 1)
    facts = RemoteFacts(HEAD, 4096, state)
    assert against(facts, overtaken=True, record=record).way is Way.REFUSE


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

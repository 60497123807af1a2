"""engine/incidents.py: which incidents are open, and what leads to another join."""

import pytest

from replicator.engine.incidents import CONTINUITY, OpenIncidents, StoreFailures
from replicator.errors import ChangedOutside, ContinuityLost, DatabaseUnusable, StoreUnavailable
from replicator.model import Cause, Incident
from tests.helpers.mail import ReadableMailbox


@pytest.fixture
def incidents():
    """A record of incidents without any open one."""
    return OpenIncidents()


def test_an_incident_stays_open_until_it_is_settled(incidents):
    """A join that fails half-way leaves the rest for the next one."""
    lost = Incident(Cause.ARCHIVE_LOST)
    incidents.add(lost)
    incidents.add(Incident(Cause.UNRESTORABLE, "a drill failed"))
    incidents.joining()
    incidents.settle(Cause.UNRESTORABLE, Cause.OVERTAKEN)
    assert incidents.causes == {Cause.ARCHIVE_LOST}
    assert incidents.get(Cause.ARCHIVE_LOST) is lost
    assert incidents.get(Cause.UNRESTORABLE) is None


@pytest.mark.parametrize("cause", list(Cause))
def test_only_a_doubt_about_continuity_leads_to_another_join(incidents, cause):
    """And only one that the last join did not see."""
    incidents.add(Incident(cause, "why"))
    assert incidents.unseen == ("why" if cause in CONTINUITY else "")
    incidents.joining()
    assert incidents.unseen == ""
    incidents.add(Incident(cause, "once more"))
    assert bool(incidents.unseen) == (cause in CONTINUITY)


@pytest.mark.parametrize("txids", [(5, 9), (9, 5)])
def test_of_two_damaged_segments_the_first_counts(incidents, txids):
    """Everything from there on has to be caught up."""
    for txid in txids:
        incidents.add(Incident(Cause.SEGMENT_DAMAGED, txid=txid))
    assert incidents.get(Cause.SEGMENT_DAMAGED).txid == 5


def test_of_other_incidents_the_newest_counts(incidents):
    """Its error is the one that users see."""
    for text in ("old", "new"):
        incidents.add(Incident(Cause.OVERTAKEN, text))
    assert incidents.get(Cause.OVERTAKEN).detail == "new"


@pytest.mark.parametrize(
    ("error", "distrusted"),
    [
        (ContinuityLost("the WAL was reset"), False),
        (ChangedOutside("it was overwritten"), True),
        (DatabaseUnusable("it is no database"), True),
        (StoreUnavailable("away"), False),
    ],
)
def test_the_end_of_a_session_is_the_reason_of_the_next_join(incidents, error, distrusted):
    """A file that was something else for a while is compared page by page."""
    incidents.failed(error)
    assert incidents.reason == str(error)
    assert (Cause.CHANGED_OUTSIDE in incidents.causes) == distrusted
    assert incidents.unseen == "", "the session has ended already"


def test_repeated_failures_of_the_store_are_logged_once_for_each_wording(caplog):
    """Each of them is reported: the status shows the newest."""
    mailbox = ReadableMailbox()
    failures = StoreFailures(mailbox)
    for text in ("away", "away", "slow down", "away"):
        failures.report(StoreUnavailable(text))
    assert len(mailbox.of(Cause.STORE_FAILED)) == 4
    assert [record.message for record in caplog.records] == [
        "away; trying again",
        "slow down; trying again",
        "away; trying again",
    ]

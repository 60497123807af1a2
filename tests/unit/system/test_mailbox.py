"""system/mailbox.py: incidents and requests on their way to the thread that decides."""

import threading

import pytest

from replicator.errors import Cancelled, StoreUnavailable
from replicator.model import Cause, Incident
from replicator.system.mailbox import ONLY_NOTED, Mailbox, Wanted


@pytest.fixture
def mailbox():
    """A mailbox whose clock stands at 7 ms."""
    return Mailbox(clock_ms=lambda: 7)


def test_everything_comes_out_once_and_in_order(mailbox):
    """Incidents and requests keep their order; the next call begins empty."""
    reported = [Incident(Cause.ARCHIVE_LOST, "one"), Incident(Cause.LEDGER_LOST, "two")]
    for incident in reported:
        mailbox.report(incident)
    asked = [mailbox.ask(Wanted.CAPTURE), mailbox.ask(Wanted.GENERATION, "why")]
    assert mailbox.take() == (reported, asked)
    assert [request.reason for request in asked] == ["", "why"]
    assert mailbox.take() == ([], [])


@pytest.mark.parametrize("cause", list(Cause))
def test_only_what_needs_an_action_wakes_the_reader(mailbox, cause):
    """A failure that its stage repeats is noted for the status; the reader sleeps on."""
    error = StoreUnavailable("away")
    mailbox.report(Incident(cause, error=error))
    assert mailbox.wait(0) == (cause not in ONLY_NOTED)
    assert bool(mailbox.take()[0]) == (cause not in ONLY_NOTED)
    assert (mailbox.newest.error, mailbox.newest.at_ms) == (error, 7)


def test_an_incident_without_an_error_is_no_failure(mailbox):
    """The status keeps the failure before."""
    mailbox.report(Incident(Cause.CHANGED_OUTSIDE, "a copy"))
    assert mailbox.newest is None


def test_a_request_or_a_nudge_ends_the_wait_once(mailbox):
    """Also one that came before the wait."""
    assert not mailbox.wait(0)
    mailbox.ask(Wanted.SNAPSHOT)
    assert mailbox.wait(60)
    mailbox.wake()
    assert mailbox.wait(60)
    assert not mailbox.wait(0)


def test_a_closed_mailbox_refuses_requests(mailbox):
    """Those not taken yet are returned; later ones fail at once, with the first reason."""
    waiting = mailbox.ask(Wanted.CAPTURE)
    first, second = Cancelled("first"), Cancelled("second")
    assert mailbox.close(first) == [waiting]
    assert mailbox.close(second) == []
    assert mailbox.ask(Wanted.CAPTURE).exception(0) is first
    assert mailbox.take() == ([], [])


def test_nothing_is_lost_between_threads(mailbox):
    """Property: whatever several threads send while one reads arrives exactly once."""
    sent, got = 4 * 200, []

    def send(number):
        for n in range(200):
            mailbox.report(Incident(Cause.SEGMENT_DAMAGED, txid=1000 * number + n))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while len(got) < sent:
        assert mailbox.wait(60)
        got += [incident.txid for incident in mailbox.take()[0]]
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(1000 * number + n for number in range(4) for n in range(200))
    assert [txid for txid in got if txid < 1000] == list(range(200)), "each sender's order stays"

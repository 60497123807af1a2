"""system/mailbox.py: incidents and requests on their way to the thread that decides."""

import threading

import pytest

from replicator.errors import Cancelled, StoreUnavailable
from replicator.model import Cause, Incident
from replicator.system.mailbox import ONLY_NOTED, Mailbox, Wanted


@pytest.fixture
def fixed_mailbox():
    """A mailbox whose clock stands at 7 ms."""
    return Mailbox(clock_ms=lambda: 7)


def test_everything_comes_out_once_and_in_order(fixed_mailbox):
    """Incidents and requests keep their order; the next call begins empty."""
    reported = [Incident(Cause.ARCHIVE_LOST, "one"), Incident(Cause.LEDGER_LOST, "two")]
    for incident in reported:
        fixed_mailbox.report(incident)
    asked = [fixed_mailbox.ask(Wanted.CAPTURE), fixed_mailbox.ask(Wanted.GENERATION, "why")]
    assert fixed_mailbox.take() == (reported, asked)
    assert [request.reason for request in asked] == ["", "why"]
    assert fixed_mailbox.take() == ([], [])


@pytest.mark.parametrize("cause", list(Cause))
def test_only_what_needs_an_action_wakes_the_reader(fixed_mailbox, cause):
    """A failure that its stage repeats is noted for the status; the reader sleeps on."""
    error = StoreUnavailable("away")
    fixed_mailbox.report(Incident(cause, error=error))
    assert fixed_mailbox.wait(0) == (cause not in ONLY_NOTED)
    assert bool(fixed_mailbox.take()[0]) == (cause not in ONLY_NOTED)
    assert (fixed_mailbox.newest.error, fixed_mailbox.newest.at_ms) == (error, 7)


def test_an_incident_without_an_error_is_no_failure(fixed_mailbox):
    """The status keeps the failure before."""
    fixed_mailbox.report(Incident(Cause.CHANGED_OUTSIDE, "a copy"))
    assert fixed_mailbox.newest is None


def test_a_request_or_a_nudge_ends_the_wait_once(fixed_mailbox):
    """Also one that came before the wait."""
    assert not fixed_mailbox.wait(0)
    fixed_mailbox.ask(Wanted.SNAPSHOT)
    assert fixed_mailbox.wait(60)
    fixed_mailbox.wake()
    assert fixed_mailbox.wait(60)
    assert not fixed_mailbox.wait(0)


def test_a_closed_mailbox_refuses_requests(fixed_mailbox):
    """Those not taken yet are returned; later ones fail at once, with the first reason."""
    waiting = fixed_mailbox.ask(Wanted.CAPTURE)
    first, second = Cancelled("first"), Cancelled("second")
    assert fixed_mailbox.close(first) == [waiting]
    assert fixed_mailbox.close(second) == []
    assert fixed_mailbox.ask(Wanted.CAPTURE).exception(0) is first
    assert fixed_mailbox.take() == ([], [])


def test_nothing_is_lost_between_threads(fixed_mailbox):
    """Property: whatever several threads send while one reads arrives exactly once."""
    sent, got = 4 * 200, []

    def send(number):
        for n in range(200):
            fixed_mailbox.report(Incident(Cause.SEGMENT_DAMAGED, txid=1000 * number + n))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while len(got) < sent:
        assert fixed_mailbox.wait(60)
        got += [incident.txid for incident in fixed_mailbox.take()[0]]
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(1000 * number + n for number in range(4) for n in range(200))
    assert [txid for txid in got if txid < 1000] == list(range(200)), "each sender's order stays"

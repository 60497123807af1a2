"""The ring of events: numbers, repetitions, waits."""

import threading

from replicator.system.event_log import EventLog
from tests.helpers.replication import LONG


def names(log, after=0):
    return [event.name for event in log.after(after, 0.0)]


def test_events_are_numbered_and_the_oldest_are_dropped():
    """Numbers grow by one, whatever was dropped."""
    log = EventLog(lambda: 5, kept=3)
    for name in "abcd":
        log.add(name, "why", code="c", txid=7)
    assert [(each.number, each.name) for each in log.after(0, 0.0)] == [
        (2, "b"),
        (3, "c"),
        (4, "d"),
    ]
    newest = log.after(3, 0.0)[0]
    assert (newest.at_ms, newest.detail, newest.code, newest.txid) == (5, "why", "c", 7)
    assert log.newest == 4


def test_a_repeated_failure_is_one_event_until_it_is_over():
    """And its end is none without a failure."""
    log = EventLog()
    log.works("failing", "works")
    for _ in range(2):
        log.failing("failing", "away")
    for _ in range(2):
        log.works("failing", "works")
    log.failing("failing", "away")
    assert names(log) == ["failing", "works", "failing"]


def test_the_health_is_an_event_when_it_changes():
    """Only then; the reason is that of the failure."""
    log = EventLog()
    for healthy in (True, False, False, True):
        log.health(healthy=healthy, reason="late")
    assert [(each.name, each.detail) for each in log.after(0, 0.0)] == [
        ("unhealthy", "late"),
        ("healthy", ""),
    ]


def test_a_listener_waits():
    """An event ends the wait of every listener."""
    log = EventLog()
    found = []
    threads = [threading.Thread(target=lambda: found.extend(log.after(0, LONG))) for _ in range(2)]
    for thread in threads:
        thread.start()
    log.add("here")
    for thread in threads:
        thread.join(LONG)
    assert [each.name for each in found] == ["here", "here"]

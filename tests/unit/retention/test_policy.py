"""The policy on values alone: which objects stay, and why."""

from math import inf

import pytest

from replicator.archive.inventory import Inventory, LogItem, PinnedPoint, SnapshotItem
from replicator.model import Kind, Retention
from replicator.retention.policy import decide
from tests.helpers.retention import DAY, HOUR, MINUTE

NOW = 400 * DAY
G, H = "g", "h"
OFF = Retention(every_transaction=DAY / 1000, hourly=0, daily=0, snapshots=1)
KINDS = {0: Kind.SEGMENT, 1: Kind.MERGE, 2: Kind.MERGE_NEWEST}


def log(first, last, ago, *, level=0, size=10, generation=G, kind=None):
    at_ms = NOW - ago
    return LogItem(
        f"{level}/{first}-{last}",
        level,
        first,
        last,
        size,
        at_ms,
        at_ms,
        kind or KINDS[level],
        generation,
    )


def snap(txid, ago, *, size=100, generation=G):
    return SnapshotItem(f"s{txid}", txid, generation, size, NOW - ago, NOW - ago, known=True)


def verdicts(*items, rules=OFF, pins=(), rejected=(), grace_ms=0):
    inventory = Inventory(
        log=tuple(i for i in items if isinstance(i, LogItem)),
        snapshots=tuple(i for i in items if isinstance(i, SnapshotItem)),
        pins=tuple(pins),
        rejected=frozenset(rejected),
        newest_ms=NOW,
    )
    return decide(inventory, rules, NOW, grace_ms=grace_ms)


def gone(decision):
    return [verdict.key for verdict in decision.deletions]


def test_the_window_begins_with_the_snapshot_at_or_before_its_old_edge():
    """The state at the edge itself can be restored, from nothing older than it needs."""
    decision = verdicts(
        snap(1, 9 * DAY),
        log(2, 5, 4 * DAY),
        snap(5, 4 * DAY),
        log(6, 8, 2 * DAY),
        log(9, 9, DAY + 1),
        log(10, 12, DAY - 1),
        snap(12, DAY - 2),
        log(13, 13, 1),
    )
    assert decision.window_from == 5
    assert gone(decision) == ["0/2-5", "s1"]


def test_an_idle_database_keeps_its_present():
    """However old it is: the newest snapshot and all that follows it."""
    decision = verdicts(
        snap(1, 300 * DAY), log(2, 5, 290 * DAY), snap(5, 290 * DAY), log(6, 8, 280 * DAY)
    )
    assert decision.window_from == 5
    assert gone(decision) == ["0/2-5", "s1"]


def test_the_newest_segment_stays_though_a_merge_holds_it():
    """The log is continued from it."""
    decision = verdicts(snap(1, 3), log(2, 5, 3), log(6, 8, 2), log(2, 8, 1, level=1))
    assert gone(decision) == ["0/2-5"]
    assert decision.deletions[0].stands_in == "1/2-8"
    assert "holds all of its transactions" in decision.deletions[0].reason
    assert {v.key: v.reason for v in decision.verdicts}["0/6-8"] == "the log goes on from it"


def test_nothing_goes_for_a_young_merge():
    """A restore that has begun, or a writer that was asleep, has time to notice."""
    items = (
        snap(1, HOUR),
        log(2, 5, HOUR),
        log(6, 8, HOUR),
        log(2, 8, MINUTE, level=1),
        log(9, 9, 0),
    )
    assert gone(verdicts(*items, grace_ms=2 * MINUTE)) == []
    assert gone(verdicts(*items, grace_ms=MINUTE)) == ["0/2-5", "0/6-8"]


def test_merges_of_newest_images_stand_in_for_nothing():
    """They lost transactions."""
    decision = verdicts(
        snap(1, HOUR), log(2, 5, HOUR), log(6, 8, HOUR), log(2, 8, MINUTE, level=2), log(9, 9, 0)
    )
    assert gone(decision) == []


def test_a_merge_within_a_merge_goes():
    """The larger one holds it."""
    decision = verdicts(
        snap(1, HOUR), log(2, 5, HOUR, level=1), log(2, 8, HOUR, level=1), log(9, 9, 0)
    )
    assert gone(decision) == ["1/2-5"]


def test_marker_of_a_generation_stays_in_the_log():
    """No merge crosses it."""
    decision = verdicts(
        snap(1, HOUR),
        log(2, 5, HOUR),
        log(6, 6, HOUR, kind=Kind.GENERATION, generation=H),
        snap(6, HOUR, generation=H),
        log(7, 9, 0, generation=H),
    )
    assert gone(decision) == []


def test_every_hour_keeps_its_last_state_by_the_fewest_bytes():
    """From the day's snapshot along the merges of hours, not by more snapshots."""
    items = [snap(10, 5 * DAY + MINUTE), log(1000, 1000, 0)]
    for hour in range(6):
        ago = 5 * DAY - hour * HOUR - MINUTE
        items += [
            log(11 + hour * 10, 20 + hour * 10, ago, level=2, size=20),
            log(11 + hour * 10, 20 + hour * 10, ago, level=1, size=60),
            snap(15 + hour * 10, ago + 1),
        ]
    rules = Retention(every_transaction=DAY / 1000, hourly=9 * DAY / 1000, daily=0, snapshots=1)
    items += [snap(999, 2 * DAY)]
    decision = verdicts(*items, rules=rules)
    assert [point.txid for point in decision.points] == [10, 20, 30, 40, 50, 60, 70, 999]
    kept = {verdict.key for verdict in decision.verdicts if verdict.keep}
    assert kept == {"s10", "s999", "0/1000-1000"} | {
        f"2/{11 + hour * 10}-{20 + hour * 10}" for hour in range(6)
    }


def test_small_snapshots_win_over_large_merges():
    """Where they show the last state of an hour at a lower price."""
    items = [
        snap(10, 5 * DAY),
        log(11, 20, 5 * DAY - HOUR, level=2, size=500),
        snap(20, 5 * DAY - HOUR, size=90),
        log(21, 30, 5 * DAY - 2 * HOUR, level=2, size=5),
        snap(99, 2 * DAY),
        log(100, 100, 0),
    ]
    rules = Retention(every_transaction=DAY / 1000, hourly=9 * DAY / 1000, daily=0)
    decision = verdicts(*items, rules=rules)
    assert gone(decision) == ["2/11-20"]


def test_days_weeks_and_months_keep_snapshots():
    """The last one of each; finer rules end first."""
    items = [snap(n, (300 - n) * DAY) for n in range(1, 299)] + [log(299, 299, 0)]
    rules = Retention(
        every_transaction=DAY / 1000,
        hourly=0,
        daily=10 * DAY / 1000,
        weekly=50 * DAY / 1000,
        monthly=inf,
        snapshots=1,
    )
    decision = verdicts(*items, rules=rules)
    kept = [v for v in decision.verdicts if v.keep and v.key.startswith("s")]
    by_rule = {
        rule: sum(rule in point.rule for point in decision.points)
        for rule in ("daily", "weekly", "monthly")
    }
    assert by_rule["daily"] == 9
    assert by_rule["weekly"] in (7, 8)
    assert by_rule["monthly"] in (10, 11)
    assert len(kept) < sum(by_rule.values()) + 1


def test_a_pinned_point_keeps_what_it_needs_for_ever():
    """Exactly that transaction, with its note as the reason."""
    items = [
        snap(1, 300 * DAY),
        log(2, 5, 299 * DAY, level=1),
        log(6, 9, 298 * DAY, level=1),
        snap(9, 298 * DAY),
        log(10, 12, 297 * DAY),
        snap(12, 297 * DAY),
        log(13, 13, 0),
    ]
    decision = verdicts(*items, pins=[PinnedPoint(7, "before the move")])
    assert gone(decision) == ["0/10-12", "s9"]
    assert {v.key: v.reason for v in decision.verdicts if v.keep}["1/6-9"] == (
        "pinned: before the move"
    )
    assert decision.lost_pins == ()


def test_a_pin_that_cannot_be_kept_is_told():
    """Inside a merge of newest images, before everything, or not there yet."""
    items = [
        snap(10, 300 * DAY),
        log(11, 15, 299 * DAY, level=2),
        snap(15, 297 * DAY),
        log(16, 16, 0),
    ]
    decision = verdicts(*items, pins=[PinnedPoint(5), PinnedPoint(12), PinnedPoint(99)])
    assert decision.lost_pins == (5, 12, 99)


def test_a_minimum_of_snapshots_stays():
    """The newest ones, however old."""
    items = [snap(n, (300 - n) * DAY) for n in range(1, 9)] + [log(9, 9, 290 * DAY)]
    decision = verdicts(
        *items, rules=Retention(every_transaction=0, hourly=0, daily=0, snapshots=3)
    )
    assert gone(decision) == ["s1", "s2", "s3", "s4", "s5"]


def test_without_any_snapshot_everything_stays():
    """Somebody may still make sense of it."""
    assert gone(verdicts(log(2, 3, 99 * DAY), log(4, 5, 98 * DAY))) == []


def test_rejected_snapshots_go_first():
    """While the log that disproves them is there; one that is about to begin stays."""
    items = [
        snap(1, 9 * DAY),
        log(2, 5, 8 * DAY),
        snap(3, 8 * DAY, generation=H),
        snap(5, 4 * DAY),
        log(6, 8, 3 * DAY),
        snap(7, HOUR, generation="i"),
        snap(9, 9 * DAY, generation="j"),
    ]
    decision = verdicts(*items, rejected=[H, "i"])
    assert gone(decision) == ["s3", "s7", "0/2-5", "s1"]
    assert "never became part" in decision.deletions[0].reason


def test_generations_nobody_vouched_for_are_asked_about():
    """By the object of the log that contains one of its snapshots."""
    unknown = LogItem("0/2-5", 0, 2, 5, 1, 0, 0)
    decision = verdicts(snap(5, HOUR), unknown)
    assert decision.unsure == (unknown,)


def test_segments_that_a_point_rests_on_are_asked_for_their_end():
    """A name does not tell it, and a hole might lie behind it."""
    unknown = LogItem("0/2-5", 0, 2, 5, 1, 0, 0)
    items = [
        snap(1, 300 * DAY),
        log(1, 1, 300 * DAY, kind=Kind.GENERATION),
        unknown,
        log(6, 9, 298 * DAY),
        snap(9, 298 * DAY),
        log(10, 10, 0),
    ]
    decision = verdicts(*items, pins=[PinnedPoint(4)])
    assert decision.unsure == (unknown,)


def test_the_segment_at_the_edge_is_asked_for_its_end():
    """Where the window begins must not rest on what the next name suggests."""
    unknown = LogItem("0/2-5", 0, 2, 5, 1, NOW - 2 * DAY, NOW - 2 * DAY)
    decision = verdicts(snap(1, 9 * DAY), unknown, snap(5, HOUR), log(6, 6, 0))
    assert unknown in decision.unsure


def test_no_point_across_the_start_of_a_generation():
    """Its snapshot is needed, and nothing before it."""
    items = [
        snap(1, 9 * DAY),
        log(2, 5, 9 * DAY),
        log(6, 6, 8 * DAY, kind=Kind.GENERATION, generation=H),
        log(7, 9, 8 * DAY, generation=H),
        snap(9, 4 * DAY, generation=H),
        log(10, 10, 0, generation=H),
    ]
    decision = verdicts(*items, pins=[PinnedPoint(8)])
    assert decision.lost_pins == (8,)


@pytest.mark.parametrize("rules", [Retention(), OFF, Retention(every_transaction=inf)])
def test_every_object_has_one_verdict_and_a_reason(rules):
    """Nothing is forgotten, nothing judged twice."""
    items = [
        snap(1, 300 * DAY),
        log(2, 5, 299 * DAY, level=1),
        snap(9, 298 * DAY),
        log(10, 12, 297 * DAY),
        snap(12, 297 * DAY),
        log(13, 13, 0),
    ]
    decision = verdicts(*items, rules=rules)
    assert sorted(v.key for v in decision.verdicts) == sorted(item.key for item in items)
    assert all(v.reason for v in decision.verdicts)
    if rules.every_transaction == inf:
        assert gone(decision) == []

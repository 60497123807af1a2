"""The policy on values alone: which objects stay, and why."""

from math import inf

import pytest

from replicator.archive.index import Index, PinnedPoint, SnapshotObject, WalObject
from replicator.errors import DamageError
from replicator.model import Kind, Retention
from replicator.retention.policy import decide
from tests.helpers.errors import raises
from tests.helpers.objects import snapshot_object, wal_object
from tests.helpers.retention import DAY, HOUR, MINUTE

NOW = 400 * DAY
G, H = "g", "h"
OFF = Retention(every_transaction=DAY / 1000, hourly=0, daily=0, snapshots=1)


def log(first, last, ago, *, generation=G, **told):
    """An object whose checksums are the txids before and after it."""
    return wal_object(
        first, last, generation, at_ms=NOW - ago, before=first - 1, after=last, **told
    )


def snap(txid, ago, *, size=100, generation=G, after=None):
    after = txid if after is None else after
    return snapshot_object(txid, generation, size=size, at_ms=NOW - ago, after=after)


def unasked(first, last, at_ms=0):
    return wal_object(first, last, size=1, at_ms=at_ms)


def verdicts(*items, rules=OFF, pins=(), grace_ms=0):
    index = Index(
        tuple(i for i in items if isinstance(i, WalObject)),
        tuple(i for i in items if isinstance(i, SnapshotObject)),
    )
    return decide(index, pins, rules, NOW, grace_ms=grace_ms)


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
    assert decision.deletions[0].covered_by == "1/2-8"
    assert "holds all of its transactions" in decision.deletions[0].reason
    assert {v.key: v.reason for v in decision.verdicts}["0/6-8"] == "the next append follows it"


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


def test_a_pin_is_found_behind_a_snapshot_of_a_generation_that_never_began():
    """The smaller snapshot of the same transaction is kept for one pin, and leads nowhere else."""
    decision = verdicts(
        snap(5, 9 * DAY),
        snapshot_object(5, H, key="orphan", size=1, at_ms=NOW - 9 * DAY, after=5),
        log(6, 8, 8 * DAY),
        log(9, 9, 3 * DAY),
        snap(9, 3 * DAY),
        log(10, 10, 1),
        pins=(PinnedPoint(5, ""), PinnedPoint(8, "")),
    )
    assert decision.lost_pins == ()
    assert gone(decision) == ["0/9-9"]


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
    """A person may still make sense of it."""
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
    decision = verdicts(*items)
    assert gone(decision) == ["s3", "s7", "0/2-5", "s1"]
    assert "never became part" in decision.deletions[0].reason


def test_generations_nobody_vouched_for_are_asked_about():
    """By the object of the log that contains one of its snapshots."""
    unknown = unasked(2, 5)
    decision = verdicts(snap(5, HOUR), unknown)
    assert decision.unsure == (unknown,)


def test_segments_that_a_point_rests_on_are_asked_for_their_end():
    """A name does not tell it, and a hole might lie behind it."""
    unknown = unasked(2, 5)
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
    unknown = unasked(2, 5, NOW - 2 * DAY)
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


def test_a_point_behind_a_start_that_nobody_asked_is_kept():
    """The way from the older generation is cheaper, but it ends at the marker of the next one. A
    path finder that remembers one way for each transaction, whatever its generation, gives the
    pinned point up."""
    items = [
        snap(1, 300 * DAY),
        log(1, 1, 300 * DAY, kind=Kind.GENERATION),
        log(2, 5, 299 * DAY),
        unasked(6, 6, NOW - 298 * DAY),
        snap(6, 298 * DAY, generation=H),
        log(7, 9, 297 * DAY, generation=H),
        snap(9, 296 * DAY, generation=H),
        log(10, 10, 0, generation=H),
    ]
    decision = verdicts(*items, pins=[PinnedPoint(3), PinnedPoint(8)])
    assert decision.lost_pins == ()
    assert {"s6", "0/7-9"}.isdisjoint(gone(decision))


def test_one_contradicted_snapshot_does_not_condemn_its_generation():
    """A restore judges each snapshot, so retention does. The newest of G is where the log has
    another generation already; the one before it is confirmed, and the window needs it."""
    items = [
        snap(1, 9 * DAY),
        log(1, 1, 9 * DAY, kind=Kind.GENERATION),
        log(2, 5, 8 * DAY),
        snap(5, 8 * DAY),
        log(6, 6, 2 * DAY, kind=Kind.GENERATION, generation=H),
        snap(6, 2 * DAY, generation=H),
        snapshot_object(6, G, key="s6-of-g", at_ms=NOW - DAY),
        log(7, 9, HOUR, generation=H),
    ]
    decision = verdicts(*items, rules=Retention(every_transaction=9 * DAY / 1000))
    assert decision.window_from == 1
    assert gone(decision) == ["s6-of-g"]
    assert "never became part" in decision.deletions[0].reason


def test_a_snapshot_that_contradicts_the_log_begins_no_way():
    """A restore would refuse it, so a pinned point keeps the older one. The wrong one of the two
    may be the log, so a contradicted snapshot stays as long as the window lasts."""
    items = [
        snap(1, 300 * DAY),
        log(2, 5, 299 * DAY),
        snap(5, 299 * DAY, after=99, size=1),
        log(6, 9, 298 * DAY),
        snap(9, 3 * HOUR),
        log(10, 12, 2 * HOUR),
        snap(12, 2 * HOUR, after=99),
        log(13, 13, 0),
    ]
    decision = verdicts(*items, pins=[PinnedPoint(7)])
    assert gone(decision) == ["s5"]
    assert {v.key: v.reason for v in decision.verdicts}["s12"].startswith("it contradicts")
    assert {v.key: v.reason for v in decision.verdicts}["s1"] == "pinned needs it"


def test_a_merge_that_the_log_ends_with_stays():
    """A user deleted the newest segment: without the merge the newest snapshot would seem to lie
    beyond the end of the log, and no restore would begin with it."""
    decision = verdicts(
        snap(1, 9 * DAY), log(1, 1, 9 * DAY), log(2, 5, 8 * DAY, level=2), snap(5, 8 * DAY)
    )
    assert gone(decision) == ["s1"]
    assert {v.key: v.reason for v in decision.verdicts}["2/2-5"] == "the archive ends with it"


def test_sources_of_a_merge_stay_where_a_hole_cuts_it_off():
    """Segment 7 is lost. The merge 8…11 holds all of segment 10…11, but no way leads to it, while
    one leads to the segment: along the merge of newest images."""
    decision = verdicts(
        snap(1, HOUR),
        log(2, 6, HOUR),
        log(2, 9, HOUR, level=2),
        log(8, 9, HOUR),
        log(10, 11, HOUR),
        log(8, 11, HOUR, level=1),
        log(12, 12, 0),
    )
    assert gone(decision) == ["0/8-9"]


def test_sources_of_a_merge_stay_if_a_way_leaves_the_merge_inside():
    """Transaction 12 is in a merge of newest images alone, which begins with 11. A way to it ends
    with an object at 10, and the merge 5…11 has no end there."""
    decision = verdicts(
        snap(1, HOUR),
        log(2, 4, HOUR),
        log(5, 6, HOUR),
        log(7, 10, HOUR),
        log(11, 11, HOUR),
        log(5, 11, HOUR, level=1),
        log(11, 12, HOUR, level=2),
        log(13, 14, 0),
    )
    assert gone(decision) == ["0/11-11"]


def test_objects_that_lead_nowhere_end_a_decision():
    """Each of them would cost a search among all: beyond the limit nothing is decided."""
    junk = [unasked(1000 + 2 * n, 1000 + 2 * n, NOW - 3 * DAY + n) for n in range(40)]
    items = (snap(1, 300 * DAY), *junk, log(2, 900, 2 * DAY), snap(2000, 2 * DAY))
    items += (log(2000, 2000, 2 * DAY), log(2001, 2001, 1))
    index = Index(
        tuple(i for i in items if isinstance(i, WalObject)),
        tuple(i for i in items if isinstance(i, SnapshotObject)),
    )
    rules = Retention(every_transaction=DAY / 1000, hourly=9 * DAY / 1000, daily=0, snapshots=1)
    assert decide(index, (), rules, NOW, grace_ms=0).window_from == 2000
    with raises(DamageError, "beyond_limits", key="s1"):
        decide(index, (), rules, NOW, grace_ms=0, work=200)

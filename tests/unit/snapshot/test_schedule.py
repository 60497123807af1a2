"""snapshot/schedule.py: when a snapshot is due."""

import pytest

from replicator.snapshot.limits import SnapshotRule
from replicator.snapshot.schedule import SnapshotFacts, snapshot_due


@pytest.mark.parametrize(
    ("age", "segment_bytes", "due"),
    [
        (3599, 10**9, False),  # too soon, however much
        (3600, 51, True),  # an hour, and the segments are more than half
        (3600, 50, False),  # not more than half
        (86399, 1, False),
        (86400, 1, True),  # a day, and there were commits
        (86400, 0, False),  # an idle database makes none
        (10**9, 0, False),
    ],
)
def test_when_a_snapshot_is_due(age, segment_bytes, due):
    """Interval, ratio and greatest age, at their bounds."""
    last = SnapshotFacts(txid=3, at_ms=1000, size=100)
    assert due is snapshot_due(
        last, at_ms=1000 + age * 1000, segment_bytes=segment_bytes, rule=SnapshotRule()
    )


@pytest.mark.parametrize(("segment_bytes", "due"), [(0, False), (1, True)])
def test_without_a_snapshot_the_first_commit_makes_one_due(segment_bytes, due):
    """Whatever the interval."""
    assert due is snapshot_due(None, at_ms=1, segment_bytes=segment_bytes, rule=SnapshotRule())

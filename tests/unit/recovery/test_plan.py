"""Planning is arithmetic on names: checked against a search that tries every way."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.archive.index import OPEN_END, Index
from replicator.errors import GapError, NoBackup
from replicator.model import Kind
from replicator.recovery.plan import newest_reachable, plan, window
from tests.helpers.errors import raises
from tests.helpers.objects import snapshot_object, wal_object

A, B = "generation-a", "generation-b"


def wal(first, size=10):
    """A segment that was not asked: its name holds its first txid only."""
    return wal_object(first, OPEN_END, key=f"wal/{first}", size=size)


def known(first, last, generation=A, **told):
    """A segment that was asked."""
    return wal_object(first, last, generation, key=f"wal/{first}", **told)


def merged(level, first, last, size=10):
    return wal_object(first, last, key=f"merged/{level}/{first}-{last}", level=level, size=size)


def snapshot(txid, generation=A):
    return snapshot_object(txid, generation, key=f"snapshots/{txid}-{generation}")


def index(*items):
    return Index.of(items)


def keys(found):
    return [item.key for item in found.segments]


def test_newest_snapshot_and_all_after_it():
    """Without a target: the newest snapshot and every later segment, oldest first."""
    found = plan(index(wal(1), wal(2), snapshot(1), snapshot(4), wal(5), wal(8)), None)
    assert (found.snapshot.txid, keys(found)) == (4, ["wal/5", "wal/8"])
    assert (found.size, found.objects) == (120, 3)


def test_a_target_stops_inside_a_segment():
    """A target in the middle of a segment needs that segment and nothing later."""
    found = plan(index(snapshot(1), wal(1), wal(2), wal(6), wal(9)), 7)
    assert keys(found) == ["wal/2", "wal/6"]


def test_the_snapshot_alone_when_it_is_the_target():
    """A snapshot at the target needs nothing else."""
    assert keys(plan(index(snapshot(1), wal(1), wal(2), snapshot(4), wal(5)), 4)) == []


def test_merges_replace_their_segments():
    """The fewest objects win, and a gap left by deleted segments is bridged by a merge."""
    items = [snapshot(1), wal(1), wal(2), wal(3), wal(4), wal(5), merged(1, 2, 4)]
    assert keys(plan(index(*items), None)) == ["merged/1/2-4", "wal/5"]
    assert keys(plan(index(snapshot(1), wal(1), wal(5), merged(1, 2, 4)), None)) == [
        "merged/1/2-4",
        "wal/5",
    ]


def test_equal_counts_are_decided_by_bytes():
    """Of two ways with as many objects the smaller is taken."""
    items = [snapshot(1), wal(1), wal(5), merged(1, 2, 4, 50), merged(2, 2, 4, 20)]
    assert keys(plan(index(*items), None)) == ["merged/2/2-4", "wal/5"]


def test_no_target_inside_a_merge_of_newest_images():
    """A target inside a merge that keeps every transaction is fine, inside another it is not,
    even if it needs more objects."""
    base = [snapshot(1), wal(1)]
    assert keys(plan(index(*base, merged(1, 2, 9)), 5)) == ["merged/1/2-9"]
    both = index(*base, wal(2), wal(4), wal(10), merged(2, 2, 9))
    assert keys(plan(both, 5)) == ["wal/2", "wal/4"]
    assert keys(plan(both, 9)) == ["merged/2/2-9"]
    with raises(
        GapError, "inside_step", first_missing=5, last_missing=5, restorable=(1, 9)
    ) as error:
        plan(index(*base, merged(2, 2, 9)), 5)
    assert "1 or 9" in error.value.hint


def test_cutting_a_merge_may_take_fewer_objects():
    """An end is preferred to a cut, but not at the price of more objects."""
    items = [snapshot(1), wal(1), wal(2), wal(3), wal(6), merged(1, 2, 9)]
    assert keys(plan(index(*items), 5)) == ["merged/1/2-9"]
    assert keys(plan(index(*items), 2)) == ["wal/2"]


def test_a_snapshot_in_the_middle_of_an_object():
    """A snapshot may lie inside what later became one merge."""
    assert keys(plan(index(snapshot(5), merged(1, 2, 9), wal(10)), None)) == [
        "merged/1/2-9",
        "wal/10",
    ]
    assert keys(plan(index(snapshot(5), merged(1, 2, 9)), 7)) == ["merged/1/2-9"]


def test_a_hole_names_the_missing_and_the_window():
    """What is missing and what is left are both said."""
    items = [snapshot(1), wal(1), known(2, 4), wal(8), snapshot(9), wal(10)]
    with raises(GapError, first_missing=5, last_missing=7, restorable=(1, 10)) as error:
        plan(index(*items), 8)
    assert "--allow-older" in error.value.hint
    with raises(GapError, first_missing=5, last_missing=5, restorable=(1, 4)):
        plan(index(snapshot(1), merged(1, 2, 4), wal(6)), 6)


def test_beyond_the_end_names_the_window():
    """A target beyond the end is an error that names the window."""
    with raises(
        GapError, "beyond_end", first_missing=5, last_missing=9, restorable=(1, 4)
    ) as error:
        plan(index(snapshot(1), wal(1), known(2, 4)), 9)
    assert error.value.code == "beyond_end"
    assert (error.value.first_missing, error.value.last_missing) == (5, 9)
    assert error.value.restorable == (1, 4)


def test_before_the_oldest_snapshot_names_the_window():
    """A target before the oldest snapshot is an error that names the window."""
    with raises(
        GapError, "before_first_snapshot", first_missing=3, last_missing=6, restorable=(7, 8)
    ) as error:
        plan(index(wal(2), snapshot(7), wal(8)), 3)
    assert error.value.code == "before_first_snapshot"
    assert (error.value.first_missing, error.value.last_missing) == (3, 6)


def test_a_log_without_snapshots_is_a_gap():
    """An archive without a snapshot is a GapError."""
    with raises(GapError, "no_snapshot"):
        plan(index(wal(4), wal(6)), None)
    with raises(GapError, "no_snapshot"):
        newest_reachable(index(wal(4), wal(6)), None)
    assert window(index(wal(4))) == "nothing: no snapshot is left"


@pytest.mark.parametrize("choose", [plan, newest_reachable])
def test_nothing_is_no_backup(choose):
    """No objects, or a snapshot no log vouches for: there is no backup."""
    with raises(NoBackup):
        choose(Index(), None)
    with pytest.raises(NoBackup) as error:
        choose(index(snapshot(1)), None)
    assert error.value.code == "unconfirmed_snapshot"


def test_another_generation_is_not_crossed():
    """Once it is known that a segment is of another generation, its snapshot is demanded."""
    items = [snapshot(1), wal(1), wal(2), known(5, 5, B, kind=Kind.GENERATION), wal(6)]
    with raises(GapError, "no_first_snapshot", first_missing=5, restorable=(1, 4)):
        plan(index(*items), None)
    found = plan(index(*items, snapshot(5, B)), None)
    assert (found.snapshot.generation, keys(found)) == (B, ["wal/6"])


def test_an_orphan_does_not_hide_the_snapshot_before_it():
    """Its start crashed, and what follows it is known to be of the older generation: the plan
    begins with the older snapshot, whichever of the two has the greater txid or id."""
    items = [snapshot(1), wal(1), known(2, 3), known(4, 5), known(6, 7)]
    for orphan in (snapshot(3, B), snapshot(4, B), snapshot(1, B)):
        found = plan(index(*items, orphan), 6)
        assert (found.snapshot.generation, found.snapshot.txid) == (A, 1)


def test_older_is_the_furthest_any_snapshot_reaches():
    """The newest reachable state may come from an old snapshot with a long log."""
    items = [snapshot(1), wal(1), known(2, 6), known(9, 9)]
    found = newest_reachable(index(*items), None)
    assert (found.txid, found.snapshot.txid) == (6, 1)
    found = newest_reachable(index(*items, snapshot(3)), 5)
    assert (found.txid, found.snapshot.txid, keys(found)) == (5, 3, ["wal/2"])
    assert newest_reachable(index(snapshot(1), wal(1), wal(2)), None).txid is None


def test_removing_an_object_forgets_it_everywhere():
    """A listing without each of its objects is empty."""
    items = [snapshot(1), wal(1), wal(2), merged(1, 2, 2)]
    left = index(*items)
    for item in items:
        left = left.without([item.key])
    assert left.empty


def test_finest_cover_first():
    """Objects that cover a txid are sorted by length."""
    found = index(wal(2), wal(4), merged(1, 2, 5), merged(2, 2, 9)).covering(3)
    assert [item.key for item in found] == ["wal/2", "merged/1/2-5", "merged/2/2-9"]


def test_head_counts_what_is_certain():
    """An unread last segment holds at least its first transaction."""
    assert index(wal(2), wal(4)).head == 4
    assert index(wal(2), merged(1, 1, 7)).head == 7
    assert index(snapshot(3)).head == 3


LENGTHS = st.lists(st.integers(1, 4), min_size=1, max_size=7)


@settings(max_examples=400)
@given(LENGTHS, st.data())
def test_fewest_objects_as_a_search_finds_them(lengths, data):
    """For random logs with merges, holes and snapshots: reachable exactly when some way
    exists, and never with more objects than the best one."""
    starts = [sum(lengths[:n]) + 1 for n in range(len(lengths) + 1)]
    ranges = list(zip(starts, [n - 1 for n in starts[1:]], strict=False))
    kept = data.draw(st.lists(st.sampled_from(ranges), unique=True))
    pairs = [(a, b) for a, b in product(starts[:-1], [n - 1 for n in starts[1:]]) if a <= b]
    merges = data.draw(st.lists(st.tuples(st.integers(1, 2), st.sampled_from(pairs)), unique=True))
    items = [known(*each) for each in kept] + [merged(lv, *pair) for lv, pair in merges]
    if not items:
        return
    base, goal = sorted(data.draw(st.tuples(*[st.integers(1, starts[-1] - 1)] * 2)))
    objects = [(first, last, True) for first, last in kept]
    objects += [(first, last, level == 1) for level, (first, last) in merges]
    best = _search(objects, base, goal)
    try:
        found = plan(index(snapshot(base), *items), goal)
    except GapError:
        assert best is None
    else:
        assert len(found.segments) == best
        here = base
        for item in found.segments:
            assert item.first <= here + 1 <= item.last
            here = item.last
        assert here >= goal


def _search(objects, base, goal):
    """Breadth first: the fewest objects that lead from ``base`` to ``goal``."""
    here, steps = {base}, 0
    while here:
        if goal in here:
            return steps
        ends = set()
        for at, (first, last, divisible) in product(here, objects):
            joins = first == at + 1 or (at == base and first <= at < last)
            if joins and (last <= goal or divisible):
                ends.add(min(last, goal) if divisible else last)
        here, steps = ends - here if steps else ends, steps + 1
        if steps > len(objects) + 1:
            return None
    return None

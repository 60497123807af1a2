"""replicator.archive.reachable and sample: pure rules, against plain reasoning."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.archive.index import Index
from replicator.archive.reachable import normalised, restorable, without
from replicator.errors import ConfigError
from replicator.model import Kind
from replicator.verify.sample import DAY_MS, Sample
from tests.helpers.objects import snapshot_object, wal_object

RANGES = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 6)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    max_size=8,
)


def txids(ranges):
    return {txid for first, last in ranges for txid in range(first, last + 1)}


@given(RANGES, RANGES)
def test_ranges_are_sets_of_txids(some, others):
    """Joining and taking away, against sets; normal form has no two that touch."""
    joined, taken = normalised(some), normalised(others)
    assert txids(joined) == txids(some)
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(joined))
    assert txids(without(joined, taken)) == txids(some) - txids(others)


def piece(first, last, *, generation="g", divisible=True):
    """An object whose checksums are the txids before and after it."""
    kind = Kind.SEGMENT if divisible else Kind.MERGE_NEWEST
    return wal_object(first, last, generation, kind=kind, before=first - 1, after=last)


def snapshot(txid, *, generation="g", after=None):
    return snapshot_object(txid, generation, after=txid if after is None else after)


@pytest.mark.parametrize(
    ("snapshots", "pieces", "expected"),
    [
        ([snapshot(1)], [piece(1, 1), piece(2, 4), piece(5, 6)], ((1, 6),)),
        ([snapshot(1)], [piece(1, 1), piece(2, 4), piece(6, 7)], ((1, 4),)),
        ([snapshot(1)], [piece(1, 1), piece(2, 4, divisible=False)], ((1, 1), (4, 4))),
        ([snapshot(3)], [piece(2, 5), piece(6, 6)], ((3, 6),)),
        ([snapshot(3)], [piece(2, 5, divisible=False)], ((3, 3), (5, 5))),
        ([snapshot(3)], [piece(1, 3), piece(4, 4, generation="other")], ((3, 3),)),
        ([snapshot(3, after=99)], [piece(1, 3)], ()),
        ([snapshot(3, generation="other")], [piece(1, 3)], ()),
        ([snapshot(3)], [piece(4, 5)], ((3, 5),)),
        ([snapshot(3, after=9)], [piece(4, 5)], ()),
        ([snapshot(3)], [piece(7, 9)], ((3, 3),)),
        ([snapshot(9)], [piece(1, 3)], ()),
        ([], [piece(1, 3)], ()),
    ],
)
def test_what_can_be_restored(snapshots, pieces, expected):
    """From snapshots the log vouches for, end to end, within a generation."""
    assert restorable(Index.of([*snapshots, *pieces])) == expected


# --------------------------------------------------------------------------------- samples


def items(*sizes):
    return [wal_object(n, n, key=f"key-{n}", size=size) for n, size in enumerate(sizes)]


@given(st.integers(1, 9), st.integers(0, 10**6))
def test_slices_of_as_many_days_see_everything_once(slices, day):
    """Whatever the day it begins with."""
    sample, all_items = Sample.parse(f"1/{slices}"), items(*range(1, 40))
    seen = [
        item.key
        for n in range(slices)
        for item, _ in sample.choose(all_items, now_ms=(day + n) * DAY_MS, seed=0)
    ]
    assert sorted(seen) == sorted(item.key for item in all_items)


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=30),
    st.integers(1, 20_000),
    st.integers(0, 9),
)
def test_a_draw_reads_what_was_asked_for(sizes, amount, seed):
    """Exactly so many bytes, or all there are; the same again with the same seed."""
    sample = Sample.parse(str(amount))
    chosen = sample.choose(items(*sizes), now_ms=0, seed=seed)
    assert sum(limit for _, limit in chosen) == min(amount, sum(sizes))
    assert chosen == sample.choose(items(*sizes), now_ms=5, seed=seed)


def test_a_share_is_of_the_bytes():
    """A sample of 50 % selects half of the bytes."""
    chosen = Sample.parse("50%").choose(items(*[10] * 10), now_ms=0, seed=3)
    assert sum(limit for _, limit in chosen) == 50


@pytest.mark.parametrize("text", ["", "0%", "100.5%", "1/0", "2/7", "some", "-5M", "1/123456"])
def test_what_is_no_sample_is_refused(text):
    """Text that is no sample is a ConfigError."""
    with pytest.raises(ConfigError) as refused:
        Sample.parse(text)
    assert refused.value.setting == "sample"

"""The month of benchmarks/month.py, with sizes made up or measured on a few minutes."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))  # the benchmarks are no installed package

from benchmarks import month, shop

pytestmark = pytest.mark.no_cover  # a million verdicts of a policy that has tests of its own
MADE_UP = [
    shop.Sizes(
        rows,
        3000.0,
        300_000.0,
        {1: 2900.0, 30: 40_000.0, 300: 200_000.0, 3600: 900_000.0},
        40 * rows,
    )
    for rows in (10_000, 1_000_000)
]
DAY_S = 86_400


def kept_items(result):
    return {verdict.key for verdict in result.decision.verdicts if verdict.keep}


@pytest.fixture(scope="module")
def nine_days():
    """The model of nine days under the rule of seven days."""
    return month.our_month(MADE_UP, month.RULES["7 days"], days=9, step_hours=24)


def test_every_transaction_of_seven_days_stays(nine_days):
    """What is kept that a restore can stop inside follows without a gap from the old edge of the
    window, and from the snapshot below it, to the newest transaction."""
    kept = kept_items(nine_days)
    here = nine_days.decision.window_from
    assert here <= month.txid_at(2 * DAY_S)
    assert month.KEYS.snapshot(here, month.GENERATION) in kept
    spans = [(month.txid_at(at) + 1, month.txid_at(at + 300), 1) for at in range(0, 9 * DAY_S, 300)]
    spans += [
        (month.txid_at(at) + 1, month.txid_at(at + 1), 0)
        for at in range(9 * DAY_S - 600, 9 * DAY_S)
    ]
    for first, last, level in sorted(spans):
        key = month.KEYS.merged(1, first, last) if level else month.KEYS.wal(first)
        if key in kept and first <= here + 1 <= last + 1:
            here = max(here, last)
    assert here == month.txid_at(9 * DAY_S)


def test_what_is_older_goes(nine_days):
    """The merges of the first hour are gone after nine days."""
    assert month.KEYS.merged(1, 2, month.txid_at(300)) not in kept_items(nine_days)


def test_the_kinds_add_up(nine_days):
    """Bytes by kind sum up to what is billed, to the kept verdicts, and the peak is no less."""
    total = sum(nine_days.stored.values())
    assert total == nine_days.usage.stored_bytes <= nine_days.peak
    kept = [verdict for verdict in nine_days.decision.verdicts if verdict.keep]
    assert (sum(verdict.size for verdict in kept), len(kept)) == (total, nine_days.objects)


def test_keeping_more_takes_more(nine_days):
    """A day, a week, and a week with older hours, in this order."""
    day = month.our_month(MADE_UP, month.RULES["1 day"], days=9, step_hours=24)
    all_rules = month.our_month(MADE_UP, month.RULES["defaults"], days=9, step_hours=24)
    assert day.peak < nine_days.peak < all_rules.peak


def test_there_the_kinds_add_up():
    """Litestream's bytes are those of its kinds, and seven days take more than one."""
    stored, usage = month.their_month(MADE_UP, 1)
    assert sum(stored.values()) == usage.stored_bytes
    assert usage.puts == 30 * (86_400 + 2880 + 288 + 24 + 1)
    assert month.their_month(MADE_UP, 7)[1].stored_bytes > usage.stored_bytes
    assert month.their_month(MADE_UP, 7, seconds_too=True)[0]["files of 1 s"] > 86_400 * 7 * 2900


def test_sizes_are_measured():
    """Of five minutes of real transactions: a merge is smaller than its segments, the newest
    images of a longer time than those of its parts; a larger database has a larger snapshot."""
    small, large = (
        shop.measure(rows, 300, steady=steady) for rows, steady in ((500, True), (5000, False))
    )
    for sizes in (small, large):
        assert sizes.five_minutes < 300 * sizes.segment
        assert sizes.newest[300] < 10 * sizes.newest[30] < 300 * sizes.newest[1]
    assert small.snapshot < large.snapshot
    between = shop.sizes_at([small, large], 2000)
    assert small.snapshot < between.snapshot < large.snapshot
    assert month.table([small], days=2, step_hours=24)[0].startswith("| system ")

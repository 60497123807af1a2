"""The budget of appends: at once after a rest, and one each interval in the long run."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from replicator.upload.budget import UploadBudget

bursts = st.integers(1, 20)
intervals = st.sampled_from((0.02, 1.0, 60.0))


@given(bursts, intervals, st.lists(st.floats(0, 5), max_size=200))
def test_appends_within_the_budget_are_one_each_interval_and_a_burst(burst, interval, pauses):
    """In any span, no more appends than its intervals and one burst."""
    budget, now, began = UploadBudget(interval, burst), 0.0, []
    for pause in pauses:
        now = max(now + pause * interval, budget.ready_at)
        budget = budget.spend(now)
        began.append(now)
    for first, start in enumerate(began):
        for last in range(first, len(began)):
            span = (began[last] - start) / interval
            assert last - first + 1 <= span + burst + 1e-6


@given(bursts, intervals, st.integers(0, 40))
def test_after_a_rest_a_burst_leaves_at_once(burst, interval, before):
    """After as many intervals as the burst has appends, the whole burst needs no wait, and the
    append after it waits for one interval."""
    budget = UploadBudget(interval, burst)
    for _ in range(before):
        budget = budget.spend(0.0)
    now = burst * interval
    for _ in range(burst):
        assert budget.ready_at <= now + 1e-9
        budget = budget.spend(now)
    assert abs(budget.ready_at - (now + interval)) < 1e-9


@given(bursts, intervals, st.lists(st.floats(0, 3), min_size=1, max_size=100))
def test_an_append_without_room_makes_no_debt(burst, interval, pauses):
    """However many flushes came: one interval after the newest append there is room again."""
    budget, now = UploadBudget(interval, burst), 0.0
    for pause in pauses:
        now += pause * interval
        budget = budget.spend(now)
        assert budget.ready_at <= now + interval + 1e-9


def test_a_burst_of_one_is_the_interval_alone():
    """Each append waits for the interval after the one before, as without a budget."""
    budget, now, began = UploadBudget(2.0), 10.0, []
    for _ in range(5):
        budget = budget.spend(now)
        began.append(now)
        now = budget.ready_at
    assert [b - a for a, b in pairwise(began)] == [2.0] * 4

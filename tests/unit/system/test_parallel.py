"""Work by a few threads: results as they end, few items under way, an end after an error."""

import itertools
import threading

import pytest

from replicator.system.parallel import in_parallel


def never():
    raise AssertionError("nothing was to be abandoned")


def test_every_item_has_its_result():
    """In any order, also with fewer items than threads."""
    for count in (0, 1, 3, 50):
        found = in_parallel(lambda n: n * n, range(count), 4, abandon=never)
        assert sorted(found) == [n * n for n in range(count)]


def test_a_slow_item_does_not_hold_back_the_others():
    """Their results come while it still works."""
    go = threading.Event()
    found = in_parallel(lambda n: n or go.wait(), range(10), 2, abandon=never)
    first = {next(found) for _ in range(5)}
    assert first <= set(range(1, 10))
    go.set()
    assert len([*found]) == 5


def test_items_are_taken_only_as_needed():
    """One more than there are threads, so that their number costs no memory."""
    taken = itertools.count()
    items = iter(lambda: next(taken), 1000)
    found = in_parallel(lambda n: n, items, 3, abandon=never)
    for _ in range(100):
        next(found)
    assert next(taken) <= 110
    assert len([*found]) >= 890


@pytest.mark.parametrize("closed", [True, False])
def test_an_error_and_an_end_abandon_the_rest(closed):
    """The work under way learns of it, what has not begun never begins, and no thread is left."""
    abandoned, begun = threading.Event(), []

    def work(n):
        begun.append(n)
        if n == 1:
            if closed:
                return n
            raise KeyError(n)
        assert abandoned.wait(60)
        return n

    found = in_parallel(work, range(100), 2, abandon=abandoned.set)
    if closed:
        assert next(found) == 1
        found.close()
    else:
        with pytest.raises(KeyError):
            list(found)
    assert abandoned.is_set()
    assert len(begun) <= 4

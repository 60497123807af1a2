"""engine/shared.py: what replicators share, and how much goes on at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from replicator.engine.shared import Commons
from replicator.store.base import StoreTarget
from replicator.system import limiter
from replicator.system.limiter import Turns

LONG = 60.0


@pytest.fixture
def commons():
    commons = Commons()
    yield commons
    commons.close()


def test_a_bucket_has_one_client_whatever_the_prefix(commons):
    """Another endpoint, bucket, region or profile is another one."""

    def opened(url, **options):
        return commons.stores.open(StoreTarget.parse(url, **options))

    first = opened("s3://b/x")
    assert opened("s3://b/y") is first
    others = [
        opened("s3://c/x"),
        opened("s3://b/x", endpoint_url="http://h:1"),
        opened("s3://b/x", region="r"),
        opened("s3://b/x", profile="p"),
        opened("file:///d"),
    ]
    assert len({id(store) for store in (first, *others)}) == 6


def test_an_endpoint_that_hangs_keeps_no_other_waiting(commons):
    """Databases wait for their turn among those of the same endpoint only."""

    def lane(url, **options):
        return commons.lane(StoreTarget.parse(url, **options))

    assert lane("s3://b/x") is lane("s3://c/y")
    assert lane("s3://b/x") is not lane("s3://b/x", endpoint_url="http://h:1")
    assert lane("s3://b/x") is not lane("file:///d")


def test_no_more_at_once_than_allowed():
    """The others wait, and each has its turn."""
    turns, most, now = Turns(3), [], []
    lock = threading.Lock()

    def work(number):
        with turns.taken():
            with lock:
                now.append(number)
                most.append(len(now))
            with lock:
                now.remove(number)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(200)))
    assert max(most) <= 3


def test_whoever_gives_up_goes_on_without_a_turn(monkeypatch):
    """And gives none back."""
    monkeypatch.setattr(limiter, "POLL", 0.01)
    turns = Turns(1)
    assert turns.take()
    with turns.taken(lambda: True):
        assert not turns.take()
    assert not turns.take()
    turns.give_back()
    assert turns.take()

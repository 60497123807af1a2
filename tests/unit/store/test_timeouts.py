"""A call that gets no answer is noticed while it hangs."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from replicator.errors import ObjectMissing, StoreUnavailable
from replicator.store.memory import MemoryStore
from replicator.store.timeouts import SLOWEST_LINK, TimedStore
from replicator.system.scheduler import Scheduler
from replicator.testing import FaultyStore
from replicator.testing.faulty import hanging

LONG = 60.0


class Clock:
    """Time that a test moves. The thread looks at it whenever a call begins."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def alarms():
    alarms = Scheduler()
    yield alarms
    alarms.stop()


@pytest.fixture
def inner():
    """The store below, whose calls a test scripts."""
    return FaultyStore(MemoryStore())


def test_a_call_that_hangs_is_told_once(alarms, inner):
    """It is overdue while it waits, reported once, and forgotten at its end."""
    told, heard = [], threading.Event()

    def tell(error):
        told.append(error)
        heard.set()

    store = TimedStore(inner, tell, alarms=alarms, patience=0.02)
    hang = hanging()
    inner.script("get", hang)
    store.put("a", b"x")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.get, "a")
        assert heard.wait(LONG)
        assert isinstance(store.overdue, StoreUnavailable)
        assert (store.overdue.operation, store.overdue.key) == ("get", "a")
        hang.released.set()
        assert waiting.result(LONG) == b"x"
    assert store.overdue is None
    store.close()
    assert len(told) == 1


def test_the_longest_wait_is_the_one_that_counts(alarms, inner):
    """Of several calls the oldest is named, with its age."""
    clock, hang = Clock(), hanging()
    store = TimedStore(inner, lambda error: None, alarms=alarms, patience=5.0, now=clock)
    inner.script("head", hang, times=2)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.head, "old")
        hang.entered.wait(LONG)
        hang.entered.clear()
        clock.now += 3
        second = pool.submit(store.head, "new")
        hang.entered.wait(LONG)
        assert store.overdue is None
        clock.now += 7
        assert (store.overdue.operation, store.overdue.key) == ("head", "old")
        assert "for 10 s" in str(store.overdue)
        hang.released.set()
        for call in (first, second):
            with pytest.raises(ObjectMissing):
                call.result(LONG)
    assert store.overdue is None
    store.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.put("k", bytes(4096)),
        lambda s: s.put_part("k", "id", 1, bytes(4096)),
        lambda s: s.get("k", 0, 4096),
    ],
    ids=["put", "part", "get"],
)
def test_a_large_body_may_take_its_time(alarms, inner, call):
    """A slow link is no outage: bytes on their way count."""
    clock, hang = Clock(), hanging()
    store = TimedStore(inner, lambda error: None, alarms=alarms, patience=5.0, now=clock)
    for name in ("put", "put_part", "get"):
        inner.script(name, hang)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, store)
        hang.entered.wait(LONG)
        clock.now += 5.0 + 2048 / SLOWEST_LINK
        assert store.overdue is None
        clock.now += 2048 / SLOWEST_LINK
        assert store.overdue is not None
        hang.released.set()
        waiting.exception(LONG)
    store.close()


def test_answers_and_errors_pass_unchanged(alarms, inner):
    """Every call of a store; nothing is overdue afterwards."""
    store = TimedStore(inner, lambda error: None, alarms=alarms)
    store.put("p/a", b"abc", metadata={"n": "1"})
    assert store.get("p/a", 1, 1) == b"b"
    assert store.head("p/a").metadata == {"n": "1"}
    assert [info.key for info in store.list("p/")] == ["p/a"]
    assert store.folders("") == ["p/"]
    upload = store.begin_upload("p/b")
    part = store.put_part("p/b", upload, 1, b"xyz")
    assert store.list_parts("p/b", upload) == [part]
    assert [u.upload_id for u in store.list_uploads("p/")] == [upload]
    store.complete_upload("p/b", upload, [part])
    store.abort_upload("p/b", upload)
    store.delete("p/a")
    with pytest.raises(ObjectMissing):
        store.head("p/a")
    assert store.overdue is None
    store.close()


def test_it_can_be_closed_without_ever_being_used(alarms, inner):
    """No thread was started, none is waited for."""
    TimedStore(inner, lambda error: None, alarms=alarms).close()


def test_pages_of_a_listing_are_watched_one_by_one(alarms):
    """A listing that hangs at its second page is noticed there."""
    clock = Clock()
    released, entered = threading.Event(), threading.Event()

    class Slow(MemoryStore):
        def list(self, prefix, *, start_after=""):
            found = super().list(prefix, start_after=start_after)
            yield next(found)
            entered.set()
            released.wait(LONG)
            yield from found

    store = TimedStore(Slow(), lambda error: None, alarms=alarms, patience=5.0, now=clock)
    store.put("a", b"")
    store.put("b", b"")
    with ThreadPoolExecutor(1) as pool:
        keys = pool.submit(lambda: [info.key for info in store.list("")])
        assert entered.wait(LONG)
        clock.now += 5
        assert (store.overdue.operation, store.overdue.key) == ("list", "")
        released.set()
        assert keys.result(LONG) == ["a", "b"]
    assert store.overdue is None
    store.close()

"""A call that gets no answer is noticed while it hangs."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from replicator.errors import ObjectMissing, StoreUnavailable
from replicator.model import Cause
from replicator.store.memory import MemoryStore
from replicator.store.timeouts import SLOWEST_LINK, TimedStore
from replicator.system.scheduler import Scheduler
from replicator.testing import FaultyStore
from replicator.testing.faulty import hanging
from tests.helpers.replication import wait_for

LONG = 60.0


class Clock:
    """Time that a test moves. The thread looks at it whenever a call begins."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def alarms():
    """The scheduler of the alarms."""
    alarms = Scheduler()
    yield alarms
    alarms.stop()


@pytest.fixture
def inner():
    """The store below, whose calls a test scripts."""
    return FaultyStore(MemoryStore())


@pytest.fixture
def timed(mailbox, alarms):
    """Makes timed stores, which share a scheduler, as those of a process do."""
    return partial(_timed, mailbox, alarms)


def _timed(mailbox, alarms, inner, **options):
    return TimedStore(inner, mailbox, alarms, **options)


def test_a_call_that_hangs_is_reported_once(inner, timed, mailbox, caplog):
    """While it lasts it is overdue; reported and logged once, however long it lasts; forgotten
    when it ends."""
    store = timed(inner, patience=0.02)
    hang = hanging()
    inner.script("get", hang)
    store.put("a", b"x")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.get, "a")
        wait_for(lambda: mailbox.reported)
        assert isinstance(store.health.error, StoreUnavailable)
        assert (store.overdue.operation, store.overdue.key) == ("get", "a")
        hang.released.set()
        assert waiting.result(LONG) == b"x"
    assert store.health.error is None
    store.close()
    assert [incident.cause for incident in mailbox.reported] == [Cause.STORE_SLOW]
    assert caplog.text.count("no answer from memory://") == 1


def test_the_longest_wait_is_the_one_that_counts(inner, timed):
    """Of several calls the oldest is named, with its age."""
    clock, hang = Clock(), hanging()
    store = timed(inner, patience=5.0, now=clock)
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
def test_a_large_body_may_take_its_time(inner, call, timed):
    """A slow link is no outage: bytes on their way count."""
    clock, hang = Clock(), hanging()
    store = timed(inner, patience=5.0, now=clock)
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


def test_answers_and_errors_pass_unchanged(inner, timed):
    """Every call of a store; nothing is overdue afterwards."""
    store = timed(inner)
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


def test_it_can_be_closed_without_ever_being_used(inner, timed):
    """No thread was started, none is waited for."""
    timed(inner).close()


def test_pages_of_a_listing_are_watched_one_by_one(timed):
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

    store = timed(Slow(), patience=5.0, now=clock)
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

"""A pause so long that a key which was taken is free again: nothing is appended there."""

import pytest

from replicator.archive.keys import Keys
from replicator.errors import Fenced
from replicator.metrics import Metrics
from replicator.model import Cause
from replicator.system.limiter import CapacityLimiter
from replicator.upload import fencing
from replicator.upload.fencing import LONGEST_PAUSE, Freshness, read_clocks
from replicator.upload.limits import UploadLimits
from replicator.upload.uploader import Uploader
from tests.helpers.cache import add, content
from tests.helpers.errors import raises
from tests.helpers.replication import LONG, wait_for

KEYS = Keys("app.db")
FOREIGN = {
    "sha256": "11" * 32,
    "writer": "22222222-2222-2222-2222-222222222222",
    "host": "process 7 on web-2",
}
HOLDER = f"process 7 on web-2 (writer {FOREIGN['writer']})"


class Clocks:
    now = (0.0, 0.0)

    def __call__(self):
        return self.now


@pytest.fixture
def clocks():
    """Clocks that a test moves."""
    return Clocks()


@pytest.fixture
def idle_uploader(store, cache, mailbox, clocks):
    """An uploader with one durable segment and nothing to do."""
    idle_uploader = Uploader(
        store,
        KEYS,
        cache,
        Metrics(),
        UploadLimits(keep_bytes=1 << 30),
        mailbox,
        CapacityLimiter(1),
        clocks=clocks,
    )
    add(cache, 1)
    idle_uploader.start()
    idle_uploader.watermark.wait(1, LONG)
    yield idle_uploader
    idle_uploader.stop()


def others_went_on(store, *, merged=True, deleted=True):
    """Another writer appended 2 … 9, merged them, and deleted the merged objects."""
    store.inner.put(KEYS.wal(9), b"theirs", metadata=FOREIGN)
    if merged:
        store.inner.put(KEYS.merged(1, 2, 8), b"their merge")
    if not deleted:
        store.inner.put(KEYS.wal(2), b"theirs", metadata=FOREIGN)


def test_steady_appends_ask_nothing(store, cache, idle_uploader, clocks):
    """One request for each, as long as they follow one another within a minute."""
    for txid in range(2, 8):
        clocks.now = (clocks.now[0] + LONGEST_PAUSE, clocks.now[1] - 3600)
        store.calls.clear()
        add(cache, txid)
        idle_uploader.wake()
        idle_uploader.watermark.wait(txid, LONG)
        assert store.calls == [("put", KEYS.wal(txid))]


@pytest.mark.parametrize("clock", [0, 1])
def test_after_a_pause_the_log_is_looked_at_first(store, cache, idle_uploader, clocks, clock):
    """Whichever clock noticed: the free key is not taken, and the error says who holds the log."""
    others_went_on(store)
    clocks.now = tuple(LONGEST_PAUSE + 1 if n == clock else 0.0 for n in range(2))
    add(cache, 2)
    idle_uploader.wake()
    with raises(Fenced, holder=HOLDER, txid=9):
        idle_uploader.watermark.wait(2, LONG)
    assert store.keys("put") == [KEYS.wal(1)]


def test_after_a_pause_our_log_goes_on(store, cache, idle_uploader, clocks):
    """No other writer came: one look, then the append; the next one needs no look."""
    clocks.now = (LONGEST_PAUSE + 1, 0.0)
    for txid in (2, 3):
        store.calls.clear()
        add(cache, txid)
        idle_uploader.wake()
        idle_uploader.watermark.wait(txid, LONG)
        assert (("list", KEYS.wal_dir) in store.calls) == (txid == 2)


def test_after_a_pause_a_log_that_is_lost_is_not_gone_on_with(
    store, cache, idle_uploader, mailbox, clocks
):
    """The bucket was emptied meanwhile: told, and nothing is appended to nothing."""
    store.wipe()
    clocks.now = (LONGEST_PAUSE + 1, 0.0)
    add(cache, 2)
    idle_uploader.wake()
    wait_for(lambda: mailbox.of(Cause.ARCHIVE_LOST))
    wait_for(lambda: idle_uploader.watermark.state.idle)
    assert store.keys("put") == [KEYS.wal(1)]
    assert idle_uploader.watermark.txid == 1


@pytest.mark.parametrize("merged", [True, False])
def test_an_append_that_took_too_long_is_not_believed(store, cache, idle_uploader, clocks, merged):
    """The request was under way for minutes, and found the key free because others had merged
    what stood there: not durable, and withdrawn if the merge is what counts."""

    def before(method, key):
        if (method, key) == ("put", KEYS.wal(2)):
            others_went_on(store, merged=merged)
            clocks.now = (LONGEST_PAUSE + 1, 0.0)

    store.before = before
    add(cache, 2)
    idle_uploader.wake()
    with raises(Fenced, holder=HOLDER, txid=9):
        idle_uploader.watermark.wait(2, LONG)
    left = [info.key for info in store.inner.list(KEYS.wal_dir)]
    assert (KEYS.wal(2) in left) == (not merged)
    assert cache.durable().last_txid == 1


def test_a_slow_append_of_our_own_is_durable(store, cache, idle_uploader, clocks):
    """Slow is not wrong."""

    def before(method, key):
        if method == "put":
            clocks.now = (clocks.now[0] + LONGEST_PAUSE + 1, 0.0)

    store.before = before
    for txid in (2, 3):
        add(cache, txid)
        idle_uploader.wake()
        idle_uploader.watermark.wait(txid, LONG)
    assert store.get(KEYS.wal(3)) == content(3, 3)


def test_the_clocks_are_real():
    """Three readings that never go back within one second of a test, and none is far off."""
    first, second = read_clocks(), read_clocks()
    assert len(first) == 3
    assert first <= second
    assert not _stale_after(0)
    assert _stale_after(LONGEST_PAUSE + 1)


def _stale_after(seconds):
    known = Freshness(lambda: (seconds,))
    assert known.stale, "nothing was seen yet"
    known.seen((0.0,))
    return known.stale


def test_without_the_clock_that_counts_sleep(monkeypatch):
    """Systems without CLOCK_BOOTTIME do with two."""
    monkeypatch.delattr(fencing.time, "CLOCK_BOOTTIME", raising=False)
    assert len(read_clocks()) == 3

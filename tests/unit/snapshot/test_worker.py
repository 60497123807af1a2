"""snapshot/worker.py: which requests a snapshot answers, and what follows from its failure."""

from types import SimpleNamespace

import pytest

from replicator.capture.limits import CaptureLimits
from replicator.capture.reader import no_wal
from replicator.errors import ChangedOutside, StoreUnavailable
from replicator.metrics import Metrics
from replicator.model import Cause
from replicator.snapshot.limits import SnapshotRule
from replicator.snapshot.schedule import SnapshotFacts
from replicator.snapshot.worker import Snapshots
from replicator.system.limiter import CapacityLimiter
from replicator.system.mailbox import Request, Wanted
from tests.helpers.replication import wait_for

pytestmark = pytest.mark.app(rows=20, empty_wal=True)
TXID = 7


class Taker:
    """Takes no snapshot: it raises ``error``, or gives the facts of one."""

    error = None

    def take(self, image, header, state, last, *, read, cancelled):
        read.set()
        if self.error is not None:
            raise self.error
        sent = SimpleNamespace(sent_bytes=10, copied_bytes=0)
        return SnapshotFacts(header.first_txid, at_ms=1, size=10), sent


class NoCache:
    """A cache without facts and segments, which keeps nothing."""

    def get(self, fact):
        return None

    def put(self, fact, text):
        pass

    def records(self, since):
        return []


@pytest.fixture
def taker():
    """A taker that succeeds until a test gives it an error."""
    return Taker()


@pytest.fixture
def limiter():
    """One snapshot at a time."""
    return CapacityLimiter(1)


@pytest.fixture
def snapshots(taker, mailbox, limiter):
    """The snapshots of a session that never took one."""
    rule = SnapshotRule()
    parts = (CaptureLimits(), NoCache(), mailbox, Metrics(), limiter)
    return Snapshots(taker, rule, *parts)


def begin(snapshots, database):
    """Begins a snapshot at the end of the WAL; returns the request that it answers."""
    request = Request(Wanted.SNAPSHOT)
    assert snapshots.wanted([request])
    hold = database.hold()
    snapshots.begin(database, hold, no_wal(4096), SimpleNamespace(first_txid=TXID), None)
    return request


def ended(snapshots, database):
    """Reaps the snapshot; the pass in which it ended may raise its error."""

    def over():
        snapshots.reap(database)
        return not snapshots.running

    wait_for(over)


def test_a_request_is_answered_by_the_txid(snapshots, database):
    """The snapshot is the newest one from then on, and no second one of that state is made."""
    request = begin(snapshots, database)
    ended(snapshots, database)
    assert request.result(0) == snapshots.last.txid == TXID
    again = begin(snapshots, database)
    assert not snapshots.running
    assert again.result(0) == TXID


def test_without_a_slot_a_request_waits(snapshots, database, limiter):
    """It is asked again later, and answered once the slot is free."""
    assert limiter.try_acquire()
    request = begin(snapshots, database)
    assert snapshots.waits
    assert not snapshots.running
    assert not request.done()
    limiter.release()
    assert snapshots.wanted([request])
    begin(snapshots, database)
    assert not snapshots.waits
    ended(snapshots, database)


@pytest.mark.parametrize(
    ("error", "reported"), [(ChangedOutside("changed"), 1), (StoreUnavailable("away"), 0)]
)
def test_a_failure_reaches_the_request(snapshots, database, taker, mailbox, error, reported):
    """An image that differs from the captured state is an incident too; the slot is free again."""
    taker.error = error
    request = begin(snapshots, database)
    ended(snapshots, database)
    assert request.exception(0) is error
    assert len(mailbox.of(Cause.CHANGED_OUTSIDE)) == reported
    assert not snapshots.wanted([])  # not at once
    taker.error = None
    begin(snapshots, database)
    ended(snapshots, database)


def test_a_defect_is_raised_in_the_capture_thread(snapshots, database, taker):
    """It would be lost with the thread of the snapshot."""
    taker.error = ZeroDivisionError()
    request = begin(snapshots, database)
    with pytest.raises(ZeroDivisionError):
        ended(snapshots, database)
    assert request.exception(0) is taker.error

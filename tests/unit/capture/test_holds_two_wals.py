"""Between two logs: what waits of the old one, and how far the hold may move behind a backlog."""

import pytest

from replicator.capture.holds import WalHolds
from replicator.capture.limits import CaptureLimits
from replicator.capture.reader import WalReader, no_wal
from replicator.metrics import Metrics
from tests.helpers.replication import frames_in

pytestmark = pytest.mark.app(rows=1, empty_wal=True)

PAGE = 4096


small_chunks = pytest.mark.parametrize(
    "limits", [CaptureLimits(chunk_bytes=16 * (PAGE + 24), hold_bytes=0)], ids=["small chunks"]
)


@pytest.fixture
def wal_reader(database, limits):
    """A reader before the first WAL."""
    return WalReader(database.wal, no_wal(PAGE), limits)


@pytest.fixture
def holds(database, wal_reader, limits):
    """The holds of the reader."""
    return WalHolds(database, wal_reader, database.hold(), Metrics(), limits)


def capture(reader, holds, limit=1 << 30):
    """One round of a session; the (page, image) pairs that it took."""
    found = reader.find(limit)
    if found is None:
        return []
    pages = [(pgno, image) for pgno, _, image in frames_in(reader.batches(found))]
    reader.advance(found.end)
    holds.settle()
    return pages


@small_chunks
def test_a_backlog_is_not_reset_while_it_is_cut_in_pieces(app, wal_reader, holds):
    """While captures stop short of the log's end, the hold stays, although the application has
    checkpointed all it can and writes on: every page written is captured in the end."""
    taken = dict(capture(wal_reader, holds))
    for _ in range(100):
        app.insert(20)
    last = 0
    for _ in range(4):
        taken |= capture(wal_reader, holds, limit=10 * PAGE)
        assert last < wal_reader.position.frame
        last = wal_reader.position.frame
        app.checkpoint()
    app.insert(1)
    while pages := capture(wal_reader, holds, limit=10 * PAGE):
        taken |= pages
    image = app.image()
    assert taken == {n: image[(n - 1) * PAGE : n * PAGE] for n in taken}
    assert set(range(3, len(image) // PAGE + 1)) <= set(taken)


@small_chunks
def test_the_hold_moves_behind_a_backlog_once_all_it_sees_is_captured(app, wal_reader, holds):
    """A writer that is always ahead does not keep the hold from moving on: it moves as soon as
    the capture has passed what the hold can read."""
    app.insert()
    capture(wal_reader, holds)
    copied = [app.checkpoint()[2]]
    for _ in range(60):
        app.insert(20)
        app.insert(20)
        capture(wal_reader, holds, limit=1)
        copied.append(app.checkpoint()[2])
    assert not wal_reader.saw_end
    assert len(set(copied)) > 5


def test_what_waits_of_one_log_is_not_joined_to_the_next(app, database, wal_reader):
    """Frames in memory stay a run of one log when the log is reset behind them; both are
    captured, one after the other."""
    app.insert()
    first = wal_reader.find(1 << 30)
    wal_reader.advance(first.end)
    app.insert(3)
    assert wal_reader.stash()
    old = wal_reader.read_position
    assert app.checkpoint("TRUNCATE")[0] == 0
    app.insert(5)
    assert not wal_reader.stash()
    assert wal_reader.read_position == old
    waiting = wal_reader.find(1 << 30)
    assert waiting.end == old
    wal_reader.advance(waiting.end)
    following = wal_reader.find(1 << 30)
    assert following.start.frame == 0
    assert following.start.salt1 != old.salt1


def test_no_hold_is_moved_into_a_log_that_began_this_instant(app, database, wal_reader, holds):
    """A log that was reset between the capture and the hold is taken up by the next capture,
    which first makes sure that no checkpoint of the old log is still running."""
    app.insert()
    capture(wal_reader, holds)
    app.insert()
    found = wal_reader.find(1 << 30)
    wal_reader.advance(found.end)
    held_before = holds._held_at
    holds._database.release(holds._hold)  # as good as one on mark zero
    assert app.checkpoint("TRUNCATE")[0] == 0
    app.insert()
    holds.settle()
    assert holds._held_at == held_before
    capture(wal_reader, holds)
    assert holds._held_at == wal_reader.position

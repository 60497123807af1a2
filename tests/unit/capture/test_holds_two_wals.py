"""Between two logs: what waits of the old one, and how far the hold may move behind a backlog."""

import pytest

from replicator.capture.holds import WalHolds
from replicator.capture.limits import CaptureLimits
from replicator.capture.reader import WalReader, no_wal
from replicator.metrics import Metrics
from replicator.sqlite.live import LiveDatabase
from tests.helpers.replication import App, frames_in

PAGE = 4096


@pytest.fixture
def app(tmp_path):
    with App(tmp_path / "app.db") as app:
        app.insert()
        app.checkpoint("TRUNCATE")
        yield app


@pytest.fixture
def database(app):
    database = LiveDatabase(app.path)
    yield database
    database.close()


@pytest.fixture
def limits():
    return CaptureLimits()


small_chunks = pytest.mark.parametrize(
    "limits", [CaptureLimits(chunk_bytes=16 * (PAGE + 24), hold_bytes=0)], ids=["small chunks"]
)


@pytest.fixture
def reader(database, limits):
    return WalReader(database.wal, no_wal(PAGE), limits)


@pytest.fixture
def holds(database, reader, limits):
    return WalHolds(database, reader, database.hold(), Metrics(), limits)


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
def test_a_backlog_is_not_reset_while_it_is_cut_in_pieces(app, reader, holds):
    """While captures stop short of the log's end, the hold stays, although the application has
    checkpointed all it can and writes on: every page written is captured in the end."""
    taken = dict(capture(reader, holds))
    for _ in range(100):
        app.insert(20)
    last = 0
    for _ in range(4):
        taken |= capture(reader, holds, limit=10 * PAGE)
        assert last < reader.position.frame
        last = reader.position.frame
        app.checkpoint()
    app.insert(1)
    while pages := capture(reader, holds, limit=10 * PAGE):
        taken |= pages
    image = app.image()
    assert taken == {n: image[(n - 1) * PAGE : n * PAGE] for n in taken}
    assert set(range(3, len(image) // PAGE + 1)) <= set(taken)


@small_chunks
def test_the_hold_moves_behind_a_backlog_once_all_it_sees_is_captured(app, reader, holds):
    """A writer that is always ahead does not keep the hold from moving on: it moves as soon as
    the capture has passed what the hold can read."""
    app.insert()
    capture(reader, holds)
    copied = [app.checkpoint()[2]]
    for _ in range(60):
        app.insert(20)
        app.insert(20)
        capture(reader, holds, limit=1)
        copied.append(app.checkpoint()[2])
    assert not reader.saw_end
    assert len(set(copied)) > 5


def test_what_waits_of_one_log_is_not_joined_to_the_next(app, database, reader):
    """Frames in memory stay a run of one log when the log is reset behind them; both are
    captured, one after the other."""
    app.insert()
    first = reader.find(1 << 30)
    reader.advance(first.end)
    app.insert(3)
    assert reader.stash()
    old = reader.read_position
    assert app.checkpoint("TRUNCATE")[0] == 0
    app.insert(5)
    assert not reader.stash()
    assert reader.read_position == old
    waiting = reader.find(1 << 30)
    assert waiting.end == old
    reader.advance(waiting.end)
    following = reader.find(1 << 30)
    assert following.start.frame == 0
    assert following.start.salt1 != old.salt1


def test_no_hold_is_moved_into_a_log_that_began_this_instant(app, database, reader, holds):
    """A log that was reset between the capture and the hold is taken up by the next capture,
    which first makes sure that no checkpoint of the old log is still running."""
    app.insert()
    capture(reader, holds)
    app.insert()
    found = reader.find(1 << 30)
    reader.advance(found.end)
    held_before = holds._held_at
    holds._database.release(holds._hold)  # as good as one on mark zero
    assert app.checkpoint("TRUNCATE")[0] == 0
    app.insert()
    holds.settle()
    assert holds._held_at == held_before
    capture(reader, holds)
    assert holds._held_at == reader.position

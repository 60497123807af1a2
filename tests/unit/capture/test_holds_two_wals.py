"""Between two logs: what waits of the old one, and how far the hold may move behind a backlog."""

from dataclasses import replace

import pytest

from replicator.capture import reader as reading
from replicator.capture.commit_times import WalObservations
from replicator.capture.holds import WalHolds
from replicator.capture.reader import Committed, WalReader, no_wal
from replicator.capture.segmenter import _Content, _slice
from replicator.errors import ContinuityLost
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
def reader(database):
    return WalReader(database.wal, no_wal(PAGE))


@pytest.fixture
def follower(database, reader):
    return WalHolds(database, reader, database.hold(), Metrics())


def capture(reader, follower, limit=1 << 30):
    """One round of a session; the (page, image) pairs that it took."""
    found = reader.find(limit)
    if found is None:
        return []
    pages = [(pgno, image) for pgno, _, image in frames_in(reader.batches(found))]
    reader.advance(found.end)
    follower.settle()
    return pages


def test_a_backlog_is_not_reset_while_it_is_cut_in_pieces(app, reader, follower, monkeypatch):
    """While captures stop short of the log's end, the hold stays, although the application has
    checkpointed all it can and writes on: every page written is captured in the end."""
    monkeypatch.setattr(reading, "CHUNK_BYTES", 16 * (PAGE + 24))
    monkeypatch.setattr(reading, "HOLD_BYTES", 0)
    taken = dict(capture(reader, follower))
    for _ in range(100):
        app.insert(20)
    last = 0
    for _ in range(4):
        taken |= capture(reader, follower, limit=10 * PAGE)
        assert last < reader.position.frame
        last = reader.position.frame
        app.checkpoint()
    app.insert(1)
    while pages := capture(reader, follower, limit=10 * PAGE):
        taken |= pages
    image = app.image()
    assert taken == {n: image[(n - 1) * PAGE : n * PAGE] for n in taken}
    assert set(range(3, len(image) // PAGE + 1)) <= set(taken)


def test_the_pin_moves_behind_a_backlog_once_all_it_sees_is_captured(
    app, reader, follower, monkeypatch
):
    """A writer that is always ahead does not keep the hold from moving on: it moves as soon as
    the capture has passed what the hold can read."""
    monkeypatch.setattr(reading, "CHUNK_BYTES", 16 * (PAGE + 24))
    monkeypatch.setattr(reading, "HOLD_BYTES", 0)
    app.insert()
    capture(reader, follower)
    copied = [app.checkpoint()[2]]
    for _ in range(60):
        app.insert(20)
        app.insert(20)
        capture(reader, follower, limit=1)
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


def test_no_pin_is_moved_into_a_log_that_began_this_instant(app, database, reader, follower):
    """A log that was reset between the capture and the hold is taken up by the next capture,
    which first makes sure that no checkpoint of the old log is still running."""
    app.insert()
    capture(reader, follower)
    app.insert()
    found = reader.find(1 << 30)
    reader.advance(found.end)
    pinned = follower._held_at
    follower._database.release(follower._hold)  # as good as one on mark zero
    assert app.checkpoint("TRUNCATE")[0] == 0
    app.insert()
    follower.settle()
    assert follower._held_at == pinned
    capture(reader, follower)
    assert follower._held_at == reader.position


def test_runs_that_do_not_follow_each_other_make_no_segment(app, reader):
    """Whatever led to it, frames that are not one run of the log end in a refusal."""
    app.insert()
    found = reader.find(1 << 30)
    batch = found.ready[0]
    torn = Committed(
        found.start,
        found.end,
        complete=True,
        ready=(replace(batch, base=replace(batch.base, salt1=1)),),
    )
    with pytest.raises(ContinuityLost, match="does not follow"):
        list(_slice(reader, torn, _Content(None), WalObservations()))

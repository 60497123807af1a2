"""The sign of a checkpoint that waits: which looks it takes, and how often to look."""

import pytest

from replicator.capture.waiting import WaitingCheckpoints
from replicator.format.wal_index import WalIndexState


class Index:
    """The answers of a WAL index."""

    waits = only = False
    frames = 5

    def checkpoint_waits(self):
        return self.waits

    def only_checkpoint_waits(self):
        return self.only

    def state(self):
        return WalIndexState(1, 2, self.frames, 0) if self.frames else None


@pytest.fixture
def index():
    """An index without a checkpoint."""
    return Index()


def looks(waiting, index, *frames):
    found = []
    for index.frames in frames:
        found.append(waiting.look())
    return found


def test_one_look_is_enough_without_a_reader(index, limits):
    """No read mark: the owner of the write lock is a checkpoint."""
    waiting = WaitingCheckpoints(index, limits)
    assert not waiting.look()
    index.waits = index.only = True
    assert waiting.look()


def test_with_a_reader_the_wal_must_stand_still(index, limits):
    """A WAL that grew shows a writer. Every doubt is suspected, so that the next look is soon."""
    waiting = WaitingCheckpoints(index, limits)
    assert not waiting.suspected
    index.waits = True
    assert looks(waiting, index, 5, 6, 6, 7, 0, 0, 7) == [False, False, True] + 4 * [False]
    assert waiting.suspected
    index.waits = False
    assert not waiting.look()
    assert not waiting.suspected
    index.waits = True
    assert looks(waiting, index, 7, 7) == [False, True]


def test_an_application_that_calls_checkpoints_is_looked_at_more_often(index, limits):
    """For a while after each checkpoint that waited."""
    now = 0.0
    waiting = WaitingCheckpoints(index, limits, clock=lambda: now)
    assert waiting.pause == limits.way_pause
    index.waits = index.only = True
    waiting.look()
    assert waiting.pause == limits.way_alert < limits.way_pause
    now = limits.way_memory
    assert waiting.pause == limits.way_pause

"""What waits to be captured when its log may go: a few reads in memory, the rest on disk."""

import errno
import os

import pytest
from fix_ship import App, frames_in
from oracle_wal import read_wal

from replicator.edge.files import Files
from replicator.edge.sqlite import LogFile, wal_path
from replicator.ship import reader as reading
from replicator.ship import spool as spooling
from replicator.ship.reader import ContinuityLost, LogReader, no_log
from replicator.ship.spool import Spool

ALL = 1 << 60


class Disk(Files):
    """The disk of the spool, where one system call goes wrong from some time on."""

    def __init__(self):
        self.full = self.rotten = False

    def system(self, call, /, *args, **kwargs):
        if self.full and call is os.write:
            raise OSError(errno.ENOSPC, "no space")
        answer = call(*args, **kwargs)
        if self.rotten and call is os.pread:
            return bytes([answer[0] ^ 1]) + answer[1:]
        return answer


@pytest.fixture
def app(tmp_path):
    with App(tmp_path / "app.db") as app:
        app.checkpoint("TRUNCATE")
        yield app


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def reader(app, disk, tmp_path, monkeypatch):
    """One that takes little into memory."""
    monkeypatch.setattr(reading, "CHUNK_BYTES", 4 * 4120)
    monkeypatch.setattr(spooling, "MEMORY_BYTES", 9 * 4120)
    (tmp_path / "cache").mkdir()
    reader = LogReader(LogFile(wal_path(app.path)), no_log(4096),
                       spool=Spool(tmp_path / "cache", disk))
    yield reader
    reader.close()


def committed(app):
    seen = read_wal(wal_path(app.path).read_bytes())
    return seen.frames[:seen.committed]


def take(reader):
    found = reader.find(ALL)
    frames = list(frames_in(reader.batches(found)))
    reader.advance(found.end)
    return frames


def test_what_waits_outlives_its_log(app, reader, tmp_path):
    """It comes out whole and in order after the log was reset; the file has no name, and the
    next log finds the spool empty."""
    for _ in range(2):
        for rows in (200, 300):
            app.insert(rows)
            assert reader.stash()
        expected = committed(app)
        app.checkpoint("TRUNCATE")
        app.insert(1)
        assert os.listdir(tmp_path / "cache") == []
        assert any(isinstance(one, spooling.Spooled) for one in reader.find(ALL).ready)
        assert take(reader) == expected
        assert take(reader) == committed(app)
        app.checkpoint("TRUNCATE")


def test_the_disk_is_not_asked_while_writers_wait(app, reader, disk, monkeypatch):
    """More is taken into memory then."""
    app.insert(100)
    assert reader.stash(hurry=True)
    assert not any(isinstance(one, spooling.Spooled) for one in reader.find(ALL).ready)
    monkeypatch.setattr(spooling, "HURRY_BYTES", 9 * 4120)
    app.insert(500)
    disk.full = True
    assert not reader.stash(hurry=True)


def test_what_changed_while_it_waited_is_lost_continuity(app, reader, disk):
    """Nothing that the disk made of it is captured."""
    app.insert(500)
    assert reader.stash()
    disk.rotten = True
    found = reader.find(ALL)
    with pytest.raises(ContinuityLost, match="while they waited"):
        take(reader)
    reader.close()
    with pytest.raises(ContinuityLost, match="while they waited"):
        list(reader.batches(found))


@pytest.mark.parametrize("waiting", [0, 100])
def test_without_room_the_log_stays(app, reader, disk, waiting):
    """The disk refuses: what waits already is kept, and the rest is read from the log."""
    if waiting:
        app.insert(waiting)
        assert reader.stash()
    before = reader.read_position
    app.insert(500)
    disk.full = True
    assert not reader.stash()
    assert (reader.read_position, reader.stashed) == (before, bool(waiting))
    seen = take(reader) if waiting else []
    assert seen + take(reader) == committed(app)


def test_what_is_kept_for_a_cut_waits_too(app, reader):
    """As what comes meanwhile does: the log may go before the cut."""
    app.insert(500)
    found = reader.find(ALL)
    expected = committed(app)
    reader.keep(found)
    app.checkpoint("TRUNCATE")
    app.insert(1)
    assert take(reader) == expected

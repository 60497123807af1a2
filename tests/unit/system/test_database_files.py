"""system/database_files.py: one descriptor for each file, closed only when that drops no lock."""

import errno
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from replicator.errors import LocalIOError
from replicator.system import database_files
from replicator.system.database_files import database_reader, release_database
from tests.helpers.errors import raises
from tests.helpers.files import CountingFiles


def locks_of_this_process():
    lines = Path("/proc/locks").read_text().splitlines()
    return sorted(tuple(line.split()[1:]) for line in lines if line.split()[4] == str(os.getpid()))


@pytest.fixture
def opened_db(tmp_path):
    """The path of a database with an open read transaction in this process."""
    path = tmp_path / "app.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE t (x)")
    db.execute("BEGIN")
    db.execute("SELECT * FROM t").fetchall()
    yield path
    db.close()


def test_database_reader_leaves_sqlite_locks_alone(opened_db):
    """POSIX locks belong to the process: reading raw bytes must not drop those of SQLite."""
    before = locks_of_this_process()
    assert before
    for _ in range(2):
        reader = database_reader(opened_db)
        assert reader.pread(15, 0) == b"SQLite format 3"
        assert reader.size() == opened_db.stat().st_size
        del reader
    assert locks_of_this_process() == before
    # The check can fail: the registry of descriptors prevents this.
    opened_db.open("rb").close()
    assert locks_of_this_process() != before


def test_database_reader_opens_an_inode_once(opened_db, tmp_path):
    """By whatever name, one descriptor; a file that replaces another is another."""
    files = CountingFiles()
    (tmp_path / "link.db").symlink_to(opened_db)
    readers = [
        database_reader(path, files) for path in (opened_db, tmp_path / "link.db", opened_db)
    ]
    assert files.names().count("open") == 1
    assert len({reader.identity() for reader in readers}) == 1
    os.replace(opened_db, tmp_path / "old.db")
    opened_db.write_bytes(b"new")
    assert database_reader(opened_db, files).pread(9, 0) == b"new"
    assert readers[0].pread(6, 0) == b"SQLite"
    assert database_reader(tmp_path / "old.db", files).identity() == readers[0].identity()
    assert files.names().count("open") == 2


def test_database_reader_is_thread_safe(tmp_path):
    """Two threads that come first at the same time get one descriptor."""
    path = tmp_path / "x.db"
    path.write_bytes(b"x")
    files, barrier = CountingFiles(), threading.Barrier(8)

    def read():
        barrier.wait()
        assert database_reader(path, files).pread(1, 0) == b"x"

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files.names().count("open") == 1


def test_a_database_replaced_while_it_is_opened_costs_no_lock(tmp_path):
    """The path leads to a known inode between stat and open: neither descriptor is closed."""
    known, path = tmp_path / "known.db", tmp_path / "path.db"
    known.write_bytes(b"known")
    path.write_bytes(b"unknown")
    first = database_reader(known)

    class Replacing(CountingFiles):
        def act(self, number, call, args, kwargs):
            if call is os.open:
                os.replace(known, path)
            return call(*args, **kwargs)

    before = len(os.listdir("/proc/self/fd"))
    second = database_reader(path, Replacing())
    assert second.identity() == first.identity()
    assert second.pread(9, 0) == b"known"
    assert len(os.listdir("/proc/self/fd")) == before + 1
    fds = [each.fd for each in database_files._opened.values()]
    assert fds.count(second.fileno()) == 1


def is_open(identity):
    """True if this process has a descriptor of the file."""
    return database_files.count_descriptors(identity) > 0


def test_a_replaced_file_is_closed_after_its_last_reader(tmp_path):
    """Not while a reader may use it, and not while the path still names it."""
    path = tmp_path / "x.db"
    path.write_bytes(b"x")
    readers = [database_reader(path), database_reader(path)]
    identity = readers[0].identity()
    release_database(readers.pop())
    path.rename(tmp_path / "y.db")
    assert readers[0].pread(1, 0) == b"x"
    release_database(readers.pop())
    assert not is_open(identity)


def test_a_file_in_its_place_stays_open(tmp_path):
    """The next reader needs no second descriptor."""
    path, files = tmp_path / "x.db", CountingFiles()
    path.write_bytes(b"x")
    for _ in range(2):
        release_database(database_reader(path, files))
    assert files.names().count("open") == 1


def test_a_replaced_file_that_sqlite_uses_here_is_closed_after_that(opened_db, tmp_path):
    """Its locks stay; the descriptor is closed when another file is released."""
    reader = database_reader(opened_db)
    identity, before = reader.identity(), locks_of_this_process()
    opened_db.rename(tmp_path / "old.db")
    release_database(reader)
    assert is_open(identity)
    assert locks_of_this_process() == before


def test_a_released_reader_reads_nothing(tmp_path):
    """The number of its descriptor may be that of another file."""
    path = tmp_path / "x.db"
    path.write_bytes(b"x")
    reader = database_reader(path)
    release_database(reader)
    with raises(LocalIOError, errno=errno.EBADF):
        reader.pread(1, 0)


def test_a_file_whose_path_cannot_be_asked_stays_open(tmp_path):
    """A path that leads round in a circle does not show that the file was replaced."""
    path = tmp_path / "x.db"
    path.write_bytes(b"x")
    reader = database_reader(path)
    identity = reader.identity()
    path.rename(tmp_path / "old.db")
    path.symlink_to(path)
    release_database(reader)
    assert is_open(identity)
    path.unlink()
    (tmp_path / "y.db").write_bytes(b"y")
    release_database(database_reader(tmp_path / "y.db"))
    assert not is_open(identity)

"""system/files.py: durable writes, one error class per decision, descriptors that stay open."""

import errno
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from replicator.errors import DiskFull, LocalIOError
from replicator.system import files as files_module
from replicator.system.files import Files, database_reader
from tests.helpers.errors import raises
from tests.helpers.files import CountingFiles, FailingFiles, TearingFiles


def test_write_atomic_syncs_before_and_after_the_rename(tmp_path):
    """The order that survives a power cut: write, fsync, rename, fsync of the directory."""
    files = CountingFiles()
    files.write_atomic(tmp_path / "f", b"ab", b"c")
    assert files.names() == ["open", "write", "write", "fsync", "rename", "open", "fsync"]
    assert files.read(tmp_path / "f") == b"abc"
    assert files.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("at", range(1, 8))
def test_write_atomic_fails_whole(tmp_path, at):
    """If a step fails, the file has the old content or the new one, and no draft stays."""
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with raises(DiskFull, errno=errno.ENOSPC) as caught:
        FailingFiles(at).write_atomic(path, b"ab", b"c")
    assert Path(caught.value.path) in (path, Path(f"{path}.tmp"), tmp_path)
    assert path.read_bytes() == (b"old" if at < 6 else b"abc")
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_is_disk_full(tmp_path, code):
    """A full disk and a full quota are one decision: free some space."""
    with pytest.raises(DiskFull):
        FailingFiles(1, code).create(tmp_path / "f")


def test_other_errors_name_the_path(tmp_path):
    """An error is of use only with the path it is about."""
    missing = tmp_path / "no such file"
    calls = [
        Files().read,
        Files().size,
        Files().unlink,
        Files().listdir,
        Files().disk_free,
        Files().sync_directory,
        lambda path: Files().rename(path, path),
        database_reader,
    ]
    for call in calls:
        with raises(LocalIOError, path=str(missing), errno=errno.ENOENT) as caught:
            call(missing)
        assert str(caught.value) == f"{missing}: no such file or directory"


def test_short_writes_and_reads_are_completed(tmp_path):
    """The kernel may take or give less than asked for; the caller never notices."""
    files = TearingFiles(3)
    files.write_atomic(tmp_path / "f", b"0123456789")
    buffer = bytearray(20)
    with files.open_read(tmp_path / "f") as file:
        assert file.pread(8, 1) == b"12345678"
        assert file.pread(99, 4) == b"456789"
        assert file.pread(5, 10) == b""
        assert file.preadinto(buffer, 2) == 8
        assert file.size() == 10
        assert file.preadinto(memoryview(buffer)[:4], 2) == 4
    assert bytes(buffer[:8]) == b"23456789"


def test_a_write_that_takes_nothing_is_an_error(tmp_path):
    """A file system that takes no byte and reports no error must not hang us."""
    draft = TearingFiles(0).create(tmp_path / "f")
    with raises(LocalIOError, path=str(tmp_path / "f")):
        draft.write(b"x")
    draft.discard()


def test_a_file_that_failed_once_is_never_published(tmp_path):
    """After a failed fsync the kernel has forgotten the pages: a second fsync proves nothing."""
    files = FailingFiles(3, errno.EIO)
    draft = files.create(tmp_path / "draft")
    draft.write(b"x")
    with raises(LocalIOError, path=str(tmp_path / "draft"), errno=errno.EIO):
        files.publish(draft, tmp_path / "final")
    with raises(LocalIOError, path=str(tmp_path / "draft"), errno=None):
        files.publish(draft, tmp_path / "final")
    draft.discard()
    draft.discard()
    assert os.listdir(tmp_path) == []


def test_a_directory_that_cannot_be_synced_is_no_error(tmp_path):
    """Some network file systems answer EINVAL; there is nothing to make durable then."""
    FailingFiles(2, errno.EINVAL).sync_directory(tmp_path)
    with pytest.raises(LocalIOError):
        FailingFiles(2, errno.EIO).sync_directory(tmp_path)


def test_mkdir_makes_parents_durable(tmp_path):
    """Each new directory is synced into its parent; existing ones are left alone."""
    files = CountingFiles()
    files.mkdir(tmp_path / "a" / "b")
    files.mkdir(tmp_path / "a" / "b")
    assert files.names() == ["mkdir", "open", "fsync"] * 2
    (tmp_path / "file").write_bytes(b"")
    with raises(LocalIOError, path=str(tmp_path / "file"), errno=errno.EEXIST):
        files.mkdir(tmp_path / "file")


def test_mkdir_by_two_at_the_same_time(tmp_path):
    """Two replicators that start together both find their directory."""

    class Racing(CountingFiles):
        def act(self, number, call, args, kwargs):
            if call is os.mkdir:
                os.mkdir(args[0])
            return call(*args, **kwargs)

    Racing().mkdir(tmp_path / "a")
    assert (tmp_path / "a").is_dir()


def test_small_things(tmp_path):
    """Sizes, digests, free space, removal of a missing file."""
    files = Files()
    files.write_atomic(tmp_path / "f", b"abc")
    assert files.size(tmp_path / "f") == 3
    assert files.sha256(tmp_path / "f").startswith("ba7816bf")
    assert files.disk_free(tmp_path) > 0
    assert files.exists(tmp_path / "f")
    files.unlink(tmp_path / "f")
    files.unlink(tmp_path / "f", missing_ok=True)
    assert not files.exists(tmp_path / "f")
    with files.open_read(tmp_path) as directory:
        directory.close()


def test_discarding_never_raises(tmp_path):
    """It cleans up after another error, which is the one to report."""
    draft = FailingFiles(2, errno.EIO).create(tmp_path / "f")
    draft.discard()
    assert os.listdir(tmp_path) == ["f"]


def test_a_read_that_fails_names_the_path(tmp_path):
    """A bad sector under a segment or the database."""
    (tmp_path / "f").write_bytes(b"x")
    for read in (lambda f: f.pread(1, 0), lambda f: f.preadinto(bytearray(1), 0)):
        with (
            FailingFiles(2, errno.EIO).open_read(tmp_path / "f") as file,
            raises(LocalIOError, path=str(tmp_path / "f"), errno=errno.EIO),
        ):
            read(file)


def test_rename_is_durable(tmp_path):
    """Setting a file aside must not come undone."""
    (tmp_path / "a").write_bytes(b"x")
    files = CountingFiles()
    files.rename(tmp_path / "a", tmp_path / "b")
    assert files.names() == ["rename", "open", "fsync"]
    assert os.listdir(tmp_path) == ["b"]


# database_reader


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
    assert list(files_module._databases.values()).count(second._fd) == 1

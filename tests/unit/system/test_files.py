"""system/files.py: durable writes, one error class per decision."""

import errno
import os
from pathlib import Path

import pytest

from replicator.errors import DiskFull, LocalIOError
from replicator.system.database_files import database_reader
from replicator.system.files import Files
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

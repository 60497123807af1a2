"""A file that several threads write at any offset."""

import errno
import os

import pytest

from replicator.errors import LocalIOError
from replicator.system.files import LOCAL, Files
from replicator.system.pagefile import PageFile
from tests.helpers.errors import raises
from tests.helpers.files import CountingFiles, FailingFiles


class Short(Files):
    """Writes at most three bytes a call, or none at all."""

    def __init__(self, most):
        self.most = most

    def system(self, call, /, *args, **kwargs):
        if call is os.pwrite:
            return super().system(call, args[0], bytes(args[1])[: self.most], args[2])
        return super().system(call, *args, **kwargs)


def test_short_writes_are_completed(tmp_path):
    """All bytes arrive at their offset, even if a call takes only a few."""
    with PageFile(tmp_path / "f", Short(3)) as file:
        file.resize(20)
        file.pwrite(b"0123456789", 5)
        assert file.pread(20, 0) == bytes(5) + b"0123456789" + bytes(5)
        file.sync()


def test_a_write_that_writes_nothing_is_an_error(tmp_path):
    """A write of zero bytes is a LocalIOError."""
    with PageFile(tmp_path / "f", Short(0)) as file, pytest.raises(LocalIOError):
        file.pwrite(b"x", 0)


def test_reopening_keeps_the_content(tmp_path):
    """A second opening continues; regions never written take no space and read as zeros."""
    with PageFile(tmp_path / "f") as file:
        file.resize(1 << 20)
        file.pwrite(b"kept", 4096)
        assert file.allocated() < 1 << 16
    with PageFile(tmp_path / "f") as file:
        assert file.pread(6, 4095) == b"\0kept\0"
        file.resize(4098)
        assert file.size() == 4098


def test_errors_name_the_path(tmp_path):
    """Errors of the file system carry the path."""
    with raises(LocalIOError, path=str(tmp_path / "missing" / "f")):
        PageFile(tmp_path / "missing" / "f")
    with raises(LocalIOError, path=str(tmp_path / "missing")):
        LOCAL.remove_directory(tmp_path / "missing")


def test_an_owner_is_changed_only_if_it_differs(tmp_path):
    """The permissions are set always, the owner only if needed, because only root may change it."""
    new = tmp_path / "new"
    new.touch(0o644)
    files = CountingFiles()
    files.set_owner(new, os.getuid(), new.stat().st_gid, 0o600)
    assert new.stat().st_mode & 0o777 == 0o600
    assert files.names() == ["open", "fchmod"]
    with raises(LocalIOError, errno=errno.EPERM):
        FailingFiles(2, errno.EPERM).set_owner(new, os.getuid() + 1, new.stat().st_gid, 0o600)

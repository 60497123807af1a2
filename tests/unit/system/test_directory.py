"""system/directory.py: a working directory of another user is refused, and names stay in theirs."""

import errno
import os
import stat

import pytest

from replicator.errors import LocalIOError, UnsafePath
from replicator.system.directory import (
    hold_directory,
    refuse_links,
    require_own_parent,
    working_directory,
)
from replicator.system.files import Files
from replicator.system.owners import user_name
from replicator.system.pagefile import PageFile
from tests.helpers.errors import raises
from tests.helpers.users import APP, OTHER, as_user, needs_root


@pytest.fixture
def place(tmp_path):
    """A directory of this user."""
    path = tmp_path / "place"
    path.mkdir(0o700)
    return path


def test_a_missing_directory_is_made_for_this_user_alone(tmp_path):
    """A working directory, and each missing parent, can be entered by its user only."""
    with working_directory(tmp_path / "a" / "b") as made:
        assert made.is_current()
        assert made.names() == []
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


@needs_root
def test_a_directory_of_another_user_is_refused(place):
    """The error names the path, the owner, and the user who could use it."""
    os.chown(place, OTHER, OTHER)
    with raises(UnsafePath, path=str(place), owner=OTHER, errno=errno.EPERM) as caught:
        working_directory(place)
    assert user_name(OTHER) in caught.value.hint
    assert os.listdir(place) == []


@needs_root
@pytest.mark.parametrize("target", ["directory", "nothing"])
def test_a_link_of_another_user_is_refused(tmp_path, place, target):
    """His symbolic link leads nowhere, even when it points to a directory of this user."""
    link = tmp_path / "link"
    link.symlink_to(place if target == "directory" else tmp_path / "missing")
    os.lchown(link, OTHER, OTHER)
    for opening in (working_directory, hold_directory):
        with raises(UnsafePath, path=str(link), owner=OTHER):
            opening(link)
    assert os.listdir(place) == []


def test_a_link_of_this_user_is_followed(tmp_path, place):
    """An operator may keep the cache elsewhere."""
    (tmp_path / "link").symlink_to(place)
    with working_directory(tmp_path / "link") as held:
        Files().create(held.entry("new")).close()
    assert os.listdir(place) == ["new"]


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o702])
def test_a_directory_of_this_user_is_closed_to_the_others(place, mode):
    """A permission to write that its owner gave is taken away before a name in it counts."""
    place.chmod(mode)
    with working_directory(place):
        assert stat.S_IMODE(place.stat().st_mode) == mode & ~0o022


@needs_root
def test_a_file_of_another_user_is_refused(place):
    """He made it while the directory was open to him."""
    (place / "ours").touch()
    (place / "state.db-wal").touch()
    os.chown(place / "state.db-wal", OTHER, OTHER)
    with working_directory(place) as held, raises(UnsafePath, owner=OTHER):
        held.require_trusted()


@needs_root
def test_the_parent_of_scratch_belongs_to_this_user(place):
    """Another user could rename what is made there, unless the directory is sticky."""
    place.chmod(0o777)
    with raises(UnsafePath, path=str(place)):
        require_own_parent(place)
    place.chmod(0o1777)
    require_own_parent(place)
    os.chown(place, OTHER, OTHER)
    with raises(UnsafePath, path=str(place), owner=OTHER):
        require_own_parent(place)


def test_names_stay_in_the_directory_that_was_opened(tmp_path, place):
    """Whatever gets the directory's name later: files are made, read, renamed and removed in the
    one that was opened."""
    files = Files()
    with working_directory(place) as held:
        place.rename(tmp_path / "moved")
        place.mkdir()
        (place / "kept").touch()
        assert not held.is_current()
        files.write_atomic(held.entry("a"), b"text")
        with PageFile(held.entry("pages"), files) as pages:
            pages.pwrite(b"page", 0)
        files.rename(held.entry("a"), held.entry("b"))
        assert files.read(held.entry("b")) == b"text"
        assert files.size(held.entry("pages")) == 4
        assert held.names() == ["b", "pages"]
        files.rename(held.entry("pages"), place / "out")
        files.unlink(held.entry("b"))
        assert not files.exists(held.entry("b"))
        assert not files.exists(held.entry("kept"))
        held.sync()
    assert sorted(os.listdir(place)) == ["kept", "out"]
    assert os.listdir(tmp_path / "moved") == []


@pytest.mark.parametrize(
    "use",
    [
        Files().read,
        PageFile,
        lambda path: Files().set_owner(path, os.getuid(), os.getgid(), 0o600),
    ],
)
def test_no_open_follows_a_link(tmp_path, use):
    """A symbolic link in place of a file is an error, and the file behind it stays as it is."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(LocalIOError):
        use(tmp_path / "link")
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_new_file_takes_over_no_other(tmp_path, kind):
    """What has the name of a new file is removed, not written to."""
    target, name = tmp_path / "target", tmp_path / "name"
    target.write_bytes(b"precious")
    if kind == "link":
        name.symlink_to(target)
    elif kind == "hard link":
        name.hardlink_to(target)
    else:
        os.mkfifo(name)
    Files().write_atomic(name, b"new")
    file = Files().create(name)
    file.write(b"newer")
    file.close()
    assert name.read_bytes() == b"newer"
    assert target.read_bytes() == b"precious"


def test_a_pipe_is_not_waited_for(tmp_path):
    """A pipe in place of a file is an error at once."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LocalIOError):
        Files().open_read(tmp_path / "pipe").pread(1, 0)


@needs_root
def test_links_of_another_user_are_recognised(tmp_path):
    """A link of this user, a file and a missing name are no reason to refuse."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    refuse_links(tmp_path / "file", tmp_path / "link", tmp_path / "missing")
    os.lchown(tmp_path / "link", OTHER, OTHER)
    with raises(UnsafePath, path=str(tmp_path / "link"), owner=OTHER):
        refuse_links(tmp_path / "link")


def test_a_directory_that_was_removed_is_not_current(place):
    """Its path leads nowhere."""
    with hold_directory(place) as held:
        place.rmdir()
        assert not held.is_current()


@needs_root
def test_a_closed_directory_of_another_user_names_its_owner(user_place):
    """A user who may not open it learns whose it is."""
    closed = user_place.directory("closed", APP, APP, 0o700)
    with raises(LocalIOError, errno=errno.EACCES, path=str(closed)) as caught:
        as_user(OTHER, OTHER, [], hold_directory, closed, measured=True)
    assert user_name(APP) in str(caught.value)


@needs_root
def test_a_root_directory_that_others_can_write_to_is_refused(user_place):
    """Another user cannot close it, so the directory is refused."""
    shared = user_place.directory("shared", 0, 0, 0o777)
    with raises(UnsafePath, path=str(shared)):
        as_user(OTHER, OTHER, [], working_directory, shared, measured=True)


@needs_root
def test_in_a_directory_that_takes_no_file_the_owner_of_new_files_is_unknown(user_place):
    """So a directory of another user stays one of another user."""
    foreign = user_place.directory("foreign", APP, APP, 0o755)
    with raises(UnsafePath, path=str(foreign)):
        as_user(OTHER, OTHER, [], working_directory, foreign, measured=True)

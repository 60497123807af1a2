"""Another user can write next to the database, and root restores it or starts a replicator there.

Before each test he prepares a directory of his own. A file outside it, which only root can write,
shows whether root was led to it.
"""

import hashlib
import os

import pytest

from replicator import restore
from replicator.cache.cache import Cache
from replicator.errors import LocalIOError, UnsafePath
from replicator.recovery.partial import Partial
from replicator.recovery.publish import Existing, publish
from replicator.system.files import Files
from replicator.system.locks import DirLock
from replicator.system.paths import cache_directory, restore_marker_path
from tests.helpers.errors import raises
from tests.helpers.users import OTHER, needs_root

pytestmark = needs_root


@pytest.fixture
def his(tmp_path):
    """A directory of another user, in which root restores ``app.db``."""
    path = tmp_path / "his"
    path.mkdir(0o777)
    os.chown(path, OTHER, OTHER)
    return path


@pytest.fixture
def precious(tmp_path):
    """A directory of root with one file."""
    path = tmp_path / "precious"
    path.mkdir(0o700)
    (path / "file").write_bytes(b"precious")
    return path


def give(path):
    """Makes ``path`` the other user's."""
    os.lchown(path, OTHER, OTHER)
    return path


def link(path, target):
    path.symlink_to(target)
    return give(path)


def unharmed(precious):
    return os.listdir(precious) == ["file"] and (precious / "file").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["lock", "database", "parts", "parts.tmp"])
def test_links_in_his_unfinished_restore_are_not_followed(bucket, his, precious, name):
    """A directory of his with the name of an unfinished restore is refused, with the owner."""
    directory = his / ".app.db.restoring"
    directory.mkdir(0o777)
    link(directory / name, precious / "file")
    give(directory)
    with raises(UnsafePath, path=str(directory), owner=OTHER):
        restore(store=bucket.store, prefix=bucket.prefix, output=his / "app.db")
    assert unharmed(precious)
    assert not (his / "app.db").exists()


@pytest.mark.parametrize("name", [".app.db.restoring", ".app.db-replicator"])
def test_a_link_in_place_of_a_directory_is_not_followed(bucket, his, precious, name):
    """His link does not make root work in a directory of root."""
    link(his / name, precious)
    if name == ".app.db.restoring":
        with raises(UnsafePath, path=str(his / name), owner=OTHER):
            restore(store=bucket.store, prefix=bucket.prefix, output=his / "app.db")
    else:  # only the marker is missing: the restore needs no cache
        restore(store=bucket.store, prefix=bucket.prefix, output=his / "app.db")
        assert (his / "app.db").read_bytes() == bucket.images[bucket.txid]
    assert unharmed(precious)


@pytest.mark.parametrize("name", ["restored.json", "restored.json.tmp"])
def test_the_marker_in_his_cache_overwrites_no_file(bucket, his, precious, name):
    """A restore by root leaves its marker in the cache of the application's user, as its own
    file."""
    cache = cache_directory(his / "app.db")
    cache.mkdir()
    link(cache / name, precious / "file")
    give(cache)
    restore(store=bucket.store, prefix=bucket.prefix, output=his / "app.db")
    marker = restore_marker_path(his / "app.db")
    assert not marker.is_symlink()
    assert marker.is_file()
    assert unharmed(precious)


class Swapping(Files):
    """He renames root's directory and puts his own in its place, as soon as root syncs the
    finished database."""

    def __init__(self, directory):
        self._directory = directory
        self.swapped = False

    def system(self, call, /, *args, **kwargs):
        if call is os.rename and args[0] == "database" and not self.swapped:
            self.swapped = True
            self._directory.rename(self._directory.with_name("aside"))
            self._directory.mkdir()
            give(self._directory)
            (self._directory / "database").write_bytes(b"forged")
        return call(*args, **kwargs)


def test_a_swapped_file_does_not_become_the_database(bucket, his):
    """The restored database is the one that root wrote, whatever has its directory's name."""
    files = Swapping(his / ".app.db.restoring")
    restore(store=bucket.store, prefix=bucket.prefix, output=his / "app.db", files=files)
    assert files.swapped
    assert (his / "app.db").read_bytes() == bucket.images[bucket.txid]


def test_a_swapped_parent_does_not_get_the_database(bucket, his, precious):
    """If his link takes the place of the output's directory, the database stays in his."""
    here = his / "data"
    here.mkdir()
    give(here)

    class Parent(Files):
        def system(self, call, /, *args, **kwargs):
            if call is os.rename and args[0] == "database":
                here.rename(his / "aside")
                link(here, precious)
            return call(*args, **kwargs)

    restore(store=bucket.store, prefix=bucket.prefix, output=here / "app.db", files=Parent())
    assert unharmed(precious)
    assert (his / "aside" / "app.db").read_bytes() == bucket.images[bucket.txid]


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_an_old_database_behind_his_link_is_not_touched(bucket, his, precious, suffix):
    """``--overwrite`` lets SQLite open the old database: not if that leads to a file of root."""
    output = his / "app.db"
    restore(store=bucket.store, prefix=bucket.prefix, output=output)
    before = hashlib.sha256(output.read_bytes()).digest()
    path = his / f"app.db{suffix}"
    path.unlink(missing_ok=True)
    link(path, precious / "file")

    parts = Partial(output, Files())
    with parts.held():
        Files().create(parts.database).close()
        with raises(UnsafePath, path=str(path), owner=OTHER):
            publish(parts, output, {}, Existing.REPLACE, Files())
    assert unharmed(precious)
    assert suffix == "" or hashlib.sha256(output.read_bytes()).digest() == before


@pytest.mark.parametrize("what", ["cache", "link", "segments", "segments link", "state.db"])
def test_a_replicator_of_root_refuses_his_cache(his, precious, what):
    """A cache in which he has a directory or a file, or which is his link, is refused; nothing
    behind it is removed, although an opening removes files that no record claims."""
    cache = his / "cache"
    if what == "link":
        link(cache, precious)
    else:
        cache.mkdir()
    if what == "cache":
        give(cache)
    if what == "segments":
        (cache / "segments").mkdir()
        give(cache / "segments")
    if what == "segments link":
        link(cache / "segments", precious)
    if what == "state.db":
        link(cache / "state.db", precious / "file")
    with raises(UnsafePath, owner=OTHER):
        Cache.open(cache)
    assert unharmed(precious)


@pytest.mark.parametrize("what", ["directory", "lock"])
def test_a_lock_writes_to_no_file_of_root(his, precious, what):
    """A lock truncates its file and writes the process id to it."""
    directory = his / "directory"
    if what == "directory":
        link(directory, precious)
    else:
        directory.mkdir(0o700)
        link(directory / "lock", precious / "file")
    with pytest.raises(LocalIOError):
        DirLock(directory).acquire()
    assert unharmed(precious)

"""Owners, groups and modes × users: no user of a database is locked out by what is made for it."""

import contextlib
import errno
import itertools
import os
import shutil
import sqlite3

import pytest

from replicator.errors import (
    DatabaseUnusable,
    LocalIOError,
    ReplicatorError,
    TargetExists,
    UnsafePath,
)
from replicator.recovery.api import restore
from replicator.sqlite.live import LiveDatabase
from replicator.store.directory import DirectoryStore
from replicator.system.locks import ReplicatorLock
from replicator.system.owners import Owner
from replicator.system.paths import cache_directory, side_files
from replicator.system.restore_marker import read_restore_marker
from tests.helpers.errors import raises
from tests.helpers.replication import LONG, App, replicating
from tests.helpers.users import APP, COLLEAGUE, SHARED, SIDECAR, as_user, needs_root

pytestmark = needs_root

SIDECARS = {
    "root": (0, 0, []),
    "the owner": (APP, APP, []),
    "the owner, in the group": (APP, SHARED, []),
    "a member": (SIDECAR, SIDECAR, [SHARED]),
    "a member by its first group": (SIDECAR, SHARED, []),
    "a stranger": (SIDECAR, SIDECAR, []),
}
OTHERS = {"owner": (APP, APP, [SHARED]), "member": (COLLEAGUE, COLLEAGUE, [SHARED])}


def database_in(directory, mode, *, rows=1):
    path = directory / "app.db"
    with App(path) as app:
        app.insert(rows)
    os.chown(path, APP, SHARED)
    path.chmod(mode)
    return path


def write_one(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO t(body) VALUES (1)")
        return connection.execute("SELECT count(*) FROM t").fetchone()[0]


def can_write(path, user):
    try:
        return bool(as_user(*user, write_one, path))
    except sqlite3.OperationalError:
        return False


def writers(path):
    """Who can write now; what a user that cannot leaves is removed."""
    able = {name: can_write(path, user) for name, user in OTHERS.items()}
    for side in side_files(path):
        side.unlink()
    return able


followed = []  # so that no connection is closed before the process ends


def follow_and_die(path):
    """The side files stay, as after a kill of the sidecar."""
    followed.append(LiveDatabase(path, busy_timeout=0.1))
    followed[-1].hold()


def follow_twice_and_die(path):
    followed.append(LiveDatabase(path, busy_timeout=0.1))
    followed[-1].reopen_after_last_close()


@pytest.mark.parametrize("sidecar", SIDECARS)
@pytest.mark.parametrize("follow", [follow_and_die, follow_twice_and_die])
def test_side_files_lock_no_user_out(user_place, sidecar, follow):
    """For every mode of the database and of its directory: each user that could write before can
    write with the side files of the sidecar, or the sidecar is refused and makes nothing."""
    refused = 0
    for number, (mode, directory_mode) in enumerate(
        itertools.product((0o600, 0o640, 0o660, 0o664, 0o666), (0o770, 0o2770, 0o777))
    ):
        path = database_in(user_place.directory(f"{number}", APP, SHARED, directory_mode), mode)
        before = writers(path)
        assert os.listdir(path.parent) == ["app.db"]
        try:
            as_user(*SIDECARS[sidecar], follow, path)
        except ReplicatorError:
            refused += 1
            assert os.listdir(path.parent) == ["app.db"]
        else:
            assert len(side_files(path)) == 2
        assert {name: can_write(path, user) for name, user in OTHERS.items()} == before
    assert refused < 15 or sidecar == "a stranger"


def test_the_refusal_names_the_user_and_the_fix(user_place):
    """The owner is not in the group of the database, through which the sidecar can write."""
    path = database_in(user_place.directory("d", APP, SHARED, 0o777), 0o660)
    os.chown(path, 1, SHARED)  # a user that this machine knows, and that is in no such group
    with raises(DatabaseUnusable, "side_files_lock_out", path=str(path)) as caught:
        as_user(SIDECAR, SIDECAR, [SHARED], follow_and_die, path)
    assert f"user {SIDECAR}" in str(caught.value)
    assert "chmod g+rw" in caught.value.hint
    assert os.listdir(path.parent) == ["app.db"]


def test_side_files_that_the_sidecar_cannot_use_are_named(user_place):
    """An application whose first group is its own made them."""
    path = database_in(user_place.directory("d", APP, SHARED, 0o770), 0o660)
    as_user(APP, APP, [SHARED], follow_and_die, path)
    with raises(DatabaseUnusable, "side_file_denied", path=str(path)) as caught:
        os.chown(f"{path}-wal", APP, APP)
        as_user(SIDECAR, SIDECAR, [SHARED], follow_and_die, path)
    assert f"user {APP}" in str(caught.value)
    assert "chmod g+s" in caught.value.hint


def test_a_cache_of_another_user_is_named(user_place, store):
    """After a kill of a run by root the cache is still root's; the owner of the database learns why
    it cannot continue, and what to do."""
    path = database_in(user_place.directory("d", APP, SHARED, 0o755), 0o640)
    cache = path.parent / ".app.db-replicator"
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
    os.chown(cache, 0, 0)
    with raises(LocalIOError, path=str(cache), errno=errno.EACCES) as caught:
        as_user(APP, APP, [], lock, path)
    assert "root" in str(caught.value)
    assert f"chown -R {APP}" in caught.value.hint


def lock(path):
    ReplicatorLock(path, path.parent / ".app.db-replicator").acquire()
    return True


@pytest.fixture
def archived(app, store):
    """The store, with an archive of one database in it."""
    with replicating(app.path, store) as replicator:
        replicator.flush(LONG)
    return store


def restore_to(archived, path, **options):
    restore(store=archived, prefix="app.db", output=path, **options)
    return Owner.of(path)


def replace_by(archived, path):
    return restore_to(archived, path, overwrite=True)


@pytest.mark.app(rows=3)
@pytest.mark.parametrize("root_runs", [False, True])
@pytest.mark.parametrize(
    ("directory_mode", "owner"),
    [(0o755, Owner(APP, SHARED, 0o644)), (0o2775, Owner(APP, SHARED, 0o664))],
)
def test_a_restore_by_root_belongs_to_the_owner_of_the_directory(
    user_place, archived, directory_mode, owner, root_runs
):
    """The database, its marker and missing directories; the application can write at once, and
    root or the owner can start a replicator that reads the marker."""
    directory = user_place.directory("d", APP, SHARED, directory_mode)
    for path in (directory / "app.db", directory / "deep" / "er" / "app.db"):
        assert as_user(0, 0, [], restore_to, archived, path) == owner
        assert as_user(APP, APP, [SHARED], write_one, path) == 4
        assert as_user(*(0, 0, []) if root_runs else (APP, APP, []), lock, path)
        assert read_restore_marker(path).txid == 1
        assert can_write(path, OTHERS["member"]) == (directory_mode == 0o2775)


@pytest.mark.app(rows=3)
@pytest.mark.parametrize("user", ["root", "the owner, in the group", "a member"])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o666])
def test_a_replaced_database_keeps_its_owner(user_place, archived, user, mode):
    """Owner, group and mode are those of the replaced file; or it stays as it is."""
    path = database_in(user_place.directory("d", APP, SHARED, 0o770), mode)
    before = writers(path)
    rows = path.read_bytes()
    wanted = Owner(SIDECAR if user == "a member" else APP, SHARED, mode)
    if wanted.uid == APP or mode in (0o660, 0o666):
        assert as_user(*SIDECARS[user], replace_by, archived, path) == wanted
    else:
        with raises(TargetExists, "owner_would_change", path=str(path)):
            as_user(*SIDECARS[user], replace_by, archived, path)
        assert path.read_bytes() == rows
        assert os.listdir(path.parent) == ["app.db"]
        assert Owner.of(path) == Owner(APP, SHARED, mode)
    assert {name: can_write(path, other) for name, other in OTHERS.items()} == before


@pytest.mark.app(rows=3)
def test_a_member_restores_into_a_shared_directory(user_place, archived):
    """The new file gets the group of the directory, and lets it write."""
    directory = user_place.directory("d", APP, SHARED, 0o770)
    member = SIDECARS["a member"]
    assert as_user(*member, restore_to, archived, directory / "app.db") == Owner(
        SIDECAR, SHARED, 0o664
    )
    assert all(can_write(directory / "app.db", user) for user in OTHERS.values())


def replicate_once(path, store):
    """A run of a replicator that makes everything durable; the txid."""
    with replicating(path, store) as replicator:
        return replicator.flush(LONG).txid


def run_as(user, path, bucket):
    """In a process of that user, on a bucket that is a directory."""
    return as_user(*USERS[user], replicate_in, path, bucket)


def replicate_in(path, bucket):
    with contextlib.closing(DirectoryStore(bucket)) as store:
        return replicate_once(path, store)


USERS = {"root": (0, 0, []), "app": (APP, APP, [SHARED])}


@pytest.fixture
def shared_bucket(user_place):
    """A bucket that every user can write to."""
    return user_place.directory("bucket", APP, SHARED, 0o777)


def readable(bucket):
    """Every user can use the objects that root wrote."""
    for place, names, files in os.walk(bucket):
        for name in (*names, *files, "."):
            os.chmod(os.path.join(place, name), 0o777)


@pytest.mark.parametrize(
    "users", [["root", "app", "root", "app"], ["app", "root", "root", "app"]], ids="-".join
)
def test_root_gives_the_cache_back(user_place, shared_bucket, users):
    """A run of root before the right user locks him out of nothing, and the other way round: each
    continues the archive from the same cache."""
    path = database_in(user_place.directory("home", APP, SHARED, 0o770), 0o660)
    txids = []
    for user in users:
        as_user(*USERS["app"], write_one, path)
        txids.append(run_as(user, path, shared_bucket))
        readable(shared_bucket)
        made = [cache_directory(path), *cache_directory(path).rglob("*")]
        assert {(one.lstat().st_uid, one.name) for one in made} == {(APP, one.name) for one in made}
    assert txids == list(range(txids[0], txids[0] + len(users)))


def test_root_takes_no_cache_with_links(user_place):
    """A link in it, also a hard one, would lead root to other files, and give them away at the
    end."""
    path = database_in(user_place.directory("home", APP, SHARED, 0o770), 0o660)
    precious = user_place.path / "precious"
    precious.write_bytes(b"precious")
    precious.chmod(0o600)
    for link in (os.symlink, os.link):
        cache = cache_directory(path)
        cache.mkdir()
        (cache / "segments").mkdir()
        link(precious, cache / "segments" / "state.db")
        for each in (cache, cache / "segments"):
            os.chown(each, APP, APP)
        with raises(UnsafePath):
            ReplicatorLock(path, cache).acquire()
        assert (precious.stat().st_uid, precious.read_bytes()) == (0, b"precious")
        assert cache.stat().st_uid == APP
        shutil.rmtree(cache)


def test_root_keeps_a_cache_that_was_made_for_it(user_place, tmp_path):
    """A directory that is not next to the database, and was there before, stays root's."""
    path = database_in(user_place.directory("home", APP, SHARED, 0o770), 0o660)
    cache = user_place.directory("cache", 0, 0, 0o700)
    lock = ReplicatorLock(path, cache)
    lock.acquire()
    lock.release()
    assert cache.stat().st_uid == 0
    assert cache_directory(path).stat().st_uid == APP
    for _ in range(2):  # one that it makes goes to the owner, each time
        lock = ReplicatorLock(path, user_place.path / "made")
        lock.acquire()
        assert (user_place.path / "made").stat().st_uid == 0
        lock.release()
        assert (user_place.path / "made").stat().st_uid == APP

"""One replicator per cache directory and per database."""

import pytest

from replicator.errors import AlreadyRunning, LocalIOError
from replicator.system import locks as lock_module
from replicator.system.files import DirLock
from replicator.system.locks import ReplicatorLock, cache_beside
from tests.helpers.files import FailingFiles


@pytest.fixture
def database(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "app.db"


def test_one_database_has_one_replicator_whatever_its_cache(tmp_path, database):
    """Two cache directories do not make two databases; the next one may when the first ends."""
    first = ReplicatorLock(database, tmp_path / "one")
    first.acquire()
    for cache in (tmp_path / "two", cache_beside(database)):
        second = ReplicatorLock(database, cache)
        with pytest.raises(AlreadyRunning):
            second.acquire()
    first.release()
    second.acquire()
    with pytest.raises(AlreadyRunning):
        first.acquire()
    DirLock(tmp_path / "one").acquire()  # what was taken before the refusal was given back


def test_one_cache_has_one_replicator_whatever_its_database(tmp_path, database):
    """Two databases in one cache would be torn apart."""
    first = ReplicatorLock(database, tmp_path / "cache")
    first.acquire()
    with pytest.raises(AlreadyRunning):
        ReplicatorLock(database.with_name("other.db"), tmp_path / "cache").acquire()


def test_two_databases_in_one_directory_are_apart(database):
    """Neither their default caches nor their locks meet."""
    for name in ("one.db", "two.db"):
        path = database.with_name(name)
        ReplicatorLock(path, cache_beside(path)).acquire()


def test_nothing_is_made_where_no_database_can_be(tmp_path):
    """A directory that is not mounted yet is not created."""
    database = tmp_path / "not mounted" / "app.db"
    ReplicatorLock(database, tmp_path / "cache").acquire()
    assert not database.parent.exists()


def test_a_directory_that_refuses_is_no_reason_to_stop(tmp_path, database, monkeypatch):
    """Read-only or full beside the database: following it will say what is wrong."""
    failing = DirLock(cache_beside(database), FailingFiles(at=1))
    with pytest.raises(LocalIOError):
        failing.acquire()
    lock = ReplicatorLock(database, tmp_path / "cache")
    monkeypatch.setattr(lock_module.DirLock, "acquire", _refusing(lock_module.DirLock.acquire))
    lock.acquire()
    with pytest.raises(LocalIOError):
        ReplicatorLock(database, cache_beside(database)).acquire()


def _refusing(acquire):
    def refuse(self):
        if self.path.parent.name.startswith("."):
            raise LocalIOError("read-only")
        acquire(self)

    return refuse

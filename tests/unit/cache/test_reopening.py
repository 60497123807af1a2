"""A cache in use whose directory or ledger is removed or replaced."""
# ruff: noqa: PLR1704 - a cache that is opened again keeps its name

import os
import shutil

import pytest

from replicator.cache.cache import Cache
from replicator.cache.records import Fact
from replicator.errors import LedgerDamaged, LocalIOError
from tests.helpers.cache import add, content, reopened, txids, upload
from tests.helpers.errors import raises
from tests.helpers.files import FailingFiles


def test_a_cache_that_is_deleted_in_use_refuses_writes(cache):
    """Rows written to a file without a name would vanish: no write succeeds before the cache is
    opened again, and then it is empty."""
    add(cache, 1)
    shutil.rmtree(cache.directory)
    for write in (lambda: add(cache, 2), lambda: cache.uploading(1)):
        with raises(LedgerDamaged, "ledger_replaced"):
            write()
    cache.reopen()
    assert cache.head() is None
    add(cache, 1)
    with reopened(cache) as cache:
        assert txids(cache.records()) == [1]


def test_a_replaced_ledger_is_noticed(cache):
    """An older copy put over a live ledger gets no writes of ours."""
    path = cache.directory / "state.db"
    shutil.copy(path, path.with_suffix(".copy"))
    os.replace(path.with_suffix(".copy"), path)
    with raises(LedgerDamaged, "ledger_replaced"):
        cache.put(Fact.DATABASE, "b")


def test_an_older_copy_in_the_ledgers_place_is_not_believed(cache, tmp_path):
    """It would call durable, or take for the next, what the process knows better; it is kept
    beside the new, empty ledger. The writer stays the same."""
    add(cache, 1)
    with Cache.open(tmp_path / "other") as other:
        older = other.directory / "state.db"
    add(cache, 2)
    shutil.move(older, cache.directory / "state.db")
    with raises(LedgerDamaged, "ledger_replaced"):
        add(cache, 3)
    writer = cache.writer
    cache.reopen()
    assert cache.head() is None
    assert cache.writer == cache.get(Fact.WRITER) == writer
    assert (cache.directory / "state.db.corrupt-1").exists()
    assert list((cache.directory / "segments").iterdir()) == []
    record = add(cache, 3)
    assert cache.pending() == [record]
    assert cache.read(record) == content(3)


@pytest.mark.parametrize("name", ["state.db", "state.db-wal"])
def test_a_ledger_without_name_or_log_takes_no_writes(cache, name):
    """Rows written into a removed file are lost; in the WAL they would be the newest."""
    add(cache, 1)
    (cache.directory / name).unlink()
    with raises(LedgerDamaged, "ledger_replaced"):
        upload(cache, 1)


def test_reopening_can_be_tried_again(tmp_path):
    """The disk refuses for a while: every use says that the ledger is lost, until it works."""
    add(cache := Cache.open(tmp_path / "cache", files := FailingFiles(at=0)), 1)
    (cache.directory / "state.db").unlink()
    files.at = len(files.log) + 2
    with pytest.raises(LocalIOError):
        cache.reopen()
    with pytest.raises(LedgerDamaged):
        cache.head()
    cache.reopen()
    assert cache.head() is None
    cache.close()

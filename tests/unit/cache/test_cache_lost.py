"""The cache in use while its directory is taken away from under it."""

import logging
import shutil

import pytest

from replicator.cache.cache import Cache
from replicator.cache.records import Fact
from replicator.errors import LedgerDamaged, LocalIOError
from tests.helpers.cache import add, content, upload
from tests.helpers.files import FailingFiles


def test_an_older_copy_in_the_ledgers_place_is_not_believed(cache, tmp_path):
    """It would call durable, or take for the next, what the process knows better; it is kept
    beside the new, empty ledger. The writer stays the same."""
    add(cache, 1)
    with Cache.open(tmp_path / "other") as other:
        older = other.directory / "state.db"
    add(cache, 2)
    shutil.move(older, cache.directory / "state.db")
    with pytest.raises(LedgerDamaged, match="removed or replaced"):
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
    """What is written into a removed file is nobody's; of the log it would be the newest rows."""
    add(cache, 1)
    (cache.directory / name).unlink()
    with pytest.raises(LedgerDamaged, match="removed or replaced"):
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


def test_a_file_that_cannot_be_removed_is_told(tmp_path, caplog):
    """It takes space that nothing counts any more."""
    cache = Cache.open(tmp_path / "cache", files := FailingFiles(at=0))
    record = add(cache, 1)
    upload(cache, 1)
    files.act = lambda number, call, args, kwargs: files.refuse(call, args, kwargs)
    files.refuse = refuse_unlink
    cache.trim(0)
    assert f"{record.file_name}: input/output error; it takes space" in caplog.text
    files.refuse = lambda call, args, kwargs: call(*args, **kwargs)
    cache.close()
    with Cache.open(tmp_path / "cache") as cache:
        assert list((cache.directory / "segments").iterdir()) == []


def refuse_unlink(call, args, kwargs):
    if call.__name__ == "unlink":
        raise OSError(5, "Input/output error")
    return call(*args, **kwargs)


def test_what_was_found_wrong_is_told(cache, caplog):
    """At opening, in the log: nobody would ask for it."""
    first = add(cache, 1)
    cache.close()
    (cache.directory / "segments" / first.file_name).unlink()
    with caplog.at_level(logging.WARNING), Cache.open(cache.directory) as again:
        assert again.recovered == [record.getMessage() for record in caplog.records]
        assert "transactions 1 to 1 must be caught up" in caplog.text
    (cache.directory / "state.db").write_bytes(b"not a ledger" * 100)
    caplog.clear()
    Cache.open(cache.directory).close()
    assert "it was set aside" in caplog.text

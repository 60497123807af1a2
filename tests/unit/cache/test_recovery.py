"""cache/recovery.py: a cache after a crash or damage is repaired, and reports each repair."""
# ruff: noqa: PLR1704 - a cache that is opened again keeps its name

import errno
import logging

import pytest

from replicator.cache.cache import Cache
from replicator.cache.records import Status
from tests.helpers.cache import (
    add,
    assert_set_aside,
    content,
    files_in,
    record,
    reopened,
    txids,
    upload,
)
from tests.helpers.disk_faults import name_of
from tests.helpers.files import KeepingFiles, StrikingFiles


def test_an_attempt_of_a_killed_process_waits_again(cache):
    """No attempt runs right after opening; the upload id and the count are kept."""
    add(cache, 1)
    cache.uploading(1)
    cache.progress(1, "id-1", 5)
    with reopened(cache) as cache:
        waiting = cache.next_pending().delivery
        assert waiting.status is Status.PENDING
        assert (waiting.attempts, waiting.upload_id, waiting.part_size) == (1, "id-1", 5)


def test_a_file_that_cannot_be_removed_is_removed_at_the_next_opening(cache_directory):
    """The row is removed first, so the file is an orphan."""
    with Cache.open(cache_directory, KeepingFiles()) as cache:
        add(cache, 1)
        cache.drop_pending()
        assert len(files_in(cache_directory)) == 1
    with Cache.open(cache_directory) as cache:
        assert files_in(cache_directory) == []
        assert "had no record and was removed" in cache.recovered[0]


@pytest.mark.parametrize("harm", ["missing", "short", "flipped", "directory"])
def test_waiting_segments_from_the_first_damaged_one_on_are_dropped(cache, harm):
    """The log must have no hole, so the segments after a damaged one go too, with a report."""
    for txid in range(1, 6):
        add(cache, txid)
    upload(cache, 1)
    path = cache.directory / "segments" / cache.records()[2].file_name
    data = path.read_bytes()
    if harm == "flipped":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif harm == "short":
        path.write_bytes(data[:-1])
    else:
        path.unlink()
        if harm == "directory":
            path.mkdir()
    with reopened(cache) as cache:
        assert txids(cache.records()) == [1, 2]
        assert cache.durable().last_txid == 1
        (message,) = cache.recovered
        assert "transactions 3 to 5 must be caught up" in message
        assert cache.read(cache.head()) == content(2)
    with reopened(cache) as cache:
        assert txids(cache.records()) == [1, 2]


def test_a_damaged_segment_that_was_offered_to_the_store_stays(cache):
    """The store may hold it, so its txid must not be used again before the store was asked."""
    for txid in range(1, 5):
        add(cache, txid)
    cache.uploading(2)
    (cache.directory / "segments" / cache.records()[1].file_name).write_bytes(b"damaged")
    with reopened(cache) as cache:
        assert txids(cache.records()) == [1, 2]
        assert "transactions 3 to 4 must be caught up" in cache.recovered[0]


def test_a_segment_that_cannot_be_read_at_the_start_is_reported_with_the_reason(cache_directory):
    """A bad block must not prevent the start; the lost transactions are caught up."""
    with Cache.open(cache_directory) as cache:
        add(cache, 1)
    files = StrikingFiles(name_of)
    files.strike(("pread", "segment"), 1, errno.EIO, lasting=False)
    with Cache.open(cache_directory, files) as cache:
        assert cache.pending() == []
        assert "input/output error; transactions 1 to" in cache.recovered[0]


def test_an_orphan_is_removed_and_reported(cache):
    """A finished file without a row: a crash at the last step, or a ledger that lost rows."""
    add(cache, 1)
    (cache.directory / "segments" / "draft-9.tmp").write_bytes(b"x")
    (cache.directory / "segments" / record(2).file_name).write_bytes(b"x")
    with reopened(cache) as cache:
        (message,) = cache.recovered
        assert record(2).file_name in message
        assert len(files_in(cache.directory)) == 1


def test_damage_found_at_opening_is_logged(cache, caplog):
    """Each line of ``recovered`` is a warning in the log."""
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


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"x",
        b"SQLite format 3\0" + b"\xff" * 5000,
        b"\0" * 4096,
    ],
)
def test_garbage_is_set_aside(filled_cache, garbage):
    """Any content, even a file that SQLite takes for a new database."""
    (filled_cache / "state.db").write_bytes(garbage)
    assert_set_aside(
        filled_cache, "the ledger is damaged" if len(garbage) > 512 else "is cut short"
    )


def test_a_directory_is_set_aside(filled_cache):
    """A mistake of an operator does not stop the replicator."""
    (filled_cache / "state.db").unlink()
    (filled_cache / "state.db").mkdir()
    assert_set_aside(filled_cache, "is a directory")


def test_each_damaged_ledger_gets_a_name_of_its_own(filled_cache):
    """Evidence is never overwritten."""
    (filled_cache / "state.db").write_bytes(b"x")
    assert_set_aside(filled_cache, "cut short", 1)
    (filled_cache / "state.db").write_bytes(b"y")
    assert_set_aside(filled_cache, "cut short", 2)
    assert (filled_cache / "state.db.corrupt-1").read_bytes() == b"x"


@pytest.mark.parametrize("with_log", [True, False])
def test_a_deleted_ledger_is_reported(filled_cache, with_log):
    """An empty cache because of a deletion is not a new cache; its old log is not replayed."""
    (filled_cache / "state.db").unlink()
    if with_log:
        (filled_cache / "state.db-wal").write_bytes(b"left over")
    with Cache.open(filled_cache) as cache:
        assert cache.head() is None
        assert "the ledger was missing" in cache.recovered[0]
        assert len(cache.recovered) == 6
    assert (filled_cache / "state.db.corrupt-1-wal").exists() == with_log

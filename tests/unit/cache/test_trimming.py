"""cache/trimming.py: files of acknowledged segments go, oldest first; no waiting one does."""
# ruff: noqa: PLR1704 - a cache that is opened again keeps its name

from replicator.cache.cache import Cache
from replicator.cache.limits import CacheLimits
from replicator.errors import DamageError
from tests.helpers.cache import add, content, files_in, reopened, txids, upload
from tests.helpers.errors import raises


def test_trim_removes_the_oldest_acknowledged_files(cache):
    """Never one that waits, and the newest acknowledged row stays for its position."""
    for txid in range(1, 9):
        add(cache, txid)
    for txid in range(1, 6):
        upload(cache, txid)
    size = len(content(1))
    assert cache.usage() == 8 * size
    assert cache.pending_bytes() == 3 * size
    assert cache.trim(8 * size) == 0
    assert cache.trim(6 * size + 1) == 2 * size
    assert cache.usage() == 6 * size
    assert cache.trim(0) == 3 * size
    assert cache.trim(0) == 0
    assert cache.durable().last_txid == 5
    assert not cache.durable().stored
    assert txids(cache.pending()) == [6, 7, 8]
    with raises(DamageError, key="app.db/wal/0000000000000005.wal.zst"):
        cache.read(cache.durable())
    with reopened(cache) as cache:
        assert cache.recovered == []
        assert cache.usage() == cache.pending_bytes() == 3 * size
        for txid in (6, 7, 8):
            upload(cache, txid)
        assert cache.trim(0) == 3 * size
        assert txids(cache.records()) == [8]


def test_trim_bounds_the_number_of_segments(cache_directory):
    """Tiny segments would fill the directory long before they fill the disk."""
    with Cache.open(cache_directory, limits=CacheLimits(keep_segments=3, trim_batch=2)) as cache:
        for txid in range(1, 12):
            add(cache, txid)
            upload(cache, txid)
        assert cache.trim(1 << 30) == sum(len(content(txid)) for txid in range(1, 9))
        assert txids(r for r in cache.records() if r.stored) == [9, 10, 11]
        assert cache.durable().last_txid == 11
        assert cache.trim(1 << 30) == 0


def test_a_lost_file_in_the_middle_leaves_no_hole_in_the_log(cache):
    """An acknowledged segment without its file is noted, and rows stay contiguous."""
    for txid in range(1, 5):
        add(cache, txid)
        upload(cache, txid)
    second, third = cache.records()[1:3]
    (cache.directory / "segments" / second.file_name).unlink()
    (cache.directory / "segments" / third.file_name).write_bytes(b"short")
    with reopened(cache) as cache:
        assert cache.recovered == []
        assert [r.stored for r in cache.records()] == [True, False, False, True]
        assert cache.usage() == 2 * len(content(1))
        assert len(files_in(cache.directory)) == 2
        assert cache.durable().last_txid == 4
    with reopened(cache) as cache:
        assert cache.recovered == []
        cache.trim(len(content(1)))
        assert txids(cache.records()) == [4]

"""cache/segment_files.py: the bytes that leave are the captured bytes."""
# ruff: noqa: PLR1704 - a cache that is opened again keeps its name

import errno
import shutil

from replicator.cache.cache import Cache
from replicator.errors import DamageError, LocalIOError
from tests.helpers.cache import add, content, files_in, reopened, upload
from tests.helpers.disk_faults import name_of
from tests.helpers.errors import raises
from tests.helpers.files import KeepingFiles, StrikingFiles


def test_a_damaged_segment_is_not_read(cache):
    """Neither read nor called intact; the error names the object."""
    kept = add(cache, 1)
    path = cache.directory / "segments" / kept.file_name
    assert cache.intact(kept)
    path.write_bytes(content(1)[:-1] + b"X")
    assert not cache.intact(kept)
    with raises(DamageError, key="app.db/wal/0000000000000001.wal.zst") as caught:
        cache.read(kept)
    assert caught.value.key == kept.key
    path.unlink()
    assert not cache.intact(kept)


def test_a_disk_that_refuses_is_not_damage(cache_directory):
    """The disk may answer later, and then the segment is intact."""
    files = StrikingFiles(name_of)
    with Cache.open(cache_directory, files) as cache:
        record = add(cache, 1)
        files.strike(("open", "segment"), 1, errno.EIO, lasting=False)
        with raises(LocalIOError, errno=5):
            cache.intact(record)
        assert cache.intact(record)


def test_a_directory_of_segments_that_is_deleted_in_use_comes_back(cache):
    """The lost segments are reported as gone; the next one is written again."""
    lost = add(cache, 1)
    shutil.rmtree(cache.directory / "segments")
    add(cache, 2)
    for read in (cache.read, cache.open_segment):
        with raises(DamageError, key="app.db/wal/0000000000000001.wal.zst"):
            read(lost)
    assert not cache.intact(lost)
    with reopened(cache) as cache:
        assert cache.head() is None
        assert "must be caught up" in cache.recovered[0]
        add(cache, 1)


def test_a_file_that_cannot_be_removed_is_logged(tmp_path, caplog):
    """It takes space that the ledger does not count."""
    with Cache.open(tmp_path / "cache", KeepingFiles()) as cache:
        record = add(cache, 1)
        upload(cache, 1)
        cache.trim(0)
    assert f"{record.file_name}: input/output error; it takes space" in caplog.text
    with Cache.open(tmp_path / "cache") as cache:
        assert files_in(cache.directory) == []

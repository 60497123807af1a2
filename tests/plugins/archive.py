"""Archives to test on, made by the format encoders from a real SQLite database."""

import pytest

from replicator.store.directory import DirectoryStore
from tests.helpers.bucket import BucketBuilder, busy_bucket
from tests.helpers.small_archive import SmallArchive


@pytest.fixture
def source_directory(tmp_path):
    """An empty directory for the database that an archive is made from."""
    directory = tmp_path / "source"
    directory.mkdir()
    return directory


@pytest.fixture
def bucket(source_directory):
    """Two generations with segments of one and several transactions; see `busy_bucket`."""
    built = busy_bucket(source_directory)
    yield built
    built.close()


@pytest.fixture
def empty_bucket(source_directory):
    """A database of one table, its snapshot and its marker at txid 1."""
    built = BucketBuilder(source_directory)
    yield built
    built.close()


@pytest.fixture
def stored_archive(source_directory, tmp_path):
    """An archive in the directory ``store``: a snapshot of several parts and some segments."""
    (tmp_path / "store").mkdir()
    built = BucketBuilder(source_directory, DirectoryStore(tmp_path / "store"))
    built.insert(400)
    built.cut()
    built.snapshot(frame_bytes=16 * 4096)
    built.run("UPDATE t SET body = 'x' WHERE id % 50 = 0")
    built.cut()
    built.insert(30)
    built.cut()
    yield built
    built.close()


@pytest.fixture(params=["segments", "merges"])
def archive(request, memory_directory):
    """One of each kind of object: with segments alone, and with merges that replace some."""
    built = SmallArchive(memory_directory, merged=request.param == "merges")
    yield built
    built.built.close()


@pytest.fixture
def bucket_dir(tmp_path):
    """An empty directory that serves as the bucket."""
    directory = tmp_path / "bucket"
    directory.mkdir()
    return directory


@pytest.fixture
def bucket_url(bucket_dir):
    """The ``file://`` address of `bucket_dir`."""
    return f"file://{bucket_dir}"

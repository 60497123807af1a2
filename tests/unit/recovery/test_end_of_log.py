"""Where the log ends is what its last object says, wherever the newest snapshot stands."""

import pytest

from replicator import restore
from tests.helpers.bucket import BucketBuilder


@pytest.fixture
def merged_log(tmp_path):
    """A log whose beginning was merged; its last segment holds three transactions."""
    (tmp_path / "source").mkdir()
    built = BucketBuilder(tmp_path / "source")
    for _ in range(2):
        built.insert()
    built.cut()
    built.merge(2, 3)
    for _ in range(3):
        built.insert()
    built.cut()
    yield built
    built.close()


def newest(bucket, directory):
    output = directory / "out.db"
    report = restore(store=bucket.store, prefix=bucket.prefix, output=output)
    return report.txid, output.read_bytes()


def test_a_snapshot_at_the_end_behind_a_merge(merged_log, tmp_path):
    """No segment begins at the snapshot or later, and the merge is not the end."""
    merged_log.snapshot()
    assert newest(merged_log, tmp_path) == (6, merged_log.images[6])


def test_a_snapshot_beyond_the_end_behind_a_merge(merged_log, tmp_path):
    """A generation was about to begin: what its snapshot shows does not count yet, and all of
    the log before it does."""
    merged_log.start_generation()
    marker = merged_log.keys.wal(merged_log.txid)
    merged_log.store.delete(marker)
    assert newest(merged_log, tmp_path) == (6, merged_log.images[6])

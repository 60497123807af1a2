"""A restored database equals, byte for byte, the image of an independent reader of the WAL."""

import errno
import os
import sqlite3

import pytest

from replicator.errors import GapError, LocalIOError
from replicator.format import payload
from replicator.model import Kind
from tests.helpers.bucket import BucketBuilder, busy_bucket, commit_ms
from tests.helpers.errors import raises
from tests.helpers.files import CountingFiles
from tests.helpers.restores import restore_with

NO_LIMITS = {}
MANY_SYNCS = {"range_bytes": 1, "sync_raw_bytes": 5 * 4096}


def restored(bucket, output, *, limits=NO_LIMITS, **options):
    """The report of a restore whose file equals the recorded image; ``limits`` are changes."""
    report = restore_with(
        limits, store=bucket.store, prefix=bucket.prefix, output=output, overwrite=True, **options
    )
    assert output.read_bytes() == bucket.images[report.txid]
    assert sorted(path.name for path in output.parent.glob(f"*{output.name}*")) == [
        f".{output.name}-replicator",
        output.name,
    ]
    return report


def every_txid(bucket, output, **options):
    for txid in bucket.images:
        assert restored(bucket, output, txid=txid, **options).txid == txid


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("auto_vacuum", [False, True])
def test_every_transaction(tmp_path, page_size, auto_vacuum):
    """Every txid can be restored: before and after a shrink, across generations, mid-segment."""
    (tmp_path / "source").mkdir()
    bucket = busy_bucket(tmp_path / "source", page_size=page_size, auto_vacuum=auto_vacuum)
    every_txid(bucket, tmp_path / "out.db")
    bucket.close()


def test_the_newest_by_default(bucket, tmp_path):
    """Without a target the newest transaction is restored, and the report describes it."""
    report = restored(bucket, tmp_path / "out.db", verify="full")
    assert report.txid == bucket.txid
    assert report.committed_at == commit_ms(bucket.txid)
    assert report.generation == bucket.generation
    assert report.size == report.pages * report.page_size == len(bucket.images[bucket.txid])
    assert report.url == "memory://app.db"
    assert (report.objects, report.snapshot_txid, report.lost_txids) == (3, 14, 0)
    assert "integrity_check" in report.verified
    with sqlite3.connect(report.output) as database:
        assert database.execute("SELECT count(*) FROM t").fetchone() == (53,)
    database.close()


def test_merges_that_keep_every_transaction(empty_bucket, tmp_path):
    """After segments were merged and removed, every txid can be restored."""
    for _ in range(4):
        empty_bucket.insert(10)
        empty_bucket.insert(3)
        empty_bucket.cut()
    empty_bucket.merge(2, 5, drop=True)
    every_txid(empty_bucket, tmp_path / "out.db")
    empty_bucket.merge(6, 9, drop=True)
    every_txid(empty_bucket, tmp_path / "out.db")


def test_merges_of_newest_images(empty_bucket, tmp_path):
    """A merge of newest images gives its last txid, also through a shrink, and none inside."""
    empty_bucket.insert(200)
    empty_bucket.cut()
    empty_bucket.delete_all_and_shrink()
    empty_bucket.insert(2)
    empty_bucket.cut()
    empty_bucket.insert(2)
    empty_bucket.cut()
    empty_bucket.merge_newest(2, 5, drop=True)
    out = tmp_path / "out.db"
    assert restored(empty_bucket, out).objects == 3
    assert restored(empty_bucket, out, txid=5).objects == 2
    assert restored(empty_bucket, out, txid=1).objects == 1
    with raises(GapError, "inside_step", first_missing=3, last_missing=3, restorable=(1, 6)):
        restored(empty_bucket, out, txid=3)


def test_squashed_segments(empty_bucket, tmp_path):
    """A squashed segment holds several transactions as one step and cannot be cut, although its
    key looks like any other."""
    empty_bucket.insert(5)
    empty_bucket.cut()
    for _ in range(3):
        empty_bucket.insert(5)
    empty_bucket.squash()
    empty_bucket.insert(5)
    empty_bucket.cut()
    out = tmp_path / "out.db"
    assert restored(empty_bucket, out).txid == 6
    assert restored(empty_bucket, out, txid=5).txid == 5
    with raises(GapError, "inside_step", first_missing=4, last_missing=4, restorable=(1, 6)):
        restored(empty_bucket, out, txid=4)
    assert restored(empty_bucket, out, txid=4, allow_older=True).lost_txids == 2


def test_a_snapshot_inside_a_merge(empty_bucket, tmp_path):
    """A snapshot in the middle of a merged range is a base for the rest of it."""
    empty_bucket.insert(30)
    empty_bucket.cut()
    empty_bucket.insert(30)
    empty_bucket.cut()
    empty_bucket.snapshot()
    empty_bucket.run("UPDATE t SET body = 'x' WHERE id < 20")
    empty_bucket.insert(5)
    empty_bucket.cut()
    empty_bucket.merge(2, 5, drop=True)
    for txid in (3, 4, 5):
        assert restored(empty_bucket, tmp_path / "out.db", txid=txid).snapshot_txid == 3


def test_catch_up_segments(empty_bucket, tmp_path):
    """A catch-up, one transaction of the differing pages after a gap, is part of the log."""
    empty_bucket.insert(5)
    empty_bucket.cut(kind=Kind.CATCH_UP)
    empty_bucket.insert(5)
    empty_bucket.cut()
    every_txid(empty_bucket, tmp_path / "out.db")


def test_without_metadata(tmp_path):
    """Objects without metadata, as after a copy, are sufficient."""
    (tmp_path / "source").mkdir()
    bucket = BucketBuilder(tmp_path / "source")
    for _ in range(3):
        bucket.insert(5)
        bucket.cut(metadata=False)
    bucket.snapshot(metadata=False)
    bucket.insert(1)
    bucket.cut(metadata=False)
    for key in bucket.objects():
        body = bucket.store.get(key)
        bucket.store.put(key, body, if_absent=False)
    every_txid(bucket, tmp_path / "out.db")
    bucket.close()


def test_segments_larger_than_memory(bucket, tmp_path, monkeypatch):
    """Large segments go through a local file and are decoded twice, with the same result."""
    monkeypatch.setattr(payload, "CHUNK_BYTES", 9000)
    limits = {"one_get_bytes": 100, "in_memory_bytes": 5000}
    every_txid(bucket, tmp_path / "out.db", limits=limits)


def test_snapshots_of_many_parts(tmp_path):
    """A snapshot is fetched in ranges, each of some frames, and newer pages stay on top."""
    limits = {"range_bytes": 20_000, "group_raw_bytes": 4096 * 9}
    (tmp_path / "source").mkdir()
    bucket = BucketBuilder(tmp_path / "source")
    bucket.insert(300)
    bucket.run("CREATE TABLE zeros AS SELECT zeroblob(60000) AS z")
    bucket.cut()
    bucket.snapshot(frame_bytes=3 * 4096)
    bucket.run("UPDATE t SET body = 'x' WHERE id % 50 = 0")
    bucket.cut()
    every_txid(bucket, tmp_path / "out.db", limits=limits)
    bucket.delete_all_and_shrink()
    bucket.cut()
    every_txid(bucket, tmp_path / "out.db", limits=limits)
    bucket.close()


def test_syncs_on_the_way(empty_bucket, tmp_path):
    """A restore syncs after every so many bytes of the snapshot; the last sync still comes after
    the last write and before the rename."""
    empty_bucket.insert(300)
    empty_bucket.cut()
    empty_bucket.snapshot(frame_bytes=4096)
    often, once = CountingFiles(), CountingFiles()
    restored(empty_bucket, tmp_path / "once.db", files=once, limits={"range_bytes": 1})
    pages = restored(empty_bucket, tmp_path / "often.db", files=often, limits=MANY_SYNCS).pages
    assert often.names().count("fsync") == once.names().count("fsync") + pages // 5 > 2
    calls = often.names()[: often.names().index("rename")][::-1]
    assert calls.index("fsync") < calls.index("pwrite")


def test_a_sync_that_fails_on_the_way(empty_bucket, tmp_path):
    """After a failed sync the restore fails instead of syncing again, and nothing gets the name of
    the database."""
    empty_bucket.insert(300)
    empty_bucket.cut()
    empty_bucket.snapshot(frame_bytes=4096)
    with pytest.raises(LocalIOError):
        restored(empty_bucket, tmp_path / "out.db", files=FirstSyncFails(), limits=MANY_SYNCS)
    assert not (tmp_path / "out.db").exists()


class FirstSyncFails(CountingFiles):
    """Fails the first sync after a page was written; every later one works."""

    failed = False

    def act(self, number, call, args, kwargs):
        if call is os.fsync and "pwrite" in self.names() and not self.failed:
            self.failed = True
            raise OSError(errno.EIO, "made to fail")
        return call(*args, **kwargs)


def test_pages_of_zeros_take_no_space(tmp_path):
    """Zero pages of a snapshot (here: securely deleted ones) are left as holes."""
    (tmp_path / "source").mkdir()
    bucket = BucketBuilder(tmp_path / "source")
    bucket.insert(2000, 1000)
    bucket._db.execute("PRAGMA secure_delete=ON")
    bucket.run("DELETE FROM t")
    bucket.cut()
    bucket.snapshot()
    out = tmp_path / "out.db"
    restored(bucket, out)
    assert out.stat().st_size > 2_000_000
    assert out.stat().st_blocks * 512 < 200_000
    bucket.close()

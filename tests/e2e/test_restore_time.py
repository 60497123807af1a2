"""Restoring to a point in time: the last transaction committed at or before it."""

import time
from datetime import UTC, datetime

from replicator import restore
from replicator.archive.timespec import to_text
from replicator.errors import GapError
from tests.helpers.bucket import EPOCH_MS, BucketBuilder, commit_ms
from tests.helpers.counting import CountingStore
from tests.helpers.errors import raises


def txid_at(bucket, ms, output, **options):
    report = restore(
        store=bucket.store,
        prefix=bucket.prefix,
        output=output,
        overwrite=True,
        timestamp=to_text(ms),
        **options,
    )
    assert output.read_bytes() == bucket.images[report.txid]
    return report.txid


def test_around_every_commit(bucket, tmp_path):
    """A time selects a commit from its own millisecond on, and not one earlier."""
    out = tmp_path / "out.db"
    for txid in bucket.images:
        assert txid_at(bucket, commit_ms(txid), out) == txid
        assert txid_at(bucket, commit_ms(txid) + 9_999, out) == txid
        if txid > 1:
            assert txid_at(bucket, commit_ms(txid) - 1, out) == txid - 1


def test_outside_names_the_window(bucket, tmp_path):
    """A time before the first state or in the future is an error that names the window."""
    window = f"{to_text(commit_ms(1))} to {to_text(commit_ms(17))}"
    for ms in (EPOCH_MS, time.time_ns() // 1_000_000 + 10_000_000):
        with raises(GapError, "outside_times", restorable=(1, 17)) as error:
            txid_at(bucket, ms, tmp_path / "out.db")
        assert window in str(error.value)


def test_now_and_datetimes(bucket, tmp_path):
    """Words and datetimes are accepted like RFC 3339."""
    for when in ("now", "1 second ago", datetime.now(UTC)):
        report = restore(
            store=bucket.store,
            prefix=bucket.prefix,
            output=tmp_path / "out.db",
            timestamp=when,
            overwrite=True,
        )
        assert report.txid == bucket.txid


def test_without_metadata(tmp_path):
    """Without metadata the times come from the objects themselves."""
    (tmp_path / "source").mkdir()
    bucket = BucketBuilder(tmp_path / "source")
    for _ in range(4):
        bucket.insert()
        bucket.insert()
        bucket.cut(metadata=False)
    bucket.store.put(bucket.keys.wal(1), bucket.store.get(bucket.keys.wal(1)), if_absent=False)
    for txid in bucket.images:
        assert txid_at(bucket, commit_ms(txid) + 1, tmp_path / "out.db") == txid
    bucket.close()


def test_merged_times(empty_bucket, tmp_path):
    """Merges that keep every transaction give exact results; a time inside another merge selects
    the last transaction before it."""
    for _ in range(4):
        empty_bucket.insert()
        empty_bucket.insert()
        empty_bucket.cut()
    empty_bucket.merge(2, 5, drop=True)
    empty_bucket.merge_newest(6, 7, drop=True)
    out = tmp_path / "out.db"
    found = [txid_at(empty_bucket, commit_ms(txid), out) for txid in range(1, 10)]
    assert found == [1, 2, 3, 4, 5, 5, 7, 8, 9]


def test_bisection_asks_few(tmp_path):
    """Of many segments only logarithmically many are read for their times."""
    (tmp_path / "source").mkdir()
    bucket = BucketBuilder(tmp_path / "source")
    for _ in range(64):
        bucket.insert()
        bucket.cut()
    store = CountingStore(bucket.store)
    restore(
        store=store,
        prefix="app.db",
        output=tmp_path / "out.db",
        dry_run=True,
        timestamp=to_text(commit_ms(40)),
    )
    assert store.count("head") <= 10
    bucket.close()


def test_an_orphan_before_the_time_is_passed_over(tmp_path):
    """A start that crashed left a snapshot in the middle of the log. The search for the time asks
    the objects behind it, so their generation is known before the snapshot was examined."""
    (tmp_path / "source").mkdir()
    built = BucketBuilder(tmp_path / "source")
    for _ in range(8):
        built.insert(2)
        built.cut()
        if built.txid == 4:
            orphan = "ffffffff-ffff-4fff-8fff-ffffffffffff"
            built.snapshot(generation=orphan, image=built.images[1])
    for txid in range(1, built.txid + 1):
        assert txid_at(built, commit_ms(txid), tmp_path / "out.db") == txid
    built.close()

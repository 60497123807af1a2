"""Around a damaged object: another way to the same state is taken and told, or nothing is."""

import pytest

from replicator import restore
from replicator.errors import DamageError, GapError, NoBackup
from replicator.verify.drill import drill
from replicator.verify.latest import verify_latest
from tests.helpers.small_archive import named_by


@pytest.fixture
def single_segments(empty_bucket):
    """Transactions 2 to 7 in segments of one, and a snapshot after 4."""
    for txid in range(2, 8):
        empty_bucket.insert(3)
        empty_bucket.cut()
        if txid == 4:
            empty_bucket.middle = empty_bucket.snapshot()
    return empty_bucket


def spoil(bucket, *keys):
    for key in keys:
        body, metadata = bytearray(bucket.store.get(key)), bucket.store.head(key).metadata
        body[len(body) // 2] ^= 1
        bucket.store.put(key, bytes(body), metadata=metadata, if_absent=False)


def restored(bucket, output, **options):
    report = restore(store=bucket.store, prefix="app.db", output=output, **options)
    assert output.read_bytes() == bucket.images[report.txid]
    return report


@pytest.mark.parametrize("target", [None, 6, 7])
def test_the_sources_of_a_damaged_merge(single_segments, tmp_path, target):
    """While its segments are still there, a damaged merge costs nothing but their fetch."""
    merge = single_segments.merge(5, 7)
    spoil(single_segments, merge)
    report = restored(single_segments, tmp_path / "o", txid=target)
    assert (report.txid, report.avoided, report.lost_txids) == (target or 7, (merge,), 0)


@pytest.mark.parametrize("target", [None, 4, 6])
def test_an_older_snapshot(single_segments, tmp_path, target):
    """A damaged snapshot is replaced by an older one and the log since."""
    spoil(single_segments, single_segments.middle)
    report = restored(single_segments, tmp_path / "o", txid=target)
    assert (report.txid, report.snapshot_txid) == (target or 7, 1)
    assert report.avoided == (single_segments.middle,)


def test_two_damaged_objects(single_segments, tmp_path):
    """Each is gone around by itself."""
    merge = single_segments.merge(2, 4)
    spoil(single_segments, single_segments.middle, merge)
    report = restored(single_segments, tmp_path / "o")
    assert (report.txid, set(report.avoided)) == (7, {single_segments.middle, merge})


def test_the_only_segment(single_segments, tmp_path):
    """Where nothing else leads there, the damage is the answer, and no file is made."""
    spoil(single_segments, single_segments.keys.wal(6))
    with pytest.raises(DamageError) as error:
        restore(store=single_segments.store, prefix="app.db", output=tmp_path / "o")
    assert error.value.key == single_segments.keys.wal(6)
    assert not (tmp_path / "o").exists()


def test_the_newest_is_never_an_older_one(single_segments, tmp_path):
    """The last object is damaged beyond its own trailer and metadata: what is left of the log
    ends before it, and that is not what was asked for."""
    single_segments.store.put(single_segments.keys.wal(7), b"rubbish", if_absent=False)
    with pytest.raises(DamageError) as error:
        restore(store=single_segments.store, prefix="app.db", output=tmp_path / "o")
    assert error.value.key == single_segments.keys.wal(7)


def test_a_way_around_that_ends_in_a_gap(single_segments, tmp_path):
    """The first damage is named, not the hole that the second way fell into: by its name the
    segment before the hole could reach across it."""
    merge = single_segments.merge(5, 7)
    single_segments.store.delete(single_segments.keys.wal(6))
    spoil(single_segments, merge)
    with pytest.raises(DamageError) as error:
        restore(store=single_segments.store, prefix="app.db", output=tmp_path / "o")
    assert error.value.key == merge
    assert isinstance(error.value.__cause__, GapError)


def test_a_drill_fails_although_another_way_exists(single_segments, tmp_path):
    """What a restore survives is still damage: the drill names it."""
    merge = single_segments.merge(5, 7)
    spoil(single_segments, merge)
    with pytest.raises(DamageError, match="can still be restored") as error:
        drill(single_segments.store, "app.db", scratch=tmp_path, record=False)
    assert error.value.key == merge


def test_the_present_is_proved_without_detours(single_segments):
    """The way that a restore takes first has to be whole, else it is mended."""
    merge = single_segments.merge(5, 7)
    spoil(single_segments, merge)
    with pytest.raises(DamageError) as error:
        verify_latest(single_segments.store, "app.db")
    assert error.value.key == merge


def test_what_names_the_object():
    """The judge of these tests knows errors that name none."""
    assert named_by(NoBackup("")) is None

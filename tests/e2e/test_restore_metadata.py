"""Metadata of objects saves requests; a restore believes only the objects themselves."""

from dataclasses import replace

import pytest

from replicator import restore
from replicator.archive.timespec import to_text
from replicator.errors import DamageError, GapError
from replicator.format.envelope import encode_trailer, read_tail
from replicator.model import Kind
from tests.helpers.bucket import commit_ms
from tests.helpers.counting import CountingStore
from tests.helpers.errors import raises

FOREIGN = "0" * 8 + "-0000-0000-0000-" + "f" * 12


def put(bucket, key, *, body=None, **fields):
    """The object again, with other metadata or another body."""
    metadata = bucket.store.head(key).metadata | {
        name.replace("_", "-"): value for name, value in fields.items()
    }
    bucket.store.put(
        key, bucket.store.get(key) if body is None else body, metadata=metadata, if_absent=False
    )


def go(bucket, tmp_path, **options):
    output = tmp_path / "out.db"
    report = restore(store=bucket.store, prefix="app.db", output=output, overwrite=True, **options)
    if not options.get("dry_run"):
        assert output.read_bytes() == bucket.images[report.txid]
    return report


@pytest.mark.parametrize(
    "fields",
    [
        {"generation": FOREIGN},
        {"checksum_after": "0" * 16},
        {"last_txid": "99"},
        {"format": "2"},
        {"first_txid": "3"},
    ],
    ids=str,
)
def test_a_marker_with_wrong_metadata_still_confirms_its_snapshot(bucket, tmp_path, fields):
    """A restore uses the snapshot of a generation with any metadata at the marker."""
    put(bucket, bucket.keys.wal(14), **fields)
    assert go(bucket, tmp_path).snapshot_txid == 14
    assert go(bucket, tmp_path, txid=14).snapshot_txid == 14


def test_metadata_alone_cannot_confirm_a_snapshot(bucket, tmp_path):
    """If no segment follows that would prove the snapshot, the restore reads the marker itself."""
    key = bucket.keys.snapshot(14, bucket.generation)
    bucket.store.delete(key)
    txid, bucket.txid = bucket.txid, 14
    bucket.snapshot(image=bucket.images[13] + bytes(4096))
    bucket.txid = txid
    checksum = bucket.store.head(key).metadata["checksum-after"]
    put(bucket, bucket.keys.wal(14), checksum_after=checksum)
    with raises(
        GapError, "no_first_snapshot", first_missing=14, last_missing=14, restorable=(1, 13)
    ):
        go(bucket, tmp_path, txid=14)


def test_a_marker_that_is_no_log_object(bucket, tmp_path):
    """A snapshot under the marker's key is damage, and so are bytes outside of its checksum."""
    marker = bucket.keys.wal(14)
    body = bucket.store.get(marker)
    snapshot = bucket.store.get(bucket.keys.snapshot(14, bucket.generation))
    for bad in (snapshot, body[:100] + body):
        put(bucket, marker, body=bad)
        assert go(bucket, tmp_path, txid=14).avoided == (
            marker,
        )  # the next segment confirms the snapshot


@pytest.mark.parametrize(
    "fields",
    [
        {"first_time": "1"},
        {"first_time": str(commit_ms(99)), "last_time": str(commit_ms(99))},
    ],
    ids=str,
)
def test_wrong_times_lead_to_the_right_transaction(bucket, tmp_path, fields):
    """The search by time uses metadata, and is repeated without it if the result is wrong."""
    for txid in (2, 4, 8, 12, 15, 16):
        key = bucket.keys.wal(txid)
        metadata = bucket.store.head(key).metadata if key in bucket.objects() else None
        if metadata is None:
            continue
        put(bucket, key, **fields)
        for wanted in bucket.images:
            assert go(bucket, tmp_path, timestamp=to_text(commit_ms(wanted))).txid == wanted
        bucket.store.put(key, bucket.store.get(key), metadata=metadata, if_absent=False)


def test_wrong_extent_in_a_plan(bucket, tmp_path):
    """A gap that exists only in metadata is ignored."""
    put(bucket, bucket.keys.wal(16), last_txid="40")
    put(bucket, bucket.keys.wal(15), last_txid="15", generation=FOREIGN)
    assert go(bucket, tmp_path).txid == 17
    assert go(bucket, tmp_path, timestamp="now").txid == 17
    assert go(bucket, tmp_path, txid=16).txid == 16
    assert go(bucket, tmp_path, dry_run=True).txid == 17


def test_losses_are_counted_to_the_end_of_the_log(bucket, tmp_path):
    """The count of lost transactions includes all of the newest object, although its key contains
    only the first one."""
    key = bucket.keys.snapshot(14, bucket.generation)
    body = bytearray(bucket.store.get(key))
    body[29] ^= 1
    put(bucket, key, body=bytes(body))
    report = go(bucket, tmp_path, allow_older=True)
    assert (report.txid, report.lost_txids) == (13, 4)


def test_a_damaged_object_with_wrong_metadata(bucket, tmp_path):
    """A restore that follows metadata to a damaged object names that object, and with --allow-older
    gives the newest state without it."""
    key = bucket.keys.wal(15)
    put(bucket, key, body=bucket.store.get(key)[:-1] + b"?", generation=FOREIGN)
    with pytest.raises(DamageError) as error:
        go(bucket, tmp_path, timestamp=to_text(commit_ms(14)))
    assert error.value.key == key
    for target in (None, 15, 17):
        with pytest.raises(DamageError) as error:
            go(bucket, tmp_path, txid=target)
        assert error.value.key == key
        report = go(bucket, tmp_path, txid=target, allow_older=True)
        assert (report.txid, report.lost_txids) == (14, (target or 17) - 14)


def test_older_in_place_of_a_damaged_point_in_time(bucket, tmp_path):
    """With --allow-older a time inside a damaged object selects the newest state before it, and the
    metadata gives the number of lost transactions; without metadata the error names the object."""
    key = bucket.keys.wal(16)
    put(bucket, key, body=bucket.store.get(key)[:-1] + b"?")
    for txid, lost in ((15, 0), (16, 1), (17, 2)):
        when = to_text(commit_ms(txid))
        if lost:
            with pytest.raises(DamageError):
                go(bucket, tmp_path, timestamp=when)
        report = go(bucket, tmp_path, timestamp=when, allow_older=True)
        assert (report.txid, report.lost_txids) == (15, lost)
    bucket.store.put(key, bucket.store.get(key), if_absent=False)
    with pytest.raises(DamageError) as error:
        go(bucket, tmp_path, timestamp=to_text(commit_ms(17)), allow_older=True)
    assert error.value.key == key


def test_a_marker_that_contradicts_itself(bucket, tmp_path):
    """Header and trailer, each intact, must describe the same object."""
    marker = bucket.keys.wal(14)
    body = bucket.store.get(marker)
    tail = read_tail(body, len(body), marker)
    before = replace(tail.trailer, last_txid=13)
    for kind, trailer in ((Kind.SEGMENT, tail.trailer), (Kind.GENERATION, before)):
        put(bucket, marker, body=body[: tail.trailer_offset] + encode_trailer(kind, trailer))
        assert go(bucket, tmp_path, txid=14).avoided == (marker,)


def test_a_truncated_answer_for_the_marker(bucket, tmp_path):
    """A truncated answer is requested again; if it repeats, the object is named."""
    marker, left = bucket.keys.wal(14), []

    def answer(method, key, result):
        if method == "get" and key == marker and left and left.pop():
            return result[:-3]
        return result

    store = CountingStore(bucket.store, answer=answer)
    left[:] = [True, True]
    assert restore(store=store, prefix="app.db", output=tmp_path / "1.db", txid=14).txid == 14
    left[:] = [True, True, True]
    report = restore(store=store, prefix="app.db", output=tmp_path / "2.db", txid=14)
    assert (report.txid, report.avoided) == (14, (marker,))

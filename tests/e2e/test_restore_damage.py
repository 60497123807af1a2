"""Whatever happens to the objects, a restore never succeeds with a wrong file."""

import random
import sqlite3
from pathlib import Path

import pytest

from replicator import restore
from replicator.errors import DamageError, GapError, NoBackup, ReplicatorError
from replicator.format.segment import decode_segment
from replicator.model import Kind
from tests.helpers.bucket import BucketBuilder
from tests.helpers.small_archive import named_by

ERRORS = (DamageError, GapError, NoBackup)


@pytest.fixture
def tiny(tmp_path):
    """Few, small objects of every kind but merges."""
    (tmp_path / "source").mkdir()
    built = BucketBuilder(tmp_path / "source", page_size=512)
    built.insert(1, 10)
    built.cut()
    built.insert(1, 10)
    built.insert(1, 10)
    built.cut()
    built.snapshot()
    built.insert(1, 10)
    built.cut()
    built.insert(1, 10)
    built.cut()
    yield built
    built.close()


def outcome(bucket, output, **options):
    """The report of a restore whose file was compared, or the error."""
    try:
        report = restore(
            store=bucket.store, prefix=bucket.prefix, output=output, overwrite=True, **options
        )
    except ReplicatorError as error:
        return error
    if report is None:
        return NoBackup("")
    assert output.read_bytes() == bucket.images[report.txid], "a wrong file with success"
    return report


def planned(bucket, output):
    """The objects a restore of the newest state reads."""
    keys = [key for key in bucket.objects() if "snapshots/" in key]
    newest = max(keys)
    txid = int(newest.split("/")[-1][:16], 16)
    segments = [
        key
        for key in bucket.objects()
        if "/wal/" in key and int(key.split("/")[-1][:16], 16) > txid
    ]
    return [newest, *segments]


def replace(bucket, key, body, metadata=None):
    metadata = bucket.store.head(key).metadata if metadata is None else metadata
    bucket.store.put(key, body, metadata=metadata, if_absent=False)


def test_every_flipped_bit_is_found_and_named(tiny, tmp_path):
    """One flipped bit anywhere in an object that is read: the object is named, by the error, or
    by the report where others stood in for it. Every byte is tried, with one of its bits."""
    output = tmp_path / "out.db"
    for key in planned(tiny, output):
        body = tiny.store.get(key)
        for at in range(len(body)):
            bad = bytearray(body)
            bad[at] ^= 1 << at % 8
            replace(tiny, key, bytes(bad))
            found = outcome(tiny, output)
            assert named_by(found) == key, (key, at, found)
        replace(tiny, key, body)
    assert outcome(tiny, output).txid == tiny.txid


def test_every_truncation_is_found_and_named(tiny, tmp_path):
    """An object cut short at any byte is named."""
    output = tmp_path / "out.db"
    for key in planned(tiny, output):
        body = tiny.store.get(key)
        for size in range(len(body)):
            replace(tiny, key, body[:size])
            found = outcome(tiny, output)
            assert named_by(found) == key, (key, size, found)
        replace(tiny, key, body)


def test_appended_bytes_are_found(tiny, tmp_path):
    output = tmp_path / "out.db"
    for key in planned(tiny, output):
        body = tiny.store.get(key)
        for more in (b"\0", body, body[-100:]):
            replace(tiny, key, body + more)
            found = outcome(tiny, output)
            assert named_by(found) == key, (key, found)
        replace(tiny, key, body)


def test_every_swap_is_found(tiny, tmp_path):
    """Each object in each other's place, with and without its metadata: an error, or the exact
    state (when the place is not read)."""
    output = tmp_path / "out.db"
    keys = tiny.objects()
    saved = {key: (tiny.store.get(key), tiny.store.head(key).metadata) for key in keys}
    for key in keys:
        for other in keys:
            for metadata in (saved[other][1], saved[key][1], {}):
                if other == key:
                    continue
                replace(tiny, key, saved[other][0], metadata)
                found = outcome(tiny, output)
                if key in planned(tiny, output):
                    assert isinstance(found, ERRORS) or key in found.avoided, (key, other)
                else:
                    assert isinstance(found, ERRORS) or found.txid == tiny.txid
        replace(tiny, key, *saved[key])
    assert outcome(tiny, output).txid == tiny.txid


def test_every_removal(tiny, tmp_path):
    """Any object gone: the newest state by another way, the head that is left, or a gap that
    names exactly what is missing."""
    output = tmp_path / "out.db"
    for key in tiny.objects():
        body, metadata = tiny.store.get(key), tiny.store.head(key).metadata
        tiny.store.delete(key)
        found = outcome(tiny, output)
        if key == tiny.keys.wal(5):
            assert isinstance(found, GapError)
            assert "transactions 5 are missing" in str(found)
            assert "1…4" in str(found)
        elif key == tiny.keys.wal(6):
            assert found.txid == 5  # nobody can know that there was more
        else:
            assert found.txid == 6, (key, found)
        tiny.store.put(key, body, metadata=metadata)


def test_every_pair_of_removals_is_exact_or_an_error(bucket, tmp_path):
    """Any two objects gone, any target: an exact state or an error, never a wrong file."""
    output = tmp_path / "out.db"
    keys = bucket.objects()
    draw = random.Random(7)
    for _ in range(60):
        gone = {
            key: (bucket.store.get(key), bucket.store.head(key).metadata)
            for key in draw.sample(keys, 2)
        }
        target = draw.choice([None, *bucket.images])
        for key in gone:
            bucket.store.delete(key)
        found = outcome(bucket, output, txid=target)
        assert isinstance(found, ERRORS) or target in (None, found.txid), (gone, target)
        for key, (body, metadata) in gone.items():
            bucket.store.put(key, body, metadata=metadata)


def test_random_flips_in_a_larger_bucket(bucket, tmp_path):
    """A sample of flips over all objects and targets."""
    output = tmp_path / "out.db"
    draw = random.Random(11)
    keys = bucket.objects()
    for _ in range(150):
        key, target = draw.choice(keys), draw.choice([None, *bucket.images])
        body = bucket.store.get(key)
        bad = bytearray(body)
        bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        replace(bucket, key, bytes(bad))
        found = outcome(bucket, output, txid=target)
        if isinstance(found, ReplicatorError):
            assert isinstance(found, DamageError), (key, target, found)
            assert found.key == key
        replace(bucket, key, body)


def test_a_segment_of_another_history(tiny, tmp_path):
    """An intact segment of another database with the right txids and generation does not
    join: the chain of database checksums breaks."""
    key = tiny.keys.wal(5)
    summary, payload = decode_segment(tiny.store.get(key), key)
    trailer = summary.trailer
    for before, after in (
        (trailer.checksum_before ^ 1, trailer.checksum_after),
        (trailer.checksum_before, trailer.checksum_after ^ 1),
    ):
        state = type(tiny._hashes.state)(trailer.pages, after)
        body, forged = tiny.encode(
            Kind.SEGMENT,
            5,
            5,
            payload,
            state,
            before,
            trailer.commit_frames,
            trailer.commit_times_ms,
        )
        for metadata in (forged.metadata(), summary.metadata()):
            replace(tiny, key, body, metadata)
            found = outcome(tiny, tmp_path / "out.db")
            assert isinstance(found, DamageError)
            assert "checksums differ" in str(found)


def test_a_wrong_state_is_not_published(tiny, tmp_path):
    """Objects that agree with each other but not with their own pages fail the proof."""
    key = tiny.keys.wal(6)
    summary, payload = decode_segment(tiny.store.get(key), key)
    trailer = summary.trailer
    state = type(tiny._hashes.state)(trailer.pages, trailer.checksum_after ^ 1)
    body, forged = tiny.encode(
        Kind.SEGMENT,
        6,
        6,
        payload,
        state,
        trailer.checksum_before,
        trailer.commit_frames,
        trailer.commit_times_ms,
    )
    replace(tiny, key, body, forged.metadata())
    output = tmp_path / "out.db"
    found = outcome(tiny, output)
    assert isinstance(found, DamageError)
    assert "do not give the database the log describes" in str(found)
    assert not output.exists()


def test_an_orphan_snapshot_is_not_trusted(tiny, tmp_path):
    """A snapshot the log does not vouch for (other generation, or other content) is passed
    over, at the head and in the middle."""
    other = "0" * 8 + "-0000-0000-0000-" + "f" * 12
    image = bytes(len(tiny.images[6]))
    orphan = tiny.snapshot(generation=other)
    assert outcome(tiny, tmp_path / "out.db").snapshot_txid == 4
    tiny.store.delete(orphan)
    tiny.snapshot(generation=other, image=image)
    assert outcome(tiny, tmp_path / "out.db").snapshot_txid == 4
    tiny.snapshot(image=image)
    assert outcome(tiny, tmp_path / "out.db").snapshot_txid == 4
    tiny.txid += 1
    tiny.snapshot(generation=other, image=image)
    assert outcome(tiny, tmp_path / "out.db").txid == 6


def test_a_generation_without_its_snapshot(bucket, tmp_path):
    """Segments of a generation are never applied on the one before."""
    bucket.store.delete(bucket.keys.snapshot(14, bucket.generation))
    found = outcome(bucket, tmp_path / "out.db")
    assert isinstance(found, GapError)
    assert "transaction 14 begins generation" in str(found)
    assert "transactions 1…13" in str(found)
    assert outcome(bucket, tmp_path / "out.db", txid=13).txid == 13
    older = outcome(bucket, tmp_path / "out.db", allow_older=True)
    assert (older.txid, older.lost_txids) == (13, 4)


def test_older_after_damage(tiny, tmp_path):
    """With --allow-older the newest provable state comes back, and what is lost is counted."""
    output = tmp_path / "out.db"
    expected = {tiny.keys.wal(6): 5, tiny.keys.wal(5): 4, tiny.keys.snapshot(4, tiny.generation): 6}
    for key, txid in expected.items():
        body = tiny.store.get(key)
        replace(tiny, key, body[:-1] + bytes([body[-1] ^ 1]))
        assert named_by(outcome(tiny, output)) == key
        found = outcome(tiny, output, allow_older=True)
        assert (found.txid, found.lost_txids) == (txid, 6 - txid), key
        replace(tiny, key, body)


def test_older_when_a_segment_before_the_target_is_gone(tiny, tmp_path):
    tiny.store.delete(tiny.keys.wal(5))
    found = outcome(tiny, tmp_path / "out.db", allow_older=True)
    assert (found.txid, found.lost_txids) == (4, 2)


def test_older_with_everything_damaged(tiny, tmp_path):
    """When nothing can be proved the error says so; nothing is written."""
    for key in tiny.objects():
        replace(tiny, key, b"rubbish" * 20)
    found = outcome(tiny, tmp_path / "out.db", allow_older=True)
    assert isinstance(found, ERRORS)
    assert not (tmp_path / "out.db").exists()


def old_database(path):
    """A database with rows in its log only, and its files' bytes."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE old(x)")
    database.execute("INSERT INTO old VALUES(1), (2)")
    saved = {name: Path(f"{path}{name}").read_bytes() for name in ("", "-wal")}
    database.close()
    for name, data in saved.items():
        Path(f"{path}{name}").write_bytes(data)
    return saved


def test_overwrite_with_a_damaged_backup_loses_nothing(tiny, tmp_path):
    """Whichever planned object is damaged or gone, at its front, middle or end: the old database
    and its log are byte for byte what they were, and once the backup is mended it is replaced."""
    output = tmp_path / "out.db"
    saved = old_database(output)
    tiny.store.delete(tiny.keys.snapshot(1, tiny.generation))  # nothing stands in for the other
    for key in planned(tiny, output):
        body, metadata = tiny.store.get(key), tiny.store.head(key).metadata
        middle = len(body) // 2
        for bad in (
            b"rubbish" + body[7:],
            body[:middle] + b"?" + body[middle + 1 :],
            body[:-1],
            b"",
            None,
        ):
            if bad is None:
                tiny.store.delete(key)
            else:
                replace(tiny, key, bad, metadata)
            if bad is None and key != tiny.keys.wal(5):
                continue  # then the log ends before, or has no snapshot left
            found = outcome_over(tiny, output)
            assert isinstance(found, (DamageError, GapError)), (key, found)
            assert {name: Path(f"{output}{name}").read_bytes() for name in saved} == saved
        replace(tiny, key, body, metadata)
    assert outcome(tiny, output).txid == tiny.txid
    assert not Path(f"{output}-wal").exists()


def outcome_over(bucket, output):
    with pytest.raises(ReplicatorError) as error:
        restore(store=bucket.store, prefix=bucket.prefix, output=output, overwrite=True)
    return error.value


@pytest.mark.parametrize("verify", ["quick", "full"])
def test_overwrite_with_what_sqlite_finds_damaged_loses_nothing(tmp_path, verify):
    """A backup that is exact, of a database that was damaged when it was made, is found by
    SQLite's own check, and the old database stays."""
    (tmp_path / "source").mkdir()
    built = BucketBuilder(tmp_path / "source", page_size=512)
    for _ in range(8):
        built.insert(3, 100)
    built.run("PRAGMA writable_schema=ON", "UPDATE sqlite_schema SET rootpage = 3")
    built.cut()
    output = tmp_path / "out.db"
    saved = old_database(output)
    with pytest.raises(DamageError):
        restore(store=built.store, prefix="app.db", output=output, overwrite=True, verify=verify)
    assert {name: Path(f"{output}{name}").read_bytes() for name in saved} == saved
    assert outcome(built, output).txid == built.txid
    built.close()

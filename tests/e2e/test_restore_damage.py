"""Damaged, swapped or missing objects never lead to a restore with a wrong file.

The decoders refuse every flipped bit and every truncation of an object, see
`tests/unit/format/test_segment_damage.py`. Here a whole restore meets a sample of the bytes of each
object, or all of them with REPLICATOR_CHAOS=full.
"""

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
from tests.plugins.scoreboard import effort

ERRORS = (DamageError, GapError, NoBackup)
STEP = effort(7, 1)  # bytes from one damaged byte of an object to the next


@pytest.fixture
def tiny_bucket(source_directory):
    """A few small objects of every kind except merges."""
    built = BucketBuilder(source_directory, page_size=512)
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
    if "overwrite" not in options:
        output.unlink(missing_ok=True)  # the search for processes that use it would take longest
    try:
        report = restore(store=bucket.store, prefix=bucket.prefix, output=output, **options)
    except ReplicatorError as error:
        return error
    if report is None:
        return NoBackup("")
    assert output.read_bytes() == bucket.images[report.txid], "a wrong file with success"
    return report


def planned(bucket, output):
    """The objects that a restore of the newest state reads."""
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


def test_every_flipped_bit_is_found_and_named(tiny_bucket, memory_directory):
    """A flipped bit anywhere in an object that is read: the error names the object, or the report
    of an exact restore from other objects."""
    output = memory_directory / "out.db"
    for key in planned(tiny_bucket, output):
        body = tiny_bucket.store.get(key)
        for at in range(0, len(body), STEP):
            bad = bytearray(body)
            bad[at] ^= 1 << at % 8
            replace(tiny_bucket, key, bytes(bad))
            found = outcome(tiny_bucket, output)
            assert named_by(found) == key, (key, at, found)
        replace(tiny_bucket, key, body)
    assert outcome(tiny_bucket, output).txid == tiny_bucket.txid


def test_every_truncation_is_found_and_named(tiny_bucket, memory_directory):
    """A restore names an object that is truncated at any byte."""
    output = memory_directory / "out.db"
    for key in planned(tiny_bucket, output):
        body = tiny_bucket.store.get(key)
        for size in range(0, len(body), STEP):
            replace(tiny_bucket, key, body[:size])
            found = outcome(tiny_bucket, output)
            assert named_by(found) == key, (key, size, found)
        replace(tiny_bucket, key, body)


def test_appended_bytes_are_found(tiny_bucket, memory_directory):
    """A restore names an object with appended bytes."""
    output = memory_directory / "out.db"
    for key in planned(tiny_bucket, output):
        body = tiny_bucket.store.get(key)
        for more in (b"\0", body, body[-100:]):
            replace(tiny_bucket, key, body + more)
            found = outcome(tiny_bucket, output)
            assert named_by(found) == key, (key, found)
        replace(tiny_bucket, key, body)


def test_every_swap_is_found(tiny_bucket, memory_directory):
    """Each object under the key of each other one, with and without its metadata: an error, or
    the exact state (when the key is not read)."""
    output = memory_directory / "out.db"
    keys = tiny_bucket.objects()
    saved = {
        key: (tiny_bucket.store.get(key), tiny_bucket.store.head(key).metadata) for key in keys
    }
    for key in keys:
        for other in keys:
            for metadata in (saved[other][1], saved[key][1], {}):
                if other == key:
                    continue
                replace(tiny_bucket, key, saved[other][0], metadata)
                found = outcome(tiny_bucket, output)
                if key in planned(tiny_bucket, output):
                    assert isinstance(found, ERRORS) or key in found.avoided, (key, other)
                else:
                    assert isinstance(found, ERRORS) or found.txid == tiny_bucket.txid
        replace(tiny_bucket, key, *saved[key])
    assert outcome(tiny_bucket, output).txid == tiny_bucket.txid


def test_every_removal(tiny_bucket, memory_directory):
    """Without any one object: the newest state by another path, the remaining head, or a gap that
    names exactly the missing transactions."""
    output = memory_directory / "out.db"
    for key in tiny_bucket.objects():
        body, metadata = tiny_bucket.store.get(key), tiny_bucket.store.head(key).metadata
        tiny_bucket.store.delete(key)
        found = outcome(tiny_bucket, output)
        if key == tiny_bucket.keys.wal(5):
            assert isinstance(found, GapError)
            assert (found.first_missing, found.last_missing) == (5, 5)
            assert found.restorable == (1, 4)
        elif key == tiny_bucket.keys.wal(6):
            assert found.txid == 5  # no object refers to the removed head
        else:
            assert found.txid == 6, (key, found)
        tiny_bucket.store.put(key, body, metadata=metadata)


def test_every_pair_of_removals_is_exact_or_an_error(bucket, memory_directory):
    """Without any two objects, a restore to any target is exact or an error."""
    output = memory_directory / "out.db"
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


def test_random_flips_in_a_larger_bucket(bucket, memory_directory):
    """A sample of flips over all objects and targets."""
    output = memory_directory / "out.db"
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


def test_a_segment_of_another_history(tiny_bucket, memory_directory):
    """An intact segment of another database with the right txids and generation is rejected,
    because the chain of database checksums breaks."""
    key = tiny_bucket.keys.wal(5)
    summary, payload = decode_segment(tiny_bucket.store.get(key), key)
    trailer = summary.trailer
    for before, after in (
        (trailer.checksum_before ^ 1, trailer.checksum_after),
        (trailer.checksum_before, trailer.checksum_after ^ 1),
    ):
        state = type(tiny_bucket._hashes.state)(trailer.pages, after)
        body, forged = tiny_bucket.encode(
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
            replace(tiny_bucket, key, body, metadata)
            found = outcome(tiny_bucket, memory_directory / "out.db")
            assert isinstance(found, DamageError)
            assert found.code == "discontinuous"


def test_a_wrong_state_is_not_published(tiny_bucket, memory_directory):
    """Objects that agree with each other but not with their own pages fail verification."""
    key = tiny_bucket.keys.wal(6)
    summary, payload = decode_segment(tiny_bucket.store.get(key), key)
    trailer = summary.trailer
    state = type(tiny_bucket._hashes.state)(trailer.pages, trailer.checksum_after ^ 1)
    body, forged = tiny_bucket.encode(
        Kind.SEGMENT,
        6,
        6,
        payload,
        state,
        trailer.checksum_before,
        trailer.commit_frames,
        trailer.commit_times_ms,
    )
    replace(tiny_bucket, key, body, forged.metadata())
    output = memory_directory / "out.db"
    found = outcome(tiny_bucket, output)
    assert isinstance(found, DamageError)
    assert "do not give the database that the archive describes" in str(found)
    assert not output.exists()


def test_an_orphan_snapshot_is_not_trusted(tiny_bucket, memory_directory):
    """A restore ignores a snapshot that the log does not confirm (another generation or other
    content), at the head and in the middle."""
    other = "0" * 8 + "-0000-0000-0000-" + "f" * 12
    image = bytes(len(tiny_bucket.images[6]))
    orphan = tiny_bucket.snapshot(generation=other)
    assert outcome(tiny_bucket, memory_directory / "out.db").snapshot_txid == 4
    tiny_bucket.store.delete(orphan)
    tiny_bucket.snapshot(generation=other, image=image)
    assert outcome(tiny_bucket, memory_directory / "out.db").snapshot_txid == 4
    tiny_bucket.snapshot(image=image)
    assert outcome(tiny_bucket, memory_directory / "out.db").snapshot_txid == 4
    tiny_bucket.txid += 1
    tiny_bucket.snapshot(generation=other, image=image)
    assert outcome(tiny_bucket, memory_directory / "out.db").txid == 6


def test_a_generation_without_its_snapshot(bucket, memory_directory):
    """Segments of a generation are never applied to the one before."""
    bucket.store.delete(bucket.keys.snapshot(14, bucket.generation))
    found = outcome(bucket, memory_directory / "out.db")
    assert isinstance(found, GapError)
    assert (found.code, found.first_missing) == ("no_first_snapshot", 14)
    assert found.restorable == (1, 13)
    assert outcome(bucket, memory_directory / "out.db", txid=13).txid == 13
    older = outcome(bucket, memory_directory / "out.db", allow_older=True)
    assert (older.txid, older.lost_txids) == (13, 4)


def test_older_after_damage(tiny_bucket, memory_directory):
    """With --allow-older a restore gives the newest provable state and counts lost transactions."""
    output = memory_directory / "out.db"
    expected = {
        tiny_bucket.keys.wal(6): 5,
        tiny_bucket.keys.wal(5): 4,
        tiny_bucket.keys.snapshot(4, tiny_bucket.generation): 6,
    }
    for key, txid in expected.items():
        body = tiny_bucket.store.get(key)
        replace(tiny_bucket, key, body[:-1] + bytes([body[-1] ^ 1]))
        assert named_by(outcome(tiny_bucket, output)) == key
        found = outcome(tiny_bucket, output, allow_older=True)
        assert (found.txid, found.lost_txids) == (txid, 6 - txid), key
        replace(tiny_bucket, key, body)


def test_older_when_a_segment_before_the_target_is_gone(tiny_bucket, memory_directory):
    """With --allow-older a restore stops before a missing segment."""
    tiny_bucket.store.delete(tiny_bucket.keys.wal(5))
    found = outcome(tiny_bucket, memory_directory / "out.db", allow_older=True)
    assert (found.txid, found.lost_txids) == (4, 2)


def test_older_with_everything_damaged(tiny_bucket, memory_directory):
    """If no state can be proved, a restore fails and writes nothing."""
    for key in tiny_bucket.objects():
        replace(tiny_bucket, key, b"rubbish" * 20)
    found = outcome(tiny_bucket, memory_directory / "out.db", allow_older=True)
    assert isinstance(found, ERRORS)
    assert not (memory_directory / "out.db").exists()


def old_database(path):
    """Makes a database with rows in its WAL only; returns the bytes of its files."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE old(x)")
    database.execute("INSERT INTO old VALUES(1), (2)")
    saved = {name: Path(f"{path}{name}").read_bytes() for name in ("", "-wal")}
    database.close()
    for name, data in saved.items():
        Path(f"{path}{name}").write_bytes(data)
    return saved


def test_overwrite_with_a_damaged_backup_loses_nothing(tiny_bucket, memory_directory):
    """With any planned object damaged or gone, the old database and its WAL stay byte for byte;
    once the backup is mended a restore replaces them."""
    output = memory_directory / "out.db"
    saved = old_database(output)
    tiny_bucket.store.delete(
        tiny_bucket.keys.snapshot(1, tiny_bucket.generation)
    )  # so that no other snapshot can be used
    for key in planned(tiny_bucket, output):
        body, metadata = tiny_bucket.store.get(key), tiny_bucket.store.head(key).metadata
        middle = len(body) // 2
        for bad in (
            b"rubbish" + body[7:],
            body[:middle] + b"?" + body[middle + 1 :],
            body[:-1],
            b"",
            None,
        ):
            if bad is None:
                tiny_bucket.store.delete(key)
            else:
                replace(tiny_bucket, key, bad, metadata)
            if bad is None and key != tiny_bucket.keys.wal(5):
                continue  # then the log ends earlier, or has no snapshot
            found = outcome_over(tiny_bucket, output)
            assert isinstance(found, (DamageError, GapError)), (key, found)
            assert {name: Path(f"{output}{name}").read_bytes() for name in saved} == saved
        replace(tiny_bucket, key, body, metadata)
    assert outcome(tiny_bucket, output, overwrite=True).txid == tiny_bucket.txid
    assert not Path(f"{output}-wal").exists()


def outcome_over(bucket, output):
    with pytest.raises(ReplicatorError) as error:
        restore(store=bucket.store, prefix=bucket.prefix, output=output, overwrite=True)
    return error.value


@pytest.mark.parametrize("verify", ["quick", "full"])
def test_overwrite_with_a_corrupt_database_loses_nothing(
    source_directory, memory_directory, verify
):
    """SQLite's own check finds an exact backup of a database that was corrupt at its source, and
    the old database stays."""
    built = BucketBuilder(source_directory, page_size=512)
    for _ in range(8):
        built.insert(3, 100)
    built.run("PRAGMA writable_schema=ON", "UPDATE sqlite_schema SET rootpage = 3")
    built.cut()
    output = memory_directory / "out.db"
    saved = old_database(output)
    with pytest.raises(DamageError):
        restore(store=built.store, prefix="app.db", output=output, overwrite=True, verify=verify)
    assert {name: Path(f"{output}{name}").read_bytes() for name in saved} == saved
    assert outcome(built, output, overwrite=True).txid == built.txid
    built.close()

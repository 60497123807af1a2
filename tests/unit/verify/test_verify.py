"""replicator.verify.verify: what is damaged or missing is named, and what is left is told."""

import hashlib
import os
from dataclasses import replace

import pytest

from replicator import restore
from replicator.archive.facts import FactsReader
from replicator.archive.index import WalObject
from replicator.archive.keys import Keys
from replicator.archive.listing import list_all
from replicator.archive.records import DAMAGED, PRUNED, add_record, list_records
from replicator.errors import ConfigError, GapError, NoBackup, ObjectMissing, ReplicatorError
from replicator.format.envelope import encode_digests, encode_trailer, read_tail
from replicator.format.object_header import parse_metadata
from replicator.model import Kind
from replicator.recovery.fetch import Fetcher
from replicator.recovery.limits import RecoveryLimits
from replicator.recovery.progress import Meter
from replicator.store.address import StoreAddress
from replicator.store.directory import DirectoryStore
from replicator.store.memory import MemoryStore
from replicator.system.files import Files
from replicator.verify import objects as content
from replicator.verify.verify import verify, verify_at
from tests.helpers.bucket import BucketBuilder
from tests.helpers.errors import raises
from tests.helpers.newer_format import upgrade
from tests.helpers.odd_stores import InventingStore
from tests.helpers.replication import HookedStore


def look(bucket, **options):
    return verify(bucket.store, bucket.prefix, **options)


def txids(ranges):
    return {txid for first, last in ranges for txid in range(first, last + 1)}


class Unsynced(Files):
    """A trial need not survive a power cut."""

    def system(self, call, /, *args, **kwargs):
        return None if call is os.fsync else call(*args, **kwargs)


def restorable_by_trial(bucket, directory, txids_to_try):
    """The txids that a restore really brings back."""
    good = set()
    for txid in txids_to_try:
        try:
            restore(
                store=bucket.store,
                prefix=bucket.prefix,
                txid=txid,
                overwrite=True,
                output=directory / "trial.db",
                files=Unsynced(),
            )
            good.add(txid)
        except ReplicatorError:
            pass
    return good


def spoil(store, key, change):
    """Replace an object; its metadata stays."""
    info, body = store.head(key), store.get(key)
    store.put(key, change(body), metadata=info.metadata, if_absent=False)


def flip(body):
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


SPOILERS = {"flipped": flip, "cut short": lambda body: body[:-1], "grown": lambda body: body + b"x"}


def test_a_whole_bucket_is_whole(bucket):
    """Nothing is found, everything is restorable, and without --data no body is read."""
    bucket.merge(15, 17)
    report = look(bucket)
    assert (report.findings, report.exit_code, report.lost) == ((), 0, ())
    assert [(w.first_txid, w.last_txid) for w in report.restorable] == [(1, bucket.txid)]
    assert (report.newest_restorable, report.head_txid, report.read_objects) == (
        True,
        bucket.txid,
        0,
    )
    whole = look(bucket, data=True)
    assert (whole.findings, whole.read_objects) == ((), len(bucket.objects()))
    assert whole.read_bytes == whole.bytes == sum(info.size for info in bucket.store.list(""))


@pytest.mark.parametrize("how", SPOILERS)
def test_every_spoilt_object_is_named_and_no_other(bucket, how):
    """--data: one object spoilt at a time, found by its own name, exit code 3."""
    bucket.merge(15, 17)
    bucket.merge_newest(15, 17)
    for key in bucket.objects():
        body = bucket.store.get(key)
        spoil(bucket.store, key, SPOILERS[how])
        report = look(bucket, data=True)
        assert [finding.key for finding in report.findings] == [key]
        assert (report.findings[0].kind, report.exit_code) == ("damaged", 3)
        spoil(bucket.store, key, lambda _, body=body: body)
    assert look(bucket, data=True).findings == ()


def test_what_is_called_restorable_is_what_a_restore_can_do(bucket, tmp_path):
    """One object spoilt or removed at a time: the report's ranges against trials at the ends
    of every object. Never is more promised than can be had."""
    everything = {1, 3, 6, 7, 12, 14, 17}
    for key in bucket.objects():
        info, body = bucket.store.head(key), bucket.store.get(key)
        for change in (flip, None):
            bucket.store.delete(key)
            if change:
                bucket.store.put(key, change(body), metadata=info.metadata)
            report = look(bucket, data=True)
            said = txids((w.first_txid, w.last_txid) for w in report.restorable) & everything
            done = restorable_by_trial(bucket, tmp_path, everything)
            assert done <= said if change else done == said, key
            bucket.store.put(key, body, metadata=info.metadata, if_absent=False)


def test_a_missing_object_is_named_with_what_it_held(bucket):
    """Any segment between others: exit code 4, its own name, its transactions, and all that
    cannot be reached any more."""
    keys = [info.key for info in bucket.store.list(bucket.keys.wal_dir)]
    for key in keys[1:-1]:
        info, body = bucket.store.head(key), bucket.store.get(key)
        facts = parse_metadata(info.metadata)
        bucket.store.delete(key)
        report = look(bucket)
        found = report.findings[0]
        assert [finding.key for finding in report.findings] == [key]
        assert (found.kind, found.first_txid, found.last_txid) == (
            "missing",
            facts.first_txid,
            facts.last_txid,
        )
        assert report.exit_code == 4
        bucket.store.put(key, body, metadata=info.metadata)


def test_the_first_snapshot_of_a_generation_is_missed(bucket):
    """Its marker tells that it must be there; others of the generation are a convenience."""
    snapshots = [info.key for info in bucket.store.list(bucket.keys.snapshot_dir)]
    bucket.store.delete(snapshots[-1])
    report = look(bucket)
    assert [(f.kind, f.key) for f in report.findings] == [("missing", snapshots[-1])]
    assert not report.newest_restorable
    assert report.findings[0].lost == ((14, 17),)


def test_a_tail_that_is_gone_is_found_by_who_knows_how_far_it_went(bucket):
    """The bucket alone cannot tell; ``expected_txid`` can, and so can a later snapshot."""
    last = [info.key for info in bucket.store.list(bucket.keys.wal_dir)][-1]
    bucket.snapshot()
    bucket.store.delete(last)
    by_snapshot = look(bucket)
    assert [f.key for f in by_snapshot.findings] == [last]
    bucket.store.delete([info.key for info in bucket.store.list(bucket.keys.snapshot_dir)][-1])
    assert look(bucket).findings == ()
    assert [f.key for f in look(bucket, expected_txid=17).findings] == [last]


def test_a_hole_that_retention_noted_is_no_loss(empty_bucket):
    """Before the transaction of its newest note; behind that a hole is a hole."""
    for _ in range(3):
        empty_bucket.insert()
        key = empty_bucket.cut()
        empty_bucket.snapshot()
    empty_bucket.store.delete(empty_bucket.keys.wal(3))
    assert [f.key for f in look(empty_bucket).findings] == [empty_bucket.keys.wal(3)]
    add_record(empty_bucket.store, empty_bucket.keys, PRUNED, 3, 1000, {})
    report = look(empty_bucket, data=True)
    assert (report.findings, report.exit_code, report.lost) == ((), 0, ())
    assert [(w.first_txid, w.last_txid) for w in report.restorable] == [(1, 4)]
    empty_bucket.store.delete(key)
    assert [f.key for f in look(empty_bucket).findings] == [key]


def test_merges_stand_in_for_their_sources(empty_bucket):
    """Sources gone: nothing is missing. The merge damaged as well: its transactions are lost."""
    for _ in range(4):
        empty_bucket.insert()
        empty_bucket.cut()
    key = empty_bucket.merge(2, 4, drop=True)
    assert look(empty_bucket, data=True).findings == ()
    spoil(empty_bucket.store, key, flip)
    report = look(empty_bucket, data=True)
    assert [(f.key, f.first_txid, f.last_txid) for f in report.findings] == [(key, 2, 4)]
    assert report.lost == ((2, 5),)


def test_a_merge_of_newest_images_is_one_step(empty_bucket):
    """Only its end can be restored; its inside is told as not restorable, not as damage."""
    for _ in range(3):
        empty_bucket.insert()
        empty_bucket.cut()
    empty_bucket.merge_newest(2, 4, drop=True)
    report = look(empty_bucket, data=True)
    assert report.findings == ()
    assert [(w.first_txid, w.last_txid) for w in report.restorable] == [(1, 1), (4, 4)]


def test_metadata_that_speaks_of_another_object_is_damage(bucket):
    """Bodies swapped under sound metadata: structure alone is content, --data names both."""
    first, second = [info.key for info in bucket.store.list(bucket.keys.wal_dir)][1:3]
    one, two = bucket.store.get(first), bucket.store.get(second)
    spoil(bucket.store, first, lambda _: two)
    spoil(bucket.store, second, lambda _: one)
    assert look(bucket).findings == ()
    assert [f.key for f in look(bucket, data=True).findings] == [first, second]


def test_a_segment_that_does_not_continue_the_one_before(bucket):
    """Sound by itself, but of another history: found by the checksums in the metadata."""
    keys = [info.key for info in bucket.store.list(bucket.keys.wal_dir)]
    key = keys[2]
    metadata = dict(bucket.store.head(key).metadata)
    metadata["checksum-before"] = "0" * 16
    body = bucket.store.get(key)
    bucket.store.put(key, body, metadata=metadata, if_absent=False)
    (found,) = look(bucket).findings
    assert (found.key, found.kind) == (key, "damaged")
    assert "does not continue" in found.problem


def test_a_stranger_in_the_log_is_named(bucket):
    """An object of a generation that is not the one of the log there."""
    key = [info.key for info in bucket.store.list(bucket.keys.wal_dir)][2]
    metadata = dict(bucket.store.head(key).metadata) | {"generation": bucket.generation}
    bucket.store.put(key, bucket.store.get(key), metadata=metadata, if_absent=False)
    findings = look(bucket).findings
    assert key in [f.key for f in findings]
    assert any("belongs to generation" in f.problem or "does not" in f.problem for f in findings)


def test_pages_of_another_size_are_named(bucket):
    """A segment of another database, going by its pages."""
    key = [info.key for info in bucket.store.list(bucket.keys.wal_dir)][2]
    metadata = dict(bucket.store.head(key).metadata) | {"page-size": "512"}
    bucket.store.put(key, bucket.store.get(key), metadata=metadata, if_absent=False)
    (found,) = look(bucket).findings
    assert (found.key, "512" in found.problem) == (key, True)


def test_a_name_that_lies_is_damage(bucket):
    """A snapshot under the name of another transaction, a segment under another number."""
    store, keys = bucket.store, bucket.keys
    wrong = keys.snapshot(9, bucket.generation)
    right = keys.snapshot(14, bucket.generation)
    store.put(wrong, store.get(right), metadata=store.head(right).metadata)
    (found,) = look(bucket).findings
    assert (found.key, "does not match its name" in found.problem) == (wrong, True)


def test_metadata_that_errs_is_named_and_costs_nothing(bucket):
    """A restore believes the object's own bytes; so does the report."""
    store, first, second = bucket.store, bucket.keys.wal(2), bucket.keys.wal(4)
    foreign = store.head(first).metadata
    store.put(second, store.get(second), metadata=foreign, if_absent=False)
    merged = bucket.merge(15, 17)
    claims = dict(store.head(merged).metadata) | {"pages": "99"}
    store.put(merged, store.get(merged), metadata=claims, if_absent=False)
    newest = bucket.keys.wal(16)
    claims = dict(store.head(newest).metadata) | {"sha256": "0" * 64}
    store.put(newest, store.get(newest), metadata=claims, if_absent=False)
    report = look(bucket, data=True)
    assert {f.key for f in report.findings} == {second, merged, newest}
    assert {f.problem for f in report.findings} == {"its metadata describes another object"}
    assert (report.lost, report.newest_restorable, report.exit_code) == ((), True, 3)


def forged_snapshot(bucket, change):
    """The newest snapshot with a trailer that ``change`` made of its own."""
    key = bucket.keys.snapshot(14, bucket.generation)
    body = bucket.store.get(key)
    tail = read_tail(body, len(body), key)
    trailer = change(tail.trailer)
    data = body[: tail.trailer_offset]
    seek = body[tail.trailer_offset + len(encode_trailer(tail.kind, tail.trailer)) :]
    bucket.store.put(key, data + encode_trailer(tail.kind, trailer) + seek, if_absent=False)
    return key


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: replace(t, data_sha256=bytes(32)), "the SHA-256 of its data does not match"),
        (
            lambda t: replace(t, checksum_after=5, checksum_before=5),
            "its pages do not have the checksum of its trailer",
        ),
    ],
)
def test_a_snapshot_that_is_not_what_its_trailer_says(bucket, change, problem):
    """Intact in every part, and yet not the database it claims to be."""
    key = forged_snapshot(bucket, change)
    found = {f.key: f.problem for f in look(bucket, data=True).findings}
    assert found[key] == problem


def test_a_list_of_pages_that_are_not_there_is_damage(bucket):
    """Sealed and all: the next snapshot would take the frame for what it is not."""
    key = bucket.keys.snapshot(14, bucket.generation)
    body = bucket.store.get(key)
    header = body[: read_tail(body, len(body), key).seek[0].offset]

    def change(trailer):
        packed = trailer.blocks.packed
        frames = replace(trailer.blocks, packed=packed[:32] + bytes(32) + packed[64:])
        return replace(
            trailer,
            blocks=frames,
            data_sha256=hashlib.sha256(header + encode_digests(frames)).digest(),
        )

    assert forged_snapshot(bucket, change) == key
    found = {f.key: f.problem for f in look(bucket, data=True).findings}
    assert found[key] == "the SHA-256 of its pages does not match"


def test_a_snapshot_of_many_groups_is_read_whole_or_in_part(empty_bucket):
    """In several requests; a part is as many of them as the amount asks for."""
    limits = RecoveryLimits(proved_raw_bytes=65536)
    empty_bucket.insert(300, size=3000)
    empty_bucket.cut()
    key = empty_bucket.snapshot(frame_bytes=65536)
    assert look(empty_bucket, data=True, limits=limits).findings == ()
    item = next(item for item in list_all(empty_bucket.store, empty_bucket.keys) if item.key == key)
    with Fetcher(empty_bucket.store, Meter(None), limits) as fetcher:
        reader = FactsReader(empty_bucket.store)
        sizes = list(content.verify_snapshot(fetcher, reader, item, limit=200_000, seed=1))
        assert len(sizes) > 2
        assert 200_000 <= sum(sizes) < item.size
        assert sum(content.verify_snapshot(fetcher, reader, item)) == item.size


def test_objects_without_metadata_speak_for_themselves(empty_bucket):
    """Where the store keeps no metadata, headers and trailers are read instead."""
    empty_bucket.insert()
    empty_bucket.cut(metadata=False)
    assert look(empty_bucket, data=True).findings == ()
    item = WalObject(empty_bucket.keys.wal(2), 0, 2, 2, 0)
    assert FactsReader(empty_bucket.store).metadata(item) is None


def test_orphans_of_a_start_that_crashed_are_nobodys_business(bucket):
    """A snapshot whose generation never became part of the log is no finding and no start."""
    bucket.snapshot(generation="00000000-0000-7000-8000-00000000000f")
    report = look(bucket, data=True)
    assert report.findings == ()
    assert [(w.first_txid, w.last_txid) for w in report.restorable] == [(1, bucket.txid)]


def test_nothing_at_all_is_no_backup():
    """Exit code 9, not 0."""
    with pytest.raises(NoBackup):
        verify(MemoryStore(), "app.db")


def test_an_encrypted_object_is_refused(bucket):
    """This version cannot judge it."""
    bucket.store.put(bucket.keys.wal(900) + ".age", b"x")
    with raises(ConfigError, "encrypted"):
        look(bucket)


def test_objects_that_vanish_while_we_look_are_listed_again(empty_bucket):
    """A merge took their place meanwhile: no finding, and no end of listings either."""
    for _ in range(3):
        empty_bucket.insert()
        empty_bucket.cut()
    empty_bucket.merge(2, 4)
    store, key = HookedStore(empty_bucket.store), empty_bucket.keys.wal(3)

    def before(method, name):
        if (method, name) == ("head", key):
            raise ObjectMissing(name)

    store.before = before
    assert verify(store, "app.db").findings == ()
    assert len(store.keys("list")) == 12  # four folders, three times


def test_an_object_that_vanishes_while_it_is_read_is_named(bucket):
    """It was there for the listing and for the HEAD; a snapshot as well as a segment."""
    store = HookedStore(bucket.store)
    for key in (bucket.keys.wal(4), bucket.keys.snapshot(14, bucket.generation)):
        asked = []

        def before(method, name, key=key, asked=asked):
            if name == key and method == "get":
                asked.append(name)
                if len(asked) > (2 if "snapshots" in key else 0):  # after header and tail
                    raise ObjectMissing(name)

        store.before = before
        (found,) = verify(store, "app.db", data=True).findings
        assert (found.key, found.problem) == (key, "it was listed, but is not there")


def test_a_place_is_opened_and_damage_is_noted_there(tmp_path):
    """The only database is found by itself; findings leave a note in the bucket, a sound look
    leaves none."""
    (tmp_path / "source").mkdir()
    (tmp_path / "bucket").mkdir()
    target = StoreAddress.parse(f"file://{tmp_path}/bucket")
    with pytest.raises(NoBackup):
        verify_at(target)
    store = DirectoryStore(tmp_path / "bucket")
    built = BucketBuilder(tmp_path / "source", store)
    built.insert()
    key = built.cut()
    assert verify_at(target, data=True).exit_code == 0
    assert list_records(store, Keys("app.db")) == []
    store.delete(key)
    built.insert()
    built.cut()
    assert verify_at(target).exit_code == GapError.exit_code
    assert [note.outcome for note in list_records(store, Keys("app.db"))] == [DAMAGED]
    store.put("other.db/wal/x", b"")
    with raises(ConfigError, "several_databases", setting="prefix"):
        verify_at(target)
    built.close()


def test_a_sample_reads_a_part_and_says_which(bucket):
    """One day in seven each object is read; a draw by chance repeats with its seed."""
    day = 86_400_000
    read = [look(bucket, sample="1/7", now_ms=n * day).read_objects for n in range(7)]
    assert sum(read) == len(bucket.objects())
    assert max(read) < len(bucket.objects())
    drawn = look(bucket, sample="30%", seed=5)
    again = look(bucket, sample="30%", seed=5)
    assert (drawn.read_bytes, drawn.seed) == (again.read_bytes, 5)
    assert 0 < drawn.read_bytes < drawn.bytes
    assert drawn.findings == ()


def test_a_large_snapshot_is_read_in_part(empty_bucket):
    """A draw of few bytes does not read a whole snapshot, and yet can find damage in it."""
    empty_bucket.insert(400, size=3000)
    empty_bucket.cut()
    key = empty_bucket.snapshot(frame_bytes=65536)
    whole = look(empty_bucket, data=True)
    assert whole.findings == ()
    spoil(empty_bucket.store, key, flip)
    found, least = 0, whole.bytes
    for seed in range(12):
        report = look(empty_bucket, sample="300K", seed=seed)
        found += bool(report.findings)
        least = min(least, report.read_bytes)
    assert found
    assert least < whole.bytes


def test_kinds_in_the_wrong_folder_are_damage(bucket):
    """A snapshot where a segment belongs."""
    store, keys = bucket.store, bucket.keys
    snapshot = keys.snapshot(14, bucket.generation)
    store.put(keys.wal(18), store.get(snapshot), metadata=store.head(snapshot).metadata)
    assert keys.wal(18) in [f.key for f in look(bucket).findings]
    assert parse_metadata(store.head(snapshot).metadata).kind is Kind.SNAPSHOT


def test_an_object_of_a_newer_format_is_inconclusive(bucket):
    """It is named, nothing is called lost, and other damage keeps its own exit code."""
    key = bucket.keys.wal(16)
    upgrade(bucket.store, key)
    for data in (False, True):
        report = look(bucket, data=data)
        ((kind, found),) = [(each.kind, each.key) for each in report.findings]
        assert (kind, found) == ("inconclusive", key)
        assert (report.exit_code, report.lost, report.bad) == (10, (), ())
    bucket.store.delete(bucket.keys.wal(15))
    report = look(bucket)
    assert (report.exit_code, [each.kind for each in report.bad]) == (4, ["missing"])


@pytest.mark.parametrize("invent", [lambda size: size * 1000, lambda size: 0])
def test_bytes_that_were_not_read_are_not_counted(bucket, invent):
    """A size that the store invents is no figure of what was read."""
    store = InventingStore(invent)
    for info in bucket.store.list(""):
        found = bucket.store.head(info.key)
        store.put(info.key, bucket.store.get(info.key), metadata=found.metadata)
    report = verify(store, bucket.prefix, data=True)
    assert report.exit_code == 3
    assert report.read_bytes <= sum(info.size for info in bucket.store.list(""))

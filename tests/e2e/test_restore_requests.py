"""The requests of a restore to its store, faults of the answers, and resumed restores."""

import base64
import json

import pytest

from replicator import restore
from replicator.archive.listing import find_databases
from replicator.errors import (
    AccessDenied,
    BucketMissing,
    ConfigError,
    DamageError,
    GapError,
    ObjectMissing,
    StoreUnavailable,
)
from replicator.format.page_hashes import pack_hashes, page_hashes
from replicator.recovery import snapshot
from replicator.store.address import StoreAddress
from replicator.store.directory import DirectoryStore
from replicator.store.memory import MemoryStore
from replicator.store.retry import RetryPolicy
from tests.helpers.bucket import BucketBuilder, busy_bucket
from tests.helpers.counting import CountingStore
from tests.helpers.errors import raises
from tests.helpers.restores import restore_with

IN_PARTS = {"range_bytes": 20_000}  # a snapshot in many requests


def go(store, output, **options):
    return restore(store=store, output=output, overwrite=True, **{"prefix": "app.db", **options})


# -------------------------------------------------------------------------- finding databases


def test_the_only_database_is_found(bucket, tmp_path):
    """Without a prefix the only database of the bucket is restored, also with foreign objects."""
    bucket.store.put("notes/readme.txt", b"foreign")
    report = go(bucket.store, tmp_path / "out.db", prefix="")
    assert report.txid == bucket.txid
    assert report.url == "memory://app.db"


def test_several_databases_are_listed(tmp_path):
    """With several, the error names them."""
    store = MemoryStore()
    for prefix in ("a.db", "team/b.db"):
        directory = tmp_path / prefix.replace("/", "-")
        directory.mkdir()
        BucketBuilder(directory, store, prefix=prefix).close()
    assert find_databases(store) == ["a.db", "team/b.db"]
    assert find_databases(store, "team") == ["team/b.db"]
    with raises(ConfigError, "several_databases", setting="prefix"):
        go(store, tmp_path / "out.db", prefix="")
    assert go(store, tmp_path / "out.db", prefix="team/b.db").txid == 1


def test_a_database_at_the_root(tmp_path):
    """An empty prefix works: the keys begin with wal/ and snapshots/."""
    (tmp_path / "source").mkdir()
    bucket = BucketBuilder(tmp_path / "source", prefix="")
    assert find_databases(bucket.store) == [""]
    assert go(bucket.store, tmp_path / "out.db", prefix="").txid == 1
    bucket.close()


def test_deep_folders_end_the_search():
    """A foreign tree is not walked to its leaves."""
    store = MemoryStore()
    store.put("1/2/3/4/5/6/wal/x", b"")
    assert find_databases(store) == []


def test_no_backup_is_none(tmp_path):
    """An empty bucket, a wrong prefix and an interrupted first upload are "no backup", which is
    neither an error nor a file."""
    store = MemoryStore()
    assert go(store, tmp_path / "out.db", prefix="") is None
    assert go(store, tmp_path / "out.db") is None
    assert go(store, tmp_path / "out.db", timestamp="now") is None
    (tmp_path / "source").mkdir()
    bucket = BucketBuilder(tmp_path / "source")
    bucket.store.delete(bucket.keys.wal(1))
    assert go(bucket.store, tmp_path / "out.db") is None
    bucket.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize("error", [AccessDenied, BucketMissing])
@pytest.mark.parametrize("method", ["list", "folders", "head", "get"])
def test_refusals_are_not_absence(bucket, tmp_path, error, method):
    """A refusal of any call is reported as such and never as "no backup"."""

    def before(name, key):
        if name == method:
            raise error("no")

    with pytest.raises(error):
        go(CountingStore(bucket.store, before=before), tmp_path / "out.db", prefix="")
    assert not (tmp_path / "out.db").exists()


def test_encrypted_objects_are_refused(bucket, tmp_path):
    """Encrypted objects are an error that names them; they do not count as foreign."""
    bucket.store.put(bucket.keys.wal(18) + ".age", b"secret")
    with raises(ConfigError, "encrypted"):
        go(bucket.store, tmp_path / "out.db")


# -------------------------------------------------------------------------------- few requests


def test_a_restore_asks_little(empty_bucket, tmp_path):
    """A restore costs three LISTs, one HEAD, one GET of the snapshot's tail, and one per object."""
    for _ in range(10):
        empty_bucket.insert()
        empty_bucket.cut()
    empty_bucket.snapshot()
    for _ in range(3):
        empty_bucket.insert()
        empty_bucket.cut()
    store = CountingStore(empty_bucket.store)
    assert go(store, tmp_path / "out.db").objects == 4
    assert (store.count("list"), store.count("head"), store.count("get")) == (3, 1, 5)


def test_a_fresh_generation_asks_no_more(bucket, tmp_path):
    """Right after a generation began, its marker confirms its snapshot."""
    bucket.start_generation()
    store = CountingStore(bucket.store)
    assert go(store, tmp_path / "out.db").objects == 1
    assert (store.count("list"), store.count("head"), store.count("get")) == (3, 1, 2)


def test_the_store_is_closed_only_if_it_was_opened(bucket, tmp_path):
    """A restore leaves a store open that it was given."""
    store = CountingStore(bucket.store)
    go(store, tmp_path / "out.db")
    assert store.count("close") == 0


def test_a_url(tmp_path):
    """A file:// URL names a directory; the prefix is a separate argument or found."""
    (tmp_path / "source").mkdir()
    (tmp_path / "store").mkdir()
    bucket = busy_bucket(tmp_path / "source", DirectoryStore(tmp_path / "store"))
    url = f"file://{tmp_path}/store"
    for options in (
        {"url": url},
        {"url": url, "prefix": "app.db"},
        {"address": StoreAddress.parse(url, prefix="app.db")},
        {"address": StoreAddress.parse(url, prefix="app.db"), "store": bucket.store},
    ):
        report = restore(output=tmp_path / "out.db", overwrite=True, **options)
        assert (tmp_path / "out.db").read_bytes() == bucket.images[report.txid]
        assert report.url == f"file://{tmp_path}/store/app.db"
    bucket.close()


# -------------------------------------------------------------------------- transport faults


def test_damaged_answers_are_fetched_again(bucket, tmp_path):
    """With a corrupted first answer for each object, the second request succeeds."""
    spoilt = set()

    def answer(method, key, result):
        if method != "get" or (key, len(result)) in spoilt:
            return result
        spoilt.add((key, len(result)))
        middle = len(result) // 2
        return result[:middle] + bytes([result[middle] ^ 16]) + result[middle + 1 :]

    report = go(CountingStore(bucket.store, answer=answer), tmp_path / "out.db")
    assert (tmp_path / "out.db").read_bytes() == bucket.images[report.txid]
    assert len(spoilt) >= 4


def test_short_answers_are_fetched_again_or_named(bucket, tmp_path):
    """A truncated answer never counts as the object's end."""
    victim = bucket.keys.wal(16)

    def answer(method, key, result):
        return result[:-5] if method == "get" and key == victim else result

    with raises(DamageError, "truncated", key="app.db/wal/0000000000000010.wal.zst") as error:
        go(CountingStore(bucket.store, answer=answer), tmp_path / "out.db")
    assert error.value.key == victim


def test_a_flip_that_block_checksums_miss(empty_bucket, tmp_path, monkeypatch):
    """The SHA-256 of the whole catches a flip that the checksum of every block misses, and the
    snapshot is fetched once more."""
    monkeypatch.setattr(snapshot, "decode_block", _lenient(snapshot.decode_block))
    key = empty_bucket.keys.snapshot(1, empty_bucket.generation)
    tail = []

    def answer(method, name, result):
        if method != "get" or name != key:
            return result
        tail.append(len(result))
        if len(tail) != 2:
            return result
        return result[:-1] + bytes([result[-1] ^ 1])

    store = CountingStore(empty_bucket.store, answer=answer)
    assert go(store, tmp_path / "out.db").txid == 1
    assert len(tail) == 3


def _lenient(decode):
    """Decodes a block without its checksum, as if the flip were in the checksum."""
    good = {}

    def lenient(data, entry, key):
        body = bytes(data)[:-4]
        if body not in good:
            for end in range(256):
                try:
                    good[body] = decode(bytes(data)[:-1] + bytes([end]), entry, key)
                except DamageError:
                    continue
        return good[body]

    return lenient


def test_objects_that_vanish_during_a_restore(empty_bucket, tmp_path):
    """A prune that merges and deletes between listing and reading costs another listing."""
    for _ in range(4):
        empty_bucket.insert()
        empty_bucket.cut()
    pruned = []

    def before(method, key):
        if method == "get" and "/wal/" in key and not pruned:
            pruned.append(key)
            empty_bucket.merge(2, 5, drop=True)

    store = CountingStore(empty_bucket.store, before=before)
    report = go(store, tmp_path / "out.db")
    assert (report.txid, report.objects) == (5, 2)
    assert (tmp_path / "out.db").read_bytes() == empty_bucket.images[5]


@pytest.mark.parametrize("method", ["get", "head"])
def test_objects_listed_but_never_there(bucket, tmp_path, method):
    """A store that lists what it does not hold ends in an error, not in a loop."""

    def before(name, key):
        if name == method:
            raise ObjectMissing(f"{key} is gone")

    with pytest.raises(GapError) as error:
        go(CountingStore(bucket.store, before=before), tmp_path / "out.db")
    assert error.value.code == "listed_but_missing"


# ----------------------------------------------------------------------------------- resuming


@pytest.fixture
def parted(tmp_path):
    """A bucket whose snapshot comes in many parts, with a log on top."""
    (tmp_path / "source").mkdir()
    built = BucketBuilder(tmp_path / "source")
    built._db.execute("PRAGMA secure_delete=ON")  # leaves pages of zeros
    built.insert(1000)
    built.run("DELETE FROM t WHERE id BETWEEN 100 AND 200")
    built.cut()
    built.snapshot(frame_bytes=4 * 4096)
    built.run("UPDATE t SET body = 'x' WHERE id % 50 = 0")
    built.insert(30)
    built.cut()
    yield built
    built.close()


def interrupted(bucket, output, *, after):
    """A restore whose store goes away after some parts of the snapshot."""
    left = [after]

    def before(method, key):
        if method == "get" and "snapshots" in key:
            left[0] -= 1
            if left[0] < 0:
                raise AccessDenied("expired")

    away = CountingStore(bucket.store, before=before)
    with pytest.raises(AccessDenied):
        restore_with(IN_PARTS, store=away, output=output, overwrite=True)


def snapshot_gets(bucket, output, **options):
    store = CountingStore(bucket.store)
    report = restore_with(IN_PARTS, store=store, output=output, overwrite=True, **options)
    assert output.read_bytes() == bucket.images[report.txid]
    assert not output.with_name(f".{output.name}.restoring").exists()
    return sum(1 for method, key in store.calls if method == "get" and "snapshots" in key), report


def test_an_interrupted_restore_resumes(parted, tmp_path):
    """A resumed restore does not fetch parts again, although the log has grown."""
    out = tmp_path / "out.db"
    whole, _ = snapshot_gets(parted, out)
    interrupted(parted, out, after=whole - 3)
    parted.insert(3)
    parted.cut()
    rest, report = snapshot_gets(parted, out)
    assert rest < whole / 2
    assert "earlier attempt" in report.verified
    assert report.txid == parted.txid


def test_a_resumed_restore_through_a_shrink(parted, tmp_path):
    """Pages of the first attempt that the database has lost since do not come back."""
    out = tmp_path / "out.db"
    interrupted(parted, out, after=12)
    parted.delete_all_and_shrink()
    parted.insert(700)
    parted.cut()
    snapshot_gets(parted, out)


def test_kept_parts_are_hashed_again(parted, tmp_path):
    """A resumed restore hashes kept parts again, and fetches those that changed on the disk."""
    out = tmp_path / "out.db"
    interrupted(parted, out, after=15)
    kept = tmp_path / ".out.db.restoring" / "database"
    body = bytearray(kept.read_bytes())
    for at in range(100, len(body), 4096):
        body[at] ^= 1
    kept.write_bytes(body)
    assert "earlier attempt" in snapshot_gets(parted, out)[1].verified


@pytest.mark.parametrize("notes", [b"", b"rubbish\n", b"[]\n", b'{"version": 0}\n'])
def test_notes_that_cannot_be_read(parted, tmp_path, notes):
    """With foreign or torn notes a restore starts afresh."""
    out = tmp_path / "out.db"
    interrupted(parted, out, after=15)
    path = tmp_path / ".out.db.restoring" / "parts"
    whole = path.read_bytes()
    path.write_bytes(notes)
    assert "earlier" not in snapshot_gets(parted, out)[1].verified
    interrupted(parted, out, after=15)
    path.write_bytes(whole[:-20] + b"\n\xff\n" + b'{"page": 1, "hashes": "?"}\n')
    assert "earlier" in snapshot_gets(parted, out)[1].verified


def test_another_target_starts_afresh(parted, tmp_path):
    """Parts kept for the newest state are not used for an older one."""
    out = tmp_path / "out.db"
    interrupted(parted, out, after=15)
    assert "earlier" not in snapshot_gets(parted, out, txid=3)[1].verified


def test_forged_parts_are_discarded(parted, tmp_path):
    """A resumed file that fails verification (here page and noted hash were both changed) is
    discarded and rebuilt in the same call."""
    out = tmp_path / "out.db"
    interrupted(parted, out, after=15)
    kept, notes = (tmp_path / ".out.db.restoring" / name for name in ("database", "parts"))
    body, lines = bytearray(kept.read_bytes()), []
    for line in map(json.loads, notes.read_bytes().splitlines()):
        if "page" in line:
            at, size = (line["page"] - 1) * 4096, 4 * 4096
            body[at + 100] ^= 1
            hashes = page_hashes(4096, line["page"], bytes(body[at : at + size]))
            line["hashes"] = base64.b64encode(pack_hashes(hashes)).decode()
        lines.append(json.dumps(line))
    kept.write_bytes(body)
    notes.write_text("\n".join(lines) + "\n")
    whole, report = snapshot_gets(parted, out)
    assert whole > 15
    assert "earlier" not in report.verified


def test_unreachable_store_is_reported(bucket, tmp_path):
    """A store that never answers ends in StoreUnavailable after the deadline."""

    def before(method, key):
        raise StoreUnavailable("down")

    away = CountingStore(bucket.store, before=before)
    with pytest.raises(StoreUnavailable):
        restore_with(
            {"retries": RetryPolicy(deadline=0.05)}, store=away, output=tmp_path / "out.db"
        )
    assert not list(tmp_path.glob("*out.db*"))


def test_progress_is_reported(parted, tmp_path):
    """Phases come in order, bytes grow to the total, and every object is counted."""
    seen = []
    report = restore_with(
        IN_PARTS, store=parted.store, output=tmp_path / "out.db", progress=seen.append
    )
    phases = list(dict.fromkeys(step.phase for step in seen))
    assert phases == ["segments", "snapshot", "verify", "publish"]
    fetched = [step for step in seen if step.phase == "snapshot"][-1]
    assert fetched.done_bytes == fetched.total_bytes
    assert fetched.objects_done == fetched.objects_total == report.objects
    verified = [step for step in seen if step.phase == "verify"][-1]
    assert verified.done_bytes == verified.total_bytes == report.size
    assert seen == sorted(seen, key=lambda step: phases.index(step.phase))

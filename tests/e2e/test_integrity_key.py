"""An integrity key: a forged archive is refused however consistent it is, a sealed one is exact."""

import contextlib
import os
import shutil
import sqlite3
from itertools import pairwise

import pytest

from replicator import restore
from replicator.archive.keys import Keys
from replicator.errors import (
    ConfigError,
    DamageError,
    GapError,
    NoBackup,
    RefusedError,
    ReplicatorError,
)
from replicator.format.envelope import read_tail
from replicator.retention.merge import MergeSource, merge_all, merge_newest
from replicator.store.memory import MemoryStore
from replicator.store.sealed import sealed
from replicator.system.paths import cache_directory
from replicator.verify.drill import drill
from replicator.verify.verify import verify
from tests.helpers.bucket import BucketBuilder
from tests.helpers.errors import raises
from tests.helpers.replication import (
    LONG,
    App,
    HookedStore,
    replicating,
    replicator_for,
    restored,
    wait_for,
)
from tests.helpers.seals import OTHERS, OURS, seal_all, with_seal
from tests.helpers.small_archive import SmallArchive


@pytest.fixture(params=[False, True], ids=["segments", "merges"])
def sealed_archive(request, tmp_path):
    """An archive of every kind of object, sealed; its store has the keys."""
    archive = SmallArchive(tmp_path / "archive", merged=request.param)
    seal_all(archive.store)
    archive.store = archive.built.store = sealed(archive.store, OURS)
    archive.saved = {
        key: (archive.store.get(key), metadata) for key, (_, metadata) in archive.saved.items()
    }
    return archive


@pytest.fixture
def key_file(tmp_path):
    """A file with one integrity key."""
    path = tmp_path / "integrity.key"
    path.write_text("0123456789abcdef" * 4 + "\n")
    return path


def test_a_sealed_archive_restores_to_every_transaction(sealed_archive):
    """As one without seals does; the report lists them among the proofs."""
    for target in sealed_archive.targets:
        report = sealed_archive.outcome(target)
        assert not isinstance(report, ReplicatorError), target
        assert "seals" in report.verified


def test_an_archive_of_another_writer_is_refused(sealed_archive):
    """Every checksum of it is right, but its objects have no seal, or that of another key."""
    bare = {key: body[:-56] for key, (body, _) in sealed_archive.saved.items()}
    for forge, code in ((lambda body, key: body, "not_sealed"), (_by_others, "other_key")):
        for key, body in bare.items():
            sealed_archive.put(key, forge(body, key))
        for target in sealed_archive.targets:
            error = sealed_archive.outcome(target)
            assert isinstance(error, DamageError), target
            assert error.code == code
        assert verify(sealed_archive.store, "app.db").findings


def _by_others(body, key):
    return with_seal(body, key, OTHERS)


def test_no_single_forged_object_gets_into_a_database(sealed_archive):
    """A restore fails, or takes a way around the object. ``outcome`` compares every file."""
    for key, (body, _) in sealed_archive.saved.items():
        for forged in (body[:-56], _by_others(body[:-56], key)):
            sealed_archive.put(key, forged)
            for target in sealed_archive.targets:
                found = sealed_archive.outcome(target)
                if isinstance(found, ReplicatorError):
                    assert isinstance(found, (DamageError, GapError, NoBackup))
            sealed_archive.mend(key)


def test_objects_do_not_change_places(sealed_archive):
    """A sealed object under the name of another one is not what its seal says."""
    keys = [key for key in sealed_archive.saved if "/wal/" in key]
    for here, there in pairwise(keys):
        sealed_archive.put(here, sealed_archive.saved[there][0])
        for target in sealed_archive.targets:
            sealed_archive.outcome(target)  # never another file
        sealed_archive.mend(here)


def test_the_archive_of_another_database_is_no_backup_of_this_one(tmp_path):
    """The same key may seal several databases: a seal is for one prefix."""
    bucket = BucketBuilder(tmp_path)
    bucket.insert()
    bucket.start_generation()
    seal_all(bucket.store)
    moved = MemoryStore()
    for key in bucket.objects():
        moved.put(key.replace("app.db/", "other.db/"), bucket.store.get(key))
    output = tmp_path / "out.db"
    with raises(DamageError, code="wrong_seal"):
        restore(store=sealed(moved, OURS), prefix="other.db", output=output)
    assert not output.exists()


def test_a_dropped_object_is_a_gap(tmp_path):
    """Seals do not replace the order: a hole in the middle is found as ever."""
    bucket = BucketBuilder(tmp_path)
    bucket.start_generation()
    for _ in range(3):
        bucket.insert()
        bucket.cut()
    seal_all(bucket.store)
    bucket.store.delete(bucket.keys.wal(bucket.txid - 1))
    with pytest.raises(GapError):
        restore(store=sealed(bucket.store, OURS), prefix="app.db", output=tmp_path / "out.db")


def test_a_reader_without_the_key_says_so(sealed_archive, tmp_path, caplog):
    """It restores, because the owner of a lost key needs his data, and names what it did not
    check; a drill does the same."""
    plain = sealed_archive.store.inner
    report = restore(store=plain, prefix="app.db", output=tmp_path / "plain.db")
    assert "not the seals, because no integrity key was given" in report.verified
    assert report.unauthenticated
    assert "nothing proves who wrote it" in caplog.text
    done = drill(plain, "app.db", scratch=tmp_path).restore
    assert (done.txid, done.unauthenticated) == (report.txid, True)
    assert verify(plain, "app.db").unauthenticated
    assert verify(plain, "app.db", data=True).unauthenticated
    assert not verify(sealed_archive.store, "app.db").unauthenticated
    assert not sealed_archive.outcome(None).unauthenticated


def test_merges_are_sealed_and_need_sealed_sources(tmp_path):
    """Retention does not lend its seal to a forged segment."""
    bucket = BucketBuilder(tmp_path)
    for _ in range(3):
        bucket.insert()
        bucket.cut()
    keys = [bucket.keys.wal(txid) for txid in range(bucket.txid - 2, bucket.txid + 1)]
    bodies = {key: with_seal(bucket.store.get(key), key) for key in keys}
    first, last = bucket.txid - 2, bucket.txid

    def sources():
        return [
            MergeSource(key, first + n, first + n, lambda key=key: bodies[key])
            for n, key in enumerate(keys)
        ]

    for level, make in ((1, merge_all), (2, merge_newest)):
        place = OURS.place(Keys("app.db").merged(level, first, last))
        body = make(sources(), created_by="tests", level=3, place=place).body
        assert read_tail(body, len(body), place.key, OURS).sealed
    bodies[keys[1]] = bucket.store.get(keys[1])
    for make in (merge_all, merge_newest):
        with raises(DamageError, code="not_sealed", key=keys[1]):
            make(sources(), created_by="tests", level=3, place=place)


def test_a_replicator_seals_all_it_makes_and_continues_after_a_restart(tmp_path, key_file):
    """Marker, segments, snapshots, and catch-ups; the database is exact with the key, and a wrong
    key restores nothing."""
    store = HookedStore()
    with App(tmp_path / "app.db") as app:
        for _ in range(2):
            with replicating(app.path, store, integrity_key=key_file) as replicator:
                app.insert(20)
                replicator.flush(LONG, snapshot=True)
            app.insert(5)  # while no replicator runs
            app.checkpoint("TRUNCATE")
        image = app.image()
        with replicating(app.path, store, integrity_key=key_file) as replicator:
            replicator.flush(LONG)
            wait_for(lambda: replicator.status().state == "following")
        kinds = set()
        for info in store.list("app.db/"):
            if info.key.endswith(".zst"):
                kinds.add(info.key.split("/")[1])
                body = store.get(info.key)
                assert read_tail(body, len(body), info.key).sealed, info.key
        assert kinds == {"wal", "snapshots"}
        report, found = restored(store, tmp_path, integrity_key=key_file)
        assert "seals" in report.verified
        assert found == image
        other = tmp_path / "other.key"
        other.write_text("f" * 32)
        with raises(DamageError, code="other_key"):
            restored(store, tmp_path, integrity_key=other)
        both = tmp_path / "both.key"
        both.write_text("f" * 32 + "\n\n" + key_file.read_text())
        assert restored(store, tmp_path, integrity_key=both)[1] == image


def test_a_replicator_refuses_to_continue_a_forged_archive(tmp_path, key_file):
    """It neither appends to objects without a seal nor takes one for its own end."""
    store = HookedStore()
    with App(tmp_path / "app.db") as app:
        app.insert(3)
        with replicating(app.path, store) as replicator:
            replicator.flush(LONG)
        before = {info.key for info in store.list("app.db/wal/")}
        app.insert(3)
        with replicating(app.path, store, integrity_key=key_file) as replicator:
            wait_for(lambda: replicator.failed is not None)
            assert isinstance(replicator.failed, RefusedError)
            assert replicator.failed.code == "archive_not_sealed"
        assert {info.key for info in store.list("app.db/wal/")} == before


@pytest.fixture
def sealed_store(tmp_path, key_file):
    """A store with the sealed archive of the database ``app.db``, which no replicator follows."""
    store = HookedStore()
    with (
        App(tmp_path / "app.db") as app,
        replicating(app.path, store, integrity_key=key_file) as replicator,
    ):
        app.insert(20)
        replicator.flush(LONG)
        app.insert(3)
        replicator.flush(LONG)
    return store


def refusal(path, store):
    """The error of a start that is refused, at once or after it began."""
    replicator = replicator_for(path, store)
    try:
        replicator.start()
        return wait_for(lambda: replicator.failed)
    except RefusedError as error:
        return error
    finally:
        replicator.stop()


@pytest.mark.parametrize("cache", ["kept", "lost", "of an older version"])
def test_a_replicator_without_the_key_is_refused(tmp_path, sealed_store, key_file, cache):
    """It would continue the archive without seals, which no reader with the key accepts. A kept
    cache needs no request for that."""
    path = tmp_path / "app.db"
    objects = {info.key for info in sealed_store.list("")}
    if cache == "lost":
        shutil.rmtree(cache_directory(path))
    elif cache == "of an older version":
        with contextlib.closing(sqlite3.connect(cache_directory(path) / "state.db")) as db, db:
            db.execute("DELETE FROM destination_fact WHERE name = 'sealed'")
    error = refusal(path, sealed_store)
    assert isinstance(error, RefusedError)
    assert (error.code, error.exit_code) == ("archive_sealed", 6)
    assert {info.key for info in sealed_store.list("")} == objects
    with App(path) as app:
        app.insert()
        with replicating(path, sealed_store, integrity_key=key_file, take_over=True) as replicator:
            replicator.flush(LONG)
        image = app.image()
    assert restored(sealed_store, tmp_path, integrity_key=key_file)[1] == image


def test_an_archive_without_seals_is_asked_once(tmp_path):
    """A replicator without a key sends no request for seals at a later start."""
    store = HookedStore()
    with App(tmp_path / "app.db") as app:
        for _ in range(2):
            store.calls.clear()
            app.insert()
            with replicating(app.path, store) as replicator:
                replicator.flush(LONG)
    assert store.keys("get") == []


def test_a_key_is_added_at_a_new_prefix(tmp_path, key_file):
    """The same cache begins a sealed archive there; the one before stays readable without the
    key."""
    store = HookedStore()
    with App(tmp_path / "app.db") as app:
        app.insert(20)
        with replicating(app.path, store) as replicator:
            replicator.flush(LONG)
        before = app.image()
        app.insert(3)
        sealed_one = {"url": "s3://bucket/sealed.db", "integrity_key": key_file}
        with replicating(app.path, store, **sealed_one) as replicator:
            replicator.flush(LONG)
            app.insert(3)
            replicator.flush(LONG)
        with replicating(app.path, store, **sealed_one) as replicator:
            replicator.flush(LONG)
        image = app.image()
    report, data = restored(store, tmp_path, prefix="sealed.db", integrity_key=key_file)
    assert data == image
    assert "seals" in report.verified
    assert restored(store, tmp_path)[1] == before


def test_a_key_is_changed(tmp_path, sealed_store, key_file):
    """The new key first, the old one after it: the archive continues, old and new objects are
    read with both, and without the old key the old objects are refused."""
    both, new = tmp_path / "both.key", tmp_path / "new.key"
    new.write_text("f" * 32)
    both.write_text("f" * 32 + "\n" + key_file.read_text())
    with App(tmp_path / "app.db") as app:
        app.insert()
        with replicating(app.path, sealed_store, integrity_key=both) as replicator:
            replicator.flush(LONG)
            assert restored(sealed_store, tmp_path, integrity_key=both)[1] == app.image()
            for key in (key_file, new):
                with raises(DamageError, code="other_key"):
                    restored(sealed_store, tmp_path, integrity_key=key)
            app.insert()
            replicator.flush(LONG, snapshot=True)
        image = app.image()
    assert restored(sealed_store, tmp_path, integrity_key=both)[1] == image


def test_the_newest_event_is_known_after_an_adoption(tmp_path, key_file):
    """Another cache continues the archive, and its objects name the last catch-up."""
    store, path = HookedStore(), tmp_path / "app.db"
    with App(path) as app:
        for _ in range(2):
            app.insert()
            app.checkpoint("TRUNCATE")
            with replicating(path, store, integrity_key=key_file) as replicator:
                event = replicator.flush(LONG).txid
        with replicating(path, store, integrity_key=key_file) as replicator:
            wait_for(lambda: replicator.status().state == "following")
            app.insert()
            assert replicator.flush(LONG).txid == event + 1
        shutil.rmtree(cache_directory(path))
        with replicating(path, store, integrity_key=key_file) as replicator:
            wait_for(lambda: replicator.status().state == "following")
            app.insert()
            txid = replicator.flush(LONG).txid
    newest = store.head(Keys("app.db").wal(txid)).metadata
    assert newest.get("last-event") == str(event)


@pytest.mark.parametrize("content", [None, "", "short", "a" * 32 + "\nshort"])
def test_a_key_file_that_cannot_serve_is_refused(tmp_path, content):
    """Missing, empty, or with a key that can be guessed."""
    path = tmp_path / "integrity.key"
    if content is not None:
        path.write_text(content)
    with raises(ConfigError, setting="integrity_key"):
        restore(url=f"file://{tmp_path}", integrity_key=path, output=tmp_path / "out.db")
    assert os.listdir(tmp_path) == ([] if content is None else ["integrity.key"])

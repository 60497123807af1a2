"""InProcessReplicator on stores in memory and in a directory: its life, and what it survives.

Every story ends with a restore from nothing but the store, held against the source page by page.
"""

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from replicator.archive.keys import Keys
from replicator.archive.pins import list_pins
from replicator.engine.in_process import InProcessReplicator
from replicator.errors import (
    AccessDenied,
    AlreadyRunning,
    ConfigError,
    DatabaseMissing,
    DatabaseUnusable,
    DiskFull,
    Fenced,
    NotDurable,
    ReplicatorError,
)
from replicator.store.directory import DirectoryStore
from replicator.store.memory import MemoryStore
from tests.helpers.errors import raises
from tests.helpers.files import FullFiles
from tests.helpers.replication import (
    LONG,
    App,
    config_for,
    image_of,
    replicate_once,
    replicating,
    replicator_for,
    restored,
    wait_for,
)


def assert_restores(store, out, image, **options):
    report, data = restored(store, out, **options)
    assert data == image
    return report


# ------------------------------------------------------------------------------ a quiet life


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_what_flush_promised_is_restored_page_by_page(tmp_path, path, app, out, kind):
    """After flush() the store alone gives back the database as it was, for every store."""
    if kind == "directory":
        (tmp_path / "bucket").mkdir()
        store = DirectoryStore(tmp_path / "bucket")
    else:
        store = MemoryStore()
    with replicating(path, store) as replicator:
        for rows in (1, 40, 3):
            app.insert(rows)
            position = replicator.flush(LONG)
        image = app.image()
        assert replicator.status().durable_txid == position.txid == replicator.status().txid
    report = assert_restores(store, out, image)
    assert (report.txid, report.generation) == (position.txid, position.generation)


def test_flush_is_repeatable_and_never_moves_back(path, app, store):
    """A second flush without commits between answers the same position and sends nothing."""
    with replicating(path, store) as replicator:
        app.insert()
        first = replicator.flush(LONG)
        sent = len(store.calls)
        assert replicator.flush(LONG) == first
        assert len(store.calls) == sent


def test_flush_from_many_threads_is_durable_for_each(path, app, store, out):
    """Each of many concurrent flushes covers what was committed before it began."""
    with replicating(path, store) as replicator, ThreadPoolExecutor(8) as pool:
        waiting = []
        for _ in range(30):
            app.insert()
            waiting.append(pool.submit(replicator.flush, LONG))
        positions = [one.result(LONG).txid for one in waiting]
        assert max(positions) == replicator.status().durable_txid
        image = app.image()
        report = assert_restores(store, out, image)
        assert report.txid == max(positions)


def test_commits_leave_without_anybody_asking(path, app, store, out):
    """A lone commit becomes durable by itself."""
    with replicating(path, store) as replicator:
        before = replicator.flush(LONG).txid
        app.insert()
        wait_for(lambda: replicator.status().durable_txid > before)
        assert_restores(store, out, app.image())


def test_commits_are_found_without_file_events(path, app, store, out, no_events):
    """Where the file system tells nothing, the poll is the truth."""
    with replicating(path, store) as replicator:
        before = replicator.flush(LONG).txid
        app.insert()
        wait_for(lambda: replicator.status().durable_txid > before)
        assert_restores(store, out, app.image())


def test_idle_costs_no_request(path, app, store):
    """Once everything is durable, polls go on and requests do not."""
    with replicating(path, store) as replicator:
        app.insert()
        replicator.flush(LONG)
        sent, rounds = len(store.calls), replicator.metrics.get("wake_ups")
        wait_for(lambda: replicator.metrics.get("wake_ups") > rounds + 3)
        assert len(store.calls) == sent


def test_a_rolled_back_transaction_does_not_keep_the_capture_busy(path, store, no_events):
    """Frames that were spilled and rolled back stay in the log; they must not make the capture
    spin until the next commit comes."""
    with (
        App(path, cache_pages=10) as app,
        replicating(path, store, poll_interval=30.0) as replicator,
    ):
        app.insert()
        app.run("BEGIN")
        app.insert(200, 1000)
        app.run("ROLLBACK")
        replicator.flush(LONG)
        before = replicator.metrics.get("wake_ups")
        threading.Event().wait(0.5)
        assert replicator.metrics.get("wake_ups") - before < 500


def test_start_twice_is_refused(path, app, store):
    """A running replicator cannot be started again, and goes on."""
    with replicating(path, store) as replicator:
        with raises(ReplicatorError, "already_started"):
            replicator.start()
        app.insert()
        replicator.flush(LONG)


def test_a_second_replicator_on_the_same_cache_is_refused(path, app, store):
    """The cache has one user; the refusal names the process, and the first goes on."""
    with replicating(path, store) as first:
        second = replicator_for(path, store)
        with raises(AlreadyRunning, pid=os.getpid()):
            second.start()
        second.stop()
        app.insert()
        first.flush(LONG)


def test_a_second_replicator_on_the_same_database_is_refused(tmp_path, path, app, store):
    """Another cache directory does not help: the database has one replicator."""
    with replicating(path, store, cache_dir=tmp_path / "here") as first:
        for cache in ({}, {"cache_dir": tmp_path / "there"}):
            with raises(AlreadyRunning, pid=os.getpid()):
                replicator_for(path, store, **cache).start()
        app.insert()
        first.flush(LONG)


def test_what_is_not_running_cannot_be_asked(path, app, store):
    """Before start() and after stop(), flush() and snapshot() say so, status() answers."""
    replicator = replicator_for(path, store)
    assert not replicator.status().running
    assert replicator.failed is None
    for _ in range(2):
        for ask in (replicator.flush, replicator.snapshot):
            with raises(ReplicatorError, "not_started"):
                ask()
        replicator.start()
        app.insert()
        txid = replicator.flush(LONG).txid
        replicator.stop()
        status = replicator.status()
        assert (status.running, status.state, status.txid) == (False, "stopped", txid)
    replicator.stop()  # twice does no harm


def test_the_context_manager_flushes(path, app, store, out):
    """Leaving the block makes everything durable."""
    with replicator_for(path, store):
        app.insert(5)
    assert_restores(store, out, app.image())


def test_the_context_manager_does_not_flush_after_an_error(path, app, store):
    """An error inside the block comes out at once, whatever the store does."""
    with pytest.raises(KeyError), replicator_for(path, store) as replicator:  # noqa: PT012
        replicator.flush(LONG)
        store.go_away()
        app.insert()
        raise KeyError


# ------------------------------------------------------------------------------ the database


def test_without_a_database_a_flush_fails_at_once(path, store):
    """The path may be wrong. It fails at the end of a block, too."""
    with replicating(path, store) as replicator:
        wait_for(lambda: replicator.status().state == "waiting")
        with raises(DatabaseMissing, code="database_missing", path=str(path)):
            replicator.flush(LONG)
        assert not replicator.status().healthy
    with raises(DatabaseMissing), replicator_for(path, store):
        pass


def test_a_database_without_its_directory_is_refused(tmp_path, store):
    """A mistyped path: no directory is made for it, whichever directory the cache has."""
    path = tmp_path / "mistyped" / "app.db"
    for settings in ({}, {"cache_dir": tmp_path / "cache"}, {"auto_restore": True}):
        with raises(DatabaseMissing, code="directory_missing", path=str(path)):
            replicator_for(path, store, **settings).start()
    assert list(tmp_path.iterdir()) == []


def test_a_path_without_a_database_leaves_no_cache(tmp_path, path, store):
    """The name may be wrong. A cache that was there before stays, and so does one in use."""
    with replicating(path, store) as replicator:
        wait_for(lambda: replicator.status().state == "waiting")
        assert replicator.config.cache.exists()
    assert list(tmp_path.iterdir()) == []
    replicator.config.cache.mkdir(mode=0o700)
    with replicating(path, store):
        pass
    assert (replicator.config.cache / "state.db").exists()


def test_a_database_that_vanished_leaves_its_cache(path, store):
    """It knows what the bucket has."""
    with App(path) as app:
        app.insert(3)
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        path.unlink()
        wait_for(lambda: replicator.status().state == "waiting")
    assert (replicator.config.cache / "state.db").exists()


def test_auto_restore_brings_a_missing_directory_back(tmp_path, path, app, store):
    """On a new machine the directory is as new as the rest."""
    app.insert(3)
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
    new = tmp_path / "new" / "app.db"
    with replicating(new, store, auto_restore=True) as replicator:
        replicator.flush(LONG)
        assert image_of(new) == app.image()


def test_a_database_that_appears_later_is_followed(path, store, out):
    """An empty file is no database yet; the first table makes it one."""
    path.touch()
    with replicating(path, store) as replicator:
        with raises(DatabaseMissing):
            replicator.flush(LONG)
        with App(path) as app:
            app.insert(3)
            wait_for(lambda: replicator.status().state == "following")
            replicator.flush(LONG)
            assert_restores(store, out, app.image())


@pytest.mark.parametrize(
    "content", [b"this is no database, it is text " * 40, bytes(range(256)) * 16]
)
def test_a_file_that_is_no_database_is_refused_at_start(path, store, content):
    """start() raises for a foreign or an encrypted file, and lets go of the cache."""
    path.write_bytes(content)
    replicator = replicator_for(path, store)
    with raises(DatabaseUnusable, "not_a_database"):
        replicator.start()
    assert path.read_bytes() == content
    assert not replicator.status().running
    path.unlink()
    with replicating(path, store):  # the lock on the cache is free again
        pass


def test_following_changes_nothing_in_the_database(path, app, store):
    """Schema, pages and pragmas of the user's database are the same after a full run."""
    app.insert(50)
    before, schema = app.image(), app.db.execute("SELECT * FROM sqlite_master").fetchall()
    with replicating(path, store) as replicator:
        replicator.flush(LONG, snapshot=True)
    assert app.image() == before
    assert app.db.execute("SELECT * FROM sqlite_master").fetchall() == schema
    assert app.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_database_in_delete_mode_is_switched(path, store, out, caplog):
    """A rollback-journal database is switched to WAL mode, and the log says so."""
    with App(path, mode="DELETE") as app:
        app.insert()
    caplog.set_level("INFO", "replicator")
    with replicating(path, store) as replicator, App(path) as app:
        app.insert()
        replicator.flush(LONG)
        assert_restores(store, out, app.image())
    assert "switched to WAL mode" in caplog.text
    assert "BEGIN IMMEDIATE" in caplog.text


def test_a_database_replaced_by_rename_is_caught_up(tmp_path, path, store, out):
    """A new file under the name becomes the next transaction, not a mixture."""
    with App(tmp_path / "new.db") as new:
        new.insert(70)
    app = App(path)
    with replicating(path, store) as replicator:
        app.insert(20)
        first = replicator.flush(LONG)
        old = app.image()
        app.close()
        os.replace(tmp_path / "new.db", path)
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        second = replicator.flush(LONG)
        with App(path) as app:
            app.insert(2)
            replicator.flush(LONG)
            assert_restores(store, out, app.image())
    assert second.generation == first.generation
    assert second.txid > first.txid  # by more than 1 if it was seen with the old log beside it
    assert_restores(store, out, old, txid=first.txid)


def test_a_database_deleted_and_made_anew_is_followed(path, store, out):
    """Deleted: waiting. Made anew: followed, and the old state stays restorable."""
    app = App(path)
    with replicating(path, store) as replicator:
        app.insert(20)
        first = replicator.flush(LONG)
        old = app.image()
        app.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        with raises(DatabaseMissing):
            replicator.flush(LONG)
        status = replicator.status()
        assert (status.state, status.durable_txid) == ("waiting", first.txid)
        with App(path) as app:
            app.insert(2)
            wait_for(lambda: replicator.status().state == "following")
            replicator.flush(LONG)
            assert_restores(store, out, app.image())
    assert_restores(store, out, old, txid=first.txid)


def test_a_database_that_is_locked_when_it_appears_is_waited_for(path, store, out):
    """An application may keep a new database locked for a while: only a start refuses."""
    with replicating(path, store) as replicator, App(path, mode="DELETE") as app:
        app.run("BEGIN EXCLUSIVE", "INSERT INTO t(body) VALUES (1)")
        wait_for(lambda: replicator.status().state == "stalled")
        assert "the switch to WAL mode waits" in replicator.status().last_error
        app.run("COMMIT", "PRAGMA journal_mode=WAL")
        wait_for(lambda: replicator.status().state == "following")
        replicator.flush(LONG)
        assert_restores(store, out, app.image())


def test_an_answered_snapshot_is_over_when_the_database_goes(path, store, no_events):
    """A start that was answered gets no second answer: the capture lives on and waits."""
    app = App(path)
    with replicating(path, store, poll_interval=3600.0) as replicator:
        replicator.flush(LONG)
        app.insert(20)
        taken = replicator.snapshot(LONG)
        app.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        for _ in range(3):
            with raises(DatabaseMissing):
                replicator.flush(LONG)
        status = replicator.status()
        assert (status.state, status.durable_txid) == ("waiting", taken)


def test_another_page_size_starts_a_generation(tmp_path, path, store, out):
    """A file with another page size cannot continue: snapshot and marker, then segments."""
    with App(tmp_path / "new.db", page_size=1024) as new:
        new.insert(70)
    app = App(path)
    with replicating(path, store) as replicator:
        app.insert(20)
        first = replicator.flush(LONG)
        app.close()
        os.replace(tmp_path / "new.db", path)
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        with App(path, page_size=1024) as app:
            app.insert(2)
            second = replicator.flush(LONG)
            assert_restores(store, out, app.image())
    assert second.generation != first.generation
    assert second.txid > first.txid


def test_a_refused_snapshot_of_the_next_generation_is_tried_again(tmp_path, path, store, out):
    """Joining again may fail; the session before it is long closed and must not be closed
    twice."""
    with App(tmp_path / "new.db", page_size=1024) as new:
        new.insert(7)
    app = App(path)

    def before(method, key):
        if "snapshots" in key and method == "put" and not allowed.is_set():
            refused.set()
            raise AccessDenied("not today")

    with replicating(path, store) as replicator:
        app.insert(20)
        replicator.flush(LONG)
        allowed, refused = threading.Event(), threading.Event()
        store.before = before
        app.close()
        os.replace(tmp_path / "new.db", path)
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        assert refused.wait(LONG)
        allowed.set()
        replicator.flush(LONG)
        assert_restores(store, out, image_of(path))


def test_a_database_replaced_right_before_the_end_is_not_mixed_in(
    tmp_path, path, store, out, no_events
):
    """stop() captures once more; the log of another file must not become part of this one. The
    next start refuses that file without an order."""
    with App(tmp_path / "new.db") as new:
        new.insert(70)
    app = App(path)
    replicator = replicator_for(path, store, poll_interval=3600.0)
    replicator.start()
    app.insert(20)
    replicator.flush(LONG)
    old = app.image()
    app.close()
    placed = (tmp_path / "new.db").read_bytes()  # a state too, if it was looked at right then
    os.replace(tmp_path / "new.db", path)
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    with App(path) as app:
        app.insert(1)
        replicator.stop()
        whole = app.image()
        with replicating(path, store, take_over=True) as replicator:
            wait_for(lambda: replicator.status().pending_segments == 0)
            replicator.flush(LONG)
            newest = assert_restores(store, out, whole)
            for txid in range(1, newest.txid):
                _, data = restored(store, out, txid=txid)
                assert data
    _, data = restored(store, out, txid=newest.txid - 1)
    assert data in (old, placed, whole)


# ------------------------------------------------------------------------------- coming back


def test_a_restart_continues_the_generation_without_a_snapshot(path, app, store, out):
    """Stopped and started again, nothing is sent but the next segment."""
    with replicating(path, store) as replicator:
        app.insert(30)
        first = replicator.flush(LONG)
    snapshots = store.keys("put")
    with replicating(path, store) as replicator:
        assert replicator.flush(LONG) == first
        app.insert()
        second = replicator.flush(LONG)
        assert second.generation == first.generation
        assert second.txid == first.txid + 1
        assert_restores(store, out, app.image())
    assert len(store.keys("put")) == len(snapshots) + 1


@pytest.mark.parametrize("meanwhile", ["a commit", "a checkpoint", "a vacuum", "nothing"])
def test_what_happened_meanwhile_is_caught_up(path, app, store, out, meanwhile):
    """The same generation continues after any writes while no replicator ran."""
    app.insert(30)
    with replicating(path, store) as replicator:
        app.insert(30)
        first = replicator.flush(LONG)
    if meanwhile != "nothing":
        app.insert(3)
    if meanwhile != "a commit":
        app.checkpoint("TRUNCATE")
    if meanwhile == "a vacuum":
        app.run("DELETE FROM t WHERE id % 2", "VACUUM")
        app.insert(2)
    with replicating(path, store) as replicator:
        second = replicator.flush(LONG)
        assert second.generation == first.generation
        assert (second.txid == first.txid) == (meanwhile == "nothing")
        app.insert()
        replicator.flush(LONG)
        assert_restores(store, out, app.image())


def test_pending_segments_survive_a_restart(path, app, store, out):
    """What the store did not get before the end, it gets after the next start."""
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        store.go_away()
        app.insert(3)
        with raises(NotDurable, txid=2, durable_txid=1):
            replicator.flush(0.2)
    assert replicator.status().pending_segments == 1
    store.come_back()
    image = app.image()
    with replicating(path, store) as replicator:
        wait_for(lambda: replicator.status().pending_segments == 0)
        assert_restores(store, out, image)


def test_a_lost_cache_is_adopted_from_an_equal_log(path, app, store, out):
    """Without a record, a database that equals the log's head continues the log."""
    with replicating(path, store) as replicator:
        app.insert(30)
        first = replicator.flush(LONG)
    shutil.rmtree(replicator.config.cache)
    with replicating(path, store) as replicator:
        assert replicator.flush(LONG) == first
        app.insert()
        second = replicator.flush(LONG)
        assert (second.generation, second.txid) == (first.generation, first.txid + 1)
        assert_restores(store, out, app.image())


def test_a_lost_cache_and_another_state_are_refused(path, app, store, out):
    """Without a record, a database that differs from the head is refused, and the bucket stays as
    it is. With the order to take over it starts over behind the head."""
    with replicating(path, store) as replicator:
        app.insert(30)
        first = replicator.flush(LONG)
        old = app.image()
    shutil.rmtree(replicator.config.cache)
    app.insert()
    sent = len(store.keys("put"))
    with raises(Fenced, "different_database") as refused:
        replicate_once(path, store)
    assert "--take-over" in refused.value.hint
    assert "--restore" in refused.value.hint
    assert len(store.keys("put")) == sent
    with replicating(path, store, take_over=True) as replicator:
        second = replicator.flush(LONG)
        assert second.generation != first.generation
        assert second.txid == first.txid + 2
        assert_restores(store, out, app.image())
    assert_restores(store, out, old, txid=first.txid)


@pytest.mark.parametrize("ledger", ["damaged", "removed"])
def test_a_lost_ledger_and_another_state_continue(path, app, store, out, ledger):
    """The cache remembers its id, and so recognises that it wrote the head: a generation begins.
    The head is pinned, because the ledger cannot prove that the database is not an older one."""
    with replicating(path, store) as replicator:
        app.insert(30)
        first = replicator.flush(LONG)
    for file in replicator.config.cache.glob("state.db*"):
        file.unlink()
    if ledger == "damaged":
        (replicator.config.cache / "state.db").write_bytes(b"damaged" * 100)
    app.insert()
    with replicating(path, store) as replicator:
        second = replicator.flush(LONG)
        assert second.generation != first.generation
        assert second.txid == first.txid + 1
        assert_restores(store, out, app.image())
    (pinned,) = list_pins(store.inner, Keys("app.db"))
    assert pinned.txid == first.txid
    with replicating(path, store) as replicator:
        assert replicator.flush(LONG) == second


def test_a_cache_lost_while_running_is_no_silence(path, app, store, out):
    """A cache directory that vanishes under us: flush() succeeds truly, and the status remembers
    what happened; a new start follows on."""
    with replicating(path, store) as replicator:
        app.insert(30)
        replicator.flush(LONG)
        shutil.rmtree(replicator.config.cache)
        app.insert()
        image = app.image()
        replicator.flush(LONG)
        assert "removed or replaced" in replicator.status().last_error
        assert_restores(store, out, image)
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        assert_restores(store, out, image)


@pytest.mark.parametrize("step", ["_execute", "write", "fsync", "rename", "open"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_full_disk_is_survived_without_a_restart(path, app, store, out, step, times):
    """While the cache's disk is full nothing is durable; once it has space, all is, without a
    restart and without a new generation."""
    files = FullFiles(step)
    with replicating(path, store, files=files) as replicator:
        app.insert(3)
        first = replicator.flush(LONG)
        files.left = times
        app.insert(3)
        second = replicator.flush(LONG)
        app.insert(3)
        third = replicator.flush(LONG)
        assert_restores(store, out, app.image())
    assert first.generation == second.generation == third.generation


@pytest.mark.parametrize("name", ["uploading", "uploaded", "failed", "trim", "next_pending"])
def test_the_upload_survives_a_ledger_in_trouble(path, app, store, out, monkeypatch, name):
    """Every note that the upload makes in the ledger may fail; it goes on when the disk does."""
    with replicating(path, store) as replicator:
        app.insert()
        replicator.flush(LONG)
        cache = replicator._engine.cache
        works, failed = getattr(cache, name), threading.Event()

        def fails_once(*args):
            if not failed.is_set():
                failed.set()
                raise DiskFull("the ledger's disk is full")
            return works(*args)

        monkeypatch.setattr(cache, name, fails_once)
        if name == "failed":
            store.go_away("wal/")
        app.insert()
        if name == "failed":
            assert failed.wait(LONG)
            store.come_back()
        replicator.flush(LONG)
        assert failed.wait(LONG)
        app.insert()
        replicator.flush(LONG)
        assert_restores(store, out, app.image())


# ------------------------------------------------------------------------------- the bucket


def test_a_bucket_emptied_while_stopped_gets_a_new_generation(path, app, store, out):
    """A store that forgot what it acknowledged is told apart from one that holds it."""
    with replicating(path, store) as replicator:
        app.insert(30)
        first = replicator.flush(LONG)
    store.wipe()
    with replicating(path, store) as replicator:
        app.insert()
        wait_for(lambda: replicator.flush(LONG).generation != first.generation)
        assert_restores(store, out, app.image())


def test_nothing_is_called_durable_in_an_emptied_bucket(path, app, store, out):
    """flush() returns only once the emptied bucket can restore what it promised."""
    with replicating(path, store) as replicator:
        app.insert(30)
        replicator.flush(LONG)
    store.wipe()
    listed, snapshot = threading.Event(), threading.Event()

    def before(method, key):
        if method == "list" and "wal/" in key:
            assert listed.wait(LONG)
        if "snapshots/" in key:
            assert snapshot.wait(LONG)

    store.before = before
    with replicating(path, store) as replicator, ThreadPoolExecutor(1) as pool:
        wait_for(lambda: replicator.status().state == "following")
        app.insert()
        image = app.image()
        flushed = pool.submit(replicator.flush, LONG)
        wait_for(lambda: replicator.status().pending_segments > 0)
        listed.set()
        try:
            wait_for(lambda: flushed.done() or replicator.status().state == "starting")
            if not flushed.done():
                threading.Event().wait(0.3)
            assert not flushed.done(), "durable, but the bucket restores nothing"
        finally:
            snapshot.set()
        flushed.result(LONG)
        store.come_back()
        assert_restores(store, out, image)


def test_another_log_under_the_same_txid_is_noticed_at_start(tmp_path, path, app, store):
    """An object that stands where our newest one was, but is not ours, fences us."""
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
    store.wipe()
    with App(tmp_path / "other.db") as other:
        other.insert(9)
        with replicating(tmp_path / "other.db", store) as second:
            second.flush(LONG)
    app.insert()
    with pytest.raises(Fenced), replicating(path, store) as replicator:  # at the latest by then
        replicator.flush(LONG)


def test_a_foreign_database_is_the_one_that_is_refused(tmp_path, path, app, store, out):
    """A newcomer at a prefix in use appends nothing, and the rightful replicator goes on."""
    with replicating(path, store) as first:
        app.insert(3)
        first.flush(LONG)
        sent = len(store.keys("put"))
        (tmp_path / "other").mkdir()
        with App(tmp_path / "other" / "app.db") as other:
            other.insert(9)
            newcomer = replicator_for(other.path, store)
            with raises(Fenced, "different_database"):
                newcomer.start()
                newcomer.flush(LONG)
            wait_for(lambda: newcomer.failed)
            newcomer.stop()
        assert len(store.keys("put")) == sent
        app.insert()
        first.flush(LONG)
        assert first.failed is None
        assert_restores(store, out, app.image())


def test_two_hosts_on_one_prefix_do_not_mix(tmp_path, path, app, store, out):
    """The second host takes over: the first to append after that loses, says who holds the log,
    and appends no more."""
    twin = tmp_path / "twin"
    twin.mkdir()
    with replicating(path, store) as first:
        app.insert(3)
        first.flush(LONG)
        with App(tmp_path / "copy.db") as copy:
            app.db.backup(copy.db)
        shutil.copy(tmp_path / "copy.db", twin / "app.db")
        second = replicator_for(twin / "app.db", store, take_over=True)
        second.start()
        second.flush(LONG)  # a different database: its own generation in the same log
        app.insert()
        with raises(Fenced, url="memory://"):
            first.flush(LONG)
        wait_for(lambda: first.failed is not None)
        assert isinstance(first.failed, Fenced)
        status = first.status()
        assert (status.state, status.running, status.healthy) == ("failed", False, False)
        sent = len(store.keys("put"))
        app.insert()
        with pytest.raises(Fenced):
            first.flush(LONG)
        assert len(store.keys("put")) == sent
        with App(twin / "app.db") as other:
            other.insert(2)
            second.flush(LONG)
            image = other.image()
        second.stop()
    assert_restores(store, out, image)


def test_a_stale_disk_is_refused_until_it_takes_over(tmp_path, path, app, store, out):
    """A cache behind the log's head is fenced; take_over keeps the history and goes on."""
    with replicating(path, store) as replicator:
        app.insert(3)
        first = replicator.flush(LONG)
    cache = replicator.config.cache
    shutil.copytree(cache, tmp_path / "older")
    with replicating(path, store) as replicator:
        app.insert(3)
        ahead = replicator.flush(LONG)
        newest = app.image()
    shutil.rmtree(cache)
    shutil.copytree(tmp_path / "older", cache)
    app.insert()
    with raises(Fenced, url="memory://", txid=ahead.txid):
        replicate_once(path, store)
    with replicating(path, store, take_over=True) as replicator:
        taken = replicator.flush(LONG)
        assert taken.txid > ahead.txid
        assert taken.generation != first.generation
        app.insert()
        replicator.flush(LONG)
        assert_restores(store, out, app.image())
    assert_restores(store, out, newest, txid=ahead.txid)


def test_the_store_away_at_the_first_start_is_waited_for(path, app, store, out):
    """Down at start: start() returns, flush() says what is wrong, and it mends by itself."""
    app.insert(2)
    store.go_away()
    with replicating(path, store) as replicator:
        with pytest.raises(NotDurable):
            replicator.flush(0.2)
        store.come_back()
        replicator.flush(LONG)
        assert_restores(store, out, app.image())


def test_stop_does_not_wait_for_a_store_that_is_away(path, app, store):
    """stop() during the first snapshot, the store being away, ends soon: no retry is sat out."""
    store.go_away()
    replicator = replicator_for(path, store)
    replicator.start()
    wait_for(lambda: len(store.calls) > 3)
    done = threading.Thread(target=replicator.stop)
    done.start()
    done.join(15)  # the retries of a snapshot go on for a minute
    stuck = done.is_alive()
    store.come_back()
    done.join(LONG)
    assert not stuck


def test_stop_does_not_wait_for_a_snapshot_that_cannot_be_published(path, app, store):
    """A snapshot waits for its txid to be durable; stop() gives it up instead of waiting."""
    with ThreadPoolExecutor(1) as pool:
        replicator = replicator_for(path, store)
        replicator.start()
        replicator.flush(LONG)
        store.go_away("wal/")
        app.insert()
        asked = pool.submit(replicator.snapshot, LONG)
        wait_for(lambda: any(t.name == "replicator-snapshot" for t in threading.enumerate()))
        done = threading.Thread(target=replicator.stop)
        done.start()
        done.join(15)
        stuck = done.is_alive()
        store.come_back()
        done.join(LONG)
        assert not stuck
        with pytest.raises(ReplicatorError):
            asked.result(LONG)


def test_a_refusal_at_the_first_start_ends_it(path, app, store):
    """Wrong credentials at the very start are final: waiting mends no typing error."""

    def before(method, key):
        raise AccessDenied("the key is unknown")

    store.before = before
    replicator = replicator_for(path, store)
    try:
        replicator.start()
    except AccessDenied:
        return
    with pytest.raises(AccessDenied):
        replicator.flush(LONG)
    assert isinstance(replicator.failed, AccessDenied)
    replicator.stop()


def test_credentials_that_recover_are_used(path, app, store, out):
    """A refusal in the middle is retried: keys are rotated and come back."""
    with replicating(path, store) as replicator:
        replicator.flush(LONG)

        def before(method, key):
            raise AccessDenied("expired")

        store.before = before
        app.insert()
        wait_for(lambda: replicator.status().failed_uploads > 0)
        status = replicator.status()
        assert not status.healthy
        assert status.last_error == "expired"
        assert status.last_error_at is not None
        store.come_back()
        replicator.flush(LONG)
        assert replicator.status().healthy
        assert_restores(store, out, app.image())


def test_a_full_cache_lets_the_log_go_and_catches_up(path, app, store, out):
    """With the store away the cache fills to its bound and no further; once the store is back
    everything is caught up in the same generation."""
    with replicating(
        path, store, max_cache_bytes=1 << 20, segment_max_bytes=128 << 10
    ) as replicator:
        app.insert()
        first = replicator.flush(LONG)
        store.go_away("wal/")
        for _ in range(14):
            app.insert(1, 100_000)
            with pytest.raises(NotDurable):
                replicator.flush(0.05)
        wait_for(lambda: replicator.status().state == "stalled")
        bound = replicator.status()
        assert bound.pending_bytes < 2 << 20
        assert not bound.healthy
        app.checkpoint("TRUNCATE")
        assert os.path.getsize(f"{path}-wal") == 0, "no read mark holds the log"
        app.insert()
        store.come_back()
        last = replicator.flush(LONG)
        assert last.generation == first.generation
        assert_restores(store, out, app.image())


def test_a_snapshot_asked_for_while_the_cache_is_full_is_answered_later(path, app, store, out):
    """A request that met a full cache is kept, and neither lost nor answered twice."""
    with (
        replicating(
            path, store, max_cache_bytes=1 << 20, segment_max_bytes=128 << 10
        ) as replicator,
        ThreadPoolExecutor(1) as pool,
    ):
        replicator.flush(LONG)
        store.go_away("wal/")
        while replicator.status().state != "stalled":
            app.insert(1, 100_000)
            with pytest.raises(NotDurable):
                replicator.flush(0.05)
        asked = pool.submit(replicator.snapshot, LONG)
        wait_for(lambda: replicator.status().state == "stalled")
        store.come_back()
        txid = asked.result(LONG)
        assert replicator.status().last_snapshot_txid == txid
        assert replicator.failed is None
        replicator.flush(LONG)
        assert_restores(store, out, app.image())


# ----------------------------------------------------------------------------- snapshots


def test_flush_with_a_snapshot_leaves_one_of_that_state(path, app, store, out):
    """flush(snapshot=True): the newest snapshot restores the state without any segment."""
    with replicating(path, store) as replicator:
        app.insert(30)
        position = replicator.flush(LONG, snapshot=True)
        status = replicator.status()
        assert status.last_snapshot_txid == position.txid
        report = assert_restores(store, out, app.image())
        assert (report.snapshot_txid, report.objects) == (position.txid, 1)
        assert replicator.snapshot(LONG) == position.txid  # current: nothing to do
        assert store.keys("put").count(f"app.db/wal/{position.txid:016x}.wal.zst") == 1


def test_a_snapshot_is_taken_when_due(path, app, store, out):
    """The interval being over and the log long enough, a snapshot comes by itself."""
    with replicating(path, store, snapshot_interval=0.0, snapshot_ratio=0.0) as replicator:
        first = replicator.flush(LONG)
        app.insert(5)
        replicator.flush(LONG)
        wait_for(lambda: replicator.status().last_snapshot_txid > first.txid)
        assert_restores(store, out, app.image())


def test_a_snapshot_that_fails_does_not_stop_the_log(path, app, store, out):
    """The store refuses snapshots: the request gets the error, and segments continue."""
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        app.insert()

        def before(method, key):
            if "snapshots/" in key:
                raise AccessDenied("no snapshots for you")

        store.before = before
        with pytest.raises(AccessDenied):
            replicator.snapshot(LONG)
        app.insert()
        replicator.flush(LONG)
        store.come_back()
        assert_restores(store, out, app.image())


def test_without_a_database_a_snapshot_is_refused(path, store):
    """snapshot() without a database says so instead of waiting for one."""
    with (
        replicating(path, store) as replicator,
        raises(DatabaseMissing),
    ):
        replicator.flush(LONG, snapshot=True)


def test_a_file_overwritten_in_place_is_noticed_and_mended(tmp_path, path, store, out):
    """Another database copied over the file, the inode staying: a snapshot proves the
    difference, and what is restored afterwards is what the application sees."""
    with App(tmp_path / "new.db") as new:
        new.insert(40)
        new.checkpoint("TRUNCATE")
    app = App(path)
    app.insert(40)
    app.checkpoint("TRUNCATE")
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        app.close()
        path.write_bytes((tmp_path / "new.db").read_bytes())
        with App(path) as app:
            app.insert()
            try:
                replicator.flush(LONG, snapshot=True)
            except ReplicatorError:
                replicator.flush(LONG, snapshot=True)
            assert_restores(store, out, app.image())


# -------------------------------------------------------------------------------- restoring


def test_auto_restore_brings_a_missing_database_back(path, store, out):
    """With auto_restore, start() restores what is missing, and the log goes on."""
    with App(path) as app, replicating(path, store) as replicator:
        app.insert(9)
        first = replicator.flush(LONG)
        image = app.image()
    for file in path.parent.glob("app.db*"):
        file.unlink()
    shutil.rmtree(replicator.config.cache)
    with replicating(path, store, auto_restore=True) as replicator:
        assert replicator.flush(LONG) == first
        with App(path) as app:
            assert app.image() == image
            app.insert()
            second = replicator.flush(LONG)
            assert second.generation == first.generation
            assert_restores(store, out, app.image())


def test_auto_restore_without_a_backup_waits(path, store):
    """Nothing to restore is no failure: the database may be made later."""
    with replicating(path, store, auto_restore=True) as replicator:
        wait_for(lambda: replicator.status().state == "waiting")
        assert not path.exists()


def test_a_failing_auto_restore_fails_the_start(path, store):
    """start() must not follow an empty database where a restore was asked for and refused."""

    def before(method, key):
        raise AccessDenied("who are you")

    store.before = before
    replicator = replicator_for(path, store, auto_restore=True)
    with pytest.raises(AccessDenied):
        replicator.start()
    store.come_back()
    replicator.start()  # the cache is free again
    replicator.stop()


def test_restoring_over_the_database_that_is_followed_is_refused(path, app, store, out):
    """Whatever spelling of the path: not while it is replicated, but to another place."""
    with replicating(path, store) as replicator:
        app.insert()
        replicator.flush(LONG)
        for output in (path, str(path), path.parent / "x" / ".." / "app.db"):
            with raises(ReplicatorError, "still_started"):
                replicator.restore(output=output, overwrite=True)
        with raises(ReplicatorError, "still_started"):
            replicator.restore()
        report = replicator.restore(output=out / "side.db")
        assert report is not None
        assert (out / "side.db").read_bytes() == app.image()


# ---------------------------------------------------------------------------------- figures


def test_every_field_of_the_status_moves(path, app, store):
    """No figure of the status is a constant: each takes two values in one ordinary life."""
    seen = []
    with replicating(path, store, drill_interval=0.05) as replicator:

        def look():
            status = replicator.status()
            seen.append({name: getattr(status, name) for name in status.__slots__})

        seen.append(
            {
                n: getattr(replicator_for(path, store).status(), n)
                for n in replicator.status().__slots__
            }
        )
        replicator.flush(LONG)
        look()
        for _ in range(12):
            app.insert(400, 1000)
            replicator.flush(LONG)
        wait_for(lambda: replicator.status().roll_overs > 0)
        look()
        store.go_away("wal/")
        app.insert()
        wait_for(lambda: replicator.status().failed_uploads > 0)
        wait_for(lambda: replicator.status().lag_seconds > 0)
        look()
        store.come_back()
        replicator.flush(LONG, snapshot=True)
        wait_for(lambda: replicator.status().last_verified_txid == replicator.status().txid)
        look()
    fixed = {name for name in seen[0] if len({json.dumps(one[name]) for one in seen}) == 1}
    # the lock is taken only under a writer that never pauses; the past waits for minutes; no other
    # process waits here
    assert fixed <= {
        "database",
        "url",
        "write_lock_holds",
        "longest_write_lock_ms",
        "retention_error",
        "standby",
    }


def test_the_metrics_say_what_the_status_says(path, app, store):
    """The exported gauges are live, and agree with the status."""
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        app.insert(3)
        txid = replicator.flush(LONG).txid
        figures = replicator.metrics.snapshot()
        assert figures["txid"] == figures["durable_txid"] == txid
        assert figures["healthy"] == 1
        assert figures["wal_frames"] > 0
        assert figures["uploaded_objects"] == 2  # the marker and one segment
        assert figures["pending_bytes"] == figures["lag_seconds"] == 0


def test_the_store_is_opened_from_the_config(tmp_path, path, app, out):
    """Without a given store, the url says which, and stop() closes it."""
    (tmp_path / "bucket").mkdir()
    config = config_for(path, url=f"file://{tmp_path}/bucket", prefix="app.db")
    with InProcessReplicator(config) as replicator:
        app.insert()
        replicator.flush(LONG)
    assert_restores(DirectoryStore(tmp_path / "bucket"), out, app.image())


def test_an_address_that_cannot_work_leaves_nothing_behind(tmp_path, path, app):
    """A store that cannot be opened is said at the start; the cache is free again."""
    replicator = InProcessReplicator(
        config_for(path, url=f"file://{tmp_path}/nowhere", prefix="app.db")
    )
    for _ in range(2):
        try:
            replicator.start()
        except ConfigError:
            continue
        with pytest.raises(ConfigError):
            replicator.flush(LONG)
        replicator.stop()


def test_a_damaged_cached_segment_is_captured_again(path, app, store, out):
    """A segment that rots in the cache while the store is away is dropped, and what it held is
    taken from the log again; nothing is missing, without a restart."""
    with replicating(path, store) as replicator:
        app.insert(3)
        replicator.flush(LONG)
        segments = replicator.config.cache / "segments"
        known = set(segments.iterdir())
        store.go_away("wal/")
        app.insert(5)
        wait_for(lambda: replicator.status().pending_segments)
        (waiting,) = set(segments.iterdir()) - known
        waiting.write_bytes(b"rotten")
        store.come_back()
        wait_for(lambda: not replicator.status().pending_segments)
        replicator.flush(LONG)
        assert_restores(store, out, app.image())

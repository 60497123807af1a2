"""The path leads to another file, or to none, right after a commit: the open files are captured."""

import errno
import os
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from replicator.store.retry import RetryPolicy
from replicator.system.files import Files
from replicator.system.paths import wal_path
from tests.helpers.replication import (
    LONG,
    App,
    image_of,
    replicating,
    replicator_for,
    restored,
    wait_for,
)

PATIENT = RetryPolicy(first=0.2, cap=0.2)
NOT_DUE = {
    "sync_interval": LONG,
    "upload_burst": 1,
}  # a commit that follows another one is not captured


def commit_uncaptured(app, replicator):
    """A commit that no segment has yet."""
    app.insert()
    replicator.flush(LONG)
    app.insert()
    wait_for(lambda: replicator.status().lag_bytes)


def rename_file(path):
    path.rename(path.with_name("away.db"))


def rename_directory(path):
    path.parent.rename(path.parent.with_name("away"))


def unlink_all(path):
    for name in (path, wal_path(path), path.with_name(f"{path.name}-shm")):
        name.unlink()


def unlink_wal_first(path):
    for name in (wal_path(path), path.with_name(f"{path.name}-shm"), path):
        name.unlink()


def directory_becomes_a_file(path):
    rename_directory(path)
    path.parent.write_text("")


@pytest.mark.parametrize(
    "leave",
    [rename_file, rename_directory, unlink_all, unlink_wal_first, directory_becomes_a_file],
    ids=lambda leave: leave.__name__,
)
def test_the_last_commit_before_the_file_went_is_durable(tmp_path, store, leave):
    """The file is gone before the commit was captured; the open descriptors still have it."""
    (tmp_path / "home").mkdir()
    (tmp_path / "out").mkdir()
    path = tmp_path / "home" / "app.db"
    with App(path) as app:
        app.insert(5)
        with replicating(path, store, cache_dir=tmp_path / "cache", **NOT_DUE) as replicator:
            commit_uncaptured(app, replicator)
            before = image_of(path)
            captured = replicator.status().txid
            leave(path)
            wait_for(lambda: replicator.status().durable_txid == captured + 1)
            wait_for(lambda: not replicator.status().healthy)
            wait_for(lambda: not replicator.status().lag_bytes)
    assert restored(store, tmp_path / "out")[1] == before


def test_the_last_commit_before_a_link_is_switched_is_durable(tmp_path, store):
    """``ln -sfn r2 current``: the rest of the old file is one transaction, and then the new file
    is followed, of which every later commit is captured."""
    for name in ("r1", "r2", "out"):
        (tmp_path / name).mkdir()
    current = tmp_path / "current"
    current.symlink_to("r1")
    path = current / "app.db"
    with App(tmp_path / "r1" / "app.db") as old, App(tmp_path / "r2" / "app.db") as new:
        old.insert(5)
        new.insert(7)
        with replicating(path, store, **NOT_DUE) as replicator:
            commit_uncaptured(old, replicator)
            before, captured = old.image(), replicator.status().txid
            (tmp_path / "next").symlink_to("r2")
            os.replace(tmp_path / "next", current)
            wait_for(lambda: replicator.metrics.get("catch_ups"))
            new.insert()
            replicator.flush(LONG)
            assert restored(store, tmp_path / "out", txid=captured + 1)[1] == before
            assert restored(store, tmp_path / "out")[1] == new.image()


class UnreadableWal(Files):
    """The WAL in a directory named ``away`` cannot be read."""

    def system(self, call, /, *args, **kwargs):
        if call is os.pread and "/away/app.db-wal" in os.readlink(f"/proc/self/fd/{args[0]}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return call(*args, **kwargs)


def test_an_old_wal_that_cannot_be_read_is_given_up(tmp_path, store, caplog):
    """After a few tries and with an error. The database that is at the path now is followed."""
    (tmp_path / "home").mkdir()
    (tmp_path / "out").mkdir()
    path = tmp_path / "home" / "app.db"
    settings = {"cache_dir": tmp_path / "cache", "files": UnreadableWal(), **NOT_DUE}
    quick = {"loop": {"retries": RetryPolicy(first=0.002, cap=0.002)}}
    with App(path) as app, replicating(path, store, limits=quick, **settings) as replicator:
        app.insert(5)
        commit_uncaptured(app, replicator)
        captured = replicator.status().txid
        rename_directory(path)
        path.parent.mkdir()
        with App(path) as new:
            new.insert(7)
            wait_for(lambda: replicator.metrics.get("catch_ups"))
            assert replicator.flush(LONG).txid == captured + 1
            (error,) = [record.args[0] for record in caplog.records if record.levelname == "ERROR"]
            assert (error.path, error.errno) == (str(wal_path(path)), errno.EIO)
            assert restored(store, tmp_path / "out")[1] == new.image()


def test_a_link_switched_at_rest_is_noticed_by_the_watch(tmp_path, store):
    """No file changes, so no event comes: the path itself is compared."""
    for name in ("r1", "r2", "out"):
        (tmp_path / name).mkdir()
    link = tmp_path / "app.db"
    link.symlink_to("r1/app.db")
    with App(tmp_path / "r1" / "app.db"), App(tmp_path / "r2" / "app.db") as new:
        new.insert(7)
        with replicating(link, store) as replicator:
            replicator.flush(LONG)
            wait_for(lambda: replicator._engine.capture._session.at_rest)
            link.unlink()
            link.symlink_to("r2/app.db")
            wait_for(lambda: replicator.metrics.get("catch_ups"))
            assert replicator.flush(LONG).txid == replicator.status().durable_txid
        assert restored(store, tmp_path / "out", prefix="app.db")[1] == new.image()


@contextmanager
def held_up(replicator):
    """The capture thread does not look at the files inside the block."""
    session = replicator._engine.capture._session
    entered, go_on, serve = threading.Event(), threading.Event(), session.serve_snapshots

    def hanging(requests):
        entered.set()
        assert go_on.wait(LONG)
        return serve(requests)

    session.serve_snapshots = hanging
    assert wait_for(lambda: replicator._engine.mailbox.wake() or entered.is_set())
    yield
    session.serve_snapshots = serve
    go_on.set()


@pytest.mark.parametrize("close", [True, False], ids=["closed", "still open"])
def test_frames_of_a_file_that_was_moved_over_are_not_taken_for_its_own(tmp_path, store, close):
    """The new file shares the WAL's name, and its application writes before the next look. Its
    commits become pages that differ, never a transaction of the old file."""
    (tmp_path / "out").mkdir()
    path, other = tmp_path / "app.db", tmp_path / "other.db"
    with App(other) as app:
        app.insert(50)
    with App(path) as app:
        app.insert(5)  # the last close empties the WAL
    replicator = replicator_for(path, store)
    replicator.start()
    before = replicator.flush(LONG)
    with held_up(replicator):
        os.replace(other, path)
        new = App(path)
        new.insert(3)
        after = new.image()
        if close:
            new.close()
    assert replicator.flush(LONG).txid == before.txid + 1
    replicator.stop()
    new.close()
    assert restored(store, tmp_path / "out")[1] == after


def open_and_deleted(directory):
    """Files below a directory that this process has open although they have no name."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # for example that of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [each for each in found if each.startswith(str(directory)) and "(deleted)" in each]


def test_a_replaced_file_is_closed(tmp_path, store):
    """Its disk space is free again, and no descriptor of it stays, however often it happens."""
    path = tmp_path / "app.db"
    with App(path) as app:
        app.insert(5)
    with replicating(path, store) as replicator:
        for _ in range(3):
            replicator.flush(LONG)
            with App(tmp_path / "new.db") as app:
                app.insert(5)
            os.replace(tmp_path / "new.db", path)
        replicator.flush(LONG)
        assert open_and_deleted(tmp_path) == []


def test_a_replaced_file_that_the_application_uses_here_keeps_its_locks(tmp_path, store):
    """Closing a descriptor of it would drop the locks of the application in this process."""
    home = tmp_path / "home"
    home.mkdir()
    path = home / "app.db"
    with App(path) as app:
        app.insert(5)
        with replicating(path, store, cache_dir=tmp_path / "cache") as replicator:
            replicator.flush(LONG)
            app.run("BEGIN IMMEDIATE")
            rename_directory(path)
            home.mkdir()
            with App(path) as new:
                new.insert(7)
            wait_for(lambda: replicator.metrics.get("catch_ups"))
            replicator.flush(LONG)
            inode = os.stat(tmp_path / "away" / "app.db").st_ino
            assert f":{inode} " in Path("/proc/locks").read_text()
            app.run("ROLLBACK")


def overwrite(path, at, data):
    """Writes bytes into a file by another process: this one would drop its locks on it."""
    subprocess.run(
        ["dd", f"of={path}", "oflag=seek_bytes", f"seek={at}", "conv=notrunc", "status=none"],
        input=data,
        check=True,
    )


@pytest.mark.parametrize(
    "header",
    [(16, b"\x04\x00"), (18, b"\x03"), (18, b"\x03\x03"), (16, b"\x00\x03")],
    ids=["page size", "write version", "both versions", "no page size"],
)
def test_a_header_that_cannot_be_followed_is_looked_at_with_growing_pauses(tmp_path, store, header):
    """Beside a WAL in use; a thousand joins a second would fill the log and take a core."""
    path = tmp_path / "app.db"
    joins = []
    with App(path) as app:
        app.insert(5)
        with replicating(path, store, limits={"loop": {"retries": PATIENT}}) as replicator:
            replicator.flush(LONG)
            join = replicator._engine.capture._resume.join
            replicator._engine.capture._resume.join = lambda *args: joins.append(1) or join(*args)
            overwrite(path, *header)
            app.insert()
            wait_for(lambda: replicator.status().state == "stalled")
            assert not replicator.status().healthy
            overwrite(path, 16, b"\x10\x00\x02\x02")
            replicator.flush(LONG)
    assert len(joins) < 10

"""Unexpected changes to a database by applications and users, with real processes.

Each change happens while a sidecar runs and while it is stopped. Without any help afterwards, a
restore equals the source page by page, the state before the change stays restorable, and the
sidecar logs the change. Only a start on another database needs help: it is refused without an
order.
"""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import ANY

import pytest

from replicator.errors import GapError
from replicator.inspect.doctor import check_database
from tests.helpers.bucket import plain_state
from tests.helpers.command_line import cache_of
from tests.helpers.deployment import Deployment, assert_same_pages
from tests.helpers.replication import (
    LONG,
    App,
    HookedStore,
    replicating,
    replicator_for,
    restored,
    wait_for,
)
from tests.plugins.scoreboard import effort
from tests.programs import workload

SIDE_FILES = ("-wal", "-shm")
HOUR = 3600 * 10**9  # ns


def connected(path, **options):
    return contextlib.closing(sqlite3.connect(path, isolation_level=None, **options))


def other_database(deployment, *, page_size=4096, mode="WAL", rows=300):
    """Another database, all of it in one file."""
    path = deployment.directory / "other.db"
    with connected(path) as db:
        db.execute(f"PRAGMA page_size={page_size}")
        db.execute(f"PRAGMA journal_mode={mode}").fetchall()
        db.execute("CREATE TABLE u(body BLOB)")
        db.execute(
            "INSERT INTO u WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
            f"WHERE i < {rows}) SELECT randomblob(700) FROM n"
        )
    return path


def remove(deployment, *suffixes):
    for suffix in suffixes:
        Path(f"{deployment.path}{suffix}").unlink(missing_ok=True)


def settled(deployment):
    """Waits until the WAL is gone or empty after the application closed the database."""
    wait_for(lambda: not deployment.wal.exists() or deployment.wal.stat().st_size == 0)


# The changes; the application does not run at that time.


def renamed(deployment, older):
    settled(deployment)
    other_database(deployment).rename(deployment.path)


def renamed_without_log(deployment, older):
    remove(deployment, *SIDE_FILES)
    other_database(deployment).rename(deployment.path)


def copied(deployment, older):
    settled(deployment)
    shutil.copyfile(other_database(deployment), deployment.path)


def copied_without_log(deployment, older):
    remove(deployment, *SIDE_FILES)
    shutil.copyfile(other_database(deployment), deployment.path)


def rolled_back_by_copy(deployment, older):
    settled(deployment)
    shutil.copyfile(older, deployment.path)


def rolled_back_by_rename(deployment, older):
    settled(deployment)
    older.rename(deployment.path)


def restored_by_backup(deployment, older):
    with connected(other_database(deployment)) as source, connected(deployment.path) as target:
        source.backup(target)


def deleted(deployment, older):
    remove(deployment, "", *SIDE_FILES)


def another_page_size(deployment, older):
    settled(deployment)
    other_database(deployment, page_size=1024).rename(deployment.path)


def not_in_wal_mode(deployment, older):
    settled(deployment)
    other_database(deployment, mode="DELETE").rename(deployment.path)


def not_in_wal_mode_by_copy(deployment, older):
    settled(deployment)
    shutil.copyfile(other_database(deployment, mode="DELETE"), deployment.path)


def auto_vacuum(deployment, older):
    with connected(deployment.path) as db:
        db.execute("PRAGMA auto_vacuum=FULL")
        db.execute("VACUUM")
        db.execute("DELETE FROM item WHERE id % 2")


def last_connection_closes(deployment, older):
    for n in range(10):
        with connected(deployment.path) as db:
            db.execute("INSERT INTO filler VALUES (randomblob(?))", (500 * n,))


def killed_in_a_transaction(deployment, older):
    """The WAL holds frames of a transaction that never commits."""
    code = (
        "import sqlite3, os, signal; db = sqlite3.connect({!r}, isolation_level=None); "
        "db.execute('PRAGMA cache_size=3'); db.execute('BEGIN'); "
        "db.execute('UPDATE item SET body = randomblob(900)'); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code.format(str(deployment.path))], check=False)
    assert done.returncode == -signal.SIGKILL


OVERWRITTEN = (
    "was (overwritten|replaced|removed)|malformed",
    "was reset|was changed outside|older file|by order",
)
REPLACED = ("was (replaced|removed)", "was replaced|taken_over|by order")
# Patterns of the log: for a running sidecar, for a stopped one; "" where nothing is logged.
SAID = {
    renamed: REPLACED,
    renamed_without_log: REPLACED,
    rolled_back_by_rename: REPLACED,
    not_in_wal_mode: REPLACED,
    copied: OVERWRITTEN,
    copied_without_log: OVERWRITTEN,
    rolled_back_by_copy: OVERWRITTEN,
    not_in_wal_mode_by_copy: OVERWRITTEN,
    deleted: ("was replaced|waiting for", "waiting for|by order"),
    another_page_size: ("page size changed", "by order"),
    restored_by_backup: ("", ""),
    auto_vacuum: ("", ""),
    last_connection_closes: ("", ""),
    killed_in_a_transaction: ("", ""),
}

# A start refuses another file. It follows one that was copied over the same file, and pins.
OTHER = {renamed, renamed_without_log, not_in_wal_mode, deleted, another_page_size}


CASES = [(when, surprise) for surprise in SAID for when in ("while it runs", "while it is stopped")]


@pytest.mark.timeout(LONG)
@pytest.mark.parametrize(
    ("when", "surprise"),
    effort(CASES[::5], CASES),
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_surprise(deployment, when, surprise, scoreboard):
    """The archive becomes exact again without help, earlier states stay restorable, and the log
    names the change."""
    deployment.create()
    deployment.write(commits=40)
    sidecar = deployment.sidecar("--snapshot-interval", "1h", roll_over=20)
    sidecar.until_following()
    older = deployment.directory / "older.db"
    older.write_bytes(image(deployment))
    deployment.write(commits=40)
    before, was = deployment.flush(), image(deployment)
    if when == "while it is stopped":
        assert sidecar.stop() == 0
    surprise(deployment, older)
    carry_on(deployment.path)
    if when == "while it is stopped":
        if surprise in OTHER:
            refused = deployment.sidecar()
            assert refused.wait() == 6
            assert "(different_database)" in refused.output
        order = ["--take-over"] if surprise in OTHER else []
        sidecar = deployment.sidecar(*order, roll_over=20)
        sidecar.until_following()
    carry_on(deployment.path)
    txid = deployment.flush()
    assert txid > before
    now = image(deployment)
    assert sidecar.stop() == 0
    copy, _ = deployment.restore(txid=txid)
    assert_same_pages(copy.read_bytes(), now)
    copy, _ = deployment.restore(txid=before)
    assert_same_pages(copy.read_bytes(), was)
    with connected(deployment.path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert re.search(SAID[surprise][when == "while it is stopped"], sidecar.output), sidecar.output
    scoreboard(f"surprise {when}: {surprise.__name__}", "page-exact, without help")


def image(deployment):
    """The committed database, without SQLite."""
    log = deployment.wal.read_bytes() if deployment.wal.exists() else b""
    return plain_state(deployment.path.read_bytes(), log)


def carry_on(path):
    """The application comes back, creates missing tables and writes; its connection must not fail,
    nor wait for long."""
    with connected(path, timeout=30) as db:
        db.execute("PRAGMA journal_mode=WAL").fetchall()
        db.executescript(workload.SCHEMA)
        for _ in range(5):
            db.execute("INSERT INTO filler VALUES (randomblob(900))")


def test_wal_mode_cannot_be_left_under_a_sidecar(deployment):
    """While a sidecar runs, SQLite refuses to leave WAL mode, and so the page size stays; the
    application sees nothing else."""
    deployment.create()
    sidecar = deployment.sidecar()
    sidecar.until_following()
    with connected(deployment.path, timeout=0.1) as db:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            db.execute("PRAGMA journal_mode=DELETE").fetchall()
        db.execute("PRAGMA page_size=1024")
        db.execute("VACUUM")
        assert db.execute("PRAGMA page_size").fetchone() == (4096,)
    carry_on(deployment.path)
    deployment.flush()
    assert sidecar.stop() == 0
    deployment.check_exact()


def test_an_exclusive_application_is_reported_and_outlasted(deployment):
    """A database that another process locks exclusively cannot be followed: the status names the
    reason, and once the lock is released, the archive becomes exact."""
    deployment.create()
    sidecar = deployment.sidecar()
    sidecar.until_following()
    remove(deployment, "", *SIDE_FILES)
    sidecar.until(lambda status: status["state"] == "waiting")
    with connected(deployment.directory / "mine.db") as db:
        db.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
        db.execute("PRAGMA journal_mode=WAL").fetchall()
        db.execute("CREATE TABLE t(body)")
        (deployment.directory / "mine.db").rename(deployment.path)
        (deployment.directory / "mine.db-wal").rename(deployment.wal)
        status = sidecar.until(lambda status: status["state"] == "stalled")
        assert not status["healthy"]
        assert "EXCLUSIVE" in status["last_error"]
    carry_on(deployment.path)
    sidecar.until_following()
    deployment.flush()
    assert sidecar.stop() == 0
    now = deployment.source()
    copy, _ = deployment.restore()
    assert_same_pages(copy.read_bytes(), now)


NAMES = ["käse ☕ 数据", "with space", "-rf", "per%20cent?#&'\""]


@pytest.mark.parametrize("name", effort(NAMES[:1], NAMES))
@pytest.mark.parametrize("linked", [False, True], ids=["itself", "by a symbolic link"])
def test_any_path(tmp_path, name, linked):
    """Databases with any name, also through symbolic links, are followed, flushed and restored;
    the cache is in the directory of the file itself."""
    home = tmp_path / name
    home.mkdir()
    (tmp_path / "store").mkdir()
    deployment = Deployment(home, url=f"file://{tmp_path / 'store'}")
    real = deployment.path
    try:
        deployment.create()
        if linked:
            deployment.path = tmp_path / f"{name}.db"
            deployment.path.symlink_to(real)
        sidecar = deployment.sidecar()
        sidecar.db = real  # the cache is in the directory of the file itself
        sidecar.until_following()
        deployment.write(commits=20)  # by that name too
        assert deployment.flush() >= 21
        assert sidecar.stop() == 0
        deployment.path = real
        deployment.check_exact()
    finally:
        deployment.close()


@pytest.mark.parametrize("hours", [1, -1])
def test_the_clock_jumps(tmp_path, monkeypatch, hours):
    """The clock jumps by an hour and back: every commit is captured and durable, the times in the
    archive never decrease, and a restore by time gives the last state at or before it."""
    real, jump = time.time_ns, [0]
    monkeypatch.setattr(time, "time_ns", lambda: real() + jump[0])
    monkeypatch.setattr(time, "time", lambda: (real() + jump[0]) / 1e9)
    store, images = HookedStore(), {}
    with App(tmp_path / "app.db") as app, replicating(app.path, store) as replicator:
        for jump[0] in (0, hours * HOUR, 0, -hours * HOUR, 0):
            for _ in range(3):
                app.insert(5)
                images[replicator.flush(LONG).txid] = app.image()
            replicator.snapshot(LONG)
            assert replicator.status().healthy
    (tmp_path / "out").mkdir()
    for txid, was in images.items():
        assert restored(store, tmp_path / "out", txid=txid) == (ANY, was)
    times = sorted((real() + n * HOUR // 8) // 1_000_000 for n in range(-12, 13))
    found = []
    for ms in times:
        with contextlib.suppress(GapError):  # before the log begins
            at = datetime.fromtimestamp(ms / 1000, UTC)
            found.append(restored(store, tmp_path / "out", timestamp=at)[0].txid)
    assert found == sorted(found)
    assert found[-1] == max(images)


def locks(path):
    """This process's locks on the database and its shared memory, byte by byte."""
    inodes = {str(os.stat(name).st_ino) for name in (path, f"{path}-shm")}
    found = set()
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "->" not in fields and fields[4] == str(os.getpid()):
            inode = fields[5].rpartition(":")[2]
            if inode in inodes:
                first, last = int(fields[6]), int(fields[7])
                found |= {(inode, byte) for byte in range(first, min(last, first + 1000) + 1)}
    return found


def test_no_operation_drops_a_lock_of_the_application(tmp_path):
    """O5: in the application's own process, every operation of a replicator (start, flush,
    snapshot, status, doctor, restore, stop) leaves the locks of an open read transaction."""
    store, path = HookedStore(), tmp_path / "app.db"
    (tmp_path / "out").mkdir()
    with App(path) as app, App(path) as writer:
        app.insert(50)
        app.run("BEGIN", "SELECT count(*) FROM t")
        held = locks(path)
        assert {inode for inode, _ in held} == {
            str(os.stat(name).st_ino) for name in (path, f"{path}-shm")
        }
        replicator = replicator_for(path, store)
        operations = {
            "start": replicator.start,
            "write": writer.insert,
            "flush": replicator.flush,
            "snapshot": lambda: replicator.flush(LONG, snapshot=True),
            "status": replicator.status,
            "repair": lambda: replicator.repair(LONG),
            "restore": lambda: restored(store, tmp_path / "out"),
            "doctor": lambda: list(check_database(path)),
            "stop": replicator.stop,
            "start again": replicator.start,
            "lose the cache": lambda: shutil.rmtree(cache_of(path)),
            "stop again": replicator.stop,
        }
        for name, operation in operations.items():
            operation()
            assert held <= locks(path), name
        assert held == locks(path)
        app.run("COMMIT")

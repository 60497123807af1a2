"""The door to the live database: locks, refusals, and that nothing is changed behind it."""

import errno
import fcntl
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from replicator.capture.image import Image
from replicator.capture.limits import CaptureLimits
from replicator.errors import (
    DatabaseBusy,
    DatabaseReplaced,
    DatabaseUnusable,
    LocalIOError,
    ReplicatorError,
)
from replicator.sqlite.live import Hold, LiveDatabase, connect, database_error, identity
from replicator.sqlite.wal_file import WalFile
from replicator.system import process
from replicator.system.paths import wal_path
from tests.helpers.errors import raises
from tests.helpers.replication import LONG, App, image_of
from tests.helpers.users import OTHER, as_user, needs_root

pytestmark = pytest.mark.app(rows=20)


def locks(path):
    """This process's locks on the database and its shared memory, from the kernel."""
    inodes = {
        f"{os.stat(name).st_ino}": Path(name).name
        for name in (path, f"{path}-shm")
        if os.path.exists(name)
    }
    found = []
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "->" in fields:
            continue
        inode = fields[5].rpartition(":")[2]
        if fields[4] == str(os.getpid()) and inode in inodes:
            first, last = int(fields[6]), int(fields[7])  # the kernel joins neighbours
            found += [
                (inodes[inode], fields[3], byte)
                for byte in range(first, min(last, first + 1000) + 1)
            ]
    return set(found)


def held_elsewhere(path, statements):
    """Another process that ran the statements and keeps its connection until its stdin ends."""
    code = textwrap.dedent(f"""
        import sqlite3, sys
        db = sqlite3.connect({str(path)!r}, isolation_level=None)
        for statement in {statements!r}:
            db.execute(statement).fetchall()
        print("ready", flush=True)
        sys.stdin.readline()
        """)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def let_go(process):
    process.communicate("\n", timeout=LONG)


# ------------------------------------------------------------------------------------ locks


def test_the_oracle_sees_locks(app):
    """The lists that the tests below compare are not empty."""
    assert locks(app.path)
    app.run("BEGIN", "SELECT count(*) FROM t")
    held = locks(app.path)
    app.run("ROLLBACK")
    assert locks(app.path) != held


def test_nothing_we_do_drops_a_lock_of_the_application(app, path):
    """Open, hold, read raw, checkpoint, lock, release, close: the application's own locks, its
    read transaction included, are as they were before, at each step (oracle O5)."""
    app.run("BEGIN", "SELECT count(*) FROM t")
    held = locks(path)
    assert any(name.endswith("-shm") for name, *_ in held)
    database = LiveDatabase(path, busy_timeout=0.1)

    def still():
        stronger = locks(path)
        stronger |= {(name, "READ", byte) for name, _, byte in stronger}
        assert held <= stronger

    still()
    hold = database.hold()
    still()
    second = database.hold()
    with Image(database, CaptureLimits()) as image:
        image.read(1, image.pages)
    still()
    database.header()
    database.check_identity()
    database.wal.refresh()
    database.wal.header()
    still()
    database.release(hold)
    still()
    database.checkpoint()
    still()
    with database.write_lock(patience=0.1) as taken:
        assert taken
        still()
    still()
    database.release(second)
    still()
    database.close()
    still()
    assert locks(path) == held
    LiveDatabase(path, busy_timeout=0.1).close()  # and once more, with the raw file known
    assert locks(path) == held
    app.run("ROLLBACK")


def test_a_hold_keeps_a_read_transaction_until_its_release(app, database):
    """While a hold is open no connection resets the WAL; afterwards each can."""
    hold = database.hold()
    app.run("PRAGMA busy_timeout=0")
    app.insert()
    assert app.checkpoint("TRUNCATE")[0] == 1
    database.release(hold)
    assert app.checkpoint("TRUNCATE") == (0, 0, 0)
    again = database.hold()
    assert again is hold, "connections are used again"
    database.release(again)
    database.release(again)  # twice does no harm to the transaction
    assert database.hold() is not database.hold(), "nor is one connection given out twice"
    again.end()


def test_a_checkpoint_is_passive_and_says_how_far_it_came(app, database):
    """Frames in the log and frames copied; a reader limits it, and never waits for it."""
    assert (database.checkpoint().busy, database.checkpoint().frames) == (False, frames(app))
    app.checkpoint("TRUNCATE")
    app.insert(5)
    hold = database.hold()
    app.insert(5)
    answer = database.checkpoint()
    assert answer.frames == frames(app)
    assert answer.copied < answer.frames
    database.release(hold)
    answer = database.checkpoint()
    assert answer.copied == answer.frames


def frames(app):
    return (wal_path(app.path).stat().st_size - 32) // 4120


def test_the_write_lock_is_held_inside_the_block_only(app, database):
    """Writers wait inside, readers do not, and nothing is written by it."""
    app.run("PRAGMA busy_timeout=0")
    before = image_of(app.path)
    with database.write_lock(patience=0.1) as taken:
        assert taken
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            app.insert()
        with database.write_lock(patience=0.0) as inner:  # by the thread that holds it already
            assert inner
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            app.insert()
        assert app.db.execute("SELECT count(*) FROM t").fetchone() == (20,)
    assert image_of(app.path) == before
    app.insert()


def test_a_write_lock_that_is_not_had_in_time_is_no_failure(app, database):
    """The block runs without the lock and gets False; a writer is never interrupted."""
    app.run("BEGIN IMMEDIATE")
    with database.write_lock(patience=0.001) as taken:
        assert not taken
    app.run("COMMIT")
    with database.write_lock(patience=0.001) as taken:
        assert taken


def test_the_write_lock_is_had_once_the_writer_lets_go(app, database, monkeypatch):
    """It is tried again and again until it is had."""
    app.run("BEGIN IMMEDIATE")
    monkeypatch.setattr(time, "sleep", lambda _: app.db.in_transaction and app.run("COMMIT"))
    with database.write_lock(patience=LONG) as taken:
        assert taken


def test_a_write_lock_on_a_damaged_database_is_an_error(app, database):
    """Any other error than a busy lock keeps its class."""
    with database.write_lock(patience=0):
        pass
    database._locker.close()
    with pytest.raises(sqlite3.ProgrammingError), database.write_lock(patience=0):
        pass
    database._locker = None


# -------------------------------------------------------------------------------- being alone


@pytest.fixture
def others(path):
    """A database whose application is another process, which the test ends."""
    with App(path) as app:
        app.insert(20)
    process = held_elsewhere(path, ["PRAGMA journal_mode=WAL", "SELECT * FROM t"])
    yield process
    if process.poll() is None:
        let_go(process)


def test_we_are_alone_once_the_application_has_gone(others, path):
    """A foreign process that is connected shows, though it reads nothing at the moment."""
    database = LiveDatabase(path, busy_timeout=0.1)
    hold = database.hold()
    before = locks(path)
    assert not database.alone()
    let_go(others)
    assert database.alone()
    with database.write_lock(patience=0.1):
        assert database.alone()
    assert locks(path) == before, "asking changes no lock"
    database.release(hold)
    database.close()


def test_an_application_in_our_own_process_is_seen_too(app, database):
    """Its locks belong to our process and show nothing, its descriptors do."""
    assert not database.alone()


def test_in_a_process_of_our_own_no_descriptors_are_counted(others, path, monkeypatch):
    """With hundreds of databases that is dear; a lock of another process still shows."""
    monkeypatch.setattr(process, "_claimed", True)

    class Counting(LiveDatabase):
        def _descriptors(self):
            pytest.fail("counted")

    database = Counting(path, busy_timeout=0.1)
    assert not database.alone()
    let_go(others)
    assert database.alone()
    database.close()


def test_where_it_cannot_be_known_we_are_never_alone(others, path, monkeypatch):
    """Other systems have another struct flock and no /proc."""
    let_go(others)
    database = LiveDatabase(path, busy_timeout=0.1)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not database.alone()
    database.close()


@pytest.mark.parametrize("call", ["listdir", "fcntl"])
def test_what_cannot_be_asked_is_no_yes(others, path, monkeypatch, call):
    """A process that ran out of descriptors, or a disk in trouble: the answer is no, no error."""

    def fail(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    let_go(others)
    database = LiveDatabase(path, busy_timeout=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(os if call == "listdir" else fcntl, call, fail)
        assert not database.alone()
    assert database.alone()
    database.close()


def test_stepping_aside_lets_sqlite_remove_the_log(others, path, tmp_path):
    """No WAL is left, and the database is open again: a file that replaces it is opened as it
    is, and nothing of the old WAL gets into it."""
    let_go(others)
    database = LiveDatabase(path, busy_timeout=0.1)
    database.hold()
    with database.write_lock(patience=0.1):
        pass
    other = held_elsewhere(path, ["INSERT INTO t(body) VALUES (zeroblob(90000))"])
    let_go(other)
    database.wal.refresh()
    database.reopen_after_last_close()
    assert database.wal.refresh().st_size == 0
    assert not database.wal.replaced
    assert database.alone()
    database.hold()
    with App(tmp_path / "new.db") as new:
        new.insert(200)
    os.replace(tmp_path / "new.db", path)
    content = path.read_bytes()
    other = held_elsewhere(path, ["PRAGMA journal_mode=WAL", "SELECT body FROM t"])
    let_go(other)
    database.close()
    assert path.read_bytes() == content


def test_stepping_aside_while_somebody_comes_keeps_the_log(app, path):
    """Then we are not the last, and SQLite removes nothing."""
    database = LiveDatabase(path, busy_timeout=0.1)
    database.hold()
    app.insert()
    log = wal_path(path).read_bytes()
    database.reopen_after_last_close()
    assert wal_path(path).read_bytes() == log
    assert database.wal.refresh().st_size == len(log)
    assert not database.wal.replaced
    database.close()


def test_stepping_aside_from_a_file_that_went_meanwhile(others, path):
    """The path is asked before it is opened again."""
    let_go(others)
    database = LiveDatabase(path, busy_timeout=0.1)
    hold = database.hold()
    path.unlink()
    with pytest.raises(DatabaseReplaced):
        database.reopen_after_last_close()
    database.release(hold)
    database.close()


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "content", [b"", b"x", b"SQLite format 3\0", os.urandom(4096), b"just some text\n" * 100]
)
def test_what_is_no_database_is_refused_and_left_alone(path, content):
    """Empty, short, random (encrypted) and foreign files: an error with a hint, no change."""
    path.write_bytes(content)
    with raises(DatabaseUnusable, "not_a_database", path=str(path)) as caught:
        LiveDatabase(path)
    assert "encrypted" in str(caught.value)
    assert caught.value.hint
    assert path.read_bytes() == content
    assert not wal_path(path).exists()


def test_an_encrypted_body_behind_a_plain_header_is_refused(path):
    """The first bytes alone do not make a database."""
    with App(path) as app:
        app.insert(20)
    data = path.read_bytes()
    path.write_bytes(data[:100] + os.urandom(len(data) - 100))
    with pytest.raises(DatabaseUnusable):
        LiveDatabase(path)


def test_a_missing_file_is_a_local_error(path):
    """A file that is gone is no wrong setting: it may come back."""
    with pytest.raises(LocalIOError):
        LiveDatabase(path)
    assert not path.exists(), "opening creates nothing"


def test_a_connection_creates_nothing(path):
    """Not even SQLite may create the file."""
    with pytest.raises((DatabaseUnusable, sqlite3.OperationalError)):
        connect(path, timeout=0).execute("SELECT 1 FROM sqlite_master")
    assert not path.exists()


def test_an_empty_file_is_no_database_yet(path):
    """identity() distinguishes a database from an empty file and from a missing one."""
    assert identity(path) is None
    path.touch()
    assert identity(path) is None
    path.write_bytes(b"x")
    assert identity(path) == (path.stat().st_dev, path.stat().st_ino)


def test_a_path_that_cannot_be_looked_at_is_a_local_error(path):
    """Anything but "no such file" is a failure, not an absence."""
    path.touch()
    with raises(LocalIOError, errno=errno.ENOTDIR):
        identity(path / "below")


def test_a_read_only_file_is_refused(path):
    """chmod 444 forbids writing; a WAL reader must be able to write."""
    with App(path) as app:
        app.insert()
    path.chmod(0o444)
    with raises(DatabaseUnusable, "database_read_only", path=str(path)) as caught:
        LiveDatabase(path)
    assert "chmod" in caught.value.hint


@pytest.mark.parametrize("name", ["app.db", "."])
def test_what_this_user_may_not_write_is_refused(path, monkeypatch, name):
    """File or directory: the answer of the system counts (root may everything, so it is
    asked through os.access)."""
    with App(path) as app:
        app.insert()
    wrong = path if name == "app.db" else path.parent
    works = os.access
    monkeypatch.setattr(os, "access", lambda where, mode: where != wrong and works(where, mode))
    with raises(DatabaseUnusable, "database_read_only", path=str(path)):
        LiveDatabase(path)


@needs_root
def test_a_directory_of_another_user_is_refused(user_place):
    """The process has no privileges, and may write to the file, not to its directory."""
    home = user_place.directory("home", 0, 0, 0o755)
    path = home / "app.db"
    with App(path) as app:
        app.insert()
    path.chmod(0o666)
    with raises(DatabaseUnusable, "database_read_only", path=str(path)):
        as_user(OTHER, OTHER, [], LiveDatabase, path, measured=True)


def test_exclusive_locking_by_another_process_is_refused(path):
    """EXCLUSIVE locking mode excludes us, with a hint; after its end we can work."""
    with App(path) as app:
        app.insert()
    holder = held_elsewhere(
        path, ["PRAGMA locking_mode=EXCLUSIVE", "INSERT INTO t(body) VALUES (1)"]
    )
    try:
        with raises(DatabaseUnusable, "database_locked", path=str(path)) as caught:
            LiveDatabase(path, busy_timeout=0.05)
        assert "locking_mode=NORMAL" in caught.value.hint
    finally:
        let_go(holder)
    LiveDatabase(path, busy_timeout=0.05).close()


def test_a_lock_that_a_reader_never_meets_is_busy(app, database):
    """Another connection goes EXCLUSIVE while we are connected: our hold fails as busy."""
    other = sqlite3.connect(app.path, isolation_level=None)
    database.close()
    app.close()
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("INSERT INTO t(body) VALUES (1)")
    hold = Hold(app.path, timeout=0)
    with pytest.raises(DatabaseBusy):
        hold.begin()
    other.close()
    hold.begin()
    hold.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, DatabaseBusy),
        (sqlite3.SQLITE_LOCKED, DatabaseBusy),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, DatabaseBusy),
        (sqlite3.SQLITE_NOTADB, DatabaseUnusable),
        (sqlite3.SQLITE_READONLY, DatabaseUnusable),
        (sqlite3.SQLITE_READONLY_DIRECTORY, DatabaseUnusable),
        (sqlite3.SQLITE_PERM, DatabaseUnusable),
        (sqlite3.SQLITE_IOERR_READ, LocalIOError),
        (sqlite3.SQLITE_FULL, LocalIOError),
        (sqlite3.SQLITE_CORRUPT, DatabaseUnusable),
    ],
)
def test_each_answer_of_sqlite_becomes_a_decision(path, code, kind):
    """Result codes (sqlite.org/rescode.html), extended ones included, map to one class each."""
    error = sqlite3.OperationalError("said so")
    error.sqlite_errorcode = code
    found = database_error(path, error)
    assert type(found) is kind
    assert str(path) in str(found)


def test_a_checkpoint_that_fails_is_translated(app, database):
    """No error of the binding leaves this module unnamed."""

    class Refusing:
        def execute(self, sql):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

        def close(self):
            pass

    works, database._checkpointer = database._checkpointer, Refusing()
    with pytest.raises(LocalIOError):
        database.checkpoint()
    with pytest.raises(ReplicatorError):
        database._probe()
    with pytest.raises(ReplicatorError):
        database._switch_to_wal(in_use=True)
    database._checkpointer = works


# ------------------------------------------------------------------------------- the switch


@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "PERSIST"])
def test_a_rollback_journal_is_switched_once_and_said(path, mode):
    """Another journal mode becomes WAL; a database in WAL mode is left as it is."""
    with App(path, mode=mode) as app:
        app.insert(4)
    first = LiveDatabase(path)
    assert first.switched
    first.close()
    second = LiveDatabase(path)
    assert not second.switched
    second.close()
    with App(path) as app:
        assert app.db.execute("SELECT count(*) FROM t").fetchone() == (4,)


class Stubborn:
    """A connection to a database that stays in DELETE mode."""

    def __init__(self, real):
        self._real = real

    def execute(self, sql):
        return self._real.execute(sql.replace("=WAL", "=DELETE"))

    def __getattr__(self, name):
        return getattr(self._real, name)


def test_a_database_that_cannot_be_switched_is_refused(path):
    """A file system without shared memory has its own code."""

    class StubbornDatabase(LiveDatabase):
        def _connect(self, timeout):
            return Stubborn(super()._connect(timeout))

    with App(path, mode="DELETE") as app:
        app.insert()
    with raises(DatabaseUnusable, "wal_mode_refused", path=str(path)):
        StubbornDatabase(path)


# ------------------------------------------------------------------------------ other files


def test_a_replaced_or_deleted_file_is_noticed(tmp_path, app, database):
    """Another inode under the name, or none, or an empty file: DatabaseReplaced."""
    database.check_identity()
    app.close()
    os.rename(app.path, tmp_path / "old.db")
    with pytest.raises(DatabaseReplaced):
        database.check_identity()
    app.path.touch()
    with pytest.raises(DatabaseReplaced):
        database.check_identity()
    with App(app.path), pytest.raises(DatabaseReplaced):
        database.check_identity()
    app.path.unlink()
    os.rename(tmp_path / "old.db", app.path)
    database.check_identity()
    app.db = sqlite3.connect(app.path)


def test_closing_leaves_the_new_files_of_a_replaced_database_alone(tmp_path, path):
    """Our connections to the old inode close; the WAL of the new file is not theirs."""
    app = App(path)
    app.insert()
    database = LiveDatabase(path)
    hold = database.hold()
    app.close()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    with App(path) as fresh:
        fresh.insert(3)
        log = wal_path(path).read_bytes()
        database.release(hold)
        database.close()
        assert wal_path(path).read_bytes() == log
        assert fresh.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert fresh.db.execute("SELECT count(*) FROM t").fetchone() == (3,)


def test_closing_last_copies_nothing_into_the_file(others, path):
    """The file may have been overwritten, and the WAL removed; old frames of ours must not be
    copied over the new content."""
    with App(path) as app:
        database = LiveDatabase(path, busy_timeout=0.1)
        database.release(database.hold())
        app.insert(5)
    let_go(others)
    before = path.read_bytes(), wal_path(path).read_bytes()
    assert len(before[1]) > 32
    database.close()
    assert (path.read_bytes(), wal_path(path).read_bytes()) == before


def test_an_open_log_file_stays_the_same(tmp_path):
    """No file: nothing. Once open, the same bytes, also for a second reader, until it is closed.
    That the path ever named another file, or none, is remembered."""
    path = tmp_path / "x-wal"
    log = WalFile(path)
    assert log.refresh() is None
    assert not log.replaced
    assert (log.read(10, 0), log.header()) == (b"", None)
    path.write_bytes(b"first")
    assert log.refresh().st_size == 5
    assert log.read(10, 0) == b"first"
    other = tmp_path / "y"
    other.write_bytes(b"second")
    os.replace(other, path)
    assert log.read(10, 0) == b"first"
    assert not log.replaced
    log.refresh()
    assert log.replaced
    other = log.another()
    assert (log.read(10, 0), log.read(3, 3), other.read(3, 2)) == (b"first", b"st", b"rst")
    log.close()
    assert log.read(10, 0) == b""
    log.refresh()
    assert (log.read(10, 0), other.read(10, 0)) == (b"second", b"first")
    path.unlink()
    assert log.refresh().st_nlink == 0
    log.close()
    assert log.refresh() is None
    assert (log.written_ns, log.another().read(10, 0)) == (None, b"")
    other.close()


def test_a_log_that_cannot_be_read_is_a_local_error(tmp_path):
    """A failure is not an absence."""
    (tmp_path / "file").touch()
    with raises(LocalIOError):
        WalFile(tmp_path / "file" / "below").refresh()
    (tmp_path / "dir-wal").mkdir()
    log = WalFile(tmp_path / "dir-wal")
    log.refresh()
    with raises(LocalIOError):
        log.read(10, 0)
    log.close()


def test_a_pin_may_be_used_by_another_thread(database):
    """The snapshot's hold is opened by one thread and read under by another."""
    hold, errors = database.hold(), []

    def use():
        try:
            database.release(hold)
            database.release(database.hold())
        except Exception as error:  # noqa: BLE001 - whatever it is, the test wants to know
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(LONG)
    assert errors == []


def test_a_path_that_leads_round_is_a_local_error(tmp_path):
    """No identity is known, and a missing file would be another answer."""
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with raises(LocalIOError, errno=errno.ELOOP):
        identity(tmp_path / "round" / "app.db")

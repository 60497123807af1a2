"""The target of a restore: refusals, overwriting, faults of the disk, and other files."""

import contextlib
import errno
import json
import os
import sqlite3
import subprocess
import sys

import pytest

from replicator import restore
from replicator.errors import AlreadyRunning, ConfigError, DiskFull, LocalIOError, TargetExists
from replicator.system.files import Files
from replicator.system.locks import DirLock
from replicator.system.paths import restore_marker_path
from tests.helpers.bucket import commit_ms
from tests.helpers.counting import CountingStore
from tests.helpers.errors import raises


@pytest.fixture
def output(tmp_path):
    """The path of the restored database, in a directory that does not exist."""
    return tmp_path / "place" / "app.db"


def go(bucket, output, **options):
    return restore(store=bucket.store, prefix=bucket.prefix, output=output, **options)


def old_database(path, *, rows=7, mode="WAL", pending=True):
    """Makes a database at ``path``; with ``pending`` its rows are in its WAL only."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(f"PRAGMA journal_mode={mode}")
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute("CREATE TABLE old(x)")
    database.executemany("INSERT INTO old VALUES(?)", [(n,) for n in range(rows)])
    if pending:  # as a killed application leaves it: copy the files while they are open
        saved = {name: path.with_name(path.name + name).read_bytes() for name in ("", "-wal")}
        database.close()
        for name, data in saved.items():
            path.with_name(path.name + name).write_bytes(data)
    else:
        database.close()
    return path


def old_rows(path):
    with sqlite3.connect(path) as database:
        found = database.execute("SELECT count(*) FROM old").fetchone()[0]
    database.close()
    return found


def names(directory):
    return sorted(os.listdir(directory))


def test_parents_are_made_and_nothing_else_is_left(bucket, output):
    """A restore creates missing directories; it leaves only the file and its record."""
    deep = output.parent / "a" / "b" / "app.db"
    report = go(bucket, deep)
    assert report.output == str(deep)
    assert names(deep.parent) == [".app.db-replicator", "app.db"]


def test_the_record_describes_the_restored_file(bucket, output):
    """The record for the next replicator holds generation, txid and checksum of the restore, and
    by which the file is recognised."""
    report = go(bucket, output, txid=9)
    found = output.stat()
    assert json.loads(restore_marker_path(output).read_bytes()) == {
        "generation": report.generation,
        "txid": 9,
        "pages": report.pages,
        "page_size": 4096,
        "checksum": f"{report.checksum:016x}",
        "file": [found.st_dev, found.st_ino],
        "change_counter": int.from_bytes(output.read_bytes()[24:28], "big"),
    }


def test_default_output_is_the_name_of_the_database(bucket, tmp_path, monkeypatch):
    """Without an output the database comes back under its own name in this directory."""
    monkeypatch.chdir(tmp_path)
    go(bucket, None)
    assert (tmp_path / "app.db").read_bytes() == bucket.images[bucket.txid]


def test_an_existing_file_is_refused(bucket, output):
    """Without --overwrite an existing file is an error, and it stays."""
    old_database(output)
    before = output.read_bytes()
    with raises(TargetExists, path=str(output)) as error:
        go(bucket, output)
    assert "--overwrite" in error.value.hint
    assert output.read_bytes() == before
    assert old_rows(output) == 7


def _away(method, key):
    raise AssertionError("no request is needed")


def test_an_existing_file_is_enough_for_if_missing(bucket, output, monkeypatch):
    """--if-missing leaves an existing file, makes no request, and reports that."""
    old_database(output)
    away = CountingStore(bucket.store, before=_away)
    report = restore(store=away, output=output, if_missing=True)
    assert report.output == str(output)
    assert away.calls == []
    assert (report.objects, report.txid) == (0, 0)
    assert "left alone" in report.verified
    assert old_rows(output) == 7
    monkeypatch.chdir(output.parent)
    assert go(bucket, None, if_missing=True).objects == 0
    output.unlink()
    output.with_name("app.db-wal").unlink(missing_ok=True)
    assert go(bucket, output, if_missing=True).txid == bucket.txid


@pytest.mark.parametrize("suffix", ["-wal", "-journal", "-shm"])
def test_a_stray_log_is_refused(bucket, output, suffix):
    """A WAL without its database may hold the only copy of transactions: it is refused, and
    --overwrite removes it before the new file gets its name."""
    output.parent.mkdir()
    stray = output.with_name(output.name + suffix)
    stray.write_bytes(b"precious")
    with raises(TargetExists, path=str(stray)):
        go(bucket, output)
    assert stray.read_bytes() == b"precious"
    go(bucket, output, overwrite=True)
    assert names(output.parent) == [".app.db-replicator", "app.db"]


def test_a_directory_is_refused(bucket, output):
    """A directory at the target is an error, even with --overwrite."""
    output.mkdir(parents=True)
    with raises(TargetExists, path=str(output)):
        go(bucket, output, overwrite=True)


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_overwrite(bucket, output, mode):
    """--overwrite replaces the old database together with its WAL; permissions stay."""
    old_database(output, mode=mode, pending=mode == "WAL")
    output.chmod(0o640)
    go(bucket, output, overwrite=True)
    assert output.read_bytes() == bucket.images[bucket.txid]
    assert output.stat().st_mode & 0o777 == 0o640
    assert names(output.parent) == [".app.db-replicator", "app.db"]


def test_overwrite_what_is_no_database(bucket, output):
    """--overwrite also replaces a file that SQLite cannot read, and its WAL."""
    output.parent.mkdir()
    output.write_bytes(b"not a database, but long enough to look at" * 100)
    output.with_name("app.db-wal").write_bytes(b"rubbish")
    go(bucket, output, overwrite=True)
    assert output.read_bytes() == bucket.images[bucket.txid]
    assert names(output.parent) == [".app.db-replicator", "app.db"]


HOLDER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("SELECT count(*) FROM old").fetchall()
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_database_open_elsewhere_is_refused(bucket, output, mode):
    """An idle connection of another process prevents --overwrite, even in rollback mode, where it
    holds no lock; the database stays."""
    old_database(output, mode=mode, pending=False)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(output)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout.readline() == "open\n"
        with raises(TargetExists, "target_in_use") as refused:
            go(bucket, output, overwrite=True)
        assert f"process {holder.pid}" in str(refused.value)  # a person has to end it
        holder.stdin.close()
    assert old_rows(output) == 7


def test_a_database_open_here_is_refused(bucket, output):
    """A connection of this process is found by its lock before the rename."""
    old_database(output, pending=False)
    database = sqlite3.connect(output)
    database.execute("SELECT count(*) FROM old").fetchall()
    with raises(TargetExists, "target_in_use"):
        go(bucket, output, overwrite=True)
    assert database.execute("SELECT count(*) FROM old").fetchall() == [(7,)]
    database.close()
    go(bucket, output, overwrite=True)


def test_symbolic_links_are_followed(bucket, output, tmp_path):
    """A restore replaces the file that a symbolic link points to, not the link."""
    real = tmp_path / "elsewhere" / "real.db"
    old_database(real)
    output.parent.mkdir()
    output.symlink_to(real)
    go(bucket, output, overwrite=True)
    assert output.is_symlink()
    assert real.read_bytes() == bucket.images[bucket.txid]


def test_two_restores_do_not_meet(bucket, output):
    """A second restore to the same target is refused while the first one runs."""
    output.parent.mkdir()
    with DirLock(output.with_name(".app.db.restoring")), pytest.raises(AlreadyRunning):
        go(bucket, output)


def test_a_directory_that_cannot_be_removed_is_logged(bucket, output, caplog):
    """A restore succeeds although its directory cannot be removed, and logs that; a restore that
    leaves nothing logs nothing."""
    output.parent.mkdir()

    class Sticky(Files):
        def system(self, call, /, *args, **kwargs):
            if call is os.rmdir:
                raise OSError(errno.EIO, "no")
            return super().system(call, *args, **kwargs)

    go(bucket, output, files=Sticky())
    assert output.read_bytes() == bucket.images[bucket.txid]
    assert ".app.db.restoring: no; the restore is complete" in caplog.text
    caplog.clear()
    go(bucket, output, overwrite=True)
    assert not output.with_name(".app.db.restoring").exists()
    assert not caplog.records


def test_dry_run_writes_nothing(bucket, output):
    """A dry run reports the plan, even if the target exists."""
    report = go(bucket, output, dry_run=True)
    assert (report.txid, report.objects, report.snapshot_txid) == (17, 3, 14)
    assert report.committed_at == commit_ms(17)
    assert report.downloaded_bytes == sum(
        info.size
        for info in bucket.store.list("app.db/")
        if info.key
        in (bucket.keys.snapshot(14, bucket.generation), bucket.keys.wal(15), bucket.keys.wal(16))
    )
    assert not output.parent.exists()
    old_database(output)
    assert go(bucket, output, dry_run=True, txid=16).committed_at is None
    report = go(bucket, output, dry_run=True, txid=7)
    assert (report.objects, report.pages * 4096) == (1, len(bucket.images[7]))
    assert old_rows(output) == 7


class Faulty(Files):
    """Fails the ``n``-th call of a system call with an error number."""

    def __init__(self, call=None, error=0, n=1):
        self.call, self.error, self.left, self.count = call, error, n, 0

    def system(self, call, /, *args, **kwargs):
        if call is self.call:
            self.count += 1
            if self.count == self.left:
                raise OSError(self.error, os.strerror(self.error))
        return super().system(call, *args, **kwargs)


CALLS = [
    os.mkdir,
    os.open,
    os.pwrite,
    os.ftruncate,
    os.fsync,
    os.rename,
    os.write,
    os.unlink,
    os.statvfs,
    os.fstat,
    os.preadv,
    os.pread,
    os.chmod,
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_every_failing_system_call(bucket, output, call):
    """After a failure of any system call the target is the old database with its rows or the new
    one, the error is one of ours, and the next attempt succeeds."""
    for n in range(1, 60):
        old_database(output)
        files = Faulty(call, 28 if call is os.pwrite else 5, n)
        expected = DiskFull if call is os.pwrite else LocalIOError
        with contextlib.suppress(expected):
            go(bucket, output, overwrite=True, files=files)
        if output.read_bytes() != bucket.images[bucket.txid]:
            assert old_rows(output) == 7
        else:
            assert not output.with_name("app.db-wal").exists()
        go(bucket, output, overwrite=True)
        assert output.read_bytes() == bucket.images[bucket.txid]
        assert names(output.parent) == [".app.db-replicator", "app.db"]
        if files.count < n:
            break


def test_too_little_space_is_seen_before_the_work(bucket, output):
    """A restore compares its plan with the free space before it starts."""

    class Full(Files):
        def disk_free(self, path):
            return 4096

    with raises(DiskFull, path=str(output.parent)):
        go(bucket, output, files=Full())
    assert not output.exists()


def test_arguments_are_checked(bucket, output):
    """Contradictory or invalid arguments are a ConfigError."""
    for options in (
        {"txid": 1, "timestamp": "now"},
        {"txid": 0},
        {"verify": "some"},
        {"timestamp": "whenever"},
    ):
        with pytest.raises(ConfigError):
            go(bucket, output, **options)
    for options in ({}, {"bucket": "b", "url": "s3://b"}, {"url": "ftp://x"}):
        with pytest.raises(ConfigError):
            restore(output=output, **options)

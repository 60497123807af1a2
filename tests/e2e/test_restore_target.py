"""What happens to the place a database is restored to."""

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


@pytest.fixture
def output(tmp_path):
    return tmp_path / "place" / "app.db"


def go(bucket, output, **options):
    return restore(store=bucket.store, prefix=bucket.prefix, output=output, **options)


def old_database(path, *, rows=7, mode="WAL", pending=True):
    """A database at ``path``; with ``pending`` its rows are in its log only."""
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
    """A missing directory is created; beside the file only the record is left."""
    deep = output.parent / "a" / "b" / "app.db"
    report = go(bucket, deep)
    assert report.output == str(deep)
    assert names(deep.parent) == [".app.db-replicator", "app.db"]


def test_the_record_says_where_the_file_stands(bucket, output):
    """A replicator finds generation, txid and checksum of what was restored."""
    report = go(bucket, output, txid=9)
    assert json.loads(restore_marker_path(output).read_bytes()) == {
        "generation": report.generation,
        "txid": 9,
        "pages": report.pages,
        "page_size": 4096,
        "checksum": f"{report.checksum:016x}",
    }


def test_default_output_is_the_name_of_the_database(bucket, tmp_path, monkeypatch):
    """Without an output the database comes back under its own name in this directory."""
    monkeypatch.chdir(tmp_path)
    go(bucket, None)
    assert (tmp_path / "app.db").read_bytes() == bucket.images[bucket.txid]


def test_an_existing_file_is_refused(bucket, output):
    old_database(output)
    before = output.read_bytes()
    with pytest.raises(TargetExists, match="exists") as error:
        go(bucket, output)
    assert "--overwrite" in error.value.hint
    assert output.read_bytes() == before
    assert old_rows(output) == 7


def _away(method, key):
    raise AssertionError("nothing needs to be asked")


def test_an_existing_file_is_enough_for_if_missing(bucket, output, monkeypatch):
    """--if-missing leaves an existing file alone, asks the store nothing, and says so."""
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
    """A log without its database may hold the only copy of something; --overwrite moves it
    away, and the new file never meets it."""
    output.parent.mkdir()
    stray = output.with_name(output.name + suffix)
    stray.write_bytes(b"precious")
    with pytest.raises(TargetExists, match="may hold transactions"):
        go(bucket, output)
    assert stray.read_bytes() == b"precious"
    go(bucket, output, overwrite=True)
    assert names(output.parent) == [".app.db-replicator", "app.db"]


def test_a_directory_is_refused(bucket, output):
    output.mkdir(parents=True)
    with pytest.raises(TargetExists, match="is a directory"):
        go(bucket, output, overwrite=True)


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_overwrite(bucket, output, mode):
    """The old database and its log give way together; permissions stay."""
    old_database(output, mode=mode, pending=mode == "WAL")
    output.chmod(0o640)
    go(bucket, output, overwrite=True)
    assert output.read_bytes() == bucket.images[bucket.txid]
    assert output.stat().st_mode & 0o777 == 0o640
    assert names(output.parent) == [".app.db-replicator", "app.db"]


def test_overwrite_what_is_no_database(bucket, output):
    """A file SQLite cannot read is replaced too, and what lies beside it goes along."""
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
    """An idle connection of another process is enough, even in rollback mode, where it holds
    no lock; nothing was downloaded, nothing changed."""
    old_database(output, mode=mode, pending=False)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(output)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(TargetExists, match=f"open in process {holder.pid}"):
            go(bucket, output, overwrite=True)
        holder.stdin.close()
    assert old_rows(output) == 7


def test_a_database_open_here_is_refused(bucket, output):
    """A connection of this very process is found by its lock, at the last moment."""
    old_database(output, pending=False)
    database = sqlite3.connect(output)
    database.execute("SELECT count(*) FROM old").fetchall()
    with pytest.raises(TargetExists, match="open in another connection"):
        go(bucket, output, overwrite=True)
    assert database.execute("SELECT count(*) FROM old").fetchall() == [(7,)]
    database.close()
    go(bucket, output, overwrite=True)


def test_symbolic_links_are_followed(bucket, output, tmp_path):
    """The file a link points to is replaced, not the link."""
    real = tmp_path / "elsewhere" / "real.db"
    old_database(real)
    output.parent.mkdir()
    output.symlink_to(real)
    go(bucket, output, overwrite=True)
    assert output.is_symlink()
    assert real.read_bytes() == bucket.images[bucket.txid]


def test_two_restores_do_not_meet(bucket, output):
    """While one restore works on a target, another is told so."""
    output.parent.mkdir()
    with DirLock(output.with_name(".app.db.restoring")), pytest.raises(AlreadyRunning):
        go(bucket, output)


def test_what_is_left_of_a_restore_is_named(bucket, output, caplog):
    """A disk that does not let the restore's directory go spoils nothing; a restore that leaves
    nothing says nothing."""
    output.parent.mkdir()

    class Sticky(Files):
        def system(self, call, /, *args, **kwargs):
            if call is os.rmdir:
                raise OSError(errno.EIO, "no")
            return super().system(call, *args, **kwargs)

    go(bucket, output, files=Sticky())
    assert output.read_bytes() == bucket.images[bucket.txid]
    assert ".app.db.restoring: no; nothing needs it any more" in caplog.text
    caplog.clear()
    go(bucket, output, overwrite=True)
    assert not output.with_name(".app.db.restoring").exists()
    assert not caplog.records


def test_dry_run_writes_nothing(bucket, output):
    """A dry run reports the plan, even where something stands in the way."""
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
    """Whichever call fails, the target is the old database with its rows or the new one, the
    error is one of ours, and the next attempt succeeds."""
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
    """The plan is compared with the free space."""

    class Full(Files):
        def disk_free(self, path):
            return 4096

    with pytest.raises(DiskFull, match=r"needs \d+ more bytes, 4096 are free"):
        go(bucket, output, files=Full())
    assert not output.exists()


def test_arguments_are_checked(bucket, output):
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

"""What a database file is before SQLite opens it, and whether it is in use."""

import contextlib
import errno
import os
import sqlite3
import subprocess
import sys

import pytest

from replicator.errors import TargetExists
from replicator.sqlite.local_file import FileState, examine_file, in_wal_mode, refuse_if_used
from replicator.system.files import Files
from tests.helpers.replication import App


class RefusingFiles(Files):
    """A disk that refuses every call."""

    def system(self, call, /, *args, **kwargs):
        raise OSError(errno.EIO, "refused")


def made(path, *statements, mode="WAL", size=4096):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in (f"PRAGMA page_size={size}", f"PRAGMA journal_mode={mode}", *statements):
            connection.execute(statement).fetchall()
    return path


@pytest.mark.parametrize("size", [512, 4096, 65536])
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_database_without_tables_is_fresh(path, size, mode):
    """Of any page size, in any mode; also one whose tables were dropped."""
    made(path, "PRAGMA user_version=1", size=size, mode=mode)
    assert examine_file(path) is FileState.FRESH
    assert in_wal_mode(path) is (mode == "WAL")
    made(path, "CREATE TABLE t(x)", size=size, mode=mode)
    assert examine_file(path) is FileState.CONTENT
    made(path, "DROP TABLE t", size=size, mode=mode)
    assert examine_file(path) is FileState.FRESH


@pytest.mark.parametrize("count", [1, 60])
def test_a_table_that_only_the_wal_has(path, count):
    """The file alone has none, as a checkpoint has not copied it yet."""
    made(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        for number in range(count):
            connection.execute(f"CREATE TABLE t{number}(x)")
        assert examine_file(path) is FileState.CONTENT


def test_no_file_and_an_empty_one(path):
    """A WAL of no bytes, and shared memory, hold nothing."""
    for suffix in ("-wal", "-shm"):
        path.with_name(f"app.db{suffix}").touch()
    path.with_name("app.db-shm").write_bytes(b"x")
    assert examine_file(path) is FileState.MISSING
    path.touch()
    assert examine_file(path) is FileState.EMPTY


@pytest.mark.parametrize("file", [False, True])
@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_log_without_its_database(path, suffix, file):
    """SQLite would remove it next to an empty file."""
    path.with_name(f"app.db{suffix}").write_bytes(b"precious")
    if file:
        path.touch()
    assert examine_file(path) is FileState.ORPHANED


def test_what_cannot_be_judged_has_content(path, tmp_path):
    """A directory, and a database that a journal may change."""
    assert examine_file(tmp_path) is FileState.CONTENT
    made(path)
    path.with_name("app.db-journal").write_bytes(b"hot")
    assert examine_file(path) is FileState.CONTENT


def test_another_file_is_no_database(path):
    """However short."""
    path.write_bytes(b"x")
    assert examine_file(path) is FileState.NOT_A_DATABASE
    assert not in_wal_mode(path)


def test_a_database_in_use(path):
    """By a connection of this process, or by another process; afterwards it is free."""
    refuse_if_used(path)  # there is none
    with App(path) as app:
        app.insert()
        with pytest.raises(TargetExists) as refused:
            refuse_if_used(path)
        assert refused.value.code == "target_in_use"
    refuse_if_used(path)
    code = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.execute('SELECT * FROM t'); "
    code += "print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, os.fspath(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        with pytest.raises(TargetExists, match=f"process {process.pid}"):
            refuse_if_used(path)
        process.communicate(b"\n")
    refuse_if_used(path)


def test_a_path_that_leads_nowhere_cannot_be_judged(path):
    """A symbolic link to itself is refused by the system, and counts as content."""
    path.symlink_to(path)
    assert examine_file(path) is FileState.CONTENT


def test_a_file_that_cannot_be_read_has_content(path):
    """The disk refuses each read."""
    made(path)
    assert examine_file(path, RefusingFiles()) is FileState.CONTENT


def test_a_wal_without_a_table_leaves_the_database_fresh(path):
    """Each of its frames is read, to the end."""
    made(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        for number in range(3):
            connection.execute(f"PRAGMA user_version={number + 1}")
        assert path.with_name("app.db-wal").stat().st_size > 3 * 4096
        assert examine_file(path) is FileState.FRESH

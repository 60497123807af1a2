"""Backup, checks, checkpoints, and rows in pieces."""

import sqlite3

import pytest

from replicator.app import Database
from replicator.app.batch import chunks, fetch_chunks, insert_rows, scan
from replicator.errors import ConfigError, LocalIOError, TargetExists
from tests.helpers.errors import raises

ADD = "INSERT INTO users (name) VALUES (?)"


@pytest.fixture
def thousand(kit):
    """A database with a thousand users."""
    kit.execute_many(ADD, ((f"user {number}",) for number in range(1000)))
    return kit


def count(path):
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT count(*) FROM users").fetchone()[0]
    finally:
        connection.close()


# ----------------------------------------------------------------------------- backup


def test_a_backup_is_the_state_of_its_beginning(thousand, tmp_path):
    """Commits during the copy are not in it, and do not restart it; one file is left."""
    pages = []

    def progress(done, total):
        pages.append((done, total))
        if len(pages) == 1:
            thousand.queue.execute(ADD, ("late",)).result(60)

    thousand.execute("CREATE TABLE big AS SELECT zeroblob(10000000) AS body")
    target = thousand.backup(tmp_path / "copy.db", progress=progress)
    assert len(pages) > 1
    assert pages[-1][0] == pages[-1][1]
    assert count(target) == 1000
    assert thousand.fetch_value("SELECT count(*) FROM users") == 1001
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy.db"]


def test_a_backup_replaces_a_file_only_if_it_is_asked_to(thousand, tmp_path):
    """The old file is whole until the new one is."""
    (tmp_path / "copy.db").write_text("precious")
    with raises(TargetExists):
        thousand.backup(tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"
    assert count(thousand.backup(tmp_path / "copy.db", overwrite=True)) == 1000


def test_a_backup_that_fails_leaves_nothing(thousand, tmp_path):
    """Neither a draft nor a part of the target."""
    with pytest.raises(LocalIOError):
        thousand.backup(tmp_path / "missing" / "copy.db")
    with pytest.raises(ZeroDivisionError):
        thousand.backup(tmp_path / "copy.db", progress=lambda done, total: 1 / 0)
    assert list(tmp_path.glob("copy*")) == []


# ----------------------------------------------------------------------------- checks


def test_a_sound_database_has_no_problems(thousand):
    """Neither in its pages nor in its references."""
    assert thousand.check().ok
    assert thousand.check(quick=True).ok


def test_a_check_names_broken_references(thousand):
    """Rows that came in while foreign keys were not enforced."""
    thousand.execute("CREATE TABLE notes (user REFERENCES users (id))")
    other = sqlite3.connect(thousand.path, isolation_level=None)
    other.execute("INSERT INTO notes VALUES (7777)")
    other.close()
    found = thousand.check()
    assert not found.ok
    assert [(each.table, each.rowid, each.parent) for each in found.foreign_keys] == [
        ("notes", 1, "users")
    ]


def test_a_check_names_damage(thousand, tmp_path):
    """An index that lacks a row, as SQLite describes it; the quick check does not look there."""
    thousand.execute("CREATE INDEX names ON users (name)")
    with thousand.writing() as connection:
        connection.execute("PRAGMA writable_schema = 1")
        connection.execute("UPDATE sqlite_schema SET sql = 'CREATE INDEX names ON users (id)' "
                           "WHERE name = 'names'")  # fmt: skip
        connection.execute("PRAGMA writable_schema = RESET")
    with Database.open(thousand.path) as again:
        found = again.check()
        assert any("missing from index names" in line for line in found.problems)


# ------------------------------------------------------------------------- maintenance


def test_a_checkpoint_copies_the_wal(thousand):
    """As far as no reader needs the older pages."""
    done = thousand.checkpoint()
    assert not done.busy
    assert done.copied == done.frames > 0
    with thousand.read() as connection:
        connection.execute("SELECT count(*) FROM users").fetchone()
        thousand.execute("UPDATE users SET name = 'x'")
        held = thousand.checkpoint()
    assert held.copied < held.frames


def test_optimize_and_vacuum(thousand):
    """The planner gets statistics of what is queried; free pages are given back."""
    thousand.execute("CREATE INDEX names ON users (name)")
    with thousand.writing() as connection:
        connection.execute("SELECT * FROM users WHERE name = 'user 7'").fetchall()
    thousand.optimize()
    thousand.execute("DELETE FROM users")
    before = thousand.fetch_value("PRAGMA page_count")
    thousand.vacuum()
    assert thousand.fetch_value("PRAGMA page_count") < before


def test_statistics_count_operations(thousand):
    """By kind: how many, how many failed, how long."""
    with pytest.raises(sqlite3.OperationalError):
        thousand.fetch_all("nonsense")
    thousand.fetch_all("SELECT 1")
    found = thousand.statistics()
    reads = found.operations["read"]
    assert (reads.count, reads.failed) == (2, 1)
    assert 0 < reads.longest <= reads.seconds
    assert found.operations["transaction"].count == 1
    assert found.readers_open == 1
    assert found.readers_free == thousand.preset.readers
    assert found.wal_bytes > 0
    assert found.to_dict()["operations"]["read"]["count"] == 2


# ------------------------------------------------------------------------------ pieces


def test_chunks_of_anything():
    """Lists of one size; the last one may be shorter. Nothing is read ahead."""
    source = iter(range(7))
    pieces = chunks(source, 3)
    assert next(pieces) == [0, 1, 2]
    assert next(source) == 3
    assert list(pieces) == [[4, 5, 6]]
    with raises(ConfigError, "out_of_bounds"):
        list(chunks([], 0))


def test_fetch_chunks_of_one_state(thousand):
    """The rows of one query, in lists."""
    with thousand.read() as connection:
        found = list(fetch_chunks(connection.execute("SELECT id FROM users"), 300))
    assert [len(each) for each in found] == [300, 300, 300, 100]


def test_scan_holds_no_read(thousand):
    """The WAL can be reset between two pieces: a table of any size is read without harm."""
    seen = []
    for rows in scan(thousand, "users", key="id", columns=["name"], size=300):
        assert thousand.statistics().readers_free == thousand.preset.readers
        seen += rows
    assert seen == thousand.fetch_all("SELECT id, name FROM users ORDER BY id")
    assert [len(rows) for rows in scan(thousand, "users", size=600)] == [600, 400]
    assert next(scan(thousand, "users"))[0] == (1, 1, "user 0")


def test_insert_many_binds_as_many_parameters_as_sqlite_permits(kit):
    """Also with a low limit: more statements, the same rows."""
    rows = [(number, f'"user" {number}') for number in range(25)]
    with kit.transaction() as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 7)
        assert insert_rows(connection, "users", ["id", "name"], iter(rows)) == 25
    assert kit.fetch_all("SELECT id, name FROM users ORDER BY id") == rows


def test_insert_many_is_one_transaction(kit):
    """A row that violates a constraint undoes all; `ignore` and `replace` resolve conflicts."""
    columns = ["id", "name"]
    with pytest.raises(sqlite3.IntegrityError):
        kit.insert_many("users", columns, [(1, "Ada"), (1, "Grace")])
    assert kit.fetch_all("SELECT * FROM users") == []
    assert kit.insert_many("users", columns, [(1, "Ada"), (1, "Grace")], conflict="ignore") == 1
    kit.insert_many("users", columns, [(1, "Barbara")], conflict="replace")
    assert kit.fetch_all("SELECT * FROM users") == [(1, "Barbara")]


@pytest.mark.parametrize(
    ("columns", "rows", "options"),
    [
        (["id", "name"], [(1,)], {}),
        ([], [()], {}),
        (["id"], [(1,)], {"conflict": "guess"}),
    ],
)
def test_rows_that_cannot_be_bound_are_refused(kit, columns, rows, options):
    """Before a statement is made of them."""
    with pytest.raises(ConfigError):
        kit.insert_many("users", columns, rows, **options)

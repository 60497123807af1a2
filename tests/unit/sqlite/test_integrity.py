"""SQLite's checks of a file: good, damaged, or inconclusive, because this library lacks a part."""

import contextlib
import shutil
import sqlite3

import pytest

from replicator.errors import CheckFailed, ConfigError, DamageError, Inconclusive
from replicator.sqlite.check import checkpoint_wal, require_true
from replicator.sqlite.compare import Comparison, SchemaChange, TableChange
from replicator.sqlite.connect import Extensions, extensions
from replicator.sqlite.integrity import check_database
from tests.helpers.errors import raises
from tests.helpers.strange_schema import (
    MODULES,
    NEWER_SQL,
    OWN_PARTS,
    STRANGE,
    TABLES,
    statements,
    supply,
)


@pytest.fixture
def strange_database(tmp_path):
    """``strange_database(kind)`` makes a file whose schema is strange in that way."""

    def make(kind, *more, name="strange.db"):
        path = tmp_path / name
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for statement in (*(statements(kind) if kind else TABLES), *more):
                connection.execute(statement)
        return path

    return make


def break_table(path, table):
    """Overwrite the first page of a table."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)
        ).fetchone()
    data = bytearray(path.read_bytes())
    data[(root - 1) * 4096 : root * 4096] = b"\xff" * 4096
    path.write_bytes(data)


@pytest.mark.parametrize("kind", [*NEWER_SQL, *OWN_PARTS])
def test_what_this_library_lacks_is_no_damage(strange_database, kind):
    """The reason names the missing part; the file is not called damaged."""
    reasons = check_database(strange_database(kind), full=True)
    assert bool(reasons) != STRANGE[kind].checked
    assert STRANGE[kind].checked or any(
        "theirs" in reason or "cannot read the schema" in reason for reason in reasons
    )


@pytest.mark.parametrize("kind", MODULES)
def test_a_missing_module_does_not_matter_to_the_check(strange_database, kind):
    """The tables that a virtual table is stored in are checked like any other."""
    check_database(strange_database(kind), full=True)


@pytest.mark.parametrize("kind", STRANGE)
def test_damage_beside_what_is_lacking_is_still_damage(strange_database, kind):
    """Each table that can be checked is checked."""
    path = strange_database(kind, "INSERT INTO heard VALUES(1)")
    break_table(path, "heard")
    with raises(DamageError, "malformed_database"):
        check_database(path, full=True)


@pytest.mark.parametrize("kind", OWN_PARTS)
def test_the_hook_makes_the_check_conclusive(strange_database, kind):
    """With the application's own parts registered, nothing is left to say."""
    assert check_database(strange_database(kind), full=True, prepare=supply) == ()


def test_an_unreadable_schema_table_is_damage(strange_database):
    """The pages of the schema itself are no question of the library."""
    path = strange_database("view")
    data = bytearray(path.read_bytes())
    data[100:4096] = b"\xff" * 3996
    path.write_bytes(data)
    with raises(DamageError, "malformed_database"):
        check_database(path, full=True)


# ------------------------------------------------------------------------------- statements


@pytest.mark.parametrize(
    ("kind", "sql"),
    [
        ("table", "SELECT count(*) = 3 FROM words"),
        ("view", "SELECT one = 1 FROM listed"),
        ("collation", "SELECT count(*) FROM words WHERE word > 'a'"),
        ("check", "SELECT theirs(1)"),
        ("module", "SELECT count(*) FROM theirs"),
        ("tokenizer", "SELECT count(*) FROM theirs"),
        ("check", "SELECT group_concat(word ORDER BY n) FROM words"),
    ],
)
def test_a_statement_that_cannot_be_run_is_inconclusive(strange_database, kind, sql):
    """A statement that needs what is missing is not false."""
    with raises(Inconclusive, statement=sql) as caught:
        require_true(strange_database(kind), sql)
    assert caught.value.exit_code == 10


@pytest.mark.parametrize("kind", STRANGE)
def test_a_statement_about_the_rest_is_answered(strange_database, kind):
    """True and false are exact where the statement needs nothing that is missing."""
    path = strange_database(kind)
    require_true(path, "SELECT count(*) = 0 FROM heard")
    with raises(CheckFailed, "check_failed"):
        require_true(path, "SELECT count(*) > 0 FROM heard")


def test_a_missing_table_is_a_failure(strange_database):
    """A readable schema without the table answers the question."""
    with raises(CheckFailed, "statement_failed"):
        require_true(strange_database("check"), "SELECT count(*) FROM absent")


def test_the_hook_serves_statements(strange_database):
    """A statement may use a function of the application."""
    require_true(strange_database("function"), "SELECT theirs(1) = 1", supply)


# ------------------------------------------------------------------------- diff and restore


@pytest.mark.parametrize("kind", NEWER_SQL)
def test_a_comparison_reads_past_newer_sql(strange_database, kind):
    """The change of the schema is exact, and so are the tables that can be read."""
    old = strange_database(None, name="old.db")
    new = strange_database(kind, "INSERT INTO heard VALUES(1)", name="new.db")
    with Comparison(old, new) as comparison:
        kinds = {"view": "listed", "trigger": "noted", "table": "words", "index": "word"}
        assert comparison.schema() == [SchemaChange(kind, kinds[kind], "altered")]
        tables = {each.table: each for each in comparison.tables()}
    assert tables["heard"] == TableChange("heard", 1, 0, 0)
    assert [name for name, each in tables.items() if each.inconclusive] == (
        ["words"] if kind == "table" else []
    )


def test_the_hook_makes_a_comparison_conclusive(tmp_path):
    """A key in a collation of the application."""
    paths = []
    for rows in (1, 2):
        paths.append(tmp_path / f"{rows}.db")
        with contextlib.closing(sqlite3.connect(paths[-1], isolation_level=None)) as db:
            supply(db)
            db.execute("CREATE TABLE c(k TEXT COLLATE theirs PRIMARY KEY) WITHOUT ROWID")
            db.executemany("INSERT INTO c VALUES (?)", [(str(row),) for row in range(rows)])
    with Comparison(*paths) as comparison:
        assert [each.inconclusive for each in comparison.tables()] == [True]
    with Comparison(*paths, supply) as comparison:
        assert list(comparison.tables()) == [TableChange("c", 1, 0, 0)]


@pytest.mark.parametrize("kind", STRANGE)
def test_the_wal_of_such_a_database_is_checkpointed_before_its_replacement(
    strange_database, tmp_path, kind
):
    """Otherwise a crash in the middle of a replacement would lose its newest rows."""
    path = strange_database(kind)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("INSERT INTO heard VALUES(7)")
    copy = tmp_path / "copy.db"
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    connection.close()
    assert checkpoint_wal(copy)
    assert not copy.with_name("copy.db-wal").exists()
    require_true(copy, "SELECT n = 7 FROM heard")


# -------------------------------------------------------------------------------- extensions


class Loader:
    """Records what a connection is asked to load."""

    def __init__(self):
        self.calls = []

    def enable_load_extension(self, enabled):
        self.calls.append(enabled)

    def load_extension(self, name):
        self.calls.append(name)


def test_extensions_are_loaded_and_the_door_is_shut(tmp_path):
    """A path that exists is made absolute, so that no directory of libraries is searched."""
    present = tmp_path / "mod.so"
    present.touch()
    loader = Loader()
    Extensions((present, tmp_path / "other"))(loader)
    assert loader.calls == [True, str(present), str(tmp_path / "other"), False]
    loader.calls.clear()
    extensions([])(loader)
    assert loader.calls == []


def test_an_extension_that_cannot_be_loaded_is_a_setting_that_cannot_work(tmp_path):
    """The check is not made without it."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        with raises(ConfigError, setting="load_extension"):
            extensions([tmp_path / "absent.so"])(connection)
        with raises(ConfigError, setting="load_extension"):
            Extensions((tmp_path,))(object())

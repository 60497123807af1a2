"""sqlite/isolated.py and read_only.py: SQL on a database of an attacker reads it, within limits."""

import os
import sqlite3
import sys
import threading

import pytest

from replicator.errors import (
    Cancelled,
    CheckFailed,
    ConfigError,
    DamageError,
    Inconclusive,
    LocalIOError,
)
from replicator.sqlite.connect import extensions, unprepared
from replicator.sqlite.isolated import SqlLimits, check_database, require_true, run_isolated
from tests.helpers.errors import raises
from tests.helpers.replication import LONG

SHORT = SqlLimits(seconds=0.3)
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
SLOW = "instr(hex(zeroblob(1000000)), hex(zeroblob(500000)) || '1')"  # a call takes a minute
LARGE = "SELECT length(hex(zeroblob(400000000))) > 0"
MANY = (
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n LIMIT 30) "
    "SELECT length(group_concat(hex(zeroblob(4000000)))) FROM n"
)


@pytest.fixture
def foreign(tmp_path):
    """A database with one row, and a directory of its own."""
    path = tmp_path / "place" / "app.db"
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.execute("INSERT INTO t VALUES(1)")
        connection.execute("CREATE INDEX i ON t(x)")
        connection.execute("CREATE VIRTUAL TABLE words USING fts5(x)")
        connection.execute("INSERT INTO words VALUES('red green')")
        connection.execute("CREATE VIRTUAL TABLE boxes USING rtree(id, low, high)")
        connection.execute("INSERT INTO boxes VALUES(1, 2, 3)")
        connection.execute(f"CREATE VIEW endless AS {ENDLESS}")
        connection.execute(f"CREATE VIEW large AS {MANY}")
    connection.close()
    return path


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) = 1 FROM t",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION SELECT x + 1 FROM n LIMIT 9) SELECT sum(x) FROM n",
        "PRAGMA page_count",
        "SELECT count(*) > 0 FROM pragma_table_info('t')",
        "SELECT json_extract('[1]', '$[0]')",
        "SELECT value FROM json_each('[1]')",
        "SELECT count(*) FROM words WHERE words MATCH 'green'",
        "SELECT count(*) FROM boxes WHERE low > 1",
    ],
)
def test_a_statement_that_reads_is_permitted(foreign, sql):
    """Queries, common table expressions, functions, and pragmas that report a fact."""
    require_true(foreign, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH '{}/other.db' AS other",
        "VACUUM INTO '{}/copy.db'",
        "VACUUM",
        "CREATE TEMP TABLE copy AS SELECT * FROM t",
        "INSERT INTO t VALUES(2)",
        "DELETE FROM t",
        "DROP VIEW endless",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA query_only = OFF",
        "PRAGMA trusted_schema = ON",
        "PRAGMA temp_store_directory = '{}'",
        "PRAGMA hard_heap_limit = 0",
        "PRAGMA writable_schema = ON",
        "SELECT load_extension('{}/code')",
        "SELECT fts3_tokenizer('simple')",
        "BEGIN",
        "ANALYZE",
        "REINDEX",
        "DETACH main",
    ],
)
def test_a_statement_that_does_more_is_refused(foreign, sql):
    """No other file, no change, no code. The statement is a mistake, and proves no damage."""
    before = foreign.read_bytes()
    with raises(ConfigError, code="statement_forbidden", setting="assert"):
        require_true(foreign, sql.format(foreign.parent))
    assert os.listdir(foreign.parent) == [foreign.name]
    assert foreign.read_bytes() == before


@pytest.mark.parametrize("sql", ["SELECT * FROM endless", ENDLESS, f"SELECT {SLOW}"])
def test_a_statement_without_an_end_is_ended(foreign, sql):
    """A view, a recursion, and one call of a function, which SQLite cannot interrupt."""
    with raises(Inconclusive, code="deadline"):
        require_true(foreign, sql, limits=SHORT)


@pytest.mark.parametrize("sql", ["SELECT * FROM large", LARGE])
def test_a_statement_gets_no_more_memory_than_it_may_have(foreign, sql):
    """One value, or a view that concatenates many."""
    with raises(Inconclusive, code="memory_limit"):
        require_true(foreign, sql, limits=SqlLimits(memory=64 << 20))


def test_a_statement_fills_no_disk(foreign):
    """A sorter writes temporary files; each may be as large as the database and an allowance."""
    rows = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 100000)"
    sql = f"{rows} SELECT count(*) FROM (SELECT DISTINCT x, randomblob(100) y FROM n ORDER BY y)"
    require_true(foreign, sql)
    with raises(Inconclusive, code="disk_limit"):
        require_true(foreign, sql, limits=SqlLimits(temporary=1 << 20))
    assert os.listdir(foreign.parent) == [foreign.name]


@pytest.mark.parametrize("full", [False, True])
def test_the_check_of_a_whole_database_is_isolated(foreign, full):
    """A sound one passes, a damaged one is damage."""
    check_database(foreign, full=full)
    content = bytearray(foreign.read_bytes())
    content[4096 + 3 : 4096 + 5] = b"\xff\xff"
    foreign.write_bytes(content)
    with raises(DamageError, code="malformed_database"):
        check_database(foreign, full=full)


def test_a_check_that_runs_for_ever_is_ended_or_cancelled(tmp_path):
    """The condition of an index is evaluated for each row."""
    path = tmp_path / "app.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.execute("INSERT INTO t VALUES(1)")
        connection.execute("CREATE INDEX i ON t(x) WHERE x + 0 = 1")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, '0', ?) WHERE name = 'i'", (SLOW,)
        )
    connection.close()
    (reason,) = check_database(path, full=True, limits=SHORT)
    assert "0.3 s" in reason
    asked = threading.Event()
    threading.Timer(0.2, asked.set).start()
    with raises(Cancelled):
        check_database(path, full=True, limits=SqlLimits(seconds=LONG, cancelled=asked.is_set))


def test_a_child_that_ends_is_no_proof(foreign):
    """A child that crashes says nothing about the file."""
    with raises(Inconclusive, code="check_crashed"):
        run_isolated("no such check", foreign, "", unprepared, SqlLimits())


def test_a_statement_that_is_not_true_is_named(foreign):
    """The errors of a check are those that it has without a child."""
    with raises(CheckFailed, statement="SELECT 0"):
        require_true(foreign, "SELECT 0")
    with raises(CheckFailed, code="statement_failed"):
        require_true(foreign, "SELECT x FROM missing")


def test_a_child_imports_no_module_of_the_working_directory(foreign, tmp_path, monkeypatch):
    """The current directory may belong to another user."""
    (tmp_path / "sqlite3.py").write_text("raise SystemExit('foreign code')")
    monkeypatch.chdir(tmp_path)
    require_true(foreign, "SELECT 1")


def test_a_hook_of_python_runs_here_and_only_reads(foreign):
    """A function of the application is no matter for a child, but the statement can still only
    read; extensions are loaded in the child."""

    def supply(connection):
        connection.create_function("two", 0, lambda: 2)

    assert check_database(foreign, full=True, prepare=supply) == ()
    require_true(foreign, "SELECT two() = 2", prepare=supply)
    with raises(ConfigError, code="statement_forbidden", setting="assert"):
        require_true(foreign, "DELETE FROM t", prepare=supply)
    with raises(ConfigError, setting="load_extension"):
        require_true(foreign, "SELECT 1", prepare=extensions([foreign.parent / "missing.so"]))


def test_a_child_that_cannot_start_is_a_local_error(foreign, monkeypatch):
    """The check was not made, so it proves nothing."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with raises(LocalIOError, path="/nowhere/python"):
        check_database(foreign, full=False)

"""inspect.diff, inspect.open and sqlite.compare: two restore points compared, one opened."""

import contextlib
import os
import signal
import sqlite3
import stat
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.archive.point import RestorePoint
from replicator.errors import ConfigError, DamageError, GapError, NoBackup, ReplicatorError
from replicator.inspect.diff import diff, diff_at
from replicator.inspect.open import VARIABLE, file_name, opened_point, run_on, shell
from replicator.sqlite.compare import Comparison, SchemaChange, TableChange
from replicator.store.address import StoreAddress
from replicator.store.directory import DirectoryStore
from replicator.store.memory import MemoryStore
from replicator.system.scratch import scratch_directory
from tests.helpers.bucket import BucketBuilder


@pytest.fixture
def compare_databases(tmp_path):
    """Two database files made by statements, and their comparison."""

    def compare(before, after, *, page_size=4096):
        paths = []
        for name, statements in (("old.db", before), ("new.db", [*before, *after])):
            path = tmp_path / name
            path.unlink(missing_ok=True)
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
                db.execute(f"PRAGMA page_size={page_size}")
                for statement in statements:
                    db.execute(statement)
            paths.append(path)
        with Comparison(*paths) as comparison:
            return comparison.schema(), list(comparison.tables())

    return compare


TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b TEXT COLLATE NOCASE)"
ROWS = "INSERT INTO t VALUES (1, 'x', 'y'), (2, 5, 'z'), (3, NULL, '')"


@pytest.mark.parametrize(
    ("change", "figures"),
    [
        ("INSERT INTO t VALUES (9, 1, 2)", (1, 0, 0)),
        ("DELETE FROM t WHERE id > 1", (0, 2, 0)),
        ("UPDATE t SET a = 7 WHERE id = 1", (0, 0, 1)),
        ("UPDATE t SET a = 5.0 WHERE id = 2", (0, 0, 1)),
        ("UPDATE t SET b = 'Y' WHERE id = 1", (0, 0, 1)),
        ("UPDATE t SET a = 0 WHERE a IS NULL", (0, 0, 1)),
        ("UPDATE t SET a = x'78' WHERE id = 1", (0, 0, 1)),
        ("UPDATE t SET id = 8 WHERE id = 1", (1, 1, 0)),
    ],
)
def test_rows_are_counted_by_what_happened_to_them(compare_databases, change, figures):
    """By rowid; a change of type or of case counts, whatever the collation of the column."""
    assert compare_databases([TABLE, ROWS], [change]) == ([], [TableChange("t", *figures)])


def test_equal_rows_are_no_change(compare_databases):
    """Written again, moved to other pages, vacuumed: the same rows."""
    assert compare_databases([TABLE, ROWS], ["UPDATE t SET a = a", "VACUUM"]) == ([], [])


def test_tables_without_rowid_go_by_their_primary_key(compare_databases):
    """Of several columns, in the key's order and with its collation."""
    made = [
        "CREATE TABLE k(v, b TEXT COLLATE NOCASE, a INT, PRIMARY KEY(a, b)) WITHOUT ROWID",
        "INSERT INTO k VALUES ('1', 'one', 1), ('2', 'two', 1), ('3', 'one', 2)",
    ]
    _, tables = compare_databases(
        made,
        [
            "UPDATE k SET b = 'ONE' WHERE a = 1 AND b = 'one'",
            "DELETE FROM k WHERE a = 2",
            "INSERT INTO k VALUES (0, 'x', 5)",
        ],
    )
    assert tables == [TableChange("k", 1, 1, 1)]


def test_a_column_named_rowid_is_no_rowid(compare_databases):
    """Another of SQLite's names for it is taken, and if all are, the primary key."""
    made = [
        "CREATE TABLE r(rowid TEXT, x)",
        "INSERT INTO r VALUES ('same', 1), ('same', 2)",
        "CREATE TABLE s(rowid, _rowid_, oid)",
        "INSERT INTO s VALUES (1, 2, 3)",
    ]
    _, tables = compare_databases(made, ["UPDATE r SET x = 3 WHERE x = 1", "DELETE FROM s"])
    assert tables[0] == TableChange("r", 0, 0, 1)
    assert (tables[1].table, tables[1].inserted, tables[1].deleted) == ("s", 0, 1)


def test_the_schema_tells_what_was_made_dropped_and_altered(compare_databases):
    """Tables, indexes, views and triggers; rows of new and dropped tables are counted."""
    schema, tables = compare_databases(
        [
            TABLE,
            ROWS,
            "CREATE TABLE gone(x)",
            "INSERT INTO gone VALUES (1), (2)",
            "CREATE VIEW v AS SELECT 1",
        ],
        [
            "DROP TABLE gone",
            "CREATE TABLE made(x)",
            "INSERT INTO made VALUES (1)",
            "CREATE INDEX i ON t(a)",
            "ALTER TABLE t ADD COLUMN c DEFAULT 5",
            "DROP VIEW v",
            "UPDATE t SET c = 6, a = 1 WHERE id = 1",
        ],
    )
    assert schema == [
        SchemaChange("index", "i", "added"),
        SchemaChange("table", "gone", "removed"),
        SchemaChange("table", "made", "added"),
        SchemaChange("table", "t", "altered"),
        SchemaChange("view", "v", "removed"),
    ]
    assert tables == [
        TableChange("gone", 0, 2, 0, "dropped"),
        TableChange("made", 1, 0, 0, "new table"),
        TableChange("t", 0, 0, 1, "its columns changed; only those in both were compared"),
    ]


def test_a_table_with_another_key_is_counted_as_new(compare_databases):
    """Nothing tells which row became which."""
    _, tables = compare_databases(
        [TABLE, ROWS],
        [
            "DROP TABLE t",
            "CREATE TABLE t(k TEXT PRIMARY KEY) WITHOUT ROWID",
            "INSERT INTO t VALUES ('a')",
        ],
    )
    assert tables == [TableChange("t", 1, 3, 0, "has another key; every row counts as new")]


def test_names_that_need_quotes_and_many_columns(compare_databases):
    """Whatever a table or column is called, and more columns than an expression is deep."""
    columns = ", ".join(f'"c {n}"' for n in range(600))
    made = [
        f'CREATE TABLE "a""b; --"({columns})',
        f'INSERT INTO "a""b; --" VALUES ({", ".join("1" for _ in range(600))})',
    ]
    _, tables = compare_databases(made, ['UPDATE "a""b; --" SET "c 599" = 2'])
    assert tables == [TableChange('a"b; --', 0, 0, 1)]


def test_what_cannot_be_compared_says_so(tmp_path):
    """A collation that only the application has: the other tables are compared all the same."""
    paths = []
    for name, rows in (("old.db", 1), ("new.db", 2)):
        paths.append(tmp_path / name)
        with contextlib.closing(sqlite3.connect(paths[-1], isolation_level=None)) as db:
            db.create_collation("own", lambda a, b: (a > b) - (a < b))
            db.execute("CREATE TABLE c(k TEXT COLLATE own PRIMARY KEY) WITHOUT ROWID")
            db.execute("CREATE TABLE d(x)")
            for row in range(rows):
                db.execute("INSERT INTO c VALUES (?)", (str(row),))
                db.execute("INSERT INTO d VALUES (?)", (row,))
    with Comparison(*paths) as comparison:
        first, second = comparison.tables()
    assert (first.table, first.inserted) == ("c", None)
    assert first.note.startswith("cannot be compared: ")
    assert second == TableChange("d", 1, 0, 0)


def test_a_file_that_is_no_database_is_damage(tmp_path):
    """And one that breaks in the middle as well."""
    good, bad = tmp_path / "good.db", tmp_path / "bad.db"
    with contextlib.closing(sqlite3.connect(good, isolation_level=None)) as db:
        db.execute("CREATE TABLE t(x)")
        db.executemany("INSERT INTO t VALUES (?)", [(b"x" * 500,)] * 100)
    bad.write_bytes(b"no database at all, by any measure" * 100)
    with pytest.raises(DamageError), Comparison(good, bad) as comparison:
        comparison.schema()
    data = bytearray(good.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    bad.write_bytes(data)
    with Comparison(good, bad) as comparison, pytest.raises(DamageError):
        list(comparison.tables())
    with pytest.raises(ReplicatorError):
        Comparison(good, tmp_path / "absent.db")


@settings(max_examples=40)
@given(
    before=st.dictionaries(st.integers(1, 12), st.sampled_from(["1", "1.0", "'a'", "'A'"])),
    after=st.dictionaries(st.integers(1, 12), st.sampled_from(["1", "1.0", "'a'", "'A'"])),
)
def test_figures_against_a_plain_comparison(tmp_path_factory, before, after):
    """Whatever the rows, the figures are those of comparing two dictionaries."""
    directory = tmp_path_factory.mktemp("compare")
    for name, rows in (("old.db", before), ("new.db", after)):
        with contextlib.closing(sqlite3.connect(directory / name, isolation_level=None)) as db:
            db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a COLLATE NOCASE)")
            for key, value in rows.items():
                db.execute(f"INSERT INTO t VALUES ({key}, {value})")
    with Comparison(directory / "old.db", directory / "new.db") as comparison:
        found = list(comparison.tables())
    expected = (
        len(after.keys() - before.keys()),
        len(before.keys() - after.keys()),
        sum(before[key] != after[key] for key in before.keys() & after.keys()),
    )
    assert [(one.inserted, one.deleted, one.updated) for one in found] == (
        [expected] if any(expected) else []
    )


# ------------------------------------------------------------------------------- points


def test_a_diff_leads_from_one_point_to_the_other(bucket, tmp_path):
    """By txid either way round; equal points need no SQL; the scratch is empty again."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    report = diff(bucket.store, "app.db", RestorePoint(2), RestorePoint(3), scratch=scratch)
    assert [(t.table, t.inserted, t.deleted) for t in report.tables] == [("t", 5, 0)]
    assert (report.older.txid, report.newer.txid) == (2, 3)
    assert report.changed_pages > 0
    back = diff(bucket.store, "app.db", RestorePoint(3), RestorePoint(2), scratch=scratch)
    assert [(t.inserted, t.deleted) for t in back.tables] == [(0, 5)]
    same = diff(bucket.store, "app.db", RestorePoint(), RestorePoint(bucket.txid), scratch=scratch)
    assert (same.changed_pages, same.tables, same.schema) == (0, (), ())
    assert os.listdir(scratch) == []


def test_points_that_cannot_be_had_are_errors(bucket, tmp_path):
    """A point beyond the archive is a GapError, an empty store NoBackup."""
    with pytest.raises(GapError):
        diff(bucket.store, "app.db", RestorePoint(2), RestorePoint(99), scratch=tmp_path)
    with pytest.raises(NoBackup):
        diff(MemoryStore(), "app.db", RestorePoint(2), RestorePoint(3), scratch=tmp_path)


def test_a_page_size_that_changed_is_told(tmp_path):
    """Between two generations; rows are compared all the same."""
    store = MemoryStore()
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = BucketBuilder(tmp_path / "one", store, page_size=4096)
    other = BucketBuilder(tmp_path / "two", MemoryStore(), page_size=512)
    other.txid = 1
    other.insert(3)
    other.store, other.txid = store, 1
    other.start_generation()
    report = diff(store, "app.db", RestorePoint(1), RestorePoint(2), scratch=tmp_path)
    assert report.changed_pages is None
    assert [(t.table, t.inserted) for t in report.tables] == [("t", 3)]
    first.close()
    other.close()


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("120", RestorePoint(txid=120)),
        (" newest ", RestorePoint()),
        ("2 hours ago", RestorePoint(timestamp="2 hours ago")),
        ("2026-01-31", RestorePoint(timestamp="2026-01-31")),
    ],
)
def test_points_as_people_write_them(text, when):
    """The text of a point parses to its txid or time."""
    assert RestorePoint.parse(text) == when


@pytest.fixture
def bucket_target(tmp_path):
    """A directory as the bucket, with one database."""
    for name in ("source", "bucket"):
        (tmp_path / name).mkdir()
    built = BucketBuilder(tmp_path / "source", DirectoryStore(tmp_path / "bucket"))
    built.insert(4)
    built.cut()
    built.close()
    return StoreAddress.parse(f"file://{tmp_path}/bucket")


def test_a_diff_at_a_place(bucket_target, tmp_path):
    """A diff of a bucket by its address."""
    report = diff_at(bucket_target, RestorePoint(1), RestorePoint(), scratch=tmp_path)
    assert [(t.table, t.inserted) for t in report.tables] == [("t", 4)]


def test_an_opened_point_is_read_only_and_gone_afterwards(bucket_target, tmp_path):
    """Named like the database, for its owner's eyes only."""
    with opened_point(bucket_target, RestorePoint(2), scratch=tmp_path) as (path, report):
        assert (path.name, report.txid) == ("app.db", 2)
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert not path.parent.exists()


@pytest.mark.parametrize(
    ("prefix", "name"),
    [("a/app.db", "app.db"), ("app.db", "app.db"), ("", "database"), ("a/..", "database")],
)
def test_a_prefix_does_not_lead_out_of_the_scratch_directory(prefix, name):
    """A bucket may hold a folder with the name ``..``."""
    assert file_name(prefix) == name


def test_the_command_gets_the_path_and_gives_its_exit_code(tmp_path):
    """In place of {}, or as the last argument, and in the environment."""
    out = tmp_path / "out"
    code = (
        f"import sys, os; open({str(out)!r}, 'w').write(repr((sys.argv[1:], "
        f"os.environ[{VARIABLE!r}]))); sys.exit(7)"
    )
    path = tmp_path / "x.db"
    assert run_on(path, [sys.executable, "-c", code, "a"]) == 7
    assert out.read_text() == repr((["a", str(path)], str(path)))
    assert run_on(path, [sys.executable, "-c", code, "--db={}", "b"]) == 7
    assert out.read_text() == repr(([f"--db={path}", "b"], str(path)))
    assert run_on(path, [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == 137
    with pytest.raises(ConfigError, match="cannot run /nowhere"):
        run_on(path, ["/nowhere"])


def test_signals_go_to_the_command(tmp_path):
    """SIGTERM is handed on, SIGINT is the command's own affair: neither ends us before the
    file is gone."""
    code = (
        "import os, signal; os.kill(os.getppid(), signal.SIGINT); "
        "os.kill(os.getppid(), signal.SIGTERM); signal.pause()"
    )
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert run_on(tmp_path / "x", [sys.executable, "-c", code]) == 128 + signal.SIGTERM
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_command_from_another_thread_is_run_all_the_same(tmp_path):
    """Only the main thread may set handlers."""
    codes = []
    thread = threading.Thread(
        target=lambda: codes.append(
            run_on(tmp_path / "x", [sys.executable, "-c", "import sys; sys.exit(3)"])
        )
    )
    thread.start()
    thread.join()
    assert codes == [3]


def test_the_shell_is_sqlite3_or_pythons_own(monkeypatch):
    """Read-only; where neither is there, the error says what to do."""
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert shell() == ["/bin/sqlite3", "-readonly"]
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("sys.version_info", (3, 12))
    assert shell() == [sys.executable, "-m", "sqlite3"]
    monkeypatch.setattr("sys.version_info", (3, 11))
    with pytest.raises(ConfigError, match="no sqlite3 shell"):
        shell()


def test_a_scratch_directory_is_gone_whatever_happens(tmp_path):
    """The scratch directory is removed after an error too."""

    def fail():
        with scratch_directory(tmp_path) as directory:
            (directory / "file").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert os.listdir(tmp_path) == []

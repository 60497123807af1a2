"""Migrations: versions, baselines, a history, checksums, helpers for recovery."""

import dataclasses
import sqlite3
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.app import Database, Migration
from replicator.app.migration import AppliedMigration, ordered, plan, version_key
from replicator.errors import ConfigError, MigrationError
from tests.helpers.errors import raises

USERS = Migration("1.0.0", "users", "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);")
MAIL = Migration("1.1.0", "their mail", "ALTER TABLE users ADD COLUMN mail TEXT")
ORDERS = Migration(
    "1.10.0",
    "orders, with a trigger",
    """
    CREATE TABLE orders (user REFERENCES users (id), total INTEGER);
    CREATE TRIGGER no_gifts BEFORE INSERT ON orders WHEN new.total = 0 BEGIN
        SELECT raise(ABORT, 'a gift; not an order');
    END;
    """,
)
WHOLE = Migration(
    "1.1.0",
    "the schema of 1.1",
    "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, mail TEXT)",
    baseline=True,
)
ALL = [USERS, MAIL, ORDERS]


@pytest.fixture
def fresh(tmp_path):
    """An open database without a table."""
    with Database.open(tmp_path / "app.db") as db:
        yield db


def versions(migrations):
    return [each.version for each in migrations]


def tables(db):
    return {
        name
        for (name,) in db.fetch_all(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'schema_migrations'"
        )
    }


# ------------------------------------------------------------------------------ a run


def test_apply_runs_what_is_pending(fresh):
    """In the order of versions; a second run has nothing to do."""
    migrations = fresh.migrations([ORDERS, USERS, MAIL])
    assert versions(migrations.status().pending) == ["1.0.0", "1.1.0", "1.10.0"]
    assert migrations.apply().current == "1.10.0"
    assert tables(fresh) == {"users", "orders"}
    assert migrations.status().pending == ()
    assert migrations.apply().current == "1.10.0"


def test_a_release_adds_migrations(fresh):
    """Only those above the version of the database run."""
    fresh.migrations([USERS]).apply()
    assert versions(fresh.migrations(ALL).status().pending) == ["1.1.0", "1.10.0"]
    fresh.migrations(ALL).apply()
    with pytest.raises(sqlite3.IntegrityError, match="a gift; not an order"):
        fresh.execute("INSERT INTO orders VALUES (NULL, 0)")


def test_the_history_has_a_row_for_each(fresh):
    """Version, description, kind, checksum, time."""
    fresh.migrations([USERS, WHOLE, ORDERS]).apply()
    first, second = fresh.migrations([USERS, WHOLE, ORDERS]).status().applied
    assert (first.version, first.description, first.kind) == (
        "1.1.0",
        "the schema of 1.1",
        "baseline",
    )
    assert (second.version, second.kind) == ("1.10.0", "incremental")
    assert second.checksum == ORDERS.checksum
    assert first.applied_at > 1_700_000_000_000
    assert first.mark == ""


def test_a_new_database_begins_with_the_newest_baseline(fresh):
    """It never sees the migrations that led there; an old database never sees the baseline."""
    assert versions(fresh.migrations([USERS, MAIL, WHOLE, ORDERS]).status().pending) == [
        "1.1.0",
        "1.10.0",
    ]
    fresh.migrations([USERS]).apply()
    pending = fresh.migrations([USERS, MAIL, WHOLE, ORDERS]).status().pending
    assert pending == (MAIL, ORDERS)


def test_a_function_can_migrate(fresh):
    """It gets the connection, within the transaction of the migration."""

    def names(connection):
        connection.execute("INSERT INTO users (name) VALUES (?)", ("Ada",))

    migrations = fresh.migrations([USERS, Migration("1.0.1", "a user", names)])
    migrations.apply()
    assert fresh.fetch_value("SELECT name FROM users") == "Ada"


def test_a_migration_that_fails_leaves_nothing(fresh):
    """It is rolled back as a whole; those before it stay; corrected, it runs."""
    broken = Migration("1.1.0", "broken", "CREATE TABLE a (x); CREATE TABLE users (x)")
    with raises(MigrationError, "migration_failed", version="1.1.0"):
        fresh.migrations([USERS, broken]).apply()
    assert tables(fresh) == {"users"}
    assert fresh.migrations([USERS]).status().current == "1.0.0"
    fresh.migrations([USERS, MAIL]).apply()


@pytest.mark.parametrize("steps", ["COMMIT", lambda connection: connection.commit()])
def test_a_migration_that_ends_its_transaction_fails(fresh, steps):
    """It could fail half way otherwise."""
    with raises(MigrationError, "migration_failed"):
        fresh.migrations([Migration("1.0.0", "early", steps)]).apply()


def test_two_processes_migrate_at_once(fresh):
    """Each migration runs once, whichever process runs it."""
    other = Database.open(fresh.path)
    threads = [
        threading.Thread(target=each.migrations(ALL).apply) for each in (fresh, other, fresh)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert versions(fresh.migrations(ALL).status().applied) == ["1.0.0", "1.1.0", "1.10.0"]


REMADE = """
    CREATE TABLE new_users (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    INSERT INTO new_users SELECT id, name FROM users WHERE id <> 7;
    DROP TABLE users;
    ALTER TABLE new_users RENAME TO users;
"""


def test_a_table_is_made_anew_without_foreign_keys(fresh):
    """As SQLite recommends for changes that ALTER TABLE cannot make. They are checked at the end,
    and enforced again after it."""
    fresh.migrations(ALL).apply()
    fresh.execute("INSERT INTO users (id, name) VALUES (1, 'Ada')")
    fresh.execute("INSERT INTO orders VALUES (1, 10)")
    remake = Migration("2.0.0", "names are needed", REMADE, foreign_keys=False)
    fresh.migrations([*ALL, remake]).apply()
    assert fresh.check().ok
    with pytest.raises(sqlite3.IntegrityError):
        fresh.execute("INSERT INTO orders VALUES (9, 10)")


def test_a_migration_that_breaks_foreign_keys_fails(fresh):
    """A row refers to a user that the migration lost."""
    fresh.migrations(ALL).apply()
    fresh.execute("INSERT INTO users (id, name) VALUES (7, 'Ada')")
    fresh.execute("INSERT INTO orders VALUES (7, 10)")
    remake = Migration("2.0.0", "names are needed", REMADE, foreign_keys=False)
    with raises(MigrationError, "migration_failed", version="2.0.0"):
        fresh.migrations([*ALL, remake]).apply()
    assert fresh.fetch_value("SELECT name FROM users") == "Ada"


# --------------------------------------------------------------------------- refusals


def test_a_changed_migration_is_refused(fresh):
    """Two databases of the same version would have two schemas. `accept` takes the change."""
    fresh.migrations(ALL).apply()
    changed = fresh.migrations(
        [dataclasses.replace(USERS, steps=f"{USERS.steps} -- a note"), MAIL, ORDERS]
    )
    with raises(MigrationError, "migration_changed", version="1.0.0"):
        changed.apply()
    changed.accept("1.0.0")
    assert changed.apply().current == "1.10.0"


def test_a_changed_function_is_seen_by_its_revision(fresh):
    """Its text has no stable checksum."""
    step = Migration("1.0.0", "nothing", _nothing)
    fresh.migrations([step]).apply()
    with raises(MigrationError, "migration_changed"):
        fresh.migrations([dataclasses.replace(step, revision=2)]).status()


def _nothing(connection):
    """A migration without an effect."""


def test_a_database_of_a_newer_program_is_refused(fresh):
    """The old program would not understand it."""
    fresh.migrations(ALL).apply()
    with raises(MigrationError, "migration_unknown", version="1.10.0"):
        fresh.migrations([USERS, MAIL]).apply()


def test_a_migration_below_the_version_of_the_database_is_refused(fresh):
    """It would run on some databases, and not on others."""
    fresh.migrations(ALL).apply()
    late = Migration("1.5.0", "late", "CREATE TABLE late (x)")
    with raises(MigrationError, "migration_order", version="1.5.0"):
        fresh.migrations([*ALL, late]).apply()


@pytest.mark.parametrize("wrong", ["1", "1.0", "v1.0.0", "1.0.0.0", "01.0.0", "1.0.0-rc1", ""])
def test_a_version_is_three_numbers(wrong):
    """As in Semantic Versioning."""
    with raises(MigrationError, "migration_version"):
        version_key(wrong)


def test_two_of_a_version_are_refused(fresh):
    """Unless one of them is the baseline of that version."""
    with raises(MigrationError, "migration_repeated", version="1.1.0"):
        fresh.migrations([MAIL, dataclasses.replace(MAIL, description="another")])


# --------------------------------------------------------------------------- recovery


def test_adopt_a_database_that_had_no_migrations(fresh):
    """Its schema was made by hand: it is declared to be that of a version."""
    fresh.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
    migrations = fresh.migrations(ALL)
    migrations.adopt("1.0.0")
    assert versions(migrations.status().pending) == ["1.1.0", "1.10.0"]
    assert migrations.apply().applied[0].kind == "adopted"
    with raises(MigrationError, "migration_order"):
        migrations.adopt("1.0.0")


def test_forget_a_migration_that_was_undone_by_hand(fresh):
    """The newest one only; it is pending again."""
    migrations = fresh.migrations(ALL)
    migrations.apply()
    fresh.execute("DROP TABLE orders")
    with raises(MigrationError, "migration_missing", version="1.0.0"):
        migrations.forget("1.0.0")
    migrations.forget("1.10.0")
    assert migrations.status().current == "1.1.0"
    assert migrations.apply().current == "1.10.0"


def test_accept_needs_a_migration(fresh):
    """One that is neither in the program nor in the history has no checksum."""
    fresh.migrations([USERS]).apply()
    with raises(MigrationError, "migration_missing", version="1.1.0"):
        fresh.migrations([USERS]).accept("1.1.0")


def test_undo_needs_a_mark(fresh):
    """Without a replicator there is no earlier state."""
    fresh.migrations(ALL).apply()
    with raises(MigrationError, "migration_not_marked", version="1.10.0"):
        fresh.migrations(ALL).undo()
    with raises(ConfigError, "not_replicated"):
        fresh.restore("somewhen")


# ------------------------------------------------------------------------------- plan

NUMBERS = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))


def made(numbers, baselines):
    text = [".".join(map(str, each)) for each in sorted(numbers)]
    return [Migration(each, "made up", f"SELECT {at}") for at, each in enumerate(text)] + [
        Migration(each, "made up", "SELECT 1", baseline=True)
        for at, each in enumerate(text)
        if at in baselines
    ]


@given(st.sets(NUMBERS, min_size=1), st.sets(st.integers(0, 10)), st.integers(0, 20))
def test_wherever_a_database_begins_it_ends_at_the_newest_version(numbers, baselines, upto):
    """A plan that stops after any of its steps, and is made again, is the rest of the plan."""
    migrations = made(numbers, baselines)
    steps = plan(migrations, ())
    assert [each.key for each in steps] == sorted({each.key for each in steps})
    assert steps[-1].key == max(numbers)
    done = [
        AppliedMigration(
            each.version,
            "",
            "baseline" if each.baseline else "incremental",
            each.checksum,
            0,
            0,
            "",
        )
        for each in steps[:upto]
    ]
    assert plan(migrations, done) == steps[upto:]
    assert ordered(reversed(migrations)) == ordered(migrations)

"""`Database`: open it, read, write, and end it."""

import sqlite3
import threading

import pytest

from replicator import SqliteReplicatorConfig
from replicator.app import Database
from replicator.errors import ConfigError, DatabaseBusy, DatabaseUnusable, ReplicatorError

NAMES = "SELECT name FROM users ORDER BY id"
ADD = "INSERT INTO users (name) VALUES (?)"


def code_of(failure):
    return failure.value.code


def fail_after(connection, name):
    """Add a user, and fail."""
    connection.execute(ADD, (name,))
    raise KeyError(name)


# ---------------------------------------------------------------------------- reading


def test_open_creates_the_file_in_wal_mode(tmp_path):
    """A path is enough; the file keeps WAL mode."""
    with Database.open(tmp_path / "new.db") as kit:
        kit.execute("CREATE TABLE t (x)")
    with sqlite3.connect(tmp_path / "new.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_file_that_sqlite_cannot_open_is_refused(tmp_path):
    """At open, not at the first query."""
    (tmp_path / "notes.txt").write_text("no database " * 100)
    with pytest.raises(DatabaseUnusable):
        Database.open(tmp_path / "notes.txt")
    with pytest.raises(ConfigError):
        Database.open(":memory:")


def test_fetch_all_one_and_value(kit):
    """The three shapes of a result, with positional and named parameters."""
    kit.execute_many(ADD, [("Ada",), ("Grace",)])
    assert kit.fetch_all(NAMES) == [("Ada",), ("Grace",)]
    assert kit.fetch_one("SELECT id, name FROM users WHERE name = :name", {"name": "Ada"}) == (
        1,
        "Ada",
    )
    assert kit.fetch_value("SELECT count(*) FROM users") == 2
    assert kit.fetch_one("SELECT id FROM users WHERE id = 7") is None
    assert kit.fetch_value("SELECT id FROM users WHERE id = 7") is None


def test_a_block_of_reads_sees_one_state(kit):
    """Commits of other threads appear after the block, not within it."""
    kit.execute(ADD, ("Ada",))
    with kit.read() as connection:
        before = connection.execute(NAMES).fetchall()
        writer = threading.Thread(target=kit.execute, args=(ADD, ("Grace",)))
        writer.start()
        writer.join()
        assert kit.fetch_all(NAMES) == connection.execute(NAMES).fetchall() == before
    assert kit.fetch_all(NAMES) == [("Ada",), ("Grace",)]


def test_a_reader_cannot_write(kit):
    """SQLite refuses it: one writer is the rule that makes locks predictable."""
    with kit.read() as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute(ADD, ("Ada",))


def test_connections_are_those_of_the_standard_library(kit):
    """SQLAlchemy, pandas and everything else that takes a connection takes these."""
    with kit.read() as reader, kit.transaction() as writer:
        assert type(reader) is type(writer) is sqlite3.Connection
    own = kit.connect()
    assert own.execute("PRAGMA query_only").fetchone() == (1,)
    own.close()


def test_a_fetch_leaves_no_read_mark(kit):
    """The WAL can be reset after it: no statement stays half read."""
    kit.execute_many(ADD, [("Ada",), ("Grace",)])
    assert kit.fetch_one(NAMES) == ("Ada",)
    with sqlite3.connect(kit.path, isolation_level=None) as other:
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    other.close()


# ---------------------------------------------------------------------------- writing


def test_execute_commits_one_statement(kit):
    """The result has the rows of RETURNING, the number of changes, and the last rowid."""
    assert kit.execute(f"{ADD} RETURNING id", ("Ada",)) == ([(1,)], 1, 1)
    assert kit.execute("UPDATE users SET name = 'Grace'").changes == 1
    assert kit.fetch_all(NAMES) == [("Grace",)]


def test_a_transaction_is_all_or_nothing(kit):
    """It commits at the end of the block; an exception rolls it back."""
    with kit.transaction() as connection:
        connection.execute(ADD, ("Ada",))
    with pytest.raises(KeyError), kit.write() as connection:
        fail_after(connection, "Grace")
    assert kit.fetch_all(NAMES) == [("Ada",)]


def test_a_transaction_reads_what_it_wrote(kit):
    """The functions of the database use the transaction of their thread."""
    with kit.transaction():
        kit.execute(ADD, ("Ada",))
        assert kit.fetch_all(NAMES) == [("Ada",)]
        with kit.read() as connection:
            assert connection.execute(NAMES).fetchall() == [("Ada",)]
        assert fetched_elsewhere(kit) == []
    assert fetched_elsewhere(kit) == [("Ada",)]


def fetched_elsewhere(kit):
    """The names as another thread reads them."""
    found = []
    thread = threading.Thread(target=lambda: found.extend(kit.fetch_all(NAMES)))
    thread.start()
    thread.join()
    return found


def test_a_block_within_a_block_is_a_savepoint(kit):
    """It can fail alone."""
    with kit.transaction() as connection:
        connection.execute(ADD, ("Ada",))
        with pytest.raises(KeyError), kit.transaction():
            fail_after(kit, "Grace")
        with kit.transaction():
            kit.execute(ADD, ("Barbara",))
    assert kit.fetch_all(NAMES) == [("Ada",), ("Barbara",)]


def test_a_statement_may_end_all_blocks(kit):
    """`ROLLBACK` as a conflict resolution ends the whole transaction; nothing is left of it."""
    kit.execute("INSERT INTO users VALUES (1, 'Ada')")

    def work(connection):
        connection.execute(ADD, ("Grace",))
        with kit.transaction():
            kit.execute("INSERT OR ROLLBACK INTO users VALUES (1, 'Barbara')")

    with pytest.raises(sqlite3.IntegrityError):
        kit.transact(work)
    assert kit.fetch_all(NAMES) == [("Ada",)]


def test_a_block_may_commit_itself(kit):
    """As `DataFrame.to_sql` of pandas does."""
    with kit.transaction() as connection:
        connection.execute(ADD, ("Ada",))
        connection.commit()
    assert kit.fetch_all(NAMES) == [("Ada",)]


def test_transact_runs_a_function_in_a_transaction(kit):
    """Its result is returned after the commit."""
    assert kit.transact(lambda connection: connection.execute(ADD, ("Ada",)).lastrowid) == 1
    assert kit.fetch_all(NAMES) == [("Ada",)]


def test_a_single_statement_cannot_leave_a_transaction_open(kit):
    """The next thread would find the writer amid it."""
    with pytest.raises(ReplicatorError) as failure:
        kit.execute("BEGIN")
    assert code_of(failure) == "transaction_left_open"
    kit.execute(ADD, ("Ada",))


def test_foreign_keys_are_enforced(kit):
    """SQLite's own default would ignore them."""
    kit.execute("CREATE TABLE notes (user REFERENCES users (id))")
    with pytest.raises(sqlite3.IntegrityError):
        kit.execute("INSERT INTO notes VALUES (7)")


def test_a_commit_that_fails_leaves_nothing(kit):
    """A deferred foreign key fails at the commit; the writer is free for the next one."""
    kit.execute("CREATE TABLE notes (user REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(sqlite3.IntegrityError), kit.transaction() as connection:
        connection.execute("INSERT INTO notes VALUES (7)")
    kit.execute(ADD, ("Ada",))
    assert kit.fetch_value("SELECT count(*) FROM notes") == 0


# ---------------------------------------------------------------------------- closing


def test_after_close_everything_is_refused(kit):
    """With the code `database_closed`; closing again does nothing."""
    kit.close()
    kit.close()
    for use in (
        lambda: kit.fetch_all(NAMES),
        lambda: kit.execute(ADD, ("Ada",)),
        lambda: kit.transaction().__enter__(),
        lambda: kit.read().__enter__(),
        kit.connect,
    ):
        with pytest.raises(ReplicatorError) as failure:
            use()
        assert code_of(failure) == "database_closed"


def test_close_waits_for_a_transaction(kit):
    """What began before is committed; what comes later is refused."""
    with kit.transaction() as connection:
        closing = threading.Thread(target=kit.close)
        closing.start()
        while not refuses(kit):
            pass
        connection.execute(ADD, ("Ada",))
    closing.join()
    with sqlite3.connect(kit.path) as other:
        assert other.execute(NAMES).fetchall() == [("Ada",)]
    other.close()


def refuses(kit):
    try:
        kit.connect().close()
    except ReplicatorError:
        return True
    return False


def test_close_interrupts_a_query_without_end(kit):
    """After the time that it waits; the query fails, and the files are closed."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"
    failures, begun = [], threading.Event()

    def query():
        with kit.read() as connection:
            begun.set()
            try:
                connection.execute(endless).fetchall()
            except sqlite3.OperationalError as error:
                failures.append(error.sqlite_errorcode)

    thread = threading.Thread(target=query)
    thread.start()
    begun.wait()
    kit.close(timeout=0.05)
    thread.join()
    assert failures == [sqlite3.SQLITE_INTERRUPT]


def test_close_names_what_is_still_used(kit):
    """A block that does not end keeps its connection; a later close succeeds."""
    with kit.read() as connection:
        with pytest.raises(DatabaseBusy) as failure:
            kit.close(timeout=0)
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert code_of(failure) == "still_used"
    kit.close()


def test_a_config_of_another_file_is_refused(tmp_path):
    """The replicator would follow one file while the application writes to the other."""
    config = SqliteReplicatorConfig(db_path=tmp_path / "a.db", url=f"file://{tmp_path}/bucket")
    with pytest.raises(ConfigError) as failure:
        Database.open(tmp_path / "b.db", config)
    assert failure.value.setting == "db_path"

"""SQLAlchemy: transactions begin with the write lock, and commits wait for the bucket."""

import contextlib
import os
import sqlite3
import threading
import warnings
from pathlib import Path

import pytest

from replicator.errors import ConfigError, NotDurable, ReplicatorError
from replicator.model import Position

pytestmark = pytest.mark.frameworks
TABLE = "CREATE TABLE IF NOT EXISTS t (x INTEGER)"


@pytest.fixture
def contrib():
    """The module under test; it needs SQLAlchemy, which `make frameworks` installs."""
    from replicator.contrib import sqlalchemy

    return sqlalchemy


@pytest.fixture
def text():
    """SQLAlchemy's SQL as text."""
    from sqlalchemy import text

    return text


@pytest.fixture
def engine(contrib, text, tmp_path):
    """An engine on a database with a table."""
    engine = contrib.replicated_engine(tmp_path / "app.db")
    with engine.begin() as connection:
        connection.execute(text(TABLE))
    yield engine
    engine.dispose()


class Waits:
    """Records each wait, with the number of rows that are committed then."""

    def __init__(self):
        self.calls, self.away, self.observe = [], False, lambda: None

    def __call__(self, database, *, timeout, cache_dir):
        with sqlite3.connect(database) as connection:
            (rows,) = connection.execute("SELECT count(*) FROM t").fetchone()
        connection.close()
        self.calls.append((database, timeout, rows))
        self.observe()
        if self.away:
            raise NotDurable("the store does not answer")
        return Position("0" * 16, rows)


@pytest.fixture
def waits():
    """Stands for the wait for the bucket."""
    return Waits()


def rows(engine, text):
    """The numbers in the table."""
    with engine.connect() as connection:
        return connection.execute(text("SELECT x FROM t ORDER BY x")).scalars().all()


# ----------------------------------------------------------------------------------- engine


def test_a_connection_has_the_pragmas(engine):
    """Each one of the default; WAL is what makes a database replicable."""
    with engine.connect() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
    assert values == {
        "journal_mode": "wal",
        "synchronous": 1,
        "busy_timeout": 20_000,
        "foreign_keys": 1,
    }


def test_a_transaction_has_the_write_lock_before_its_first_write(engine, text, tmp_path):
    """From its first statement on, even if that only reads."""
    other = sqlite3.connect(tmp_path / "app.db", timeout=0, isolation_level=None)
    with engine.connect() as connection:
        connection.execute(text("SELECT * FROM t"))
        with pytest.raises(sqlite3.OperationalError):
            other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()


def test_read_and_write_of_many_threads_never_fail(engine, text):
    """Each thread reads a number and writes the next; a deferred transaction fails here."""
    from sqlalchemy.exc import OperationalError

    failures = []
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (0)"))

    def count():
        try:
            for _ in range(20):
                with engine.begin() as connection:
                    number = connection.execute(text("SELECT max(x) FROM t")).scalar()
                    connection.execute(text("INSERT INTO t VALUES (:x)"), {"x": number + 1})
        except OperationalError as error:
            failures.append(error)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert rows(engine, text) == list(range(81))


def test_readers_do_not_wait_for_a_writer(engine, contrib, text):
    """`reading` begins without a lock, and sees the state before."""
    with engine.begin() as writer:
        writer.execute(text("INSERT INTO t VALUES (1)"))
        assert rows(contrib.reading(engine), text) == []
    assert rows(contrib.reading(engine), text) == [1]


def test_a_schema_change_is_rolled_back(engine, text):
    """Transactions include DDL; the driver's own transactions do not."""
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE other (x)"))
        connection.rollback()
        names = connection.execute(text("SELECT name FROM sqlite_schema")).scalars().all()
    assert names == ["t"]


def test_a_savepoint_is_rolled_back_alone(engine, text):
    """The driver's own transactions lose savepoints."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        with connection.begin_nested() as savepoint:
            connection.execute(text("INSERT INTO t VALUES (2)"))
            savepoint.rollback()
    assert rows(engine, text) == [1]


def test_autocommit_of_a_connection_works_and_ends(engine, text, tmp_path):
    """VACUUM needs it; the connection that returns to the pool begins as before."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM"))
    other = sqlite3.connect(tmp_path / "app.db", timeout=0, isolation_level=None)
    with engine.connect() as connection:
        connection.execute(text("SELECT * FROM t"))
        with pytest.raises(sqlite3.OperationalError):
            other.execute("BEGIN IMMEDIATE")
        assert connection.connection.dbapi_connection.isolation_level is None
    other.close()


class ModernConnection(sqlite3.Connection):
    """A connection of Python 3.12 with `autocommit=False`."""

    autocommit = False


def test_a_driver_that_begins_transactions_is_refused(contrib, tmp_path):
    """Its transactions are DEFERRED, and with `autocommit=True` a commit would do nothing."""
    engine = contrib.replicated_engine(
        tmp_path / "app.db", connect_args={"factory": ModernConnection}
    )
    with pytest.raises(ConfigError) as caught:
        engine.connect()
    assert caught.value.setting == "autocommit"


@pytest.mark.parametrize("begin", ["immediate; DROP TABLE t", "CONCURRENT"])
def test_another_begin_is_refused(contrib, engine, begin, tmp_path):
    """At the engine, and as an option of a connection."""
    with pytest.raises(ConfigError):
        contrib.replicated_engine(tmp_path / "app.db", begin=begin)
    options = {contrib.OPTION: begin}
    with engine.connect() as connection, pytest.raises(ConfigError):
        connection.execution_options(**options).exec_driver_sql("SELECT 1")


def test_a_database_in_memory_is_refused(contrib):
    """It cannot be replicated."""
    with pytest.raises(ConfigError):
        contrib.replicated_engine(":memory:")


def forked(function):
    """The result of a function in a forked child: 0 for True, 1 for False, 2 for an exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:  # pragma: no cover - the child
        with contextlib.suppress(BaseException):
            os._exit(0 if function() else 1)
        os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def descriptors(path):
    """The open files of this process that belong to a database."""
    links = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return [link for link in map(os.readlink, links) if link.startswith(str(path))]


def test_no_connection_crosses_a_fork(engine, text, tmp_path):
    """The child has none of the parent's files open, and both work on."""

    def child():
        inherited = descriptors(tmp_path / "app.db")
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO t VALUES (2)"))
        return not inherited

    with engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
    assert descriptors(tmp_path / "app.db")
    assert forked(child) == 0
    assert rows(engine, text) == [1, 2]


def test_the_child_of_a_fork_amid_a_transaction_cannot_connect(engine, text):
    """SQLite in the child believes that it has the locks of the parent."""

    def child():
        with pytest.raises(ReplicatorError) as caught:
            engine.connect()
        return caught.value.code == "forked"

    with engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        assert forked(child) == 0
    assert rows(engine, text) == [1]


# --------------------------------------------------------------------------- durable commits


def test_a_durable_commit_waits_after_the_commit(engine, contrib, text, waits, tmp_path):
    """The wait finds the row that the session wrote."""
    from sqlalchemy.orm import Session

    with Session(engine) as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
        position = contrib.durable_commit(session, 1.5, wait=waits)
    assert waits.calls == [(str(tmp_path / "app.db"), 1.5, 1)]
    assert position.txid == 1
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO t VALUES (2)"))
        assert contrib.durable_commit(connection, wait=waits).txid == 2


def test_a_session_can_be_used_after_a_commit_that_is_not_durable(engine, contrib, text, waits):
    """It is committed; the next transaction works."""
    from sqlalchemy.orm import Session

    waits.away = True
    with Session(engine) as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
        with pytest.raises(NotDurable):
            contrib.durable_commit(session, wait=waits)
        assert session.execute(text("SELECT x FROM t")).scalars().all() == [1]


def test_a_session_without_an_engine_is_refused_before_its_commit(contrib):
    """Its databases are unknown; nothing is committed that might seem durable."""
    from sqlalchemy.orm import Session

    with Session() as session, pytest.raises(ConfigError):
        contrib.durable_commit(session)


@pytest.fixture
def sessions(engine, contrib, waits):
    """A maker of sessions whose every commit is durable."""
    from sqlalchemy.orm import sessionmaker

    made = sessionmaker(engine)
    contrib.make_durable(made, 1.5, wait=waits)
    return made


def test_every_commit_of_a_maker_waits_once(sessions, waits, text, engine):
    """Of `commit()` and of `with begin()`; not a savepoint, not a rollback, not a close."""
    with sessions() as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
        with session.begin_nested():
            session.execute(text("INSERT INTO t VALUES (2)"))
        assert waits.calls == []
        session.commit()
        assert [rows for _, _, rows in waits.calls] == [2]
        session.execute(text("INSERT INTO t VALUES (3)"))
        session.rollback()
        session.execute(text("SELECT 1"))
    with sessions.begin() as session:
        session.execute(text("INSERT INTO t VALUES (4)"))
    assert [rows for _, _, rows in waits.calls] == [2, 3]


def test_the_wait_holds_no_connection(sessions, waits, text, engine):
    """They are back in the pool: a thousand waiters need no thousand connections."""
    held = []
    waits.observe = lambda: held.append(engine.pool.checkedout())
    with sessions() as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
        session.commit()
    assert held == [0]


def test_a_session_of_a_maker_can_be_used_after_an_error(sessions, waits, text):
    """Also after `with begin()`, which does not roll back what is committed."""
    waits.away = True
    with sessions() as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
        with pytest.raises(NotDurable):
            session.commit()
        waits.away = False
        assert session.execute(text("SELECT x FROM t")).scalars().all() == [1]
        session.execute(text("INSERT INTO t VALUES (2)"))
        session.commit()
    waits.away = True
    with pytest.raises(NotDurable), sessions.begin() as session:
        session.execute(text("INSERT INTO t VALUES (3)"))
    waits.away = False
    with sessions() as session:
        assert session.execute(text("SELECT count(*) FROM t")).scalar() == 3

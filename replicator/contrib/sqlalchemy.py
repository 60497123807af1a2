"""SQLAlchemy: an engine whose transactions begin with the write lock, and durable commits.

    engine = replicated_engine("shop.db")
    with Session(engine) as session:
        session.add(order)
        durable_commit(session)                    # returns once the bucket has it

Owns: the transactions and the pragmas of an engine, and the wait after a commit. Refuses: a driver
that begins transactions on its own, and a connection that crosses a fork.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import sqlalchemy
from sqlalchemy import event

from replicator import Position, SqliteReplicatorConfig
from replicator.app.durable import wait_durable
from replicator.app.forks import register
from replicator.errors import ConfigError, ReplicatorError

__all__ = [
    "PRAGMAS",
    "durable_commit",
    "make_durable",
    "prepare_engine",
    "reading",
    "replicated_engine",
]

Begin: TypeAlias = Literal["DEFERRED", "IMMEDIATE", "EXCLUSIVE"]
Wait: TypeAlias = Callable[..., Position]
BEGINS = ("DEFERRED", "IMMEDIATE", "EXCLUSIVE")
OPTION = "sqlite_begin"  # execution option of a connection or an engine: one of BEGINS
LEGACY = getattr(sqlite3, "LEGACY_TRANSACTION_CONTROL", -1)  # from Python 3.12 on
PRAGMAS: Mapping[str, str | int] = {
    "journal_mode": "WAL",
    "synchronous": "NORMAL",
    "busy_timeout": 20_000,  # ms
    "foreign_keys": "ON",
}
"""The pragmas of each connection of an engine, by default."""
_DATABASES, _COMMITTED = "replicator_databases", "replicator_committed"  # keys of Session.info
_inherited: list[Any] = []  # the child closes no connection of its parent


# --------------------------------------------------------------------------------- engines


def replicated_engine(
    database: str | os.PathLike[str],
    *,
    begin: Begin = "IMMEDIATE",
    pragmas: Mapping[str, str | int] = PRAGMAS,
    **options: Any,
) -> Any:
    """An engine for the database file; see :func:`prepare_engine`. ``options`` are those of
    ``sqlalchemy.create_engine``. ``ConfigError`` for a database in memory."""
    path = SqliteReplicatorConfig(db_path=database, url="file:///").source
    url = sqlalchemy.URL.create("sqlite+pysqlite", database=str(path))
    return prepare_engine(sqlalchemy.create_engine(url, **options), begin=begin, pragmas=pragmas)


def prepare_engine(
    engine: Any, *, begin: Begin = "IMMEDIATE", pragmas: Mapping[str, str | int] = PRAGMAS
) -> Any:
    """Makes each transaction of an engine begin with ``BEGIN IMMEDIATE``, and each connection with
    ``pragmas``; returns the engine.

    A transaction that begins ``DEFERRED``, reads and then writes fails at once with "database is
    locked" if another one wrote in between: no timeout helps. Transactions that only read get
    ``DEFERRED`` from :func:`reading`. Before a fork idle connections are closed; the child of a
    fork amid a transaction cannot connect (code ``forked``). ``ConfigError`` for another ``begin``,
    and at the first connection for one with ``autocommit``.
    """
    _EngineConnections(getattr(engine, "sync_engine", engine), _known(begin), pragmas).listen()
    return engine


def reading(engine: Any) -> Any:
    """The same engine, with the same pool, for transactions that only read: they take no lock that
    another transaction waits for."""
    return engine.execution_options(**{OPTION: "DEFERRED"})


class _EngineConnections:
    """Prepares the connections and the transactions of one engine, and closes them for forks."""

    def __init__(self, engine: Any, begin: str, pragmas: Mapping[str, str | int]) -> None:
        self._engine = weakref.ref(engine)
        self._begin, self._pragmas = begin, pragmas
        self._lock = threading.Lock()  # no connection is made during a fork
        self._busy = self._refused = False

    def listen(self) -> None:
        """The listeners keep this object alive as long as the engine."""
        engine = self._engine()
        event.listen(engine, "do_connect", self.connect)
        event.listen(engine, "connect", self.connected)
        event.listen(engine, "begin", self.begun)
        register(self)

    def connect(self, dialect: Any, _record: object, arguments: Any, options: Any) -> Any:
        with self._lock:
            if self._refused:
                raise ReplicatorError(
                    "the engine was in use when this process was forked",
                    hint="fork before the first transaction, or spawn the process",
                    code="forked",
                )
            return dialect.connect(*arguments, **options)

    def connected(self, connection: Any, _record: object) -> None:
        _take_over(connection)
        cursor = connection.cursor()
        for name, value in self._pragmas.items():
            cursor.execute(f"PRAGMA {name} = {value}")
        cursor.close()

    def begun(self, connection: Any) -> None:
        options = connection.get_execution_options()
        if options.get("isolation_level") != "AUTOCOMMIT":
            _take_over(connection.connection.dbapi_connection)  # after AUTOCOMMIT it is undone
            connection.exec_driver_sql(f"BEGIN {_known(options.get(OPTION, self._begin))}")

    def before_fork(self) -> None:
        self._lock.acquire()
        engine = self._engine()
        if engine is not None:
            pool = engine.pool
            self._busy = bool(getattr(pool, "checkedout", int)())
            engine.dispose()
            _inherited[:] = [pool] if self._busy else []

    def after_fork(self, *, child: bool) -> None:
        self._refused |= child and self._busy
        self._lock.release()


def _known(begin: str) -> str:
    if begin not in BEGINS:
        raise ConfigError(f"begin: {begin!r} is none of {', '.join(BEGINS)}", setting="begin")
    return begin


def _take_over(connection: Any) -> None:
    """The driver begins no transaction; its commit() and rollback() end ours."""
    if getattr(connection, "autocommit", LEGACY) != LEGACY:
        raise ConfigError(
            "the connection has autocommit set, so the driver begins each transaction as DEFERRED",
            setting="autocommit",
            hint="remove autocommit from connect_args; the engine commits as before",
        )
    if connection.isolation_level is not None:
        connection.isolation_level = None


# ------------------------------------------------------------------------- durable commits


def durable_commit(
    session: Any,
    timeout: float = 2.0,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    wait: Wait = wait_durable,
) -> Position:
    """Commits a session or a connection, and returns once the bucket has it: a durable position.

    ``timeout`` is in seconds; ``cache_dir`` is that of the sidecar if it is not the default.
    ``NotDurable`` once the time is over: the session is committed then and can be used, and the
    transaction must not be repeated. ``NotRunning`` without a sidecar. ``ConfigError``, before the
    commit, for a session without a single engine; :func:`make_durable` serves those.
    """
    engine = getattr(session, "engine", None) or getattr(session, "bind", None)
    if engine is None:
        raise ConfigError(
            "the session has no engine of its own",
            setting="session",
            hint="use make_durable(), which knows each database of a session",
        )
    database = _database_of(engine)
    session.commit()
    return wait(database, timeout=timeout, cache_dir=cache_dir)


def make_durable(
    sessions: Any,
    timeout: float = 2.0,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    wait: Wait = wait_durable,
) -> None:
    """Makes every commit of a ``sessionmaker``, a session class or a session durable, also at the
    end of ``with Session.begin()``.

    Raises from the commit as :func:`durable_commit`. The wait comes after the connections are back
    in the pool, so it holds none, and the session can be used after an error. A savepoint does not
    wait. A session of asyncio would block its event loop.
    """

    def noted(session: Any, _transaction: object, connection: Any) -> None:
        session.info.setdefault(_DATABASES, set()).add(_database_of(connection.engine))

    def committed(session: Any) -> None:
        if not session.in_nested_transaction():
            session.info[_COMMITTED] = True

    def ended(session: Any, transaction: Any) -> None:
        if transaction.parent is not None or transaction.nested:
            return
        databases = session.info.pop(_DATABASES, set())
        if session.info.pop(_COMMITTED, False):
            for database in sorted(databases):
                wait(database, timeout=timeout, cache_dir=cache_dir)

    event.listen(sessions, "after_begin", noted)
    event.listen(sessions, "after_commit", committed)
    event.listen(sessions, "after_transaction_end", ended)


def _database_of(engine: Any) -> str:
    """The path of the database of an engine; ``ConfigError`` if it has none."""
    name = engine.url.database
    return str(SqliteReplicatorConfig(db_path=name or ":memory:", url="file:///").database)

"""pytest: a replicated database and a bucket in a directory, for the tests of applications.

    def test_an_order_is_in_the_bucket(replicated_database):
        add_order(replicated_database.path)
        replicated_database.assert_restorable()

Owns: three fixtures, each of which starts nothing before a test asks for it. Refuses: hooks, and
imports that slow down test runs without these fixtures.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import sqlite3

    from replicator import Position, SqliteReplicator

__all__ = [
    "ReplicaBucket",
    "ReplicatedDatabase",
    "replica_bucket",
    "replicate_database",
    "replicated_database",
]

PATIENCE = 60.0  # seconds for a flush into a directory, on a machine that is busy with tests


@pytest.fixture
def replica_bucket(tmp_path: Path) -> ReplicaBucket:
    """A bucket in a directory: ``.url`` for a config, ``.path``, and ``with .away():``."""
    return ReplicaBucket(tmp_path / "replica-bucket")


@pytest.fixture
def replicate_database(
    replica_bucket: ReplicaBucket,
) -> Iterator[Callable[..., ReplicatedDatabase]]:
    """``replicate_database(path, **settings)``: replicates a database into `replica_bucket` until
    the end of the test. The file may come later. Returns a `ReplicatedDatabase`."""
    with contextlib.ExitStack() as stack:
        yield lambda path, **settings: ReplicatedDatabase(path, replica_bucket, stack, settings)


@pytest.fixture
def replicated_database(
    tmp_path: Path, replicate_database: Callable[..., ReplicatedDatabase]
) -> ReplicatedDatabase:
    """A database that is replicated into `replica_bucket`: ``.path``, ``.connect()``, ``.flush()``,
    ``.restore()`` and ``.assert_restorable()``. It has no table yet."""
    return replicate_database(tmp_path / "replicated.db")


class ReplicaBucket:
    """A store in the directory ``path``; ``url`` is its address for a config."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path, self.url = path, path.as_uri()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """The store does not answer during the block."""
        hidden = self.path.with_name(f"{self.path.name}-away")
        self.path.rename(hidden)
        try:
            yield
        finally:
            hidden.rename(self.path)


class ReplicatedDatabase:
    """A database with its replicator. ``settings`` are those of ``SqliteReplicatorConfig``."""

    def __init__(
        self,
        path: str | Path,
        bucket: ReplicaBucket,
        stack: contextlib.ExitStack,
        settings: dict[str, Any],
    ) -> None:
        from replicator import SqliteReplicator, SqliteReplicatorConfig

        self.path, self.bucket, self._stack = Path(path), bucket, stack
        self.config = SqliteReplicatorConfig(db_path=path, url=bucket.url, **settings)
        self.replicator: SqliteReplicator = SqliteReplicator(self.config)
        self.replicator.start()
        stack.callback(self.replicator.stop)
        self._copies = 0

    def connect(self, **options: Any) -> sqlite3.Connection:
        """A connection in WAL mode; the end of the test closes it. ``options`` are those of
        ``sqlite3.connect``."""
        import sqlite3

        connection = sqlite3.connect(self.path, **options)
        self._stack.callback(connection.close)
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        return connection

    def flush(self, timeout: float = PATIENCE) -> Position:
        """Waits until everything that was committed is in the bucket, ``timeout`` seconds at most;
        ``NotDurable`` after that."""
        return self.replicator.flush(timeout)

    def restore(self, **options: Any) -> Path:
        """The path of a copy that is restored from the bucket alone. ``options`` are those of
        :func:`replicator.restore`, for example ``txid=7`` or ``at="before-the-migration"``."""
        from replicator import restore

        self._copies += 1
        copy = self.bucket.path.with_name(f"{self.path.name}-copy-{self._copies}")
        report = restore(address=self.config.address, output=copy, **options)
        assert report is not None, f"no backup of {self.path} is in the bucket"
        return copy

    def assert_restorable(self) -> Path:
        """Fails unless a restore from the bucket has the content of the database, which must have
        no writer now; the path of the copy."""
        copy = self.restore(txid=self.flush().txid)
        found = difference(self.path, copy)
        assert found is None, f"the restored copy of {self.path} differs: {found}"
        return copy


def difference(database: Path, copy: Path) -> str | None:
    """The first difference of the schema or the rows of two databases; None without one."""
    with contextlib.ExitStack() as stack:
        dumps = [stack.enter_context(_dump(path)) for path in (database, copy)]
        for ours, theirs in zip_longest(*dumps):
            if ours != theirs:
                return f"{ours!r} became {theirs!r}"
    return None


@contextlib.contextmanager
def _dump(path: Path) -> Iterator[Iterator[str]]:
    """The SQL of a database, statement by statement."""
    import sqlite3

    with contextlib.closing(sqlite3.connect(path)) as connection:
        yield connection.iterdump()

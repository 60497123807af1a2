"""Durable commits: a commit returns once the bucket has it.

    with replicator.durable(connection, timeout=2.0) as commit:
        connection.execute("INSERT INTO orders ...")
    commit.position                       # it survives the loss of this machine

Owns: the transaction of the block, and the wait for the sidecar's confirmation. Refuses: to return
before the confirmation unless the caller asked for that (``degrade``), and to repeat a transaction.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from replicator.app.place import DatabasePlace, Named, place_of
from replicator.app.transaction import transaction
from replicator.app.waiters import registry
from replicator.errors import ConfigError, ReplicatorError
from replicator.model import Position

OnFailure: TypeAlias = Literal["raise", "degrade"]
LOCAL = "the transaction is committed on this machine and will be sent; do not repeat it"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class DurableCommit:
    """The outcome of a block, known after its end."""

    position: Position | None = None
    """A durable state of the archive that contains the transaction, None before or without it."""
    durable: bool = False
    """True once the transaction survives the loss of the machine."""
    error: ReplicatorError | None = None
    """With ``degrade``: why it is not durable."""


OnDegraded: TypeAlias = Callable[[DurableCommit], object]


@contextlib.contextmanager
def durable(
    connection: sqlite3.Connection,
    timeout: float | None = 2.0,
    on_failure: OnFailure = "raise",
    *,
    on_degraded: OnDegraded | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Iterator[DurableCommit]:
    """The block is one transaction, and its end returns once the bucket has it.

    The block begins with ``BEGIN IMMEDIATE`` unless a transaction is open, which it then takes
    over. Its end commits and waits for ``timeout`` seconds at most, without a limit if None; an
    exception rolls back. ``cache_dir`` is that of the sidecar if it is not found otherwise.

    Before the block: ``ConfigError`` for a database in memory or another ``on_failure``,
    ``NotRunning`` if no sidecar runs. After the commit, with ``raise``: ``NotDurable`` once the
    time is over, or the error that stopped the sidecar; the transaction is committed on this
    machine then, and must not be repeated. With ``degrade`` that error is in ``commit.error``, a
    warning is logged, and ``on_degraded`` receives the commit.

    >>> with SqliteReplicator(config):
    ...     with durable(connection, timeout=30) as commit:
    ...         cursor = connection.execute("INSERT INTO t VALUES (1)")
    ...     commit.durable
    True
    """
    waiting = Waiting(place_of(connection, cache_dir), timeout, on_failure, on_degraded)
    with transaction(connection, waiting.place.database):
        yield waiting.commit
    waiting.wait()


def wait_durable(
    named: Named,
    position: Position | None = None,
    timeout: float | None = 2.0,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Position:
    """Return once everything committed before the call is in the bucket: a durable position.

    ``named`` is a connection or the path of its database. ``timeout`` is in seconds, None for no
    limit. With a ``position`` of the same archive, that state is durable too. ``NotDurable`` once
    the time is over: the commits are on this machine and will be sent, so they must not be
    repeated. ``NotRunning`` without a sidecar, ``Fenced`` if another writer owns the archive,
    ``ConfigError`` for a database in memory or a sidecar of another database.
    """
    waiters = registry.of(place_of(named, cache_dir))
    found = waiters.add(timeout).wait(waiters.times.grace)
    require_contained(position, found)
    return found


def require_contained(position: Position | None, found: Position) -> None:
    """``ConfigError`` if a position is later than everything that is committed now."""
    if position is not None and position.txid > found.txid:
        raise ConfigError(
            f"transaction {position.txid} is not of this archive, which ends at {found.txid}",
            setting="position",
            code="unknown_position",
        )


class Waiting:
    """The wait after the commit of one block."""

    def __init__(
        self,
        place: DatabasePlace,
        timeout: float | None,
        on_failure: OnFailure,
        on_degraded: OnDegraded | None,
    ) -> None:
        if on_failure not in ("raise", "degrade"):
            raise ConfigError(
                f"on_failure: {on_failure!r} is neither raise nor degrade", setting="on_failure"
            )
        self.place = place
        self.commit = DurableCommit()
        self._timeout = timeout
        self._degrade = on_failure == "degrade"
        self._on_degraded = on_degraded
        if not self._degrade:
            registry.of(place).require()

    def wait(self) -> None:
        waiters = registry.of(self.place)
        try:
            self.succeed(waiters.add(self._timeout).wait(waiters.times.grace))
        except ReplicatorError as error:
            self.fail(error)

    def succeed(self, position: Position) -> None:
        self.commit.position, self.commit.durable = position, True

    def fail(self, error: ReplicatorError) -> None:
        """Raise the error, or degrade."""
        if not self._degrade:
            error.add_note(LOCAL)
            raise error
        self.commit.error = error
        log.warning("a commit to %s is not durable yet: %s", self.place.database, error)
        if self._on_degraded is not None:
            self._on_degraded(self.commit)

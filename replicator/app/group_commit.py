"""Several writes in one transaction, each of which fails or succeeds alone.

Statements run without savepoints first: that is fastest, and if one fails, all are undone and run
again with a savepoint for each. A function has a savepoint at once, so that it runs once, unless
another write rolls back the whole transaction, or the commit itself fails. Then each write that
was undone runs again, alone if need be.

Owns the transaction and the outcome of each write. Refuses to resolve futures: they are of its
caller.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from replicator.app.blocks import begin, commit
from replicator.app.lifecycle import Lifecycle
from replicator.app.retry import Retries

# A row in a temporary table survives a commit, and no roll back.
MAKE_PROBE = "CREATE TEMP TABLE IF NOT EXISTS replicator_probe (x)"
CLEAR_PROBE = "DELETE FROM temp.replicator_probe"
SET_PROBE = "INSERT INTO temp.replicator_probe VALUES (1)"
READ_PROBE = "SELECT count(*) FROM temp.replicator_probe"


@dataclass(slots=True, eq=False)
class GroupedWrite:
    """One write, and its outcome once :func:`commit_group` returned. A ``statement`` may run
    twice without harm."""

    work: Callable[[sqlite3.Connection], Any]
    text: str
    statement: bool = False
    result: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class GroupCommit:
    """Commits groups on ``connection``, outside of other transactions."""

    connection: sqlite3.Connection
    lifecycle: Lifecycle
    retries: Retries

    def commit(self, writes: Sequence[GroupedWrite]) -> int:
        """Make all writes; the number of transactions that this took. An error of one write is its
        outcome; an error of ``BEGIN`` is raised."""
        left, transactions = list(writes), 0
        if all(each.statement for each in left) and not self.lifecycle.hooks:
            left, transactions = self._at_once(left), 1
        while left:
            left, transactions = self._guarded(left), transactions + 1
        return transactions

    def _begin(self) -> None:
        """Begin, with a row in a temporary table that shows whether it was committed."""
        self.connection.execute(MAKE_PROBE)
        self.connection.execute(CLEAR_PROBE)
        begin(self.connection, self.retries, self.lifecycle.repeated)
        self.connection.execute(SET_PROBE)

    def _was_committed(self) -> bool:
        """True if the write that ended the transaction committed it."""
        (rows,) = self.connection.execute(READ_PROBE).fetchone()
        return bool(rows)

    def _at_once(self, writes: list[GroupedWrite]) -> list[GroupedWrite]:
        """All in one transaction without savepoints; those that are not made yet after it: all of
        them if one failed."""
        self._begin()
        try:
            for at, each in enumerate(writes):
                each.result = each.work(self.connection)
                if not self.connection.in_transaction:
                    return writes[at + 1 :] if self._was_committed() else writes
            self.connection.commit()
        except Exception:  # noqa: BLE001 - it is raised again when they run one by one
            self.connection.rollback()
            return writes
        for _ in writes:
            self.lifecycle.tallies["queued"].add(0.0, failed=False)
        return []

    def _guarded(self, writes: list[GroupedWrite]) -> list[GroupedWrite]:
        """One transaction with a savepoint for each; those that are not made yet after it, because
        one of them ended the transaction."""
        self._begin()
        kept: list[GroupedWrite] = []  # done in the transaction that is open
        for at, each in enumerate(writes):
            self._run(each)
            if not self.connection.in_transaction:
                return ([] if self._was_committed() else kept) + writes[at + 1 :]
            if each.error is None:
                kept.append(each)
        self._end(kept)
        return []

    def _run(self, each: GroupedWrite) -> None:
        each.error = None
        self.connection.execute("SAVEPOINT write_of_group")
        try:
            with self.lifecycle.running("queued", each.text):
                each.result = each.work(self.connection)
        except BaseException as error:  # noqa: BLE001 - it is the outcome of the write
            each.error = error
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK TO write_of_group")
        if self.connection.in_transaction:
            self.connection.execute("RELEASE write_of_group")

    def _end(self, kept: list[GroupedWrite]) -> None:
        """Commit; if that fails, as for a deferred foreign key, each write alone."""
        try:
            commit(self.connection, self.retries, self.lifecycle.repeated)
        except sqlite3.Error as error:
            for each in kept:
                if len(kept) == 1:
                    each.error = error
                else:
                    self._guarded([each])

"""Runs each operation of a database between its hooks, and counts it.

Owns the order: hooks in the order given before the work, in reverse order after it. Refuses to know
any operation.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, get_args

from replicator.app.hooks import Operation, OperationHook, OperationKind, OperationOutcome
from replicator.app.statistics import OperationCount, Tally

log = logging.getLogger(__name__)


class Lifecycle:
    """Of one database. ``running()`` is a context that surrounds one operation."""

    def __init__(self, hooks: Sequence[OperationHook] = ()) -> None:
        self.hooks = tuple(hooks)
        self.tallies = {kind: Tally() for kind in get_args(OperationKind)}
        self._retries = itertools.count()
        self._retried = 0

    def running(self, kind: OperationKind, text: str) -> RunningOperation:
        return RunningOperation(self, kind, text)

    def repeated(self) -> None:
        """An operation is tried again because the database was busy."""
        self._retried = next(self._retries) + 1

    @property
    def busy_retries(self) -> int:
        return self._retried

    def counts(self) -> dict[str, OperationCount]:
        """Of every kind of operation that was used."""
        found = {kind: tally.picture() for kind, tally in self.tallies.items()}
        return {kind: count for kind, count in found.items() if count.count}


class RunningOperation:
    """The context of one operation. The hooks may refuse it when it is entered."""

    __slots__ = ("_began", "_lifecycle", "_operation", "_permitted", "_tally")

    def __init__(self, lifecycle: Lifecycle, kind: OperationKind, text: str) -> None:
        self._lifecycle = lifecycle
        self._tally = lifecycle.tallies[kind]
        self._operation: Operation | None = None
        if lifecycle.hooks:
            self._operation = Operation(kind, text)
            self._permitted: list[OperationHook] = []

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        if self._operation is not None:
            try:
                for hook in self._lifecycle.hooks:
                    hook.before(self._operation)
                    self._permitted.append(hook)
            except BaseException as error:
                self._end(error)
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        seconds = time.perf_counter() - self._began
        self._tally.add(seconds, error is not None)
        if self._operation is None:
            return
        outcome = OperationOutcome(seconds, error)
        for hook in reversed(self._permitted):
            try:
                hook.after(self._operation, outcome)
            except Exception:
                log.exception("a hook failed after %s", self._operation.text)

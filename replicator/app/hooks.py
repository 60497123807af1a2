"""One lifecycle of operations, and the hooks that observe it or veto.

    allowed?   before(operation)            a hook that raises refuses the operation
    work
    finished   after(operation, outcome)    also when it failed or was refused later

Owns the values that a hook receives, and hooks for logging, slow operations and a read-only mode.
Refuses that a failure in ``after`` disturbs the operation: it goes to the log.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Literal

from replicator.errors import RefusedError

OperationKind = Literal[
    "read", "write", "transaction", "queued", "migration", "undo", "backup", "check", "maintenance"
]
WRITES: frozenset[OperationKind] = frozenset(
    {"write", "transaction", "queued", "migration", "undo", "maintenance"}
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Operation:
    """One use of the database. ``text`` is its SQL or its name."""

    kind: OperationKind
    text: str

    @property
    def writes(self) -> bool:
        """True if it may change the database."""
        return self.kind in WRITES


@dataclass(frozen=True, slots=True)
class OperationOutcome:
    """The end of an operation. ``seconds`` includes the wait for a connection."""

    seconds: float
    error: BaseException | None = None


class OperationHook:
    """Base of hooks; both methods may be called from any thread, and at the same time."""

    def before(self, operation: Operation) -> None:
        """Raise an error, for example ``RefusedError``, to refuse the operation. Nothing was done
        for it yet."""

    def after(self, operation: Operation, outcome: OperationOutcome) -> None:
        """The operation ended; called only if :meth:`before` of this hook permitted it."""


class LogOperations(OperationHook):
    """Writes a line to the log for each operation; failures are warnings."""

    def __init__(self, logger: logging.Logger = log, level: int = logging.DEBUG) -> None:
        self._log = logger
        self._level = level

    def after(self, operation: Operation, outcome: OperationOutcome) -> None:
        failed = outcome.error is not None
        self._log.log(
            logging.WARNING if failed else self._level,
            "%s in %.1f ms%s: %s",
            operation.kind,
            1000 * outcome.seconds,
            f" failed ({outcome.error})" if failed else "",
            operation.text,
        )


class SlowOperations(OperationHook):
    """Keeps the newest operations that took at least ``threshold`` seconds, and logs each."""

    def __init__(self, threshold: float = 0.1, kept: int = 100) -> None:
        self.threshold = threshold
        self._recent: deque[tuple[Operation, OperationOutcome]] = deque(maxlen=kept)

    def after(self, operation: Operation, outcome: OperationOutcome) -> None:
        if outcome.seconds >= self.threshold:
            self._recent.append((operation, outcome))
            log.warning(
                "slow %s, %.0f ms: %s", operation.kind, 1000 * outcome.seconds, operation.text
            )

    @property
    def recent(self) -> list[tuple[Operation, OperationOutcome]]:
        """The newest last."""
        return list(self._recent)


class RefuseWrites(OperationHook):
    """A policy: while ``active``, every operation that may write is refused (code ``policy``)."""

    def __init__(self, reason: str, *, active: bool = True) -> None:
        self.reason = reason
        self.active = active

    def before(self, operation: Operation) -> None:
        if self.active and operation.writes:
            raise RefusedError(
                f"a {operation.kind} is refused: {self.reason}",
                code="policy",
                hint="the policy of the application permits reads only for now",
            )

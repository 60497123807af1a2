"""The ends of a process that has handles, and its forks.

Owns: the started handles of this process. At the end of the program each of them flushes, so that a
forgotten ``stop()`` loses nothing; in a forked child each begins anew. Refuses: to keep a handle
that was stopped.
"""

from __future__ import annotations

import atexit
import os
from typing import Protocol

from replicator.config.settings import SqliteReplicatorConfig
from replicator.model import Position


class Started(Protocol):
    """A handle, as this module and the ones that look for it see it."""

    config: SqliteReplicatorConfig

    def flush(self, timeout: float | None = None) -> Position: ...

    def at_exit(self) -> None: ...

    def after_fork(self) -> None: ...


_started: set[Started] = set()  # without it, a forgotten handle would give up its lease


def add(handle: Started) -> None:
    _started.add(handle)


def discard(handle: Started) -> None:
    _started.discard(handle)


def started() -> tuple[Started, ...]:
    """The handles that this process, or the one that forked it, started and did not stop."""
    return tuple(_started)


def _at_exit() -> None:
    for handle in tuple(_started):
        handle.at_exit()


def _after_fork() -> None:
    for handle in tuple(_started):
        handle.after_fork()


# As early as possible: handlers of exit that are registered later run before, and may commit.
atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)

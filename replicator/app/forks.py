"""Forks: no connection of SQLite crosses one.

A forked child inherits SQLite's memory of locks, but not the locks, which belong to the process.
Its connections would then read without protection, and a new connection to the same file would too.
So each open database is closed before a fork, if it is at rest, and parent and child open it again
on their next use. The child of a fork amid an operation is refused instead.

Source: SQLite documentation, "How To Corrupt An SQLite Database File", 2.6. Owns the hooks of
:func:`os.register_at_fork`. Refuses nothing itself.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class CrossesForks(Protocol):
    """An object with connections."""

    def before_fork(self) -> None:
        """Close what is at rest, and hold it so."""

    def after_fork(self, *, child: bool) -> None:
        """Release it again, in both processes."""


_registered: weakref.WeakSet[CrossesForks] = weakref.WeakSet()
_held: list[CrossesForks] = []  # from before a fork until after it
_lock = threading.Lock()


def register(each: CrossesForks) -> None:
    with _lock:
        _registered.add(each)


def _before() -> None:
    _lock.acquire()
    _held.extend(_registered)
    for each in _held:
        each.before_fork()


def _after(*, child: bool) -> None:
    for each in _held:
        each.after_fork(child=child)
    _held.clear()
    _lock.release()


os.register_at_fork(
    before=_before,
    after_in_parent=lambda: _after(child=False),
    after_in_child=lambda: _after(child=True),
)

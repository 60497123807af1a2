"""The sign that an application has the database open under another name.

SQLite names the WAL after the database. Under another name (a hard link, or a mount of the single
file into the application's container) the WAL is another file, so its commits are not seen here.
But the locks on the database itself are those of the file: another process has it open, and none
has the WAL index that belongs to this name.

Owns: the difference between that and a process that is just opening or closing the database, which
looks the same for an instant. Refuses: to see an application that shares its process with one of
this name.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from replicator.errors import DatabaseUnusable
from replicator.sqlite.live import LiveDatabase


class OtherName:
    """Of one session. Each look costs one or two system calls. ``patience`` is in seconds."""

    def __init__(
        self,
        database: LiveDatabase,
        patience: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._patience = patience
        self._clock = clock
        self._since: float | None = None

    def look(self) -> DatabaseUnusable | None:
        """The error, if every look within the patience found the sign."""
        if not self._database.open_under_another_name():
            self._since = None
            return None
        now = self._clock()
        self._since = now if self._since is None else self._since
        if now - self._since < self._patience:
            return None
        return DatabaseUnusable(
            f"another process has {self._database.source} open under another name, so its WAL is "
            "another file",
            path=self._database.source,
            code="other_name",
            hint="mount the directory instead of the file, or open the database by this name",
        )

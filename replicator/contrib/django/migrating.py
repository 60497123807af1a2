"""A mark before each migration: the state before it stays restorable under a name.

Owns: the name, and when none is made. Refuses to let a migration begin without its mark, which
the setting ``mark_before_migrate`` allows.
"""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import CommandError
from django.db import connections

from replicator.contrib.django.replicated import replicated, start, under_test
from replicator.errors import ReplicatorError

PATIENCE = 60.0  # seconds for the present state to be in the bucket
LONGEST_NOTE = 500  # characters


def mark_before_migrate(
    using: str,
    plan: list[tuple[Any, bool]],
    verbosity: int = 1,
    patience: float = PATIENCE,
    **kwargs: Any,
) -> None:
    """Marks the database ``using`` if migrations are to be applied and it has a table.

    The handle stays open to the end of the program: the migration is in the bucket, too, when the
    command ends.
    """
    found = replicated().get(using)
    if found is None or not found.mark_before_migrate or not plan or under_test(using):
        return
    connection = connections[using]
    if not connection.introspection.table_names():
        return
    connection.close()  # a start that restores or switches to WAL mode needs the file
    name = mark_name(time.time())
    try:
        start(using).mark(name, patience, note=note_of(plan))
    except ReplicatorError as error:
        raise CommandError(
            f"no mark before the migration, and nothing was migrated: {error}\n{error.hint}\n"
            f"REPLICATOR[{using!r}]['mark_before_migrate'] = False migrates without one"
        ) from error
    if verbosity and (out := kwargs.get("stdout")) is not None:
        out.write(f"Marked {name}: manage.py replicator restore --overwrite --at {name}")


def mark_name(now: float) -> str:
    """A name that no other migration has: the time in UTC, to the millisecond."""
    text = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return f"before-migrate-{text}-{int(now * 1000) % 1000:03}"


def note_of(plan: list[tuple[Any, bool]]) -> str:
    """The migrations in words; those that are to be undone have a minus."""
    words = ", ".join(f"{'-' if backwards else ''}{migration}" for migration, backwards in plan)
    return words if len(words) <= LONGEST_NOTE else words[: LONGEST_NOTE - 1] + "…"

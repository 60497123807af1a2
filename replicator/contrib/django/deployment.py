"""The check of the archive: which hosts wrote it.

One host writes a database of SQLite. A second one, which a load balancer or a scheduler started,
has a file of its own; each of the two takes the archive over from the other, and the requests of
one of them are lost at each turn.

Owns: the reading of a history for that. Refuses: to fail a deployment because the bucket cannot be
reached from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Warning  # noqa: A004 - Django's name

from replicator import SqliteReplicatorConfig
from replicator.app.command_line import command_line
from replicator.errors import NoBackup, ReplicatorError

PATIENCE = 20.0  # seconds for the answer of the bucket


def several_hosts(config: SqliteReplicatorConfig) -> Iterator[CheckMessage]:
    """A warning if hosts take turns at the archive, or if the bucket does not answer."""
    try:
        (history,) = command_line(config, "history").answer(PATIENCE)
    except NoBackup:
        return
    except ReplicatorError as error:
        yield Warning(
            f"the bucket of {config.database.name} cannot be read: {error}",
            hint=error.hint or "check the way to it with `manage.py replicator doctor`",
            id="replicator.W015",
        )
        return
    yield from turns(history)


def turns(history: dict[str, Any]) -> Iterator[CheckMessage]:
    """The warning about the hosts in a history, if they take turns."""
    if hosts := alternating(history["events"]):
        yield Warning(
            f"{' and '.join(hosts)} take turns at {history['url']}: each has a file of its own",
            hint="run one machine, or one pod, for a database of SQLite",
            id="replicator.W016",
        )


def alternating(events: list[dict[str, Any]]) -> list[str]:
    """The hosts of a history if one of them came back after another; else none."""
    seen: list[str] = []
    for event in events:
        host = str(event.get("host") or "").rpartition(" on ")[2]
        if host and seen[-1:] != [host]:
            seen.append(host)
    return sorted(set(seen)) if len(seen) > len(set(seen)) else []

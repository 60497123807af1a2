"""What can be restored, as the page of the admin shows it.

Owns: the values of the page, and the shapes of its drawing, which are numbers. Refuses: markup;
the template escapes every text, and a bucket may hold any.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from replicator.app.command_line import command_line
from replicator.contrib.django.replicated import Replicated
from replicator.errors import ReplicatorError

COMMITS = 50
PATIENCE = 20.0  # seconds for each answer of the bucket
WIDTH, HEIGHT = 600, 60  # of the drawing


@dataclass(frozen=True, slots=True)
class Timeline:
    """The history of one database; only ``error`` and ``hint`` if the bucket does not answer."""

    alias: str
    error: str = ""
    hint: str = ""
    history: dict[str, Any] = field(default_factory=dict)
    commits: list[dict[str, Any]] = field(default_factory=list)
    bars: list[dict[str, int]] = field(default_factory=list)
    snapshots: list[int] = field(default_factory=list)
    since: datetime | None = None
    until: datetime | None = None
    newest: datetime | None = None


def timeline_of(each: Replicated) -> Timeline:
    """The timeline of one entry of ``REPLICATOR``. Two commands read the bucket."""
    try:
        config = each.config()
        (history,) = command_line(config, "history").answer(PATIENCE)
        words = ("history", "--transactions", "--limit", str(COMMITS))
        commits = command_line(config, *words).answer(PATIENCE)
    except ReplicatorError as error:
        return Timeline(each.alias, error=str(error), hint=error.hint)
    return read(each.alias, history, commits)


def read(alias: str, history: dict[str, Any], commits: list[dict[str, Any]]) -> Timeline:
    """The timeline of the documents that the command line prints."""
    activity = history["activity"]
    since, until = activity["since_ms"], activity["until_ms"]
    return Timeline(
        alias,
        history=history,
        commits=[each | {"at": moment(each.get("committed_ms"))} for each in commits],
        bars=bars(activity["bytes"]),
        snapshots=[
            (each["stored_ms"] - since) * WIDTH // max(1, until - since)
            for each in history["snapshots"]
        ],
        since=moment(since),
        until=moment(until),
        newest=moment(history["last_commit_ms"]),
    )


def bars(sizes: list[int]) -> list[dict[str, int]]:
    """A bar for each slice of time; its height is the share of the largest one."""
    most, width = max(sizes, default=0), WIDTH // max(1, len(sizes))
    heights = [max(2, size * HEIGHT // most) if size else 0 for size in sizes]
    return [
        {"x": at * width, "y": HEIGHT - height, "width": max(1, width - 1), "height": height}
        for at, height in enumerate(heights)
        if height
    ]


def moment(ms: int | None) -> datetime | None:
    """A time in UTC; None if it is not known, or no time that a calendar has."""
    try:
        return None if not ms else datetime.fromtimestamp(ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None

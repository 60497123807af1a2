"""The history of a database as a picture of a few lines: time runs from left to right.

    2026-11-14T09:00Z                                        2026-11-21T09:00Z
    segments    ▂▁▁▃▂▂▁ ▁▂▅█▂▁▁▁▂▂▁▁▃▂▂▁ ▁▂▅█▂▁▁▁▂▂▁▁▃▂▂▁ ▁▂▅█▂▁▁▁▂▂▁▁
    generation  ├──────────────────────────────────├───────────────────
    snapshot    ▲      ▲       ▲         ▲         ▲        ▲         ▲
    verified      ✓             ✓             ✓             ✓
    failed                                        !

Owns the drawing, a function of a history and a width. Omits empty rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from replicator.archive.timespec import to_text

if TYPE_CHECKING:
    from replicator.inspect.history import Activity, History

BARS = " ▁▂▃▄▅▆▇█"
LABEL = 12
LEAST_WIDTH, MOST_WIDTH = 40, 100
VERIFIED, FAILED, REPAIRED = ("proven",), ("failed", "damaged", "refuted"), ("repaired",)


def draw(found: History, width: int) -> list[str]:
    """Lines of at most ``width`` characters; none for a history without a time span."""
    activity = found.activity
    if activity.until_ms <= activity.since_ms:
        return []
    room = max(LEAST_WIDTH, min(width, MOST_WIDTH)) - LABEL
    rows = [
        ("segments", _bars(activity, room)),
        ("generation", _generations(found, activity, room)),
        ("snapshot", _marks("▲", (s.stored_ms for s in found.snapshots), activity, room)),
    ]
    rows += [
        (
            label,
            _marks(
                mark,
                (proof.at_ms for proof in found.proofs if proof.outcome in kinds),
                activity,
                room,
            ),
        )
        for label, mark, kinds in (
            ("verified", "✓", VERIFIED),
            ("failed", "!", FAILED),
            ("repaired", "+", REPAIRED),
        )
    ]
    since, until = (to_text(ms, "minutes") for ms in (activity.since_ms, activity.until_ms))
    return [
        f"{since}{until:>{LABEL + room - len(since)}}",
        *(f"{label:<{LABEL}}{row}".rstrip() for label, row in rows if row.strip()),
    ]


def _at(ms: int, activity: Activity, room: int) -> int:
    span = activity.until_ms - activity.since_ms
    return max(0, min(room - 1, (ms - activity.since_ms) * room // span))


def _bars(activity: Activity, room: int) -> str:
    """The height of each column is the number of bytes in its slice of time."""
    count, most = len(activity.bytes), max(activity.bytes, default=0)
    if not most:
        return ""
    columns = (activity.bytes[column * count // room] for column in range(room))
    return "".join(
        BARS[0 if not size else max(1, round(size * (len(BARS) - 1) / most))] for size in columns
    )


def _marks(mark: str, times: Iterable[int], activity: Activity, room: int) -> str:
    row = [" "] * room
    for ms in times:
        row[_at(ms, activity, room)] = mark
    return "".join(row)


def _generations(found: History, activity: Activity, room: int) -> str:
    """A line that restarts at the first snapshot of each generation."""
    row = ["─"] * room
    for each in found.generations:
        begun = min(s.stored_ms for s in found.snapshots if s.generation == each.id)
        row[_at(begun, activity, room)] = "├"
    return "".join(row)

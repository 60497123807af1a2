"""Points in time as people write them: RFC 3339, or ``2 hours ago``.

Owns the words for time, both ways. A time without a zone is UTC. The caller passes the present.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from replicator.errors import ConfigError

_UNITS = {
    "s": "seconds",
    "sec": "seconds",
    "second": "seconds",
    "m": "minutes",
    "min": "minutes",
    "minute": "minutes",
    "h": "hours",
    "hour": "hours",
    "d": "days",
    "day": "days",
    "w": "weeks",
    "week": "weeks",
}
_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([a-z]+?)s?\s+ago", re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_ms(when: datetime | str, now_ms: int) -> int:
    """Milliseconds since the epoch, rounded down; ``ConfigError`` for words it cannot read."""
    moment = when if isinstance(when, datetime) else _parse(when.strip(), now_ms)
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(milliseconds=1)


def _parse(text: str, now_ms: int) -> datetime:
    now = _EPOCH + timedelta(milliseconds=now_ms)
    if text.lower() == "now":
        return now
    match = _AGO.fullmatch(text)
    try:
        if match:
            return now - timedelta(**{_UNITS[match[2].lower()]: float(match[1])})
        return datetime.fromisoformat(text)
    except (KeyError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"cannot read the time {text!r}",
            hint="write 2025-01-31T14:05:00Z (without a zone it is UTC) or '2 hours ago'",
            setting="timestamp",
            code="invalid_value",
        ) from error


def to_text(ms: int) -> str:
    """RFC 3339 in UTC, to the millisecond; a time that no calendar has stays a number."""
    try:
        moment = _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return f"{ms} ms"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

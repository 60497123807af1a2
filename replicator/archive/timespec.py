"""Points in time as people write them: RFC 3339, or ``2 hours ago``.

Owns the words for time, both ways: every time that the program prints is read back as it stands,
to the millisecond that was printed. Prints UTC, and a time without a zone is UTC. The caller
passes the present.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from replicator.errors import ConfigError

_UNITS = {
    "ms": "milliseconds",
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
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([a-z]+)", re.IGNORECASE)
_AGO = re.compile(rf"(?:{_SPAN.pattern}\s+)+ago", re.IGNORECASE)
_EPOCH_MS = re.compile(r"(-?\d{1,20}) ms|(\d{11,13})")  # the latter from 1973 to 2286
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_ms(when: datetime | str, now_ms: int) -> int:
    """Milliseconds since the epoch, rounded down; ``ConfigError`` for words it cannot read."""
    if isinstance(when, datetime):
        return _of(when)
    try:
        return _parse(when.strip(), now_ms)
    except (KeyError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"cannot read the time {when.strip()!r}",
            hint="write 2025-01-31T14:05:00.123Z (without a zone it is UTC) or '2 hours ago'",
            setting="timestamp",
            code="invalid_value",
        ) from error


def _of(moment: datetime) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(milliseconds=1)


def _parse(text: str, now_ms: int) -> int:
    if text.lower() in ("now", "just now"):
        return now_ms
    if match := _EPOCH_MS.fullmatch(text):
        return int(match[1] or match[2])
    if _AGO.fullmatch(text):
        age = sum(map(_span, _SPAN.findall(text)), timedelta())
        return now_ms - age // timedelta(milliseconds=1)
    return _of(datetime.fromisoformat(text.removesuffix(" UTC")))


def _span(found: tuple[str, str]) -> timedelta:
    number, word = found[0], found[1].lower()
    unit = _UNITS[word if word in _UNITS else word.removesuffix("s")]
    return timedelta(**{unit: float(number)})


def to_text(ms: int, timespec: str = "milliseconds") -> str:
    """RFC 3339 in UTC, to the millisecond or to a coarser unit of ``datetime.isoformat``; a time
    that no calendar has stays a number."""
    try:
        moment = _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return f"{ms} ms"
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")

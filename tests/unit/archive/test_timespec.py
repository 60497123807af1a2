"""Times as people write them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from replicator.archive.timespec import to_ms, to_text
from replicator.errors import ConfigError

NOW = 1_700_000_000_500


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("2023-11-14T22:13:20.25Z", 1_700_000_000_250),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
        ("2023-11-14T22:13:20", 1_700_000_000_000),  # no zone: UTC
        ("2023-11-14 22:13:20.000999", 1_700_000_000_000),  # never rounded up to a later commit
        ("now", NOW),
        ("1 second ago", NOW - 1000),
        ("90s ago", NOW - 90_000),
        ("1.5 min ago", NOW - 90_000),
        (" 2 hours ago ", NOW - 7_200_000),
        ("3 Days ago", NOW - 259_200_000),
        ("1w ago", NOW - 604_800_000),
        ("1969-12-31T23:59:59.999Z", -1),
    ],
)
def test_words(text, ms):
    """Each way of writing a time gives its millisecond, rounded down."""
    assert to_ms(text, NOW) == ms


def test_datetimes():
    """An aware datetime counts with its zone, a naive one as UTC."""
    aware = datetime(2023, 11, 14, 17, 13, 20, tzinfo=timezone(timedelta(hours=-5)))
    assert to_ms(aware, NOW) == to_ms(datetime(2023, 11, 14, 22, 13, 20), NOW)  # noqa: DTZ001
    assert to_ms(datetime(1970, 1, 1, tzinfo=UTC), NOW) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2 fortnights ago",
        "hours ago",
        "999999999 weeks ago",
        "2023-13-01T00:00:00Z",
    ],
)
def test_unreadable(text):
    """Anything else is refused with an example."""
    with pytest.raises(ConfigError, match="cannot read the time") as error:
        to_ms(text, NOW)
    assert "2 hours ago" in error.value.hint


def test_text_reads_back():
    """A time written as text parses to the same millisecond."""
    assert to_text(NOW) == "2023-11-14T22:13:20.500Z"
    assert to_ms(to_text(NOW), 0) == NOW

"""Times as people write them, and as the program prints them."""

import logging
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicator.archive.timespec import to_ms, to_text
from replicator.cli import output
from replicator.errors import ConfigError
from replicator.sidecar.logs import PlainLines
from tests.helpers.errors import raises

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
        ("2023-11-14 22:13:20 UTC", 1_700_000_000_000),  # as earlier versions printed it
        ("1700000000123", 1_700_000_000_123),  # as JSON has it
        ("20231114T221320Z", 1_700_000_000_000),  # as NAME.stale-TIME has it
        ("3 h 04 m ago", NOW - 11_040_000),
        ("500 ms ago", NOW - 500),
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
        "3 h 4 fortnights ago",
        "1700000000",
        "20231114221320",  # no digits of a calendar are taken for milliseconds
        "2023-13-01T00:00:00Z",
    ],
)
def test_unreadable(text):
    """Anything else is refused with an example."""
    with raises(ConfigError, "invalid_value", setting="timestamp") as error:
        to_ms(text, NOW)
    assert "2 hours ago" in error.value.hint


def test_text_reads_back():
    """A time written as text parses to the same millisecond."""
    assert to_text(NOW) == "2023-11-14T22:13:20.500Z"
    assert to_ms(to_text(NOW), 0) == NOW


@given(st.integers(-(2**62), 2**62))
@example(253_402_300_800_000)  # the year 10000, which no calendar has
def test_every_printed_time_reads_back(ms):
    """In tables, in JSON and in the log, each to the millisecond or to the minute it shows."""
    assert to_ms(output.moment(ms), NOW) == ms
    assert to_ms(output.transaction(7, ms).removeprefix("7, committed "), NOW) == ms
    record = logging.makeLogRecord({"created": (NOW % 1_000_000 + abs(ms) % 2**40) / 1000})
    logged = int(record.created * 1000)
    assert to_ms(PlainLines("%(asctime)s").format(record), 0) == logged
    minute = to_text(ms, "minutes")
    assert to_ms(minute, NOW) == (ms if minute.endswith("ms") else ms // 60_000 * 60_000)
    if 10**10 <= ms < 10**13:
        assert to_ms(output.to_json(ms), NOW) == ms


@given(st.floats(0, 10**8))
def test_every_printed_age_reads_back(seconds):
    """To the unit that it shows: an age is rounded to its last figure."""
    read = NOW - to_ms(output.ago(NOW, now=NOW / 1000 + seconds), NOW)
    precision = 3600 if seconds >= 48 * 3600 else 60 if seconds >= 3600 else 1
    assert abs(read / 1000 - seconds) <= precision

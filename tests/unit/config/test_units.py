"""replicator.config.units: text becomes a value, a value becomes text, and nothing is guessed."""

import contextlib
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.config import units
from replicator.config.units import (
    parse_count,
    parse_duration,
    parse_number,
    parse_size,
    parse_span,
    parse_switch,
)
from replicator.errors import ConfigError

PARSERS = (parse_size, parse_duration, parse_span, parse_switch, parse_count, parse_number)
PATTERNS = [unit for unit in vars(units).values() if isinstance(unit, units.Unit) and unit.pattern]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1024", 1024),
        ("1k", 1024),
        ("1KiB", 1024),
        ("1kB", 1000),
        ("64 MB", 64_000_000),
        ("1.5GiB", 3 << 29),
        ("2T", 2 << 40),
        ("10b", 10),
        (" 7 ", 7),
    ],
)
def test_sizes(text, size):
    """A single letter and "…iB" are powers of 1024, "…B" of 1000."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("30s", 30),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1h 30m 5s", 5405),
        ("250ms", 0.25),
        ("1.5d", 129600),
        (".5", 0.5),
        ("2 M", 120),
    ],
)
def test_durations(text, seconds):
    """A number without a unit is seconds; parts add up."""
    assert parse_duration(text) == parse_span(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "x", "1x", "-1", "1 2 x", "1..2", "h", "1e3", "inf", "1h30", "1h 30", "1\u212a"],
)
def test_nonsense_is_refused(text):
    """Nothing is guessed."""
    for parse in PARSERS:
        with pytest.raises(ConfigError) as caught:
            parse(text)
        assert caught.value.code == "invalid_value"


def test_switches():
    """The usual words, in any case."""
    assert [parse_switch(t) for t in ("1", "TRUE", "yes", " On ")] == [True] * 4
    assert [parse_switch(t) for t in ("0", "False", "no", "off")] == [False] * 4


def test_spans_have_two_words_more():
    """In any case."""
    assert [parse_span(text) for text in (" Off ", "FOREVER")] == [0.0, math.inf]


def test_numbers():
    """Counts have no point, numbers at most one."""
    assert (parse_count(" 12 "), parse_number("0.25"), parse_number("3.")) == (12, 0.25, 3.0)
    with pytest.raises(ConfigError):
        parse_count("1.0")


@given(st.text(max_size=20) | st.text("0123456789. kmgtibdhsKMGTIBDHS", max_size=12))
def test_any_text_is_a_value_or_a_config_error(text):
    """No parser fails in another way."""
    for parse in PARSERS:
        with contextlib.suppress(ConfigError):
            assert parse(text) >= 0


@given(st.text(max_size=20) | st.text("0123456789. kmgtibdhsKMGTIBDHS\n", max_size=12))
def test_the_pattern_of_a_unit_is_its_parser(text):
    """JSON Schema accepts the texts that the parser accepts, and no others."""
    for unit in PATTERNS:
        matches = re.fullmatch(unit.pattern, text, re.ASCII) is not None
        try:
            unit.parse(text)
        except ConfigError:
            assert not matches, (unit, text)
        else:
            assert matches, (unit, text)


@given(st.integers(0, 1 << 50))
def test_a_size_is_shown_as_it_is_written(value):
    """The text is a size again, the same one."""
    assert parse_size(units.show_size(value)) == value


@given(st.integers(0, 10**12) | st.sampled_from([0, 60_000, 86_400_000]))
def test_a_duration_is_shown_as_it_is_written(milliseconds):
    """To the millisecond, for durations and spans."""
    for show, parse in ((units.show_duration, parse_duration), (units.show_span, parse_span)):
        text = show(milliseconds / 1000)
        assert parse(text) == pytest.approx(milliseconds / 1000, rel=1e-12), text


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (units.SIZE, 1 << 30, "1GiB"),
        (units.SIZE, 10 << 20, "10MiB"),
        (units.SIZE, 1000, "1000"),
        (units.DURATION, 0.5, "500ms"),
        (units.DURATION, 5400.0, "90m"),
        (units.SPAN, 7 * 86400.0, "7d"),
        (units.SPAN, 0.0, "off"),
        (units.SPAN, math.inf, "forever"),
        (units.SWITCH, True, "on"),
        (units.SWITCH, False, "off"),
        (units.NUMBER, 0.5, "0.5"),
        (units.COUNT, 3, "3"),
    ],
)
def test_defaults_are_shown_in_the_largest_unit(unit, value, text):
    """As a person would write them."""
    assert unit.show(value) == text
    assert unit.parse(text) == value


@pytest.mark.parametrize(
    ("unit", "good", "bad"),
    [
        (units.TEXT, ["", "x"], [1, None, b"x", True]),
        (units.PATH, ["x"], [1, None, b"x"]),
        (units.SIZE, [0, 5], [1.0, "1", True]),
        (units.COUNT, [0, 5], [1.0, "1", True]),
        (units.NUMBER, [0, 0.5], ["1", True, None]),
        (units.DURATION, [0, 0.5], ["1s", False]),
        (units.SWITCH, [True, False], [0, 1, "on"]),
        (units.choice("a", "b"), ["a", "b"], ["c", 1]),
    ],
)
def test_a_unit_knows_the_types_of_its_values(unit, good, bad):
    """A number is no switch, a switch is no number, and a size is whole."""
    for value in good:
        unit.check(value)
    for value in bad:
        with pytest.raises(ConfigError) as caught:
            unit.check(value)
        assert caught.value.code == "invalid_value"

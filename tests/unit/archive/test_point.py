"""Restore points in words: no name can be mistaken for a transaction or a time."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.archive.point import MOST_CHARACTERS, RestorePoint, is_name, require_name
from replicator.archive.timespec import to_ms
from replicator.errors import ConfigError
from tests.helpers.errors import raises

NOW = 1_700_000_000_500
LETTERS = string.ascii_letters + string.digits + "._-"


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("120", RestorePoint(txid=120)),
        ("1,234,567", RestorePoint(txid=1_234_567)),  # as tables print it
        (" newest ", RestorePoint()),
        ("before-migration", RestorePoint(name="before-migration")),
        ("v1.2_x", RestorePoint(name="v1.2_x")),
        ("2 hours ago", RestorePoint(timestamp="2 hours ago")),
        ("now", RestorePoint(timestamp="now")),
        ("2026-01-31", RestorePoint(timestamp="2026-01-31")),
        ("1,23", RestorePoint(timestamp="1,23")),
    ],
)
def test_each_word_is_one_thing(text, point):
    """A transaction, the newest one, a name, or a time."""
    assert RestorePoint.parse(text) == point


@given(st.text(LETTERS, max_size=MOST_CHARACTERS + 2))
def test_a_name_is_never_a_transaction_or_a_time(text):
    """Whatever a pin can be called, the resolver takes for a name, and the reader of times refuses
    it."""
    if is_name(text):
        assert RestorePoint.parse(text) == RestorePoint(name=text)
        with pytest.raises(ConfigError):
            to_ms(text, NOW)


@pytest.mark.parametrize(
    "name",
    ["", "1a", "-a", "a/b", "a b", "ä", "a\n", "a" * 65, "now", "Newest", "today", "..", "a\\b"],
)
def test_names_are_short_and_plain(name):
    """A key of the bucket, an argument of a shell, and a word of a table."""
    with raises(ConfigError, "invalid_name", setting="name"):
        require_name(name)
    assert require_name("a" * 64)


@pytest.mark.parametrize(
    ("given_values", "setting"),
    [
        ((1, "now", None), "timestamp"),
        ((1, None, "x"), "at"),
        ((None, "now", "x"), "at"),
        ((0, None, None), "txid"),
        ((None, None, "0"), "at"),
    ],
)
def test_one_point_at_a_time(given_values, setting):
    """Two are refused, and so is transaction 0."""
    with pytest.raises(ConfigError) as error:
        RestorePoint.of(*given_values)
    assert error.value.setting == setting

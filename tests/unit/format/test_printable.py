"""Text from elsewhere cannot act on a terminal or pass for a line of its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.format.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – ä 漢 😀 …", "plain – ä 漢 😀 …"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("abc\u202efdp.exe", r"abc\u202efdp.exe"),
        ("a\u200bb\ufeff", r"a\u200bb\ufeff"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_characters_that_act_are_shown_as_escapes(text, shown):
    """Line breaks, escape sequences, invisible characters, halves of a character."""
    assert printable(text) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_the_result_is_one_printable_line(text):
    """For every text, surrogates included; a second pass changes nothing."""
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    shown.encode()

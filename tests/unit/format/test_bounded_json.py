"""JSON from elsewhere: small, flat and printable, or refused with ValueError."""

import pytest

from replicator.format.bounded_json import JsonLimits, parse_json, text_fields


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'"\\ud800"',
        b'{"\\udcff": 1}',
        b"[" * 100_000,
        b"[" * 17 + b"]" * 17,
        b'{"a":' * 20 + b"1" + b"}" * 20,
        b"9" * 5000,
        b'"' + b"x" * 70_000 + b'"',
        b'"' + b'\\"' * 30_000,  # quadratic time, if each quote began a string
        ('["\u2241",' + "[" * 9000).encode("utf-16-le"),
        b"\xef\xbb\xbf1",
    ],
)
def test_documents_that_are_refused(data):
    """No document, no number, too deep, too large, or half of a character."""
    with pytest.raises(ValueError, match=r"."):
        parse_json(data)


def test_documents_that_are_read():
    """Brackets in text do not count; the limits are those of the caller."""
    assert parse_json(b'{"note": "[[[[[[[[[[[[[[[[[[[[ \\" {{{{"}') == {
        "note": '[[[[[[[[[[[[[[[[[[[[ " {{{{'
    }
    assert parse_json(b"[[1]]", JsonLimits(size=5, depth=2)) == [[1]]
    for limits in (JsonLimits(size=4), JsonLimits(depth=1)):
        with pytest.raises(ValueError, match=r"."):
            parse_json(b"[[1]]", limits)


@pytest.mark.parametrize("value", [None, [], "text", 1, {"a": 1, "b": None, "c": ["d"]}])
def test_only_text_counts_as_text(value):
    """Whatever else a document holds, it has no text fields."""
    assert text_fields(value) == {}
    assert text_fields({"note": "x", "other": value, "a": 1}).get("note") == "x"

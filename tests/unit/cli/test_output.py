"""replicator.cli.output: figures and errors as people and programs read them."""

import json

import pytest

from replicator.cli import output
from replicator.errors import Fenced
from replicator.model import Position


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1.0 MiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (3 << 50, "3072.0 TiB"),
    ],
)
def test_sizes_read_in_binary_units(n, text):
    """One decimal, the largest unit that leaves a figure of at most four digits."""
    assert output.size(n) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0204, "20 ms"),
        (0.9999, "1.0 s"),
        (4.21, "4.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 m 00 s"),
        (125, "2 m 05 s"),
        (3600, "1 h 00 m"),
        (11_045, "3 h 04 m"),
        (86_400 * 2 + 3 * 3600, "2 d 03 h"),
    ],
)
def test_durations_read_in_two_units(seconds, text):
    """Never a figure like "60 s", never more than two units."""
    assert output.duration(seconds) == text


def test_moments_are_utc_and_none_is_never():
    """A time without a zone would be a riddle at 3 am."""
    assert output.moment(1) == "1970-01-01T00:00:00.001Z"
    assert output.moment(None) == "never"


def test_ages_count_from_now():
    """Just now, some time ago, or never."""
    assert output.ago(10_000, now=10.4) == "just now"
    assert output.ago(10_000, now=70) == "1 m 00 s ago"
    assert output.ago(None) == "never"
    assert output.ago(0).endswith(" h ago")


def test_plurals():
    """One object, many objects, grouped digits."""
    assert [output.plural(n, "object") for n in (0, 1, 12_345)] == [
        "0 objects",
        "1 object",
        "12,345 objects",
    ]


def test_json_is_one_line_on_stdout(capsys):
    """Dataclasses become objects; nothing else is on stdout."""
    output.emit_json(Position("g", 7))
    assert capsys.readouterr().out == '{"generation": "g", "txid": 7}\n'


def test_errors_go_to_stderr_with_their_hint(capsys):
    """``error:`` and ``hint:``, brackets as they are."""
    output.report_error(Fenced("lost [a] race", hint="look"), as_json=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: lost [a] race\nhint:  look\n"


def test_an_error_without_a_hint_is_one_line(capsys):
    """No empty hint."""
    output.report_error(Fenced("no"), as_json=False)
    assert capsys.readouterr().err == "error: no\n"


def test_json_errors_carry_class_and_exit_code(capsys):
    """A program decides by the class or the code, not by the words."""
    output.report_error(Fenced("no", hint="look", holder="a replicator"), as_json=True)
    assert json.loads(capsys.readouterr().err) == {
        "error": "no",
        "hint": "look",
        "code": "fenced",
        "kind": "Fenced",
        "exit_code": 6,
        "holder": "a replicator",
    }


def test_tables_and_facts_are_aligned_and_never_cut(capsys):
    """A long value is kept whole without a terminal; figures end at one column."""
    output.table(("name", ">size"), [("a" * 1200, "1"), ("b", "22")])
    output.facts([("short", "x" * 150), ("longer one", "y")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == "a" * 1200 + "      1"
    assert lines[2] == "b" + " " * 1204 + "22"
    assert lines[3] == "  short       " + "x" * 150
    assert lines[4] == "  longer one  y"


HOSTILE = "key\n2026-01-01 ERROR forged\x1b[2J\u202e :warning: [red]x"
SHOWN = r"key\n2026-01-01 ERROR forged\x1b[2J\u202e :warning: [red]x"


@pytest.mark.parametrize(
    "show",
    [
        lambda text: output.say(output.safe(text)),
        lambda text: output.facts([("key", output.safe(text))]),
        lambda text: output.table(["key"], [[output.safe(text)]]),
        output.note,
        lambda text: output.report_error(Fenced(text), as_json=False),
        lambda text: output.report_error(Fenced("no", hint=text), as_json=False),
    ],
)
def test_text_from_elsewhere_cannot_act_on_the_terminal(capsys, show):
    """Wherever it is printed: one line, without escape sequences, word for word otherwise."""
    show(HOSTILE)
    captured = capsys.readouterr()
    assert SHOWN in captured.out + captured.err
    assert all(line.isprintable() for line in (captured.out + captured.err).splitlines())
    assert not any(line.startswith("2026") for line in captured.out.splitlines())


def test_values_without_safe_are_escaped_too(capsys):
    """A missing ``safe`` costs the brackets, not the terminal."""
    output.say("a\x1b[2Jb")
    output.facts([("key", "a\nb")])
    output.table(["key"], [["a\rb"]])
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_json_stays_exact(capsys):
    """JSON has its own escapes, and programs get the exact text."""
    output.emit_json({"key": HOSTILE + "\ud800"})
    text = capsys.readouterr().out
    assert text.isascii()
    assert json.loads(text) == {"key": HOSTILE + "\ud800"}


@pytest.mark.parametrize("ms", [10**17, -(10**17), 1 << 70])
def test_a_time_that_no_calendar_has(ms):
    """It stays a number."""
    assert str(ms) in output.moment(ms)

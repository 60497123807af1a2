"""Quoting, function by function: SQLite reads back exactly the text or value that was quoted."""

import math
import sqlite3

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from replicator.app.quoting import (
    glob_pattern,
    identifier,
    like_pattern,
    literal,
    phrase,
    placeholders,
    qualified,
    statements,
)
from replicator.errors import ConfigError

CONNECTION = sqlite3.connect(":memory:", isolation_level=None)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
# A separator that a script can end with, and pieces that hide a semicolon.
PIECES = st.sampled_from(
    [
        "SELECT 1;",
        "SELECT ';', \"a;b\", [c;d];",
        "-- a comment; with one\nSELECT 2;",
        "/* ; */ SELECT 3;",
        "CREATE TRIGGER t AFTER INSERT ON u BEGIN SELECT 1; SELECT CASE 1 WHEN 1 THEN 2 END; END;",
    ]
)


def value(sql, *parameters):
    return CONNECTION.execute(sql, parameters).fetchone()[0]


@given(NAMES)
def test_identifier_is_a_name(name):
    """A column of any name is found under its quoted name."""
    cursor = CONNECTION.execute(f"SELECT 1 AS {identifier(name)}")
    assert cursor.description[0][0] == name


@given(NAMES, NAMES)
def test_qualified_is_never_taken_for_a_text(table, column):
    """Each part is quoted. A column that does not exist is an error, not a text."""
    assume(column.lower() not in ("true", "false"))  # SQLite renames such columns of a subquery
    alias, name = identifier(table), identifier(column)
    found = CONNECTION.execute(
        f"SELECT {qualified(table, column)} FROM (SELECT 7 AS {name}) AS {alias}"
    )
    assert found.fetchone() == (7,)
    with pytest.raises(sqlite3.OperationalError):
        CONNECTION.execute(f"SELECT {qualified(table, column + 'x')} FROM (SELECT 7) AS {alias}")


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800"])
def test_a_name_that_sql_cannot_contain_is_refused(name):
    """An empty name, a NUL, half of a character."""
    with pytest.raises(ConfigError) as failure:
        identifier(name)
    assert failure.value.code == "invalid_value"


@given(
    st.none()
    | TEXTS
    | st.binary()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([math.inf, -math.inf])
)
def test_literal_is_the_value(wanted):
    """Type and value are those that a bound parameter has."""
    found, bound = value(f"SELECT {literal(wanted)}"), value("SELECT ?", wanted)
    assert (type(found), found) == (type(bound), bound)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_a_float_next_to_it(wanted):
    """SQLite before 3.43 may read another last bit."""
    found = value(f"SELECT {literal(wanted)}")
    assert isinstance(found, float)
    assert math.isclose(found, wanted, rel_tol=1e-15, abs_tol=1e-320)


@pytest.mark.parametrize("wrong", [2**63, -(2**63) - 1, object(), "\ud800"])
def test_a_value_without_a_literal_is_refused(wrong):
    """Instead of another value in its place."""
    with pytest.raises(ConfigError):
        literal(wrong)


def test_not_a_number_is_null():
    """SQLite stores NULL for it, as a parameter too."""
    assert literal(math.nan) == "NULL"
    assert value("SELECT ?", math.nan) is None


@given(TEXTS.filter(lambda text: "\0" not in text), TEXTS)
def test_like_and_glob_patterns_mean_themselves(text, other):
    """The pattern of a text matches this text, and no other one."""
    like = "SELECT ? LIKE ? ESCAPE '\\'"
    assert value(like, text, like_pattern(text)) == 1
    assert value("SELECT ? GLOB ?", text, glob_pattern(text)) == 1
    if "\0" not in other and other.lower() != text.lower():
        assert value(like, other, like_pattern(text)) == 0
        assert value("SELECT ? GLOB ?", other, glob_pattern(text)) == 0


def test_a_phrase_has_no_operators():
    """A user's text is searched for, whatever it contains."""
    CONNECTION.execute("CREATE VIRTUAL TABLE IF NOT EXISTS notes USING fts5(body)")
    CONNECTION.execute("INSERT INTO notes VALUES ('rock AND roll: \"live\"')")
    find = "SELECT count(*) FROM notes WHERE notes MATCH ?"
    assert value(find, phrase('rock AND roll: "live"')) == 1
    assert value(find, phrase("rock roll")) == 0


def test_placeholders_are_parameters():
    """As many as there are values."""
    numbers = (1, 2, 3)
    assert value(f"SELECT 2 IN {placeholders(3)}", *numbers) == 1


@given(st.lists(PIECES))
def test_statements_of_a_script(pieces):
    """Neither a text, nor a comment, nor the body of a trigger is cut."""
    assert list(statements("\n".join(pieces))) == pieces


def test_the_last_statement_needs_no_semicolon():
    """The end of the script ends it."""
    assert list(statements("SELECT 1;\n SELECT 2 ")) == ["SELECT 1;", "SELECT 2"]
    assert list(statements(" \n")) == []

"""Text that becomes part of SQL: names, values, patterns, scripts.

A value belongs into a bound parameter (``?``). These functions are for the parts of a statement
that no parameter can be: the name of a table, a default in a schema, the pattern of ``LIKE``.

Owns the rules of quoting, each with the source in SQLite's documentation. Refuses text that SQLite
cannot represent, with ``ConfigError``. Pure: no connection is needed.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from typing import TypeAlias

from replicator.errors import ConfigError

SqlValue: TypeAlias = str | bytes | int | float | None
SMALLEST, LARGEST = -(2**63), 2**63 - 1  # of an INTEGER of SQLite


def identifier(name: str) -> str:
    """A name of a table, a column, an index: in double quotes, each quote inside doubled.

    SQLite takes ``"x"`` for a *string* where an expression has no column ``x``. Where that could
    hide a typing error, use :func:`qualified`. Source: "SQLite Keywords", and "Double-quoted
    String Literals Are Accepted". ``ConfigError`` for an empty name, a NUL or a lone surrogate.
    """
    if not name:
        raise _refused("a name in SQL cannot be empty")
    return '"' + _valid(name).replace('"', '""') + '"'


def qualified(*names: str) -> str:
    """Names joined by dots: ``qualified("main", "users")``, ``qualified("users", "name")``.

    Each is quoted as :func:`identifier` does. A qualified name is never taken for a string.
    """
    return ".".join(identifier(name) for name in names)


def literal(value: SqlValue) -> str:
    """A value as a literal of SQL: for a schema, a script, a view. Statements bind parameters.

    - text: in single quotes, each quote inside doubled; a NUL becomes ``char(0)``, because the text
      of a statement ends at a NUL;
    - bytes: ``X'…'``;
    - integers: decimal digits, from -2**63 to 2**63 - 1;
    - floats: the shortest digits that Python reads back; infinity is ``9e999``; not-a-number is
      ``NULL``, which SQLite stores for it too. SQLite before 3.43 may read the last bit of a
      float differently: bind what must be exact;
    - ``True`` and ``False``: 1 and 0; ``None``: ``NULL``.

    Source: "SQL Language Expressions", "Literal Values". ``ConfigError`` for anything else.
    """
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, int):
        return _integer(int(value))
    if isinstance(value, float):
        return _float(value)
    raise _refused(f"a {type(value).__name__} has no literal in SQL")


def like_pattern(text: str, escape: str = "\\") -> str:
    r"""Text in which ``%`` and ``_`` mean themselves, for ``LIKE ? ESCAPE '\'``.

    Bind it as a parameter, with the wildcards that are meant around it:
    ``("%" + like_pattern("100%") + "%",)``. Source: "The LIKE, GLOB, REGEXP, MATCH operators".
    """
    for special in (escape, "%", "_"):
        text = text.replace(special, escape + special)
    return text


def glob_pattern(text: str) -> str:
    """Text in which ``*``, ``?`` and ``[`` mean themselves, for ``GLOB ?``. ``GLOB`` has no escape
    character, so each becomes a set of one: ``[*]``. Source: as for :func:`like_pattern`."""
    return "".join(f"[{each}]" if each in "*?[" else each for each in text)


def phrase(text: str) -> str:
    """Words that a full-text search (FTS5) takes as one phrase, for ``MATCH ?``.

    In double quotes, each quote inside doubled: ``AND``, ``-``, ``*`` and ``:`` lose their
    meaning. Source: "FTS5 Strings".
    """
    return '"' + _valid(text).replace('"', '""') + '"'


def placeholders(count: int) -> str:
    """``count`` parameters in parentheses: ``(?, ?, ?)``, for ``IN`` and ``VALUES``."""
    return f"({', '.join('?' * count)})"


def statements(script: str) -> Iterator[str]:
    """The statements of a script, each with its semicolon, as SQLite itself separates them.

    Semicolons in texts, in comments and in the body of a trigger do not separate. The end of the
    script ends the last one. Source: C API, ``sqlite3_complete``.
    """
    rest, start = script, 0
    while (end := rest.find(";", start)) >= 0:
        if sqlite3.complete_statement(rest[: end + 1]):
            yield rest[: end + 1].strip()
            rest, start = rest[end + 1 :], 0
        else:
            start = end + 1
    if rest.strip():
        yield rest.strip()


def _valid(text: str) -> str:
    """The text; ``ConfigError`` if a statement cannot contain it."""
    if "\0" in text:
        raise _refused("SQL cannot contain a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _refused(f"{text!r} is no valid Unicode") from error
    return text


def _text(value: str) -> str:
    parts = ["'" + _valid(part).replace("'", "''") + "'" for part in value.split("\0")]
    return parts[0] if len(parts) == 1 else f"({' || char(0) || '.join(parts)})"


def _integer(value: int) -> str:
    if not SMALLEST <= value <= LARGEST:
        raise _refused(f"{value} does not fit into an integer of SQLite")
    return str(value)


def _float(value: float) -> str:
    if math.isnan(value):
        return "NULL"
    if math.isinf(value):
        return "9e999" if value > 0 else "-9e999"
    return repr(value)


def _refused(message: str) -> ConfigError:
    return ConfigError(message, setting="sql", code="invalid_value")

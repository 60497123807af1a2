"""The path in a name of a database: a path, or a URL as frameworks write it. Pure.

Frameworks disagree about slashes, so each form is read by its own rule:

    sqlite:///rel.db, sqlite:////abs/app.db    SQLAlchemy, Django, Rails: the third slash ends the
                                               empty host, the rest is the path
    sqlite:/abs/app.db, sqlite:rel.db          JDBC, sqlx: the rest is the path
    file:rel.db, file:/abs.db?mode=ro          SQLite's own (sqlite.org/uri.html)
    file:///abs.db, file://localhost/abs.db

Owns: which text names a file. Refuses: a database that is not a file, a host, another scheme, and
to take a URL for the name of a file; ``./`` in front makes any text a path. The query is dropped
(it holds options of the application), percent signs of a URL are decoded.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote

from replicator.errors import ConfigError

_SCHEME = re.compile(r"(?:jdbc:)?([a-z][a-z0-9+.-]*):(.*)", re.IGNORECASE | re.DOTALL)
_SQLITE = re.compile(r"sqlite3?(\+[a-z0-9_]+)?", re.IGNORECASE)
_NO_FILE = frozenset({"", ":memory:", "/:memory:"})


def database_path(text: str) -> str:
    """The path that ``text`` names; ``ConfigError`` with the code ``not_a_database_path``."""
    if "\0" in text or text in _NO_FILE:
        raise _refused(text, "is not the path of a database file", "name a file")
    found = _SCHEME.fullmatch(text)
    if found is None:
        return text
    scheme, rest = found.groups()
    if _SQLITE.fullmatch(scheme):
        return _of_framework(text, rest)
    if scheme.lower() == "file":
        return _of_sqlite(text, rest)
    if rest.startswith("//"):
        hint = "set the destination with --url" if scheme.lower() == "s3" else "name a file"
        raise _refused(text, f"is not a SQLite database, but a URL of {scheme}", hint)
    return text  # a colon in the name of a file


def refuse_url(text: str) -> str:
    """``text``, which came as a path object; ``ConfigError`` for a URL: a path object has lost
    some of its slashes, which decide between a relative and an absolute path."""
    if database_path(text) != text:
        raise _refused(text, "is a URL in a path object", "give it as text")
    return text


def _of_framework(text: str, rest: str) -> str:
    path, _, query = rest.partition("?")
    if path.startswith("//"):
        if not path.startswith("///"):
            raise _refused(
                text,
                "names a host" if path != "//" else "is a database in memory",
                "write sqlite:///relative.db or sqlite:////absolute.db",
            )
        path = path[3:]
    if path.lower().startswith("file:"):
        return _of_sqlite(text, rest[rest.lower().index("file:") + 5 :])
    return _file(text, path, query)


def _of_sqlite(text: str, rest: str) -> str:
    path, _, query = rest.partition("#")[0].partition("?")
    if path.startswith("//"):
        host, slash, below = path[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            raise _refused(text, "names a host", "write file:///absolute.db")
        path = slash + below
    return _file(text, path, query)


def _file(text: str, path: str, query: str) -> str:
    options = parse_qs(query)
    path = unquote(path, errors="surrogateescape")
    if path in _NO_FILE or "memory" in options.get("mode", ()) or "memdb" in options.get("vfs", ()):
        raise _refused(text, "is a database in memory", "only a file can be replicated")
    if "\0" in path:
        raise _refused(text, "is not the path of a database file", "name a file")
    return path


def _refused(text: str, problem: str, hint: str) -> ConfigError:
    return ConfigError(
        f"{text!r} {problem}", setting="db_path", hint=hint, code="not_a_database_path"
    )

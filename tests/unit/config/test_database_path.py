"""config/database_path.py: a URL of a framework is understood or refused, never a file's name."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.config.database_path import database_path, refuse_url
from replicator.config.settings import SqliteReplicatorConfig
from replicator.errors import ConfigError
from tests.helpers.errors import raises


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("app.db", "app.db"),
        ("/abs/app.db", "/abs/app.db"),
        ("~/app.db", "~/app.db"),
        ("my%20app?.db", "my%20app?.db"),
        ("a:b.db", "a:b.db"),
        ("./sqlite:app.db", "./sqlite:app.db"),
        ("sqlite:///rel.db", "rel.db"),
        ("sqlite:///dir/rel.db", "dir/rel.db"),
        ("sqlite:////abs/app.db", "/abs/app.db"),
        ("SQLite:////abs/app.db", "/abs/app.db"),
        ("sqlite3:///rel.db", "rel.db"),
        ("sqlite+aiosqlite:////abs/app.db?timeout=5", "/abs/app.db"),
        ("sqlite+pysqlite:///my%20app.db", "my app.db"),
        ("sqlite:rel.db", "rel.db"),
        ("sqlite:/abs/app.db", "/abs/app.db"),
        ("jdbc:sqlite:/abs/app.db", "/abs/app.db"),
        ("sqlite:///file:/abs/app.db?mode=ro&uri=true", "/abs/app.db"),
        ("file:rel.db", "rel.db"),
        ("file:./dev.db", "./dev.db"),
        ("file:/abs.db?mode=ro", "/abs.db"),
        ("file:///abs/app.db", "/abs/app.db"),
        ("file://localhost/abs/app.db#x", "/abs/app.db"),
        ("file:/a%3Fb.db?cache=shared", "/a?b.db"),
    ],
)
def test_the_path_of_a_url(text, path):
    """Relative and absolute paths, queries, escapes, in each form that frameworks use."""
    assert database_path(text) == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":memory:",
        "a\0b",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://rel.db",
        "sqlite://host/app.db",
        "sqlite:///app.db?mode=memory",
        "sqlite:///file:app.db?mode=memory&uri=true",
        "file:",
        "file::memory:?cache=shared",
        "file:app.db?mode=memory",
        "file:/app.db?vfs=memdb",
        "file://host/app.db",
        "file:a%00b",
        "postgres://host/db",
        "s3://bucket/app.db",
        "libsql://host",
    ],
)
def test_what_is_no_file_is_refused_with_a_hint(text):
    """A database in memory, a host, another scheme."""
    with raises(ConfigError, code="not_a_database_path", setting="db_path") as refused:
        database_path(text)
    assert refused.value.hint


def test_a_url_in_a_path_object_is_refused():
    """It has lost a slash: sqlite:///rel.db would become an absolute path."""
    with raises(ConfigError, code="not_a_database_path"):
        refuse_url(str(Path("sqlite:///rel.db")))
    assert refuse_url("/abs/app.db") == "/abs/app.db"


@given(st.text())
def test_any_text_is_a_path_or_refused(text):
    """Nothing else happens, and no path keeps the scheme of a database."""
    try:
        path = database_path(text)
    except ConfigError:
        return
    assert path
    assert path == text or not text.startswith(path)


def test_a_config_understands_urls(tmp_path, monkeypatch):
    """From the library, and relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    for name, path in (("sqlite:///rel.db", tmp_path / "rel.db"), ("file:/abs.db", "/abs.db")):
        assert SqliteReplicatorConfig(db_path=name, bucket="b").source == Path(path)
    with raises(ConfigError, code="not_a_database_path"):
        SqliteReplicatorConfig(db_path=Path("sqlite:///rel.db"), bucket="b")

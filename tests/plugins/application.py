"""The application: a database in WAL mode and the connection that writes to it."""

import contextlib
import sqlite3

import pytest

from tests.helpers.replication import App


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "app(rows=0, empty_wal=False, **options): how the fixture app prepares its database; "
        "options are those of App",
    )


@pytest.fixture
def path(tmp_path):
    """The path of the application's database; `app` creates the file."""
    return tmp_path / "app.db"


@pytest.fixture
def app(path, request):
    """The application's connection to the database at `path`.

    ``pytestmark = pytest.mark.app(rows=40, cache_pages=10)`` in a module, or the mark at a test,
    inserts rows and passes options to `App`; ``empty_wal`` checkpoints and truncates the WAL.
    """
    marker = request.node.get_closest_marker("app")
    options = dict(marker.kwargs) if marker else {}
    rows, empty_wal = options.pop("rows", 0), options.pop("empty_wal", False)
    with App(path, **options) as app:
        if rows:
            app.insert(rows)
        if empty_wal:
            app.checkpoint("TRUNCATE")
        yield app


@pytest.fixture
def closed_db(path):
    """The path of a database in WAL mode with a table ``t (x)`` and without an open connection."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x)")
    return path

"""What unit tests of several folders use; each folder has an ``app`` of its own."""

import pytest

from replicator.sqlite.live import LiveDatabase


@pytest.fixture
def database(app):
    """The door to the application's database, which waits for nobody for long."""
    database = LiveDatabase(app.path, busy_timeout=0.1)
    yield database
    database.close()

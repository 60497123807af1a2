"""Fixtures of unit tests in several folders; fixtures of one folder are in its own conftest."""

import pytest

from replicator.cache.cache import Cache
from replicator.sqlite.live import LiveDatabase
from replicator.system.scheduler import Scheduler
from tests.helpers.mail import ReadableMailbox
from tests.helpers.other_app import OtherApp


@pytest.fixture
def database(app):
    """The replicator's connection to the application's database, with a short busy timeout."""
    database = LiveDatabase(app.path, busy_timeout=0.1)
    yield database
    database.close()


@pytest.fixture
def other_app(app):
    """Another process of the application, with a busy timeout that no test waits for."""
    with OtherApp(app.path) as other:
        yield other


@pytest.fixture
def cache_directory(tmp_path):
    """The path of a cache; neither the directory nor its parent exists."""
    return tmp_path / "new" / "cache"


@pytest.fixture
def cache(cache_directory):
    """An empty cache."""
    with Cache.open(cache_directory) as cache:
        yield cache


@pytest.fixture
def out(tmp_path):
    """An empty directory for restored databases."""
    directory = tmp_path / "out"
    directory.mkdir()
    return directory


@pytest.fixture
def mailbox():
    """A mailbox whose letters the test reads."""
    return ReadableMailbox()


@pytest.fixture
def scheduler():
    """A running scheduler."""
    scheduler = Scheduler()
    yield scheduler
    scheduler.stop()

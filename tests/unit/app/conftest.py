"""Fixtures of the application's side: its database, and a replicator that answers at its socket."""

import contextlib

import pytest

from replicator.app import Database
from tests.helpers.control import answering
from tests.helpers.replication import HookedStore, replicating


@pytest.fixture
def hooked():
    """The bucket in memory, with hooks."""
    return HookedStore()


@pytest.fixture
def answered(app, hooked):
    """The replicator of the database of `app`, found at the default place.

    Its interval never ends, so that nothing but a request uploads a second commit."""
    with contextlib.ExitStack() as held:
        replicator = held.enter_context(
            replicating(app.path, hooked, sync_interval=1e6, upload_burst=1)
        )
        held.enter_context(answering(replicator.config.cache, replicator))
        yield replicator


@pytest.fixture
def kit(tmp_path):
    """An open database with a table of users."""
    with Database.open(tmp_path / "app.db") as kit:
        kit.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        yield kit

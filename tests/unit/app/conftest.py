"""Fixtures of the application's side: a replicator that answers at its control socket."""

import contextlib

import pytest

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

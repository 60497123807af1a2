"""Stores to test on: memory, a directory, moto in process, a real SeaweedFS.

Each worker process runs one server of each kind with one bucket for the whole run; every test has
a prefix of its own (`prefix`).
"""

import secrets

import pytest

from replicator.store.directory import DirectoryStore
from replicator.store.memory import MemoryStore
from replicator.testing import SeaweedServer
from tests.helpers.moto_server import MotoServer, MotoStore
from tests.helpers.replication import HookedStore


@pytest.fixture
def prefix():
    """A prefix of its own for the test, without a slash at the end."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
def memory_store():
    """An empty store in memory."""
    return MemoryStore()


@pytest.fixture
def store(memory_store):
    """A store in memory with hooks: a test observes, delays or fails its calls."""
    return HookedStore(memory_store)


@pytest.fixture
def directory_store(tmp_path):
    """A store on the directory ``store``."""
    root = tmp_path / "store"
    root.mkdir()
    return DirectoryStore(root)


@pytest.fixture(scope="session")
def moto_server(clean_environment):
    """The endpoint of a moto server in this process. It verifies nothing: logic only."""
    with MotoServer() as server:
        yield server.endpoint


@pytest.fixture
def moto_store(moto_server):
    """A store on a bucket of its own on the moto server."""
    store = MotoStore(
        f"bucket-{secrets.token_hex(6)}",
        endpoint_url=moto_server,
        credentials=("moto", "moto"),
        pool=32,
    )
    store.create_bucket()
    yield store
    store.close()


@pytest.fixture(scope="session")
def seaweed(clean_environment):
    """A running :class:`SeaweedServer`; a test that pauses or kills a server starts its own."""
    with SeaweedServer() as server:
        yield server


@pytest.fixture
def seaweed_store(seaweed):
    """A store on the bucket of the SeaweedFS server."""
    store = seaweed.store()
    yield store
    store.close()


@pytest.fixture
def seaweed_credentials(seaweed, monkeypatch):
    """The server, with its credentials in the environment, as a user would set them."""
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    return seaweed


@pytest.fixture(params=["memory", "directory", "moto", "seaweed"])
def any_store(request):
    """Every kind of store in turn. They are shared: keep to `prefix`."""
    return request.getfixturevalue(f"{request.param}_store")

"""Isolates the tests from the environment of the machine."""

import os
import tempfile
from pathlib import Path

import pytest

from tests.helpers.users import Place

_FOREIGN = ("AWS_", "BOTO", "REPLICATOR_", "SSL_CERT_")


def _is_foreign(name: str) -> bool:
    upper = name.upper()
    return upper.startswith(_FOREIGN) or upper.endswith(("_PROXY", "_CA_BUNDLE"))


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory):
    """For the whole run: no credentials, proxies, CA bundles or settings, an empty home."""
    with pytest.MonkeyPatch.context() as patch:
        for name in filter(_is_foreign, list(os.environ)):
            patch.delenv(name)
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
        patch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # never ask a link-local address
        patch.setenv("NO_PROXY", "*")
        yield


@pytest.fixture
def memory_directory(tmp_path):
    """A directory in memory, if the system has one: for tests that restore a small database a
    thousand times and are not about the disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


@pytest.fixture(autouse=True)
def clean_settings(clean_environment):
    """For each test: removes the variables that the previous test set."""
    with pytest.MonkeyPatch.context() as patch:
        for name in filter(_is_foreign, list(os.environ)):
            if name not in ("AWS_EC2_METADATA_DISABLED", "NO_PROXY"):
                patch.delenv(name)
        yield


@pytest.fixture
def user_place():
    """A directory that every user of the machine can reach, see :mod:`tests.helpers.users`."""
    place = Place()
    yield place
    place.remove()

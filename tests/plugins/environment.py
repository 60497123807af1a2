"""Isolates the tests from the environment of the machine."""

import compileall
import os
import signal
import tempfile
from pathlib import Path

import pytest

from tests.helpers.users import Place

_PACKAGE = Path(__file__).parents[2] / "replicator"
_FOREIGN = ("AWS_", "BOTO", "REPLICATOR_", "SSL_CERT_")


def _is_foreign(name: str) -> bool:
    upper = name.upper()
    return upper.startswith(_FOREIGN) or upper.endswith(("_PROXY", "_CA_BUNDLE"))


def pytest_configure(config):
    """Compiles the package once, as pip does: the suite starts it in over a thousand processes."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(_PACKAGE, quiet=2)


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


@pytest.fixture(scope="session", autouse=True)
def default_signals():
    """Processes that tests start ignore no signal, even if this one does, as under ``nohup`` or in
    the background of a script: a signal that is caught here has its default meaning there."""
    ending = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
    ignored = [number for number in ending if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


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

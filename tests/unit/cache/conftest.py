"""Fixtures of the tests of the cache: a cache directory with segments in it."""

import shutil

import pytest

from replicator.cache.cache import Cache
from replicator.cache.records import Fact
from tests.helpers.cache import add, hashes_of, upload


def fill(directory):
    with Cache.open(directory) as cache:
        cache.save_hashes(0, hashes_of(3))
        for txid in range(1, 6):
            add(cache, txid, change=b"change" * txid)
        upload(cache, 1)
        cache.put(Fact.DATABASE, "1:2")
        cache.put(Fact.CLAIM, "3")
        return cache.records()


@pytest.fixture(scope="session")
def filled(tmp_path_factory):
    """A good cache directory to copy, and its records."""
    directory = tmp_path_factory.mktemp("filled") / "cache"
    return directory, fill(directory)


@pytest.fixture
def filled_cache(filled, tmp_path):
    """A copy of the directory of a filled cache."""
    shutil.copytree(filled[0], tmp_path / "cache")
    return tmp_path / "cache"

"""The search for the databases of a bucket costs a bounded number of requests."""

import pytest

from replicator.archive.listing import SearchLimits, find_databases
from replicator.archive.locate import sole_database
from replicator.errors import ConfigError
from replicator.store.memory import MemoryStore
from tests.helpers.counting import CountingStore
from tests.helpers.errors import raises


def folders(*names):
    store = MemoryStore()
    for name in names:
        store.put(f"{name}/wal/0000000000000001.wal.zst", b"")
    return store


def test_each_folder_is_listed_once():
    """Databases at every depth, in the order of their names, with one request for each folder."""
    store = CountingStore(folders("b", "a/x/y", "c/d"))
    assert find_databases(store) == ["a/x/y", "b", "c/d"]
    assert store.count("folders") == len({"", "a", "a/x", "a/x/y", "b", "c", "c/d"})


@pytest.mark.parametrize("made", [lambda n: f"{n}/readme", lambda n: f"{n // 10}/{n}/readme"])
def test_foreign_folders_end_the_search(made):
    """More folders than the limit: an error that asks for the prefix, before their requests."""
    inner = folders("app.db")
    for n in range(100):
        inner.put(made(n), b"")
    store = CountingStore(inner)
    with raises(ConfigError, "too_many_folders", setting="prefix"):
        find_databases(store, limits=SearchLimits(folders=50))
    assert store.count("folders") <= 50
    assert find_databases(store, limits=SearchLimits(folders=300)) == ["app.db"]


def test_an_error_names_some_of_many_databases():
    """Not all of them."""
    with raises(ConfigError, "several_databases") as caught:
        sole_database(folders(*(f"db-{n:04}" for n in range(150))))
    assert "150" in str(caught.value)
    assert str(caught.value).count("db-") == 100

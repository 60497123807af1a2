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
    """More foreign folders than the limit: an error that asks for the prefix, before their
    requests."""
    inner = folders("app.db")
    for n in range(100):
        inner.put(made(n), b"")
    store = CountingStore(inner)
    with raises(ConfigError, "too_many_folders", setting="prefix"):
        find_databases(store, limits=SearchLimits(folders=50))
    assert store.count("folders") <= 50 + 1  # and the database
    assert find_databases(store, limits=SearchLimits(folders=300)) == ["app.db"]


def test_databases_do_not_count_as_foreign_folders():
    """Any number of databases is found, because only folders without one are limited."""
    store = CountingStore(folders(*(f"db-{n:03}" for n in range(100))))
    assert len(find_databases(store, limits=SearchLimits(folders=2))) == 100
    assert store.count("folders") == 101


def test_a_database_below_another_one_is_found():
    """A folder of a database that holds none of its objects is searched; its own folders are
    not."""
    store = CountingStore(folders("shop", "shop/a.db", "shop/old/b.db"))
    store.inner.put("shop/merged/1/x", b"")
    assert find_databases(store) == ["shop", "shop/a.db", "shop/old/b.db"]
    assert store.count("folders") == len({"", "shop", "shop/a.db", "shop/old", "shop/old/b.db"})


def test_a_name_that_no_prefix_can_have_is_left_out():
    """Empty parts of a name, which another program made, are not another database's name."""
    assert find_databases(folders("a/", "/b", "c")) == ["c"]


def test_an_error_names_some_of_many_databases():
    """Not all of them."""
    with raises(ConfigError, "several_databases") as caught:
        sole_database(folders(*(f"db-{n:04}" for n in range(150))))
    assert "150" in str(caught.value)
    assert str(caught.value).count("db-") == 100

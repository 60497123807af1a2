"""Tests of an application with the fixtures of the plugin: pytest test_shop.py."""

import sqlite3

import pytest
from shop import add, connect, create_tables

from replicator import wait_durable
from replicator.errors import NotDurable


@pytest.fixture
def shop(replicated_database):
    """A shop whose database is replicated into a directory."""
    connection = connect(replicated_database.path)
    create_tables(connection)
    yield connection
    connection.close()


def test_an_order_can_be_restored(shop, replicated_database):
    add(shop, "book")
    copy = sqlite3.connect(replicated_database.assert_restorable())
    assert copy.execute("SELECT item FROM orders").fetchall() == [("book",)]
    copy.close()


def test_an_order_is_kept_while_the_store_is_away(shop, replicated_database, replica_bucket):
    replicated_database.flush()
    with replica_bucket.away():
        add(shop, "pen")
        with pytest.raises(NotDurable):
            wait_durable(shop, timeout=0.2)
    replicated_database.assert_restorable()


def test_the_database_of_an_application(replicate_database, tmp_path):
    database = replicate_database(tmp_path / "own.db", sync_interval=0.2)
    connection = connect(database.path)
    create_tables(connection)
    before = database.flush()
    add(connection, "mistake")
    connection.close()
    database.assert_restorable()
    copy = sqlite3.connect(database.restore(txid=before.txid))
    assert copy.execute("SELECT item FROM orders").fetchall() == []
    copy.close()

"""A start on a database that shrank: the state before stays one command away."""

import sqlite3

import pytest

from replicator.archive.keys import Keys
from replicator.archive.pins import list_pins
from replicator.errors import AccessDenied, RefusedError
from tests.helpers.errors import raises
from tests.helpers.replication import LONG, App, image_of, replicate_once, replicating, restored

KEYS = Keys("app.db")


def sql(path, *statements):
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement).fetchall()
    connection.close()


def replaced(path, *statements):
    """Another file in the database's place."""
    for name in path.parent.glob("app.db*"):
        name.unlink()
    sql(path, "PRAGMA journal_mode=WAL", *statements)


def pinned(store):
    return [point.txid for point in list_pins(store.inner, KEYS)]


@pytest.fixture
def stopped(path, store):
    """The position and the image of a database of many pages that no replicator follows."""
    with App(path) as app:
        with replicating(path, store) as replicator:
            app.insert(400)
            position = replicator.flush(LONG)
        image = app.image()
    return position, image


def test_a_database_that_lost_half_of_its_pages(path, store, out, stopped, caplog):
    """Replication continues, the transaction before is pinned, and log, status, metrics and the
    reason in the archive report it."""
    position, image = stopped
    sql(path, "DELETE FROM t", "VACUUM")
    with replicating(path, store) as replicator:
        after = replicator.flush(LONG)
        assert after.txid > position.txid
        assert "the database shrank" in replicator.status().last_error
        assert replicator.metrics.get("shrunk_starts") == 1
    assert pinned(store) == [position.txid]
    assert f"replicator restore --txid {position.txid}" in caplog.text
    assert "shrank" in store.inner.head(KEYS.wal(after.txid)).metadata["reason"]
    assert restored(store, out)[1] == image_of(path)
    assert restored(store, out, txid=position.txid)[1] == image
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        assert replicator.metrics.get("shrunk_starts") == 0


def test_tables_that_were_dropped_while_the_wal_was_kept(path, store, out):
    """The WAL proves that it is the same database: it continues, and the state before is
    pinned."""
    with App(path) as app, App(path) as reader:
        app.insert(3)
        reader.run("BEGIN", "SELECT * FROM t")  # so that the WAL is not reset
        with replicating(path, store) as replicator:
            app.insert(3)
            position = replicator.flush(LONG)
        app.run("DROP TABLE t")
        with replicating(path, store) as replicator:
            assert replicator.flush(LONG).txid == position.txid + 1
        assert pinned(store) == [position.txid]
        with replicating(path, store) as replicator:  # what has no table now had none before
            replicator.flush(LONG)
            assert replicator.metrics.get("shrunk_starts") == 0
        assert restored(store, out)[1] == app.image()


def test_a_new_file_without_tables_is_refused(path, store, out, stopped):
    """It counts as missing, although the cache has the record of the one before."""
    position, image = stopped
    replaced(path, "PRAGMA user_version=1")
    with raises(RefusedError, "fresh_over_history") as refused:
        replicate_once(path, store)
    assert "--auto-restore" in refused.value.hint
    report, data = restored(store, out)
    assert (report.txid, data) == (position.txid, image)


def test_a_database_that_became_a_little_smaller(path, store, stopped):
    """It is not reported as one that shrank."""
    sql(path, "DELETE FROM t WHERE id < 100", "VACUUM")
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        assert replicator.metrics.get("shrunk_starts") == 0


def test_a_take_over_by_a_small_database(tmp_path, store, out, stopped):
    """The order is followed, and the state before is pinned."""
    _, image = stopped
    (tmp_path / "other").mkdir()
    with App(tmp_path / "other" / "app.db") as other:
        with replicating(other.path, store, take_over=True) as replicator:
            replicator.flush(LONG)
        assert restored(store, out)[1] == other.image()
    (txid,) = pinned(store)
    assert restored(store, out, txid=txid)[1] == image


def test_a_pin_that_the_store_refuses(path, store, out, stopped, caplog):
    """Replication continues without it, and the log reports it."""

    def before(method, key):
        if "pins/" in key:
            raise AccessDenied("no pins here")

    store.before = before
    sql(path, "DELETE FROM t", "VACUUM")
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
    assert "could not be pinned: no pins here" in caplog.text
    assert restored(store, out)[1] == image_of(path)

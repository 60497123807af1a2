"""A database whose schema this SQLite library cannot use in full is followed like any other."""

import contextlib
from functools import partial

import pytest

from replicator.archive.keys import Keys
from replicator.archive.records import PROVEN, list_records
from replicator.engine.in_process import InProcessReplicator
from replicator.errors import ConfigError
from tests.helpers.replication import (
    LONG,
    App,
    config_for,
    image_of,
    replicating,
    restored,
    wait_for,
)
from tests.helpers.strange_schema import MODULES, NEWER_SQL, STRANGE, make_strange, supply

ALL = [*STRANGE, *MODULES]


@pytest.mark.parametrize("kind", ALL)
def test_such_a_database_is_followed_from_the_start(app, store, tmp_path, kind):
    """Hold, checkpoint, roll-over and restore work; the copy is exact to the byte."""
    make_strange(app.db, kind)
    app.insert(20)
    with replicating(app.path, store, limits={"capture": {"roll_over_frames": 16}}) as replicator:
        for _ in range(40):
            app.insert(3, size=2000)
        replicator.flush(LONG)
        wait_for(lambda: replicator.metrics.get("roll_overs"))
        app.insert()
        replicator.flush(LONG)
    assert restored(store, tmp_path)[1] == app.image()


@pytest.mark.parametrize("kind", NEWER_SQL)
def test_a_schema_that_becomes_such_is_followed(app, store, tmp_path, kind):
    """An application that upgrades its own SQLite while the replicator runs loses nothing."""
    app.insert(20)
    with replicating(app.path, store) as replicator:
        replicator.flush(LONG)
        make_strange(app.db, kind)
        app.insert(5)
        replicator.flush(LONG)
        app.checkpoint()
        app.insert(5)
        replicator.flush(LONG)
    assert restored(store, tmp_path)[1] == app.image()


def test_such_a_database_is_switched_to_wal_mode(path, store, tmp_path):
    """The switch reads the schema, too."""
    with App(path, mode="DELETE") as app:
        make_strange(app.db, "view")
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        assert restored(store, tmp_path)[1] == image_of(path)


def test_a_drill_of_a_running_replicator_uses_the_hook(app, store, caplog):
    """It is proven with and without; only without is something left to say."""
    supply(app.db)
    make_strange(app.db, "collation")
    for prepare, lacking in ((None, True), (supply, False)):
        caplog.clear()
        options = {"prepare": prepare} if prepare else {}
        made = partial(InProcessReplicator, store=store, **options)
        with made(config_for(app.path, drill_interval=0.01)) as replicator:
            app.insert()
            txid = replicator.flush(LONG).txid
            wait_for(lambda txid=txid: replicator.status().last_verified_txid == txid)
            assert replicator.status().healthy
        assert ("inconclusive" in caplog.text) is lacking
    assert {each.outcome for each in list_records(store, Keys("app.db"))} == {PROVEN}


def test_an_extension_that_cannot_be_loaded_ends_no_start_half_way(app, store, tmp_path):
    """Where this Python loads no extensions the start is refused, and can be repeated without."""
    config = config_for(app.path, drill_extension=tmp_path / "absent.so", drill_interval=0.01)
    replicator = InProcessReplicator(config, store=store)
    with contextlib.suppress(ConfigError):
        replicator.start()
    replicator.stop()
    with InProcessReplicator(config_for(app.path), store=store) as replicator:
        assert replicator.flush(LONG).txid

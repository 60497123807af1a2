"""A database whose schema this SQLite library cannot use in full is followed like any other."""

import pytest

from tests.helpers.replication import LONG, App, image_of, replicating, restored, wait_for
from tests.helpers.strange_schema import MODULES, NEWER_SQL, STRANGE, make_strange

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

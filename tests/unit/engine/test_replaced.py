"""Another file in the database's place, while no replicator runs or while one does.

A start follows it only if it is most likely the same database; and in any case the state before
stays one command away, and the status names it.
"""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from functools import partial

import pytest

from replicator.archive.index import PinnedPoint
from replicator.archive.keys import Keys
from replicator.archive.pins import list_pins, pin
from replicator.engine.pinning import KEPT
from replicator.errors import RefusedError
from replicator.system.paths import cache_directory, side_files
from tests.helpers.replication import (
    LONG,
    App,
    image_of,
    replicating,
    replicator_for,
    restored,
    wait_for,
)

KEYS = Keys("app.db")
ROWS = 600  # about a hundred pages


def pinned(store):
    return sorted({point.txid for point in list_pins(store.inner, KEYS)})


def close(app):
    """The last connection ends: everything is in the file."""
    app.checkpoint("TRUNCATE")
    app.close()


def copy_of(path, tmp_path, name="copy.db"):
    """Another file with the bytes of the database."""
    copy = tmp_path / name
    copy.write_bytes(image_of(path))
    return copy


def move_into_place(new, path):
    for name in side_files(path):
        name.unlink(missing_ok=True)
    os.replace(new, path)


def copy_into_place(new, path):
    """The file keeps its number."""
    for name in side_files(path):
        name.unlink(missing_ok=True)
    subprocess.run(["cp", new, path], check=True)  # closing it here would drop locks


PLACES = [move_into_place, copy_into_place]


@pytest.fixture
def not_followed(path, store):
    """The position and the image of a database that no replicator follows."""
    with App(path) as app:
        with replicating(path, store) as replicator:
            fill(path, 10)
            position = replicator.flush(LONG)
        image = app.image()
        app.checkpoint("TRUNCATE")
    return position, image


def fill(path, connections=1):
    """Each connection that writes raises the counter in the header."""
    for _ in range(connections):
        with App(path) as app:
            app.insert(ROWS // connections)


def refusal(path, store, **settings):
    """The error of a start that is refused when it compares."""
    with replicating(path, store, **settings) as replicator:
        error = wait_for(lambda: replicator.failed)
    assert isinstance(error, RefusedError)
    return error


@pytest.mark.parametrize("rows", [3, ROWS], ids=["small", "as large"])
def test_another_database_is_refused(path, store, out, tmp_path, not_followed, rows):
    """Its pages are not those that the cache knows, and nothing is written to the archive."""
    position, image = not_followed
    with App(tmp_path / "new.db") as new:
        new.insert(rows)
        new.checkpoint("TRUNCATE")
    move_into_place(tmp_path / "new.db", path)
    before = [info.key for info in store.inner.list("")]
    error = refusal(path, store)
    assert (error.code, error.exit_code) == ("different_database", 6)
    assert "--take-over" in error.hint
    assert "--restore" in error.hint
    report, data = restored(store, out)
    assert (report.txid, data) == (position.txid, image)
    assert pinned(store) == []
    assert [info.key for info in store.inner.list("")] == before


def test_a_database_that_an_application_made_anew_is_refused(path, store, out, not_followed):
    """Also if the system gives it the number of the removed file: its time of birth is another."""
    _, image = not_followed
    for name in (path, *side_files(path)):
        name.unlink()
    with App(path) as app:
        app.insert(200)
        app.checkpoint("TRUNCATE")
    with closing(sqlite3.connect(cache_directory(path) / "state.db")) as db, db:
        db.execute("DELETE FROM fact WHERE name = 'database'")
    assert refusal(path, store).code == "different_database"
    assert restored(store, out)[1] == image


def test_a_file_that_lost_its_newest_commits(path, store, out, not_followed):
    """As after a power cut: the same file goes back. It is followed, and the state before is
    pinned, also if most of its few pages differ."""
    position, image = not_followed
    with path.open("r+b") as file:  # the same file
        file.truncate(0)
    with App(path) as app:
        app.insert(200)
        app.checkpoint("TRUNCATE")
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        assert f"transaction {position.txid} is pinned" in replicator.status().last_error
    assert pinned(store) == [position.txid]
    assert restored(store, out)[1] == image_of(path)
    assert restored(store, out, txid=position.txid)[1] == image


@pytest.mark.parametrize("order", ["take_over", "restore"])
def test_the_orders_after_the_refusal(path, store, out, tmp_path, not_followed, order):
    """One keeps the local database, the other one restores; the other state stays."""
    position, image = not_followed
    with App(tmp_path / "new.db") as new:
        new.insert(ROWS)
        new.checkpoint("TRUNCATE")
    local = (tmp_path / "new.db").read_bytes()
    move_into_place(tmp_path / "new.db", path)
    with replicating(path, store, **{order: True}) as replicator:
        after = replicator.flush(LONG)
    if order == "restore":
        assert image_of(path) == image
        (moved,) = path.parent.glob("app.db.stale-*")
        assert (moved / "app.db").read_bytes() == local
    else:
        assert after.txid > position.txid
        assert restored(store, out)[1] == local
    assert restored(store, out, txid=position.txid)[1] == image


def test_a_take_over_keeps_what_waits_in_the_cache(path, store, out, tmp_path):
    """The newest state of the database before was not in the bucket yet: it is appended first."""
    with App(path) as app:
        with replicating(path, store) as replicator:
            fill(path)
            replicator.flush(LONG)
            store.go_away()
            app.insert(3)
            wait_for(lambda: replicator.status().pending_segments)
            waiting = replicator.status().txid
        image = app.image()
    with App(tmp_path / "new.db") as new:
        new.insert(ROWS)
        new.checkpoint("TRUNCATE")
    move_into_place(tmp_path / "new.db", path)
    store.come_back()
    with replicating(path, store, take_over=True) as replicator:
        replicator.flush(LONG)
    assert restored(store, out)[1] == image_of(path)
    assert restored(store, out, txid=waiting)[1] == image


@pytest.mark.parametrize("place", PLACES)
def test_a_copy_of_the_same_state_is_followed(path, store, tmp_path, not_followed, place):
    """Nothing is captured or pinned for it."""
    position, _ = not_followed
    place(copy_of(path, tmp_path), path)
    with replicating(path, store) as replicator:
        assert replicator.flush(LONG) == position
        assert replicator.metrics.get("replaced_databases") == 0
    assert pinned(store) == []


@pytest.mark.parametrize("place", PLACES)
def test_an_older_copy_of_the_same_database(path, store, out, tmp_path, place):
    """It is the next transaction; the newest state before is pinned, and status and log name it."""
    with App(path) as app:
        with replicating(path, store) as replicator:
            fill(path)
            replicator.flush(LONG)
            older = copy_of(path, tmp_path)
            app.insert(60)
            app.run("CREATE TABLE later(x)")
            position, image = replicator.flush(LONG), app.image()
        app.checkpoint("TRUNCATE")
    then = older.read_bytes()
    place(older, path)
    with replicating(path, store) as replicator:
        after = replicator.flush(LONG)
        assert f"transaction {position.txid} is pinned" in replicator.status().last_error
        assert replicator.metrics.get("replaced_databases") == 1
    assert after.generation == position.generation
    assert pinned(store) == [position.txid]
    assert restored(store, out)[1] == then
    assert restored(store, out, txid=position.txid)[1] == image
    with replicating(path, store) as replicator:  # reported once
        assert replicator.flush(LONG) == after
        assert replicator.metrics.get("replaced_databases") == 0


def test_a_newer_copy_of_the_same_database(path, store, out, tmp_path, not_followed):
    """``cp``, changes, ``mv``: another file with most of the pages."""
    position, image = not_followed
    copy = copy_of(path, tmp_path)
    with App(copy) as app:
        app.insert(30)
        app.checkpoint("TRUNCATE")
    move_into_place(copy, path)
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        assert replicator.metrics.get("replaced_databases") == 1
    assert restored(store, out)[1] == image_of(path)
    assert pinned(store) == [position.txid]
    assert restored(store, out, txid=position.txid)[1] == image


def vacuum(path, tmp_path):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DELETE FROM t WHERE id % 7 = 0")
        db.execute("VACUUM")


def vacuum_into(path, tmp_path):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DELETE FROM t WHERE id % 7 = 0")
        db.execute("VACUUM INTO ?", (str(tmp_path / "vacuumed.db"),))
    with closing(sqlite3.connect(tmp_path / "vacuumed.db")) as db:
        db.execute("PRAGMA journal_mode=WAL").fetchall()
    move_into_place(tmp_path / "vacuumed.db", path)


def test_a_vacuum_while_no_replicator_ran(path, store, out, tmp_path, not_followed):
    """Most pages of the same file differ: it is followed, and the state before is pinned."""
    position, image = not_followed
    vacuum(path, tmp_path)
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        assert replicator.metrics.get("replaced_databases") == 1
    assert restored(store, out)[1] == image_of(path)
    assert pinned(store) == [position.txid]
    assert restored(store, out, txid=position.txid)[1] == image


def test_a_vacuumed_copy_needs_an_order(path, store, out, tmp_path, not_followed):
    """``VACUUM INTO`` leaves no page as it was in a new file, which nothing tells from a foreign
    one."""
    position, _ = not_followed
    vacuum_into(path, tmp_path)
    assert refusal(path, store).code == "different_database"
    with replicating(path, store, take_over=True) as replicator:
        assert replicator.flush(LONG).txid > position.txid
    assert restored(store, out)[1] == image_of(path)


def test_another_database_that_was_copied_over(path, store, out, tmp_path, not_followed):
    """The file keeps its number and its header has higher counters, as after a VACUUM: it is
    followed, and the state before is pinned."""
    position, image = not_followed
    fill(tmp_path / "new.db", 30)
    copy_into_place(tmp_path / "new.db", path)
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        assert f"transaction {position.txid} is pinned" in replicator.status().last_error
    assert restored(store, out)[1] == image_of(path)
    assert pinned(store) == [position.txid]
    assert restored(store, out, txid=position.txid)[1] == image


def test_an_application_that_wrote_while_no_replicator_ran(path, store, not_followed):
    """The ordinary restart: nothing is pinned or reported."""
    with App(path) as app:
        app.insert(100)
        app.run("DELETE FROM t WHERE id < 50")
        app.checkpoint("TRUNCATE")
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        assert replicator.metrics.get("replaced_databases") == 0
    assert pinned(store) == []


def test_small_databases_that_change_often_are_no_news(path, store):
    """Of a few pages most may change between two runs."""
    with App(path) as app:
        for _ in range(3):
            with replicating(path, store) as replicator:
                replicator.flush(LONG)
                assert replicator.metrics.get("replaced_databases") == 0
            app.run("UPDATE t SET body = randomblob(500)")
            app.insert(2)
            app.checkpoint("TRUNCATE")
    assert pinned(store) == []


@pytest.mark.parametrize("place", PLACES)
def test_another_database_while_a_replicator_runs(path, store, out, tmp_path, place):
    """The guide describes the replacement, so it is followed; the state before is pinned."""
    with App(tmp_path / "new.db") as new:
        new.insert(ROWS)
        new.checkpoint("TRUNCATE")
    with App(path) as app:
        fill(path)
        with replicating(path, store) as replicator:
            position, image = replicator.flush(LONG), app.image()
            close(app)
            wait_for(lambda: not any(p.exists() and p.stat().st_size for p in side_files(path)[:1]))
            place(tmp_path / "new.db", path)
            wait_for(lambda: replicator.metrics.get("replaced_databases"))
            replicator.flush(LONG)
            assert f"transaction {position.txid} is pinned" in replicator.status().last_error
            assert replicator.failed is None
    assert restored(store, out)[1] == image_of(path)
    assert pinned(store) == [position.txid]
    assert restored(store, out, txid=position.txid)[1] == image


def replaced_more_often(replicator, number):
    return replicator.metrics.get("replaced_databases") > number


def test_only_the_newest_automatic_pins_stay(path, store, tmp_path):
    """A deployment that replaces its database every day does not keep every state; pins of a user
    stay, also if he gave his name to an automatic one."""
    with App(path) as app:
        app.insert(3)
    with replicating(path, store) as replicator:
        pin(store, KEYS, PinnedPoint(replicator.flush(LONG).txid, "mine"))
        txids = []
        for number in range(KEPT + 3):
            txids.append(replicator.flush(LONG).txid)
            with App(tmp_path / "new.db") as new:
                new.insert(5)
            move_into_place(tmp_path / "new.db", path)
            wait_for(partial(replaced_more_often, replicator, number))
            if number == 1:
                pin(store, KEYS, PinnedPoint(txids[1], "", "before-the-migration"))
        replicator.flush(LONG)
        assert pinned(store) == [*txids[:2], *txids[-KEPT:]]


def test_the_decision_is_in_the_log(path, store, tmp_path, not_followed, caplog):
    """With its inputs, also if a cache has the record."""
    caplog.set_level("INFO")
    with App(tmp_path / "new.db") as new:
        new.insert(3)
        new.checkpoint("TRUNCATE")
    move_into_place(tmp_path / "new.db", path)
    refusal(path, store)
    assert (
        "start: refuse (different_database); database: different; archive: history" in caplog.text
    )


def test_a_cache_of_an_older_version_has_no_counters(path, store, tmp_path, not_followed):
    """Then the number of the file and the pages decide alone."""
    replicator = replicator_for(path, store)
    ledger = replicator.config.cache / "state.db"
    with closing(sqlite3.connect(ledger)) as db, db:
        db.execute("DELETE FROM fact WHERE name = 'counters'")
    copy_into_place(shutil.copy(path, tmp_path / "copy.db"), path)
    with replicating(path, store) as replicator:
        assert replicator.flush(LONG) == not_followed[0]

"""Marks on a real server and through the handle of an application: from the call to a restore."""

import sqlite3
from contextlib import closing
from itertools import islice

from replicator import SqliteReplicator, SqliteReplicatorConfig, restore
from replicator.archive.index import PinnedPoint
from replicator.archive.keys import Keys
from replicator.archive.pins import list_pins
from replicator.inspect.transactions import touching
from replicator.sidecar.control_client import ask
from tests.helpers.command_line import cache_of
from tests.helpers.replication import LONG, App


def rows(path):
    with sqlite3.connect(path) as db:
        return db.execute("SELECT count(*) FROM t").fetchone()[0]


def test_a_mark_on_a_real_server(cli, tmp_path):
    """Commits before the mark are in what its name restores, and those after it are not. A second
    mark is refused; with the server away nothing is marked by the deadline."""
    db = tmp_path / "app.db"
    with App(db) as app:
        sidecar = cli.sidecar(db)
        sidecar.until_following()
        app.insert(3)
        marked = cli.call("mark", db, "before-cleanup", "--note", "why", "--json")
        assert (marked.code, marked.json["name"]) == (0, "before-cleanup"), marked.err
        app.run("DELETE FROM t")
        again = cli.call("mark", db, "before-cleanup", "--json")
        assert (again.code, again.error["code"]) == (2, "name_taken")
        cli.server.pause()
        try:
            app.insert()
            late = cli.call("mark", db, "too-late", "--timeout", "1s", "--json")
            assert (late.code, late.error["kind"]) == (5, "NotDurable")
        finally:
            cli.server.resume()
        ask(cache_of(db), {"command": "flush", "timeout": LONG})
    with closing(cli.store()) as store:
        (pinned,) = list_pins(store, Keys("app.db"))
        assert pinned == PinnedPoint(marked.json["txid"], "why", "before-cleanup")
        output = tmp_path / "restored.db"
        assert restore(store=store, prefix="app.db", at="before-cleanup", output=output)
        assert rows(output) == 3
        found = touching(store, "app.db", table="t", scratch=tmp_path)
        assert [each.tables for each in islice(found, 3)] == [("t",)] * 3


def test_a_mark_through_the_handle(tmp_path):
    """The application asks its sidecar, and restores by the name."""
    (tmp_path / "bucket").mkdir()
    url = f"file://{tmp_path}/bucket"
    with App(tmp_path / "app.db") as app:
        config = SqliteReplicatorConfig(db_path=app.path, url=url, prefix="app.db")
        with SqliteReplicator(config) as replicator:
            app.insert(2)
            position = replicator.mark("here", LONG, note="why")
            app.insert(5)
    report = restore(url=url, prefix="app.db", at="here", output=tmp_path / "out.db")
    assert (report.txid, rows(tmp_path / "out.db")) == (position.txid, 2)

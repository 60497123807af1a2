"""prune, pin and unpin, as their user meets them, against a directory that plays the bucket."""

import json
import os
import sqlite3
import time

import pytest

from replicator import SqliteReplicatorConfig
from replicator.engine.in_process import InProcessReplicator
from replicator.errors import AccessDenied
from replicator.store.directory import DirectoryStore

NOTHING = (
    "--keep-every-transaction",
    "off",
    "--keep-hourly",
    "off",
    "--keep-daily",
    "off",
    "--keep-snapshots",
    "1",
)


@pytest.fixture
def aged_backup(tmp_path):
    """A generation at txid 1, transactions 2 to 4, a snapshot of 4, and three more."""
    (tmp_path / "bucket").mkdir()
    path, aged_backup = tmp_path / "app.db", f"file://{tmp_path}/bucket"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE t (x)")
    with InProcessReplicator(SqliteReplicatorConfig(db_path=path, url=aged_backup)) as replicator:
        replicator.flush(60)
        for row in range(6):
            db.execute("INSERT INTO t VALUES (?)", (row,))
            replicator.flush(60, snapshot=row == 2)
    db.close()
    for stored in (tmp_path / "bucket").rglob("*.zst"):
        os.utime(stored, (time.time() - 7200,) * 2)  # nothing younger than an hour goes by age
    return aged_backup


def keys(tmp_path):
    return [info.key for info in DirectoryStore(tmp_path / "bucket").list("")]


def test_a_plan_changes_nothing_and_gives_reasons(run, aged_backup, tmp_path):
    """Every object that would go is listed; --all lists the others too."""
    before = keys(tmp_path)
    code, out, _ = run("prune", "--url", aged_backup, *NOTHING)
    assert code == 0
    assert "older than every rule" in out
    assert "this is a plan" in out
    assert keys(tmp_path) == before
    code, out, _ = run("prune", "--url", aged_backup, *NOTHING, "--all")
    assert "the next append follows it" in out


def test_the_defaults_keep_everything_of_today(run, aged_backup):
    """Nothing is old enough."""
    code, out, _ = run("prune", "--url", aged_backup, "--yes")
    assert code == 0
    assert "nothing to delete" in out


def test_yes_deletes_what_was_planned(run, aged_backup, tmp_path):
    """And only that; what stays can be restored."""
    plan = json.loads(run("prune", "--url", aged_backup, *NOTHING, "--json")[1])
    gone = [each["key"] for each in plan["objects"] if not each["keep"]]
    assert gone
    assert plan["deleted"] is None
    done = json.loads(run("prune", "--url", aged_backup, *NOTHING, "--json", "--yes")[1])
    assert done["deleted"] == gone
    assert not set(gone) & set(keys(tmp_path))
    code, _, err = run("restore", "--url", aged_backup, "--output", tmp_path / "out.db", "--json")
    assert code == 0, err
    rows = sqlite3.connect(tmp_path / "out.db").execute("SELECT count(*) FROM t").fetchone()
    assert rows == (6,)


def test_a_bucket_that_forbids_deletions(run, aged_backup, monkeypatch):
    """The output names the reason; the exit code is that of a refusal."""

    def refuse(self, key):
        raise AccessDenied(f"DELETE {key} is forbidden")

    monkeypatch.setattr(DirectoryStore, "delete", refuse)
    code, out, _ = run("prune", "--url", aged_backup, *NOTHING, "--yes")
    assert code == 6
    assert "the bucket forbids deletions" in out


def test_a_bucket_that_keeps_versions(run, aged_backup, monkeypatch):
    """The output explains that the space is not free yet."""
    monkeypatch.setattr(DirectoryStore, "keeps_versions", True)
    assert "noncurrent versions" in run("prune", "--url", aged_backup, *NOTHING, "--yes")[1]


def test_pins_are_kept_listed_and_let_go(run, aged_backup, tmp_path):
    """A pinned transaction outlives every rule; unpinned it does not."""
    assert "no transaction is pinned" in run("pin", "--url", aged_backup)[1]
    code, out, err = run("pin", 2, "--note", "before [bold]the move", "--url", aged_backup)
    assert code == 0, err
    assert "before [bold]the move" in out
    assert json.loads(run("pin", "--url", aged_backup, "--json")[1]) == [
        {"txid": 2, "note": "before [bold]the move", "name": ""}
    ]
    out = run("prune", "--url", aged_backup, *NOTHING, "--yes", "--all")[1]
    assert "deleted" in out
    assert run("restore", "--url", aged_backup, "--txid", 2, "--output", tmp_path / "a.db")[0] == 0
    code, _, err = run("restore", "--url", aged_backup, "--txid", 3, "--output", tmp_path / "b.db")
    assert code == 4, out
    code, out, _ = run("unpin", 2, "--url", aged_backup)
    assert "no longer pinned" in out
    code, _, err = run("unpin", 2, "--url", aged_backup, "--json")
    assert (code, json.loads(err)["error"]) == (1, "transaction 2 is not pinned")
    run("prune", "--url", aged_backup, *NOTHING, "--yes")
    assert run("restore", "--url", aged_backup, "--txid", 2, "--output", tmp_path / "c.db")[0] == 4


def test_what_cannot_be_restored_cannot_be_pinned(run, aged_backup):
    """It is refused, because the pin would protect nothing."""
    code, _, err = run("pin", 99, "--url", aged_backup)
    assert code == 4
    assert "cannot be restored" in err
    run("pin", 2, "--url", aged_backup)
    assert json.loads(run("unpin", 2, "--url", aged_backup, "--json")[1])["unpinned"] == 2


def test_a_name_stands_for_its_transaction_in_every_command(run, aged_backup, tmp_path):
    """restore, open, drill, diff and pin; in lists it is shown, and unpin takes it away."""
    url = ("--url", aged_backup)
    assert run("pin", "2", "--name", "here", "--note", "why", *url)[0] == 0
    assert json.loads(run("pin", *url, "--json")[1]) == [{"txid": 2, "note": "why", "name": "here"}]
    assert "transaction 2  here  why" in run("history", *url)[1]
    code, out, err = run("restore", *url, "--at", "here", "--output", tmp_path / "a.db", "--json")
    assert (code, json.loads(out)["txid"]) == (0, 2), err
    code, out, _ = run("drill", *url, "--at", "here", "--scratch", tmp_path, "--json")
    assert (code, json.loads(out)["restore"]["txid"]) == (0, 2)
    code, _, err = run("open", *url, "--at", "here", "--scratch", tmp_path, "--", "true")
    assert (code, "transaction 2" in err) == (0, True)
    out = run("diff", *url, "--from", "here", "--to", "4", "--scratch", tmp_path, "--json")[1]
    assert [json.loads(out)[side]["txid"] for side in ("older", "newer")] == [2, 4]
    assert run("pin", "here", "--name", "again", *url)[0] == 0
    assert json.loads(run("unpin", "here", *url, "--json")[1]) == {"unpinned": 2, "name": "here"}
    code, _, err = run("restore", *url, "--at", "here", "--output", tmp_path / "b.db", "--json")
    assert (code, json.loads(err)["code"]) == (2, "unknown_name")
    assert run("restore", *url, "--at", "again", "--output", tmp_path / "b.db")[0] == 0
    assert run("pin", "newest", "--name", "end", *url)[0] == 0
    assert "7" in run("pin", *url)[1]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("pin", "3", "--name", "here"), "name_taken"),
        (("pin", "3", "--name", "2026-01-31"), "invalid_name"),
        (("pin", "--name", "other"), "config"),
        (("unpin", "2 hours ago"), "config"),
        (("restore", "--at", "here", "--txid", "1", "-o", "x"), "config"),
        (("restore", "--at", "yesteday", "-o", "x"), "unknown_name"),
    ],
)
def test_names_that_cannot_work_are_refused(run, aged_backup, arguments, code):
    """Each with a code, and without a change."""
    run("pin", "2", "--name", "here", "--url", aged_backup)
    exit_code, _, err = run(*arguments, "--url", aged_backup, "--json")
    assert (exit_code, json.loads(err)["code"]) == (2, code)
    pins = json.loads(run("pin", "--url", aged_backup, "--json")[1])
    assert [(each["txid"], each["name"]) for each in pins] == [(2, "here")]

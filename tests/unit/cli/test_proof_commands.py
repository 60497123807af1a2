"""verify, drill, diff and open as commands: what they print, and how they end."""

import json
import os
import sqlite3

import pytest

from replicator import SqliteReplicatorConfig
from replicator.cli import diff as diff_command
from replicator.cli import sidecar
from replicator.cli import status as status_command
from replicator.engine.in_process import InProcessReplicator
from replicator.inspect.diff import ComparedPoint, DiffReport
from tests.helpers.control import answering
from tests.helpers.replication import wait_for


@pytest.fixture
def users_db(tmp_path):
    """The path of a database with a table ``users`` and without an open connection."""
    path = tmp_path / "app.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE users (x)")
    connection.close()
    return path


@pytest.fixture
def users_url(users_db, bucket_url):
    """Three transactions after the first, each an object of its own."""
    with InProcessReplicator(
        SqliteReplicatorConfig(db_path=users_db, url=bucket_url)
    ) as replicator:
        replicator.flush(60)
        connection = sqlite3.connect(users_db, isolation_level=None)
        for row in range(3):
            connection.execute("INSERT INTO users VALUES (?)", (row,))
            replicator.flush(60)
        connection.close()
    return bucket_url


def spoil(tmp_path, txid=3):
    path = tmp_path / f"bucket/app.db/wal/{txid:016x}.wal.zst"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# --------------------------------------------------------------------------------- verify


def test_verify_says_that_all_is_whole(run, users_url):
    """And that nothing was read to its last byte, unless it was."""
    code, out, _ = run("verify", "--url", users_url)
    assert code == 0
    assert out.startswith("● whole  file://")
    assert "no object in full" in out
    assert "transactions 1 … 4" in out
    code, out, err = run("verify", "--url", users_url, "--data")
    assert (code, "read        5 objects" in out) == (0, True)
    assert "reading objects" in err


def test_verify_names_damage_and_what_is_lost(run, users_url, tmp_path):
    """Exit code 3 and the object; without --data it is not seen."""
    spoil(tmp_path)
    assert run("verify", "--url", users_url)[0] == 0
    code, out, _ = run("verify", "--url", users_url, "--data")
    assert code == 3
    assert out.startswith("● DAMAGED  ")
    assert "damaged app.db/wal/0000000000000003.wal.zst" in out
    assert "  lost     transactions 3 … 4" in out
    assert "NOT restorable" in out


def test_verify_names_what_is_missing(run, users_url, tmp_path):
    """Exit code 4; an archive without any restore point is reported, too."""
    (tmp_path / "bucket/app.db/wal/0000000000000003.wal.zst").unlink()
    code, out, _ = run("verify", "--url", users_url)
    assert (code, out.startswith("● INCOMPLETE")) == (4, True)
    for snapshot in (tmp_path / "bucket/app.db/snapshots").iterdir():
        snapshot.unlink()
    code, out, _ = run("verify", "--url", users_url)
    assert (code, "restorable  nothing" in out) == (4, True)


def test_verify_in_json_is_the_report_and_the_code(run, users_url, tmp_path):
    """With --json, verify prints its report and exits with its code."""
    spoil(tmp_path)
    code, out, _ = run("verify", "--url", users_url, "--sample", "100%", "--seed", 7, "--json")
    report = json.loads(out)
    assert (code, report["exit_code"], report["seed"]) == (3, 3, 7)
    assert report["findings"][0]["key"] == "app.db/wal/0000000000000003.wal.zst"
    assert "repair" not in report


def test_a_sample_says_how_to_repeat_it(run, users_url):
    """By chance with its seed; by day without one."""
    _, out, _ = run("verify", "--url", users_url, "--sample", "50%")
    assert "a sample of 50% drawn with --seed " in out
    _, out, _ = run("verify", "--url", users_url, "--sample", "1/1")
    assert "a sample of 1/1\n" in out
    for text in ("0%", "2/7", "many", "101%"):
        assert run("verify", "--url", users_url, "--sample", text)[0] == 2


def test_an_object_that_others_stand_in_for_costs_nothing(run, users_url, tmp_path, users_db):
    """A second snapshot damaged: named, and nothing is lost."""
    with InProcessReplicator(SqliteReplicatorConfig(db_path=users_db, url=users_url)) as replicator:
        replicator.snapshot(60)
    newest = max((tmp_path / "bucket/app.db/snapshots").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    code, out, _ = run("verify", "--url", users_url)
    assert (code, "nothing: other objects hold the same" in out) == (3, True)


def test_verify_has_the_sidecar_repair_the_present(run, users_url, tmp_path, users_db):
    """With --database it is asked at once; the answer is shown, and now all is well."""
    spoil(tmp_path, 4)
    replicator = InProcessReplicator(SqliteReplicatorConfig(db_path=users_db, url=users_url))
    replicator.start()
    with answering(replicator.config.cache, replicator):
        code, out, _ = run("verify", "--url", users_url, "--data", "--database", users_db)
        assert code == 3
        assert "repaired with a new snapshot: every transaction from 4 is restorable" in out
        answer = sidecar.LocalSidecar(users_db).repair()
        assert answer["repair"]["action"] == "none"
    replicator.stop()
    assert run("drill", "--url", users_url)[0] == 0


def test_a_sidecar_that_does_not_answer_is_told(run, users_url, tmp_path, users_db):
    """verify reports that no sidecar could repair the damage."""
    spoil(tmp_path)
    _, out, _ = run("verify", "--url", users_url, "--data", "--database", users_db)
    assert "not repaired: no sidecar answers" in out
    _, out, _ = run("verify", "--url", users_url, "--data", "--database", users_db, "--json")
    assert "no sidecar" in json.loads(out)["repair"]["error"]


def test_a_sound_present_is_said_to_be_sound(capsys):
    """A repair that was not needed is reported as such."""
    sidecar.show_repair({"repair": {"txid": 1234, "action": "none"}})
    assert capsys.readouterr().out == "no repair needed: transaction 1,234 is restorable\n"
    sidecar.show_repair({})
    assert capsys.readouterr().out == ""


# ---------------------------------------------------------------------------------- drill


def test_a_drill_says_what_it_proved(run, users_url, tmp_path):
    """drill prints the transaction, its checks and its record."""
    code, out, _ = run(
        "drill",
        "--url",
        users_url,
        "--scratch",
        tmp_path,
        "--assert",
        "SELECT count(*) = 3 FROM users",
    )
    assert code == 0
    assert "● verified  transaction 4 of file://" in out
    assert "SQLite's integrity_check, SELECT count(*) = 3 FROM users" in out
    assert "recorded     app.db/proofs/" in out


def test_a_drill_in_json(run, users_url):
    """With --json, drill prints its report."""
    code, out, _ = run("drill", "--url", users_url, "--json", "--txid", 2)
    assert (code, json.loads(out)["restore"]["txid"]) == (0, 2)


def test_a_drill_that_fails_is_loud_and_asks_for_repair(run, users_url, tmp_path, users_db):
    """Its exit code is the failure's; the sidecar is asked where one is named."""
    spoil(tmp_path)
    code, out, err = run("drill", "--url", users_url, "--database", users_db)
    assert (code, "not repaired" in out) == (3, True)
    assert "0000000000000003.wal.zst" in err
    assert run("drill", "--url", users_url, "--assert", "SELECT 0")[0] == 3
    code, out, err = run("drill", "--url", users_url, "--json")
    assert (code, out) == (3, "")


def test_a_drill_that_worked_is_told_to_the_sidecar(run, users_url, users_db):
    """So that its status knows the proof."""
    replicator = InProcessReplicator(SqliteReplicatorConfig(db_path=users_db, url=users_url))
    replicator.start()
    with answering(replicator.config.cache, replicator):
        assert run("drill", "--url", users_url, "--database", users_db)[0] == 0
        wait_for(lambda: replicator.status().last_verified_txid == 4)
    replicator.stop()
    assert run("drill", "--url", users_url, "--database", users_db)[0] == 0  # no sidecar runs


def test_the_status_shows_the_newest_proof(capsys, users_db, bucket_url):
    """Or that there is none."""
    config = SqliteReplicatorConfig(db_path=users_db, url=bucket_url)
    status = InProcessReplicator(config).status()
    status_command.show(status)
    assert "never; see replicator drill" in capsys.readouterr().out
    from dataclasses import replace

    status_command.show(replace(status, last_verified_txid=1234, last_verified_ms=1000), now=61)
    assert "transaction 1,234 was restored 1 m 00 s ago" in capsys.readouterr().out


# ----------------------------------------------------------------------------- diff, open


def test_diff_shows_tables_and_rows(run, users_url):
    """diff counts inserted, deleted and updated rows of each table."""
    code, out, _ = run("diff", "--url", users_url, "--from", "2", "--to", "4")
    assert code == 0
    assert "from   transaction 2, committed " in out
    assert out.splitlines()[-1].split() == ["users", "2", "0", "0"]
    code, out, _ = run("diff", "--url", users_url, "--from", "3", "--to", "3")
    assert out.splitlines()[-1] == "no table changed"
    code, out, _ = run("diff", "--url", users_url, "--from", "3", "--json")
    assert json.loads(out)["tables"] == [
        {"table": "users", "inserted": 1, "deleted": 0, "updated": 0, "note": ""}
    ]
    assert run("diff", "--url", users_url, "--from", "77")[0] == 4
    assert run("diff", "--url", users_url)[0] == 2


def test_diff_shows_the_schema_and_what_is_unknown(capsys):
    """diff prints changes of the schema and tables that it cannot compare."""
    from replicator.sqlite.compare import SchemaChange, TableChange

    point = ComparedPoint(1, None, 10, 4096)
    diff_command.show(
        DiffReport(
            "u",
            point,
            point,
            None,
            (SchemaChange("table", "t", "added"),),
            (TableChange("t", None, None, None, "cannot be compared: x"),),
        )
    )
    out = capsys.readouterr().out
    assert "the page size changed" in out
    assert "table    t      added" in out
    assert out.splitlines()[-1].split()[:4] == ["t", "?", "?", "?"]


def test_open_runs_a_command_on_a_restore_point(run, users_url):
    """Only the output of the command is on stdout; its exit code is the exit code."""
    code, out, err = run(
        "open",
        "--url",
        users_url,
        "--txid",
        3,
        "--",
        "sqlite3",
        "{}",
        "SELECT count(*) FROM users",
    )
    assert (code, out) == (0, "2\n")
    assert "transaction 3, committed" in err
    assert run("open", "--url", users_url, "--", "sh", "-c", "exit 9")[0] == 9
    assert run("open", "--url", users_url, "--", "/nowhere")[0] == 2


def test_open_without_a_command_is_a_shell(run, users_url, monkeypatch):
    """The one on the path."""
    monkeypatch.setattr("replicator.inspect.open.shell", lambda: ["ls"])
    code, out, _ = run("open", "--url", users_url)
    assert (code, os.path.basename(out.strip())) == (0, "app.db")

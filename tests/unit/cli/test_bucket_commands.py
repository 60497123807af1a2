"""run, restore, history and doctor against a directory that plays the bucket."""

import dataclasses
import json
import sqlite3
import sys

import pytest

from replicator import SqliteReplicatorConfig
from replicator.archive.index import PinnedPoint
from replicator.cli import doctor as doctor_command
from replicator.cli import history as history_command
from replicator.cli import restore as restore_command
from replicator.engine.in_process import InProcessReplicator
from replicator.inspect.doctor import Check
from replicator.inspect.history import Generation, History, Snapshot
from replicator.model import RestoreReport
from replicator.store.directory import DirectoryStore


@pytest.fixture
def backup_url(closed_db, bucket_url):
    """Three rows in the bucket."""
    with InProcessReplicator(SqliteReplicatorConfig(db_path=closed_db, url=bucket_url)):
        connection = sqlite3.connect(closed_db, isolation_level=None)
        for row in range(3):
            connection.execute("INSERT INTO t VALUES (?)", (row,))
        connection.close()
    return bucket_url


def rows(path):
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT x FROM t ORDER BY x").fetchall()
    connection.close()
    return [row for (row,) in found]


# --------------------------------------------------------------------------- restore


def test_restore_rebuilds_and_says_what_it_rests_on(run, backup_url, tmp_path):
    """The one database of the bucket, into a named file, with its proof in words."""
    output = tmp_path / "back.db"
    code, out, err = run("restore", "--url", backup_url, "--output", output)
    assert (code, rows(output)) == (0, [0, 1, 2])
    assert out.startswith(f"restored {output} from ")
    assert "  verified     SHA-256 of every object" in out
    assert err.splitlines()[0].startswith("fetching segments")


def test_restore_in_json_is_the_report(run, backup_url, tmp_path):
    """Progress goes to stderr as JSON lines, the report to stdout."""
    code, out, err = run(
        "restore", "--url", backup_url, "-o", tmp_path / "back.db", "--json", "--verify", "full"
    )
    report = json.loads(out)
    assert code == 0
    assert set(report) == {field.name for field in dataclasses.fields(RestoreReport)}
    assert {json.loads(line)["progress"]["phase"] for line in err.splitlines()} >= {"publish"}


def test_a_dry_run_writes_nothing(run, backup_url, tmp_path):
    """It prints the plan."""
    output = tmp_path / "back.db"
    code, out, _ = run("restore", "--url", backup_url, "-o", output, "--dry-run")
    assert (code, output.exists()) == (0, False)
    assert out.startswith("would restore ")
    assert "proved" not in out


def test_if_missing_leaves_an_existing_file_alone(run, backup_url, closed_db):
    """Not an error, so that a start script can use it."""
    before = closed_db.read_bytes()
    code, out, _ = run("restore", "--url", backup_url, "-o", closed_db, "--if-missing")
    assert (code, closed_db.read_bytes()) == (0, before)
    assert out == f"{closed_db} exists; nothing was restored\n"


def test_an_existing_target_is_refused(run, backup_url, tmp_path):
    """Exit code 7, and the file as it was."""
    target = tmp_path / "mine.db"
    target.write_text("precious")
    code, _, err = run("restore", "--url", backup_url, "-o", target)
    assert (code, target.read_text()) == (7, "precious")
    assert "--overwrite" in err


def test_an_empty_bucket_is_nothing_to_restore(run, bucket_url):
    """Exit code 9, unlike an error."""
    code, out, err = run("restore", "--url", bucket_url)
    assert (code, out) == (9, "")
    assert err.startswith("error: no backup found")


def test_lost_transactions_are_shown_in_the_report(capsys):
    """With --allow-older the loss is never silent."""
    report = RestoreReport(
        output="a.db",
        url="s3://b/a.db",
        generation="g",
        txid=7,
        committed_at=0,
        pages=2,
        page_size=4096,
        size=8192,
        checksum=1,
        snapshot_txid=1,
        objects=3,
        downloaded_bytes=100,
        seconds=0.0,
        verified="all",
        lost_txids=2,
    )
    restore_command.show(report, dry_run=False)
    out = capsys.readouterr().out
    assert "transaction  7, committed 1970-01-01T00:00:00.000Z" in out
    assert "lost         2 transactions after this one could not be restored" in out


# --------------------------------------------------------------------------- history


def test_history_lists_every_database_of_the_bucket(run, backup_url, closed_db, tmp_path):
    """Without a prefix all of them; with one, that one."""
    other = tmp_path / "other.db"
    run("restore", "--url", backup_url, "-o", other)
    with InProcessReplicator(SqliteReplicatorConfig(db_path=other, url=backup_url)):
        pass
    every = json.loads(run("history", "--url", backup_url, "--json")[1])
    assert [each["url"].rpartition("/")[2] for each in every] == ["app.db", "other.db"]
    code, out, _ = run("history", "--url", backup_url, "--prefix", "app.db", "--json")
    (only,) = json.loads(out)
    plan = json.loads(run("restore", "--url", backup_url, "-p", "app.db", "--dry-run", "--json")[1])
    assert (code, only["first_txid"], only["last_txid"]) == (0, 1, plan["txid"])
    assert run("history", "--url", backup_url)[1].count("restorable") == 2


def test_history_of_several_names_one_without_a_backup(run, backup_url, bucket_url):
    """A database whose first snapshot is missing hides no other one; exit code 9."""
    DirectoryStore(bucket_url.removeprefix("file://")).put(
        "new.db/wal/0000000000000001.wal.zst", b""
    )
    code, out, _ = run("history", "--url", backup_url, "--json")
    first, second = json.loads(out)
    assert (code, first["last_txid"] > 0, second["code"]) == (9, True, "no_backup")
    code, out, _ = run("history", "--url", backup_url)
    assert (code, out.count("restorable"), out.count("no backup")) == (9, 1, 1)


def test_history_for_people_names_the_window_and_the_snapshots(capsys):
    """The window first, then what it is made of."""
    found = History(
        url="s3://b/a[1].db",
        generations=(Generation("g1", 1, 9, 1, 2048), Generation("g2", 10, 1234, 1, 4096)),
        snapshots=(Snapshot(1, "g1", 2048, 0), Snapshot(10, "g2", 4096, 60_000)),
        first_txid=1,
        last_txid=1234,
        last_commit_ms=90_000,
        last_stored_ms=95_000,
        segments=3,
        segment_bytes=300,
        merged=1,
        merged_bytes=100,
        snapshot_bytes=6144,
        restorable=((1, 1), (5, 5), (7, 9), (20, 30), (40, 50), (60, 1234)),
        pins=(PinnedPoint(5, "before [1]"),),
    )
    history_command.show(found, now=100.0)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "s3://b/a[1].db"
    assert (
        "  restorable     transactions 60 … 1,234, 40 … 50, 20 … 30, 1 older run, "
        "2 single ones from 1 to 5"
    ) in lines
    assert "  pinned         transaction 5  before [1]" in lines
    assert "  newest commit  1970-01-01T00:01:30.000Z, 10.0 s ago" in lines
    assert "  total          6.4 KiB" in lines
    assert [line.split() for line in lines[-3:]] == [
        ["snapshot", "of", "stored", "size", "generation"],
        ["1", "1970-01-01T00:00:00.000Z", "2.0", "KiB", "g1"],
        ["10", "1970-01-01T00:01:00.000Z", "4.0", "KiB", "g2"],
    ]


def test_history_without_a_commit_time_says_so(capsys):
    """A store that keeps no metadata costs that one figure."""
    history_command.show(
        History(
            url="u",
            generations=(),
            snapshots=(),
            first_txid=1,
            last_txid=1,
            last_commit_ms=None,
            last_stored_ms=0,
            segments=1,
            segment_bytes=1,
            merged=0,
            merged_bytes=0,
            snapshot_bytes=0,
        )
    )
    assert "newest commit  time unknown" in capsys.readouterr().out


def test_history_of_an_empty_bucket_is_no_backup(run, bucket_url):
    """With and without a prefix."""
    assert run("history", "--url", bucket_url)[0] == 9
    assert run("history", "--url", bucket_url, "--prefix", "x.db")[0] == 9


# ---------------------------------------------------------------------------- doctor


def test_doctor_ends_with_0_when_nothing_fails(run, closed_db, bucket_url):
    """Warnings do not count; every check has its line."""
    code, out, _ = run("doctor", closed_db, "--url", bucket_url)
    assert code == 0
    assert "✓ append once     1 winner of 16 writers to one key" in out


def test_doctor_in_json_is_every_check(run, closed_db, bucket_url):
    """A list, each with name, verdict, detail and remedy."""
    found = json.loads(run("doctor", closed_db, "--url", bucket_url, "--json")[1])
    assert {*found[0]} == {"name", "verdict", "detail", "remedy"}


def test_doctor_ends_with_1_when_a_check_fails(run, tmp_path, bucket_url):
    """A file that is no database cannot be followed."""
    path = tmp_path / "noise.db"
    path.write_bytes(b"\x01" * 8192)
    code, out, _ = run("doctor", path, "--url", bucket_url)
    assert code == 1
    assert "✗ database" in out


def test_remedies_stand_below_what_is_wrong(capsys):
    """And only there."""
    verdicts = doctor_command.show(
        [Check("a", "ok", "fine", "unused"), Check("b", "warn", "so so", "do this")]
    )
    assert verdicts == ["ok", "warn"]
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "✓ a               fine",
        "! b               so so",
        "→ do this",
    ]


# ------------------------------------------------------------------------------- run


def test_run_around_a_command_restores_first_and_flushes_last(run, backup_url, tmp_path, closed_db):
    """The child finds the database; what it writes is in the bucket when we end."""
    fresh = tmp_path / "new" / "app.db"
    fresh.parent.mkdir()
    code, _, err = run(
        "run",
        fresh,
        "--url",
        backup_url,
        "--sync-interval",
        "10ms",
        "--max-cache-bytes",
        "64MiB",
        "--json",
        "--",
        sys.executable,
        "-c",
        f"import sqlite3; c = sqlite3.connect({str(fresh)!r}); "
        "c.execute('INSERT INTO t VALUES (99)'); c.commit()",
    )
    assert code == 0, err
    assert all(json.loads(line)["message"] for line in err.splitlines() if line.startswith("{"))
    assert run("restore", "--url", backup_url, "-o", tmp_path / "again.db")[0] == 0
    assert rows(tmp_path / "again.db") == [0, 1, 2, 99]


def test_run_returns_the_commands_own_code(run, closed_db, bucket_url):
    """Everything is durable, and the command failed: its code is the answer."""
    assert (
        run(
            "run", closed_db, "--url", bucket_url, "--", sys.executable, "-c", "raise SystemExit(3)"
        )[0]
        == 3
    )

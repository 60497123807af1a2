"""A whole workflow on a real S3 server by its commands, in text and in JSON."""

import signal
import sqlite3

import pytest

from tests.helpers.replication import App, image_of, wait_for

pytestmark = pytest.mark.app(rows=20)

COMMANDS = ("run", "restore", "status", "flush", "snapshot", "history", "doctor", "demo")


@pytest.fixture
def sidecar(cli, app):
    """A sidecar that follows the database."""
    sidecar = cli.sidecar(app.path)
    sidecar.until_following()
    return sidecar


def test_backup_and_restore_from_the_bucket(cli, app, sidecar):
    """After writes and SIGTERM (exit code 0), `restore --bucket` on another machine finds the only
    database, reports the restored transaction and its proofs, and gives the same bytes."""
    for _ in range(30):
        app.insert(3)
    assert sidecar.stop() == 0
    sidecar.until_written(f"is in s3://{cli.bucket}/app.db")
    elsewhere = cli.directory("elsewhere")
    done = cli.call("restore", *cli.bucket_options, cwd=elsewhere)
    assert done.code == 0, done.err
    restored = elsewhere / "app.db"
    assert restored.read_bytes() == image_of(app.path)
    for fact in (
        f"restored {restored}",
        "transaction",
        "committed 2",
        "Z",
        "KiB",
        "pages of",
        "verified",
        "SHA-256",
        "WAL checksums",
        "database checksum",
    ):
        assert fact in done.out, fact


def test_a_restore_for_programs(cli, app, sidecar):
    """With --json a restore prints one document on stdout, and progress as JSON lines on stderr."""
    app.insert(3)
    flushed = cli.call("flush", app.path, "--json").json
    assert sidecar.stop() == 0
    elsewhere = cli.directory("elsewhere")
    done = cli.call("restore", *cli.bucket_options, "--json", cwd=elsewhere)
    report = done.json
    assert report["txid"] == flushed["txid"]
    assert report["generation"] == flushed["generation"]
    assert report["output"] == str(elsewhere / "app.db")
    assert report["size"] == (elsewhere / "app.db").stat().st_size
    assert report["committed_at"] > 1_700_000_000_000
    assert "progress" in done.error
    again = cli.call("restore", *cli.bucket_options, "--json", "--if-missing", cwd=elsewhere)
    assert (again.code, again.json["objects"]) == (0, 0)


def test_flush_and_snapshot_are_durable(cli, app, sidecar):
    """The transaction that `flush` or `snapshot` reports is in the bucket."""
    app.insert(3)
    flushed = cli.call("flush", app.path)
    assert flushed.code == 0
    assert "durable up to transaction" in flushed.out
    image = image_of(app.path)
    restored = cli.call("restore", *cli.bucket_options, "--output", "now.db")
    assert restored.code == 0, restored.err
    assert (cli.home / "now.db").read_bytes() == image
    app.insert(3)
    taken = cli.call("snapshot", app.path, "--json").json
    keys = [item.key for item in cli.store().list("app.db/snapshots/")]
    assert any(f"/{taken['txid']:016x}-" in key for key in keys)
    report = cli.call("restore", *cli.bucket_options, "--output", "snap.db", "--json").json
    assert (report["snapshot_txid"], report["objects"]) == (taken["txid"], 1)
    assert report["committed_at"] > 1_700_000_000_000
    assert "is in the bucket" in cli.call("snapshot", app.path).out


def test_status_of_a_healthy_sidecar(cli, app, sidecar):
    """`status` prints a verdict, with --json every field, and ends with exit code 0."""
    app.insert(3)
    txid = cli.call("flush", app.path, "--json").json["txid"]
    done = cli.call("status", app.path)
    assert done.code == 0
    for fact in (
        "healthy",
        "following",
        str(app.path),
        f"s3://{cli.bucket}/app.db",
        f"transaction {txid}, which is all of it",
        "0 segments",
    ):
        assert fact in done.out, fact
    status = cli.call("status", app.path, "--json").json
    assert status["running"]
    assert status["healthy"]
    assert status["txid"] == status["durable_txid"] == txid
    assert status["last_error"] is None


def test_status_without_a_sidecar(cli, app):
    """Without a sidecar the error names the command that starts one, in text and in JSON."""
    done = cli.call("status", app.path)
    assert done.code == 1
    assert "no sidecar answers" in done.err
    assert "replicator run" in done.err
    assert done.out == ""
    done = cli.call("flush", app.path, "--json")
    assert (done.code, done.error["kind"]) == (1, "NotRunning")


def test_history_lists_restorable_transactions(cli, app, sidecar):
    """`history` lists the window and its generations, and a transaction of it can be restored."""
    cli.call("flush", app.path)
    for _ in range(3):
        app.insert()
    txid = cli.call("flush", app.path, "--json").json["txid"]
    done = cli.call("history", *cli.bucket_options)
    assert done.code == 0
    assert f"transactions 1 … {txid}" in done.out
    (history,) = cli.call("history", *cli.bucket_options, "--json").json
    assert (history["first_txid"], history["last_txid"]) == (1, txid)
    assert history["url"] == f"s3://{cli.bucket}/app.db"
    report = cli.call(
        "restore", *cli.bucket_options, "--txid", txid - 2, "-o", "past.db", "--json"
    ).json
    assert report["txid"] == txid - 2
    with sqlite3.connect(cli.home / "past.db") as past:
        (count,) = past.execute("SELECT count(*) FROM t").fetchone()
    past.close()
    assert count == 21


def test_doctor_passes_on_a_good_server(cli, app, sidecar):
    """Every check passes on a real server, and doctor leaves no object in the bucket."""
    before = [item.key for item in cli.store().list("")]
    done = cli.call("doctor", app.path, *cli.bucket_options)
    assert done.code == 0, done.out
    assert "1 winner of 16" in done.out
    assert "✗" not in done.out
    checks = cli.call("doctor", app.path, *cli.bucket_options, "--json").json
    assert {check["name"] for check in checks} >= {"database", "bucket", "append once"}
    assert "fail" not in {check["verdict"] for check in checks}
    assert [item.key for item in cli.store().list("")] == before


def test_killed_and_started_again(cli, app, sidecar):
    """After SIGKILL and commits without a sidecar, a second start uploads everything without a new
    snapshot."""
    sidecar.process.send_signal(signal.SIGKILL)
    assert sidecar.wait() == -signal.SIGKILL
    app.insert(5)
    second = cli.sidecar(app.path, "--json")
    second.until_following()
    assert second.stop() == 0
    assert cli.call("restore", *cli.bucket_options, "-o", "back.db").code == 0
    assert (cli.home / "back.db").read_bytes() == image_of(app.path)
    assert len(list(cli.store().list("app.db/snapshots/"))) == 1


def test_ctrl_c_ends_like_sigterm(cli, app, sidecar):
    """After SIGINT everything is in the bucket, and the exit code is 0."""
    app.insert(4)
    image = image_of(app.path)
    sidecar.signal(signal.SIGINT)
    assert sidecar.wait() == 0
    assert cli.call("restore", *cli.bucket_options, "-o", "back.db").code == 0
    assert (cli.home / "back.db").read_bytes() == image


def test_everything_by_environment(cli, app):
    """Bucket and endpoint come from REPLICATOR_… variables, without any option."""
    settings = {"REPLICATOR_BUCKET": cli.bucket, "REPLICATOR_ENDPOINT_URL": cli.endpoint_url}
    sidecar = cli.sidecar(app.path, bucket_options=(), **settings)
    sidecar.until_following()
    assert sidecar.stop() == 0
    elsewhere = cli.directory("elsewhere")
    assert cli.call("restore", cwd=elsewhere, **settings).code == 0
    assert (elsewhere / "app.db").read_bytes() == image_of(app.path)


def test_waits_for_a_database(cli, app):
    """A sidecar may start first; it follows the database once it exists."""
    path = cli.home / "later.db"
    sidecar = cli.sidecar(path)
    sidecar.until(lambda status: status["state"] == "waiting")
    with App(path) as later:
        later.insert(2)
        sidecar.until_following()
        wait_for(lambda: sidecar.status()["durable_txid"] >= 1)
        assert sidecar.stop() == 0
        image = image_of(path)
    assert cli.call("restore", *cli.bucket_options, "-o", "back.db").code == 0
    assert (cli.home / "back.db").read_bytes() == image


def test_help_names_every_command(cli):
    """--help lists every command and the exit codes; each command explains its options."""
    done = cli.call("--help")
    assert done.code == 0
    for command in COMMANDS:
        assert f" {command} " in done.out
    assert "9 nothing to restore" in " ".join(done.out.replace("│", " ").split())
    assert cli.call("restore", "--help").code == 0

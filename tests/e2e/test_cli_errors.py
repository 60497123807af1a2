"""Every error of a command has its own message, hint and exit code.

All tests of a restore share one backup; none changes it, and damage is done to a copy.
"""

import os
import socket
import subprocess
import sys

import pytest

from tests.helpers.command_line import CommandLine
from tests.helpers.replication import LONG, App, wait_for

pytestmark = pytest.mark.app(rows=20)

GOOD = b"the file that was there before"


def refused_port():
    """An address at which no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="module")
def backup(seaweed, tmp_path_factory):
    """A bucket with one database and some segments; its sidecar has ended."""
    cli = CommandLine(tmp_path_factory.mktemp("backup"), seaweed)
    with App(cli.home / "app.db") as app:
        app.insert(50)
        sidecar = cli.sidecar(app.path)
        sidecar.until_following()
        for _ in range(3):
            app.insert(50, 1000)
            assert cli.call("flush", app.path).code == 0
        assert sidecar.stop() == 0
    yield cli
    cli.close()


@pytest.fixture(scope="module", autouse=True)
def unanswered_restore(clean_environment, tmp_path_factory):
    """A restore over a file from a server that is down. It retries for some seconds, so it
    starts before the tests and the last test waits for its end."""
    path = tmp_path_factory.mktemp("unanswered_restore") / "app.db"
    path.write_bytes(GOOD)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "replicator",
            "restore",
            "--bucket",
            "b",
            "--endpoint-url",
            refused_port(),
            "--overwrite",
        ],
        cwd=path.parent,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
    )
    yield process, path
    process.kill()
    process.communicate()


def unchanged(path):
    """True if the existing file has its old content and its directory holds nothing else."""
    return path.read_bytes() == GOOD and list(path.parent.iterdir()) == [path]


@pytest.fixture
def existing(path):
    """A file at the path of a restore, which --overwrite would replace."""
    path.write_bytes(GOOD)
    return path


# ----------------------------------------------------------------------------------- restore


def test_wrong_bucket(backup, existing):
    """Exit code 2 with a hint about the bucket."""
    done = backup.call(
        "restore",
        "--bucket",
        "no-such-bucket",
        "--endpoint-url",
        backup.endpoint_url,
        "--overwrite",
        cwd=existing.parent,
    )
    assert done.code == 2
    assert "bucket does not exist" in done.err
    assert "create the bucket, or correct --bucket" in done.err
    assert unchanged(existing)


@pytest.mark.parametrize("key", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_key(backup, existing, key):
    """Exit code 6 with a hint about the key; a refusal never counts as an empty bucket."""
    done = backup.call(
        "restore", *backup.bucket_options, "--overwrite", cwd=existing.parent, **{key: "mistyped"}
    )
    assert done.code == 6
    assert "403" in done.err
    assert "check the access key" in done.err
    assert unchanged(existing)


def test_no_credentials(backup, existing):
    """Exit code 6 without credentials in the environment and the home directory."""
    done = backup.call(
        "restore",
        *backup.bucket_options,
        "--overwrite",
        cwd=existing.parent,
        AWS_ACCESS_KEY_ID="",
        AWS_SECRET_ACCESS_KEY="",
    )
    assert done.code == 6
    assert "credentials" in done.err
    assert unchanged(existing)


def test_no_backup(cli, existing):
    """Exit code 9 for an empty bucket and for an empty prefix."""
    for options in ((), ("--prefix", "other.db")):
        done = cli.call(
            "restore", *cli.bucket_options, *options, "--overwrite", cwd=existing.parent
        )
        assert done.code == 9
        assert "no backup found" in done.err
        assert unchanged(existing)


def test_existing_target(backup, existing):
    """Exit code 7 without --overwrite, and the hint names the option."""
    done = backup.call("restore", *backup.bucket_options, cwd=existing.parent)
    assert done.code == 7
    assert f"{existing} exists" in done.err
    assert "--overwrite" in done.err
    assert unchanged(existing)


def test_overwriting_what_is_in_use(backup, tmp_path):
    """Exit code 7 even with --overwrite while a process has the old database open."""
    with App(tmp_path / "app.db") as app:
        before = app.path.read_bytes()
        done = backup.call("restore", *backup.bucket_options, "--overwrite", cwd=tmp_path)
        assert done.code == 7
        assert "is open in process" in done.err
        assert app.path.read_bytes() == before


def test_overwriting_a_database(backup, tmp_path):
    """Exit code 0 with --overwrite, and the old WAL is removed."""
    with App(tmp_path / "app.db") as app:
        app.insert(5)
    done = backup.call(
        "restore", *backup.bucket_options, "--overwrite", "--verify", "full", cwd=tmp_path
    )
    assert done.code == 0, done.err
    assert "integrity_check" in done.out
    assert not (tmp_path / "app.db-wal").exists()


def test_unknown_transaction(backup, existing):
    """Exit code 4, and the message names the restorable transactions."""
    (history,) = backup.call("history", *backup.bucket_options, "--json").json
    done = backup.call(
        "restore", *backup.bucket_options, "--overwrite", "--txid", 999, cwd=existing.parent
    )
    assert done.code == 4
    assert f"restorable: transactions 1…{history['last_txid']}" in done.err
    assert unchanged(existing)


@pytest.mark.parametrize("when", ["2001-01-01", "2999-01-01T00:00:00Z"])
def test_a_time_outside_of_the_log(backup, existing, when):
    """Exit code 4 for a time before the first transaction or in the future."""
    done = backup.call(
        "restore", *backup.bucket_options, "--overwrite", "--timestamp", when, cwd=existing.parent
    )
    assert done.code == 4
    assert "outside of what can be restored" in done.err
    assert unchanged(existing)


def test_two_databases(cli, existing):
    """Exit code 2 and both names without --prefix; with it, the selected database."""
    for name in ("one.db", "two.db"):
        with App(cli.home / name) as app:
            sidecar = cli.sidecar(app.path)
            sidecar.until_following()
            assert sidecar.stop() == 0
    done = cli.call("restore", *cli.bucket_options)
    assert done.code == 2
    assert "one.db, two.db" in done.err
    assert "--prefix" in done.err
    assert cli.call("restore", *cli.bucket_options, "-p", "two.db", "-o", "out.db").code == 0
    assert len(cli.call("history", *cli.bucket_options, "--json").json) == 2


@pytest.mark.parametrize("kind", ["snapshots", "wal"])
def test_damaged_object(backup, cli, existing, kind):
    """Exit code 3 and the name of the object; the existing file stays."""
    source, copy = backup.store(), cli.store()
    keys = [item.key for item in source.list("app.db/")]
    victim = max(key for key in keys if f"/{kind}/" in key)
    for key in keys:
        data = bytearray(source.get(key))
        if key == victim:
            data[len(data) // 2] ^= 1
        copy.put(key, bytes(data), metadata=source.head(key).metadata)
    done = cli.call("restore", *cli.bucket_options, "--overwrite", cwd=existing.parent)
    assert done.code == 3, done.err
    assert victim in done.err
    assert existing.read_bytes() == GOOD


@pytest.mark.parametrize(
    "arguments",
    [
        ("restore",),
        ("restore", "--bucket", "b", "--url", "s3://b/p"),
        ("restore", "--no-such-option"),
        ("restore", "--bucket", "b", "--txid", "many"),
        ("restore", "--bucket", "b", "--txid", "1", "--timestamp", "2026-01-01"),
        ("restore", "--bucket", "b", "--txid", "0"),
        ("restore", "--bucket", "b", "--timestamp", "yesterday-ish"),
        ("restore", "--url", "ftp://b/p"),
        ("run",),
        ("run", "app.db"),
        ("run", "app.db", "--bucket", "b", "--sync-interval", "soon"),
        ("no-such-command",),
    ],
    ids=" ".join,
)
def test_usage(cli, arguments):
    """Exit code 2, one line with the reason and a hint."""
    done = cli.call(*arguments)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert len(done.err.strip().splitlines()) <= 2
    assert list(cli.home.iterdir()) == []


def test_errors_for_programs(cli):
    """With --json an error is a JSON document on stderr; stdout stays empty."""
    done = cli.call("restore", *cli.bucket_options, "--json")
    assert done.out == ""
    assert (done.code, done.error["exit_code"], done.error["kind"]) == (9, 9, "NoBackup")


# ----------------------------------------------------------------------------------- the sidecar


def test_a_second_sidecar(cli, app):
    """Exit code 8 and the process id of the first sidecar, which continues."""
    first = cli.sidecar(app.path)
    first.until_following()
    done = cli.call("run", app.path, *cli.bucket_options)
    assert done.code == 8
    assert f"process {first.pid} already works with" in done.err
    assert first.stop() == 0


@pytest.mark.parametrize("command", [(), ("--", "true")], ids=["alone", "around"])
def test_a_first_run_with_a_wrong_key(cli, app, command):
    """Exit code 6 without endless retries: the bucket is empty, so the key never worked."""
    done = cli.call(
        "run", app.path, *cli.bucket_options, *command, AWS_SECRET_ACCESS_KEY="mistyped"
    )
    assert done.code == 6
    assert "403" in done.err
    assert "check the access key" in done.err


@pytest.mark.parametrize("command", [(), ("--", "true")], ids=["alone", "around"])
def test_a_first_run_with_a_wrong_bucket(cli, app, command):
    """Exit code 2 with a hint to create the bucket."""
    done = cli.call(
        "run", app.path, "--bucket", "no-such-bucket", "--endpoint-url", cli.endpoint_url, *command
    )
    assert done.code == 2
    assert "does not exist" in done.err
    assert "create the bucket" in done.err


def test_two_machines_and_one_prefix(cli, app):
    """A sidecar without a record of the archive is refused with exit code 6, and the rightful one
    continues. Ordered to take over, it begins a generation and logs it; the other one is fenced
    and ends with exit code 6. Its durable transactions stay restorable."""
    first = cli.sidecar(app.path)
    first.until_following()
    app.insert(3)
    flushed = cli.call("flush", app.path, "--json")
    other = cli.directory("other machine") / "app.db"
    with App(other) as stranger:
        stranger.insert(1)
        assert cli.sidecar(other).wait() == 6
        assert cli.call("flush", app.path, "--json").json["txid"] == flushed.json["txid"]
        second = cli.sidecar(other, "--take-over")
        second.until(lambda status: status["durable_txid"] > flushed.json["txid"])
        app.insert(3)
        assert first.wait() == 6
        second.until_written("new generation")
    first.until_written("another writer")
    txid = flushed.json["txid"]
    restored = cli.call("restore", *cli.bucket_options, "--txid", txid, "-o", "back.db", "--json")
    assert (restored.code, restored.json["txid"]) == (0, txid)


def test_sigterm_while_the_store_is_down(cli, app, fault_proxy):
    """Exit code 5, and the log names the transactions that are not uploaded and their directory;
    the next run uploads them."""
    proxied = cli.options_through(fault_proxy.url)
    sidecar = cli.sidecar(app.path, bucket_options=proxied)
    sidecar.until_following()
    assert cli.call("flush", app.path).code == 0
    fault_proxy.down()
    app.insert(5)
    sidecar.until(lambda status: status["pending_segments"] == 1 and status["last_error"])
    status = cli.call("status", app.path)
    assert "last error" in status.out
    sidecar.signal()
    wait_for(lambda: "a second signal ends at once" in sidecar.output)
    sidecar.signal()
    assert sidecar.wait() == 5
    sidecar.until_written("1 transaction(s) up to txid")
    sidecar.until_written("in 1 segments wait in")
    fault_proxy.up()
    again = cli.sidecar(app.path, bucket_options=proxied)
    again.until_following()
    assert again.stop() == 0
    assert cli.call("restore", *cli.bucket_options, "-o", "out.db").code == 0
    assert (cli.home / "out.db").stat().st_size == app.path.stat().st_size


def test_flush_while_the_store_is_down(cli, app, fault_proxy):
    """`flush --timeout` ends with exit code 5."""
    proxied = cli.options_through(fault_proxy.url)
    sidecar = cli.sidecar(app.path, bucket_options=proxied)
    sidecar.until_following()
    fault_proxy.down()
    app.insert(5)
    done = cli.call("flush", app.path, "--timeout", "0.5s")
    assert done.code == 5
    assert "did not reach" in done.err
    assert "error" in cli.call("flush", app.path, "--timeout", "0.1s", "--json").error
    fault_proxy.up()
    assert cli.call("flush", app.path).code == 0


# ------------------------------------------------------------------------------- databases


def test_not_a_database(cli):
    """Exit code 2 for another file, which stays unchanged."""
    path = cli.home / "notes.txt"
    path.write_text("no database at all\n" * 50)
    done = cli.call("run", path, *cli.bucket_options)
    assert done.code == 2
    assert "is not a SQLite database" in done.err
    assert path.read_text() == "no database at all\n" * 50


def test_a_read_only_database(cli):
    """Exit code 2 with the remedy."""
    with App(cli.home / "app.db"):
        pass
    (cli.home / "app.db").chmod(0o444)
    done = cli.call("run", cli.home / "app.db", *cli.bucket_options)
    assert done.code == 2
    assert "is read-only" in done.err
    assert "chmod u+w" in done.err


def test_an_exclusive_database(cli, app):
    """Exit code 2 for an application that locks the database exclusively."""
    app.run("PRAGMA locking_mode=EXCLUSIVE", "INSERT INTO t(body) VALUES ('mine')")
    done = cli.call("run", app.path, *cli.bucket_options, REPLICATOR_BUSY_TIMEOUT="0.1s")
    assert done.code == 2
    assert "EXCLUSIVE" in done.err
    assert "locking_mode=NORMAL" in done.err


def test_a_directory_is_no_database(cli):
    """Exit code 2 for a directory."""
    done = cli.call("run", cli.directory("app.d"), *cli.bucket_options)
    assert done.code == 2
    assert "is not a SQLite database" in done.err


def test_server_down(unanswered_restore):
    """Exit code 5 after some seconds of retries; the first failure is logged at once."""
    process, path = unanswered_restore
    first = process.stderr.readline().rstrip()
    rest = process.stderr.read()
    assert process.wait(LONG) == 5
    assert first.endswith("; trying again")
    assert rest.splitlines()[-1] == "hint:  check the network and the endpoint, then try again"
    assert "Traceback" not in rest
    assert unchanged(path)

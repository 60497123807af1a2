"""A start never buries the backup: the machine is lost, and everybody starts in the wrong order.

Real processes and a real S3 server. After each start a plain `restore` gives the newest state.
"""

import contextlib
import sqlite3
import sys

import pytest

from tests.helpers.command_line import cache_of
from tests.helpers.replication import App, image_of, wait_for

ROWS = 2_000
COUNT = """
import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM t").fetchone()[0])
"""


@pytest.fixture
def db(cli):
    """A database of many rows that is in the bucket, and whose machine was lost."""
    path = cli.directory("machine") / "app.db"
    with App(path) as app:
        app.insert(ROWS, 20)
        sidecar = cli.sidecar(path)
        sidecar.until_following()
        assert sidecar.stop() == 0
    for file in path.parent.glob("app.db*"):
        file.unlink()
    cache_of(path).rename(cli.home / "lost cache")
    return path


def application_starts(path, *, table=True):
    """It makes its file, and a table."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        if table:
            connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")


def rows_in_the_bucket(cli):
    """The rows that a plain restore gives."""
    copy = cli.home / "copy.db"
    copy.unlink(missing_ok=True)
    assert cli.call("restore", *cli.bucket_options, "-o", copy).code == 0
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        return connection.execute("SELECT count(*) FROM t").fetchone()[0]


def test_the_application_starts_first(cli, db):
    """It makes an empty table before the sidecar starts: the sidecar is refused, says what to do,
    and the next plain restore gives all rows. With the order, it restores."""
    application_starts(db)
    sidecar = cli.sidecar(db, "--auto-restore")
    assert sidecar.wait() == 6
    sidecar.until_written("(different_database)")
    sidecar.until_written("--take-over")
    assert rows_in_the_bucket(cli) == ROWS
    done = cli.call(
        "run", db, *cli.bucket_options, "--restore", "--", sys.executable, "-c", COUNT, db
    )
    assert done.code == 0, done.err
    assert done.out.strip() == str(ROWS)
    (moved,) = db.parent.glob("app.db.stale-*")
    assert (moved / "app.db").exists()
    assert rows_in_the_bucket(cli) == ROWS


def test_a_command_does_not_start_over_another_database(cli, db):
    """The refusal comes before the command."""
    application_starts(db)
    note = cli.home / "started"
    done = cli.call("run", db, *cli.bucket_options, "--json", "--", "touch", note)
    assert done.code == 6
    assert done.error["code"] == "different_database"
    assert not note.exists()
    assert rows_in_the_bucket(cli) == ROWS


@pytest.mark.parametrize(
    ("placeholder", "way"), [("empty", "run"), ("empty", "auto-restore"), ("no table", "restore")]
)
def test_a_placeholder_counts_as_missing(cli, db, placeholder, way):
    """For `run` around a command, for `--auto-restore`, and for `restore --if-missing`."""
    if placeholder == "empty":
        db.touch()
    else:
        application_starts(db, table=False)
    if way == "restore":
        options = (*cli.bucket_options, "-o", db, "--if-missing")
        assert cli.call("restore", *options).code == 0
    elif way == "run":
        command = (sys.executable, "-c", COUNT, db)
        done = cli.call("run", db, *cli.bucket_options, "--", *command)
        assert (done.code, done.out.strip()) == (0, str(ROWS)), done.err
    else:
        sidecar = cli.sidecar(db, "--auto-restore")
        sidecar.until_following()
        assert sidecar.stop() == 0
    assert db.stat().st_size == len(image_of(cli_copy(cli)))
    assert len(list(db.parent.glob("app.db.stale-*"))) == 1


def cli_copy(cli):
    assert rows_in_the_bucket(cli) == ROWS
    return cli.home / "copy.db"


def test_the_safe_order_of_two_containers(cli, db):
    """`restore --if-missing --if-backup-exists`, then application and sidecar in any order: the
    application writes before the sidecar starts, and the archive continues. Before the first
    backup the same restore ends with 0."""
    options = (*cli.bucket_options, "--if-missing", "--if-backup-exists")
    first = cli.call(
        "restore", *options, "--prefix", "other.db", "-o", cli.home / "other.db", "--json"
    )
    assert (first.code, first.json["code"]) == (0, "no_backup"), first.err
    assert not (cli.home / "other.db").exists()
    assert cli.call("restore", *options, "-o", db).code == 0
    with App(db) as app:
        app.insert(5)
        sidecar = cli.sidecar(db)
        sidecar.until_following()
        assert sidecar.stop() == 0, sidecar.output
    sidecar.until_written("(restored_here)")
    assert rows_in_the_bucket(cli) == ROWS + 5


def test_a_wrong_prefix_with_an_expectation(cli, db):
    """Nothing there can only mean a wrong prefix: exit code 6, and no object is written."""
    application_starts(db)
    options = (*cli.bucket_options, "--prefix", "ap.db", "--expect", "existing", "--json")
    done = cli.call("run", db, *options, "--", "true")
    assert (done.code, done.error["code"]) == (6, "expected_existing")
    with contextlib.closing(cli.store()) as store:
        assert not list(store.list("ap.db/"))


def test_a_bucket_that_answers_late(proxied_cli):
    """A start that must know waits for the store, not for a restart by a supervisor."""
    cli = proxied_cli
    path = cli.directory("machine") / "app.db"
    done = cli.call(
        "run", path, "--bucket", cli.bucket, "--endpoint-url", "http://127.0.0.1:9",
        "--wait-store", "1s", "--", "true",
    )  # fmt: skip
    assert done.code == 5, done.err
    assert "waiting for the store" in done.err
    assert not path.exists()


def test_a_foreign_database_at_a_prefix_in_use(cli, db):
    """The newcomer is refused; the rightful sidecar goes on, and its rows are what a restore
    gives."""
    assert cli.call("restore", *cli.bucket_options, "-o", db).code == 0
    other = cli.directory("other") / "app.db"
    with App(db) as app, App(other) as foreign:
        foreign.insert(7)
        rightful = cli.sidecar(db)
        rightful.until_following()
        newcomer = cli.sidecar(other)
        assert newcomer.wait() == 6
        assert f"process {rightful.pid} on" in newcomer.output or "writer" in newcomer.output
        app.insert(3)
        assert cli.call("flush", db).code == 0
        assert rightful.status()["healthy"]
        assert rightful.stop() == 0
    assert rows_in_the_bucket(cli) == ROWS + 3


def test_a_plain_sidecar_waits_for_the_restore(cli, db):
    """It reports that the database is lost, and continues once a user has restored it."""
    sidecar = cli.sidecar(db)
    status = sidecar.until(lambda status: "archive: history" in str(status["last_error"]))
    assert (status["state"], status["healthy"]) == ("waiting", False)
    sidecar.until_written("(missing_with_history)")
    assert cli.call("status", db).code == 5
    assert cli.call("restore", *cli.bucket_options, "-o", db).code == 0
    sidecar.until_following()
    wait_for(lambda: sidecar.status()["durable_txid"])
    assert sidecar.stop() == 0


def test_a_file_that_was_replaced_while_the_sidecar_was_stopped(cli, db):
    """The cache stayed. Another database in the file's place is refused, and with the order it
    moves aside; an older copy of the same database continues, with the state before pinned."""
    assert cli.call("restore", *cli.bucket_options, "-o", db).code == 0
    older = db.with_name("older.db")
    older.write_bytes(db.read_bytes())
    with App(db) as app:
        app.insert(5)
        sidecar = cli.sidecar(db)
        sidecar.until_following()
        assert sidecar.stop() == 0
        app.checkpoint("TRUNCATE")
    db.unlink()
    application_starts(db)
    sidecar = cli.sidecar(db)
    assert sidecar.wait() == 6
    sidecar.until_written("(different_database)")
    assert rows_in_the_bucket(cli) == ROWS + 5
    sidecar = cli.sidecar(db, "--restore")
    sidecar.until_following()
    assert sidecar.stop() == 0
    assert len(list(db.parent.glob("app.db.stale-*"))) == 1
    assert rows_in_the_bucket(cli) == ROWS + 5
    older.rename(db)
    sidecar = cli.sidecar(db)
    sidecar.until_following()
    assert cli.call("flush", db).code == 0
    assert sidecar.stop() == 0
    assert rows_in_the_bucket(cli) == ROWS
    (pinned,) = cli.call("pin", *cli.bucket_options, "--json").json
    copy = cli.home / "before.db"
    restored = cli.call("restore", *cli.bucket_options, "--txid", pinned["txid"], "-o", copy)
    assert restored.code == 0
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (ROWS + 5,)

"""The commands where this SQLite library cannot make a check: exit code 10, and the reason."""

import contextlib
import json
import sqlite3

import pytest

from replicator import SqliteReplicatorConfig
from replicator.engine.in_process import InProcessReplicator
from tests.helpers.strange_schema import make_strange, supply


@pytest.fixture
def theirs_url(closed_db, bucket_url):
    """An archive whose second transaction has a collation of the application."""
    config = SqliteReplicatorConfig(db_path=closed_db, url=bucket_url)
    with InProcessReplicator(config) as replicator:
        replicator.flush(60)
        with contextlib.closing(sqlite3.connect(closed_db, isolation_level=None)) as connection:
            supply(connection)
            make_strange(connection, "collation")
        replicator.flush(60)
    return bucket_url


def test_restore_publishes_what_it_cannot_check(run, theirs_url, tmp_path):
    """The file is there, exact; the exit code is not that of damage."""
    output = tmp_path / "copy.db"
    arguments = ("restore", "--url", theirs_url, "--output", output, "--overwrite")
    code, out, _ = run(*arguments, "--verify", "full")
    assert (code, output.exists()) == (10, True)
    assert "inconclusive" in out
    assert "theirs" in out
    code, out, _ = run(*arguments, "--verify", "full", "--json")
    assert (code, len(json.loads(out)["inconclusive"])) == (10, 2)
    assert run(*arguments)[0] == 0


def test_drill_and_diff_end_with_their_own_code(run, theirs_url):
    """The drill is recorded as proven; diff compares the other tables."""
    code, out, _ = run("drill", "--url", theirs_url, "--json")
    report = json.loads(out)
    assert (code, bool(report["recorded"]), bool(report["inconclusive"])) == (10, True, True)
    assert "inconclusive" in run("drill", "--url", theirs_url)[1]
    code, out, _ = run("diff", "--url", theirs_url, "--from", "1", "--json")
    assert (code, len(json.loads(out)["inconclusive"])) == (10, 1)
    assert run("drill", "--url", theirs_url, "--txid", "1")[0] == 0
    assert run("verify", "--url", theirs_url, "--data")[0] == 0


def test_an_extension_that_is_not_there_is_refused(run, theirs_url, tmp_path):
    """The check is not made without it; exit code 2."""
    code, _, err = run("drill", "--url", theirs_url, "--load-extension", tmp_path / "absent")
    assert (code, "extension" in err) == (2, True)

"""A catch-up after a gap uploads the changed pages only, not the database."""

import contextlib
import random
import shutil
import sqlite3

import pytest

from tests.helpers.deployment import assert_same_pages
from tests.helpers.replication import LONG
from tests.plugins.scoreboard import effort

MIB = 1 << 20
SIZE = effort(32, 1024) * MIB
ROW = 4000  # bytes; one row fills a page


@contextlib.contextmanager
def opened(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")
        yield connection


def fill(path):
    with opened(path) as connection:
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
        connection.execute(
            "INSERT INTO t(body) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
            "WHERE i < ?) SELECT randomblob(2000) || zeroblob(2000) FROM n",
            (SIZE // 4096,),
        )
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def change_one_in_a_hundred(path, rng):
    """Updates rows across the file with incompressible bytes, and truncates the WAL."""
    with opened(path) as connection:
        rows = connection.execute("SELECT max(id) FROM t").fetchone()[0]
        connection.execute("BEGIN")
        connection.executemany(
            "UPDATE t SET body = randomblob(4000) WHERE id = ?",
            ((n,) for n in rng.sample(range(1, rows + 1), rows // 100)),
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def stored(deployment):
    return sum(
        file.stat().st_size
        for file in (deployment.directory / "store").rglob("*")
        if file.is_file()
    )


@pytest.mark.timeout(effort(120, 1200))
def test_a_catch_up_ships_only_the_pages_that_differ(deployment, seed, scoreboard):
    """After 1 % of the pages changed without a replicator, the catch-up uploads less than 3 % of
    the database, without a snapshot or a new generation, and a restore equals the source."""
    rng = random.Random(seed)
    fill(deployment.path)
    size = deployment.path.stat().st_size
    with deployment.replicating() as replicator:
        first = replicator.flush(LONG)
    before = stored(deployment)
    change_one_in_a_hundred(deployment.path, rng)
    with deployment.replicating() as replicator:
        second = replicator.flush(LONG)
        assert replicator.metrics.get("catch_ups") == 1
        assert replicator.metrics.get("snapshots") == 0
    assert (second.generation, second.txid) == (first.generation, first.txid + 1)
    sent = stored(deployment) - before
    assert 0.01 * size * 0.9 < sent < 0.03 * size
    copy, _ = deployment.restore()
    assert_same_pages(copy.read_bytes(), deployment.source())
    shutil.rmtree(deployment.directory)  # gigabytes, in the full run
    scoreboard(
        "catch-up after 1 % of the pages changed without a replicator",
        f"{size / MIB:,.0f} MiB database, {sent / MIB:.2f} MiB sent: {sent / size:.2%}",
    )

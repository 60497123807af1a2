"""WAL monitoring: thresholds, and observers that learn when one is crossed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.app import Database, WalThresholds
from replicator.app.wal import RANKS, WalMonitor
from replicator.errors import ConfigError
from tests.helpers.replication import wait_for

SMALL = WalThresholds(warning=100_000, critical=1_000_000, interval=0.001)


def test_an_observer_learns_of_a_growing_wal(tmp_path):
    """A read that does not end keeps the WAL from a reset; it crosses both thresholds."""
    changes = []
    with Database.open(tmp_path / "app.db", wal=SMALL) as db:
        db.wal.observe(lambda change: changes.append((change.before, change.level)))
        db.execute("CREATE TABLE t (x)")
        with db.read():
            db.fetch_all("SELECT * FROM t")
            db.execute("INSERT INTO t VALUES (zeroblob(200000))")
            wait_for(lambda: changes == [("normal", "warning")])
            db.execute("INSERT INTO t VALUES (zeroblob(2000000))")
            wait_for(lambda: changes[1:] == [("warning", "critical")])
        assert db.statistics().wal_bytes > 2_000_000
        assert db.wal.level == "critical"


def test_check_looks_at_once(tmp_path):
    """Without a thread: the change since the last look."""
    wal = tmp_path / "app.db-wal"
    monitor = WalMonitor(wal, SMALL)
    assert monitor.check() is None
    wal.write_bytes(bytes(200_000))
    change = monitor.check()
    assert (change.size, change.before, change.level) == (200_000, "normal", "warning")
    assert monitor.check() is None
    wal.unlink()
    assert monitor.check().level == "normal"


def test_an_observer_that_fails_does_not_disturb_the_others(tmp_path, caplog):
    """Its failure is in the log."""
    wal, seen = tmp_path / "app.db-wal", []
    monitor = WalMonitor(wal, SMALL)
    monitor.observe(lambda change: 1 / 0)
    monitor.observe(lambda change: seen.append(change.level))
    wal.write_bytes(bytes(200_000))
    wait_for(lambda: seen == ["warning"])
    monitor.close()
    assert "ZeroDivisionError" in caplog.text


@given(st.lists(st.integers(0, 2_000_000)))
def test_a_level_has_a_margin(sizes):
    """It begins at its threshold, and ends at three quarters of it."""
    level = "normal"
    for size in sizes:
        before, level = level, SMALL.level(size, level)
        for name, bound in (("warning", 100_000), ("critical", 1_000_000)):
            if size >= bound:
                assert RANKS[level] >= RANKS[name]
            if size <= 0.75 * bound:
                assert RANKS[level] < RANKS[name]
            if 0.75 * bound < size < bound:
                assert (RANKS[level] >= RANKS[name]) == (RANKS[before] >= RANKS[name])


def test_thresholds_out_of_order_are_refused():
    """When they are made."""
    with pytest.raises(ConfigError):
        WalThresholds(warning=10, critical=5)

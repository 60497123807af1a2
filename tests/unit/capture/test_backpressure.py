"""The brake: writers are stopped, or slowed, and each hold is told."""

import sqlite3
import threading

import pytest

from replicator.capture.backpressure import WriterBackpressure
from replicator.capture.limits import CaptureLimits
from replicator.errors import DatabaseBusy
from replicator.metrics import Metrics

pytestmark = pytest.mark.app(rows=3)


@pytest.fixture
def brake(database):
    """The backpressure on writers of the database."""
    return WriterBackpressure(database, Metrics(), CaptureLimits())


def test_nobody_writes_while_writers_are_stopped(app, brake):
    """A blocked writer finds the database locked, and writes again after the block."""
    app.run("PRAGMA busy_timeout=0")
    with brake.block() as held:
        assert held
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            app.insert()
    app.insert()
    assert brake._metrics.get("write_lock_holds") == 1
    assert brake._metrics.get("longest_write_lock_ms") > 0


def test_a_writer_in_the_middle_of_its_transaction_is_left_alone(app, brake):
    """While a write transaction is open, a block gives up without the write lock."""
    app.run("BEGIN IMMEDIATE")
    with brake.block(0.01) as held:
        assert not held
    app.run("COMMIT")
    assert brake._metrics.get("write_lock_holds") == 0


def test_a_slowed_writer_goes_on(app, brake):
    """It finds the lock taken now and then, and free soon after."""
    app.run("PRAGMA busy_timeout=10000")
    refused = threading.Event()

    def insist():
        with sqlite3.connect(app.path, timeout=0) as other:
            while not refused.is_set():
                try:
                    other.execute("BEGIN IMMEDIATE")
                    other.execute("ROLLBACK")
                except sqlite3.OperationalError:
                    refused.set()
        other.close()

    with brake.throttle():
        impatient = threading.Thread(target=insist)
        impatient.start()
        for _ in range(50):
            app.insert()
        assert refused.wait(60), "the lock was never taken"
        impatient.join()
    assert brake._metrics.get("write_lock_holds") > 0
    held = brake._metrics.get("write_lock_holds")
    app.run("PRAGMA busy_timeout=0")
    for _ in range(50):
        app.insert()  # after the block it is free
    assert brake._metrics.get("write_lock_holds") == held


def test_writers_can_be_stopped_while_they_are_slowed(app, database):
    """The thread that captures waits for the slice under way, and then has the lock for itself."""
    brake = WriterBackpressure(database, Metrics(), CaptureLimits(lock_slice=0.001))
    app.run("PRAGMA busy_timeout=0")
    with brake.throttle():
        for _ in range(50):
            with brake.block() as held:
                assert held
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    app.insert()


def test_a_brake_that_cannot_be_had_slows_nobody(app, brake, database, monkeypatch):
    """The capture meets the same trouble, and tells."""

    def refuse(*_):
        raise DatabaseBusy("no lock today")

    monkeypatch.setattr(database, "_take_lock", refuse)
    with brake.throttle():
        app.insert()
    assert brake._metrics.get("write_lock_holds") == 0

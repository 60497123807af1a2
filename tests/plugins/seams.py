"""Parts of the machine that a test replaces: the clock, the file events, and the disk."""

import pytest

from replicator.system.watch import FileWatcher


@pytest.fixture
def set_clock(monkeypatch):
    """``set_clock(now_ms)`` replaces the clock of the package by a function without arguments."""

    def set_clock(now_ms):
        monkeypatch.setattr("replicator.system.clock.now_ms", now_ms)

    return set_clock


@pytest.fixture
def no_events(monkeypatch):
    """Disables file events, so that only polls and requests wake the capture."""
    monkeypatch.setattr(FileWatcher, "_open", lambda watcher: False)

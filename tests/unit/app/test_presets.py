"""Presets: `default`, `production`, `minimal`, or one's own."""

import dataclasses

import pytest

from replicator.app import DEFAULT, MINIMAL, PRODUCTION, Database, Preset
from replicator.errors import ConfigError

LEVELS = {"OFF": 0, "NORMAL": 1, "FULL": 2, "EXTRA": 3}


def settings(connection):
    """The settings of a connection, as SQLite has them."""
    names = "synchronous", "cache_size", "mmap_size", "journal_size_limit", "foreign_keys"
    found = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}
    return found | {"busy": connection.execute("PRAGMA busy_timeout").fetchone()[0]}


@pytest.mark.parametrize("preset", [DEFAULT, PRODUCTION, MINIMAL], ids=lambda each: each.name)
def test_a_preset_is_what_every_connection_has(tmp_path, preset):
    """The writer, the readers, and a connection for another library."""
    with Database.open(tmp_path / "app.db", preset=preset.name) as db:
        own = db.connect(writes=True)
        with db.read() as reader, db.transaction() as writer:
            found = [settings(each) for each in (reader, writer, own)]
        own.close()
    wanted = {
        "synchronous": LEVELS[preset.synchronous],
        "cache_size": -preset.cache_bytes // 1024,
        "mmap_size": preset.mmap_bytes,
        "journal_size_limit": preset.journal_size_limit,
        "foreign_keys": 1,
        "busy": 1000 * preset.busy_timeout,
    }
    assert found == [wanted] * 3


def test_production_survives_a_power_cut():
    """A commit that returned is on the disk: the bucket must never be ahead of the file."""
    assert PRODUCTION.synchronous == "FULL"


def test_a_preset_of_ones_own(tmp_path):
    """Any field of a preset can be replaced."""
    mine = dataclasses.replace(DEFAULT, name="mine", readers=1, foreign_keys=False)
    with Database.open(tmp_path / "app.db", preset=mine) as db:
        assert db.fetch_value("PRAGMA foreign_keys") == 0
        assert isinstance(db.preset, Preset)


def test_an_unknown_preset_is_refused(tmp_path):
    """The error names the setting."""
    with pytest.raises(ConfigError) as failure:
        Database.open(tmp_path / "app.db", preset="fast")
    assert failure.value.setting == "preset"

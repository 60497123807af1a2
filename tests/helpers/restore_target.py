"""The target of a restore: an old database whose rows are in its WAL only, or nothing."""

import contextlib
import shutil
import sqlite3
from pathlib import Path


def old_database(place):
    """Makes a database whose rows are in its WAL only, as a killed application leaves it."""
    with contextlib.closing(sqlite3.connect(place / "app.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE old(x)")
        db.execute("INSERT INTO old VALUES(1), (2), (3)")
        files = {name: Path(f"{place / 'app.db'}{name}").read_bytes() for name in ("", "-wal")}
    for name, data in files.items():
        Path(f"{place / 'app.db'}{name}").write_bytes(data)


def old_rows(place):
    """The number of old rows, read from a copy, because reading checkpoints the WAL."""
    copy = place.with_name(place.name + "-copy")
    shutil.copytree(place, copy)
    with contextlib.closing(sqlite3.connect(copy / "app.db")) as db:
        found = db.execute("SELECT count(*) FROM old").fetchone()[0]
    shutil.rmtree(copy)
    return found


def check_target(place, newest, *, old):
    """Checks that ``place`` holds the new database without a WAL, or the old one with its WAL
    (no database where none was)."""
    target = place / "app.db"
    if target.exists() and target.read_bytes() == newest:
        assert not (place / "app.db-wal").exists()
    elif old:
        assert old_rows(place) == 3
    else:
        assert not target.exists()

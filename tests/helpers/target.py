"""Where a restore goes: an old database whose rows lie in its log only, or nothing."""

import contextlib
import shutil
import sqlite3
from pathlib import Path


def old_database(place):
    """One whose rows are in its log only, as a killed application leaves it."""
    with contextlib.closing(sqlite3.connect(place / "app.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE old(x)")
        db.execute("INSERT INTO old VALUES(1), (2), (3)")
        files = {name: Path(f"{place / 'app.db'}{name}").read_bytes() for name in ("", "-wal")}
    for name, data in files.items():
        Path(f"{place / 'app.db'}{name}").write_bytes(data)


def old_rows(place):
    """Asked of a copy, for asking folds the log."""
    copy = place.with_name(place.name + "-copy")
    shutil.copytree(place, copy)
    with contextlib.closing(sqlite3.connect(copy / "app.db")) as db:
        found = db.execute("SELECT count(*) FROM old").fetchone()[0]
    shutil.rmtree(copy)
    return found


def target_is_whole(place, newest, *, old):
    """The old database with its log, or none where none was; or the new one without a log."""
    target = place / "app.db"
    if target.exists() and target.read_bytes() == newest:
        assert not (place / "app.db-wal").exists()
        assert place.joinpath("app.db").stat().st_size == len(newest)
    elif old:
        assert old_rows(place) == 3
    else:
        assert not target.exists()

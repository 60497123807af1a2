"""SIGKILL at any system call of a restore: the target is old or new, and a rerun completes."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from replicator import restore
from replicator.store.directory import DirectoryStore
from tests.helpers.bucket import BucketBuilder
from tests.helpers.counting import CountingStore

# One process forks a child for each point: no interpreter has to start again.
KILLER = """
import os, signal, sys
from pathlib import Path
from replicator import restore
from replicator.system.files import Files
from replicator.store.directory import DirectoryStore

class Deadly(Files):
    def __init__(self, left):
        self.left = left

    def system(self, call, /, *args, **kwargs):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().system(call, *args, **kwargs)

def child(place, left):
    restore(store=DirectoryStore(store), prefix="app.db", output=place / "app.db",
            overwrite=True, files=Deadly(left))

store, places = sys.argv[1], sys.argv[2:]
for place in places:
    pid = os.fork()
    if not pid:
        child(Path(place), int(Path(place).name))
        os._exit(0)
    print(place, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture
def stored(tmp_path):
    """A bucket on disk with a snapshot of several parts and some segments."""
    (tmp_path / "source").mkdir()
    (tmp_path / "store").mkdir()
    built = BucketBuilder(tmp_path / "source", DirectoryStore(tmp_path / "store"))
    built.insert(400)
    built.cut()
    built.snapshot(frame_bytes=16 * 4096)
    built.run("UPDATE t SET body = 'x' WHERE id % 50 = 0")
    built.cut()
    built.insert(30)
    built.cut()
    yield built
    built.close()


def old_database(directory):
    """A database whose rows are in its log only, as a killed application leaves it."""
    directory.mkdir(parents=True)
    path = directory / "app.db"
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute("CREATE TABLE old(x)")
    database.execute("INSERT INTO old VALUES(1), (2), (3)")
    saved = {name: Path(f"{path}{name}").read_bytes() for name in ("", "-wal")}
    database.close()
    for name, data in saved.items():
        Path(f"{path}{name}").write_bytes(data)


def old_rows(directory):
    """Asked of a copy, for asking folds the log."""
    copy = directory.with_name(directory.name + "-copy")
    shutil.copytree(directory, copy)
    with sqlite3.connect(copy / "app.db") as database:
        found = database.execute("SELECT count(*) FROM old").fetchone()[0]
    database.close()
    return found


@pytest.mark.parametrize("old", [True, False])
def test_killed_at_every_call(stored, tmp_path, old):
    """After each kill the place holds the whole old database (its log included) or the whole
    new one without a log; restoring again gives the right file and leaves nothing behind."""
    places = [tmp_path / "places" / str(n) for n in range(1, 90)]
    for place in places:
        if old:
            old_database(place)
        else:
            place.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path / "store"), *map(str, places)],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    codes = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert "-9" in codes.values()
    assert "0" in codes.values(), "the last calls were not reached"
    newest = stored.images[stored.txid]
    for place in places:
        target = place / "app.db"
        if target.exists() and target.read_bytes() == newest:
            assert not (place / "app.db-wal").exists()
        elif old:
            assert old_rows(place) == 3
        else:
            assert not target.exists()
        restore(store=stored.store, prefix="app.db", output=target, overwrite=True)
        assert target.read_bytes() == newest
        assert sorted(path.name for path in place.iterdir()) == [".app.db-replicator", "app.db"]


def snapshot_gets(store, output):
    """How often the second attempt asks for parts of a snapshot, and its report."""
    counting = CountingStore(store)
    report = restore(store=counting, prefix="app.db", output=output)
    return sum("snapshots/" in key for method, key in counting.calls if method == "get"), report


def test_a_killed_process_leaves_its_proved_parts(stored, tmp_path, monkeypatch):
    """Another process goes on from what a killed one had proved: it fetches less, and says that
    those parts were hashed again."""
    monkeypatch.setattr("replicator.recovery.snapshot.RANGE_BYTES", 4096)  # a request for each part
    whole, _ = snapshot_gets(stored.store, tmp_path / "whole.db")
    places = [tmp_path / "places" / str(n) for n in range(1, 60)]
    for place in places:
        place.mkdir(parents=True)
    subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path / "store"), *map(str, places)],
        capture_output=True,
        check=True,
        timeout=100,
    )
    fetched = []
    for place in places:
        target, notes = place / "app.db", place / ".app.db.restoring" / "parts"
        if notes.exists() and not target.exists():  # it may have been killed after the rename
            gets, report = snapshot_gets(stored.store, target)
            assert target.read_bytes() == stored.images[stored.txid]
            assert gets == whole or "earlier attempt" in report.verified
            fetched.append(gets)
    assert min(fetched) == 2 < whole  # the tail, and the first part for its header

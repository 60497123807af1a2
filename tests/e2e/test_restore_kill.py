"""After SIGKILL at any system call of a restore, the target is old or new; a rerun completes."""

import subprocess
import sys

import pytest

from replicator import restore
from tests.helpers.counting import CountingStore
from tests.helpers.restore_target import check_target, old_database
from tests.helpers.restores import restore_with

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


@pytest.mark.parametrize("old", [True, False])
def test_killed_at_every_call(stored_archive, tmp_path, old):
    """After each kill the directory holds the whole old database with its WAL, or the whole new one
    without a WAL; a second restore gives the right file and leaves no other."""
    places = [tmp_path / "places" / str(n) for n in range(1, 90)]
    for place in places:
        place.mkdir(parents=True)
        if old:
            old_database(place)
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
    newest = stored_archive.images[stored_archive.txid]
    for place in places:
        target = place / "app.db"
        check_target(place, newest, old=old)
        restore(store=stored_archive.store, prefix="app.db", output=target, overwrite=True)
        assert target.read_bytes() == newest
        assert sorted(path.name for path in place.iterdir()) == [".app.db-replicator", "app.db"]


def snapshot_gets(store, output):
    """(number of GETs of the snapshot, report) of a restore."""
    counting = CountingStore(store)
    report = restore_with({"range_bytes": 4096}, store=counting, output=output)  # one per part
    return sum("snapshots/" in key for method, key in counting.calls if method == "get"), report


def test_a_killed_process_leaves_its_proved_parts(stored_archive, tmp_path):
    """Another process resumes from the parts that a killed one had proved: it fetches less, and
    reports that it hashed those parts again."""
    whole, _ = snapshot_gets(stored_archive.store, tmp_path / "whole.db")
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
            gets, report = snapshot_gets(stored_archive.store, target)
            assert target.read_bytes() == stored_archive.images[stored_archive.txid]
            assert gets == whole or "earlier attempt" in report.verified
            fetched.append(gets)
    assert min(fetched) == 2 < whole  # the tail, and the first part for its header

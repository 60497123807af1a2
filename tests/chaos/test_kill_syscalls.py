"""A kill, or an I/O error, at every system call of one capture–upload cycle and of one restore.

The tests first count the calls of each thread; then each run makes one of them fatal. Afterwards
a restore from the store must agree with the reports of the process, and a new start continues.
"""

import contextlib
import random
import re
import shutil
import sqlite3

import pytest

from replicator import restore
from tests.helpers.restore_target import check_target, old_database
from tests.plugins.scoreboard import effort
from tests.programs.cycle import content

KILLS, FAULTS, RESTORE_KILLS = effort(20, None), effort(3, None), effort(12, None)
FAILING = ("fsync", "rename", "link", "fdatasync", "write", "pwrite64", "ftruncate", "openat")


def points(counts, sample, rng, calls=None):
    """Every (role, call, n), or a sample of them."""
    every = sorted(
        (role, call, nth)
        for (role, call), count in counts.items()
        for nth in range(1, count + 1)
        if calls is None or call in calls
    )
    return every if sample is None else rng.sample(every, sample)


class CycleDirectory:
    """The files and reports that the processes of one run left."""

    def __init__(self, directory):
        self.directory = directory
        self.database = directory / "app.db"
        (directory / "store").mkdir(parents=True)

    def reported(self, word):
        """The last number reported after ``word``; 0 if there is none."""
        reports = self.directory / "said"
        lines = reports.read_text() if reports.exists() else ""
        found = re.findall(rf"^{word} (\d+)$", lines, re.MULTILINE)
        return int(found[-1]) if found else 0

    def restored(self):
        """(rows, bytes) of a restore from the store; (0, b"") when it holds no backup."""
        output = self.directory / "restored.db"
        report = restore(
            url=f"file://{self.directory}/store", prefix="app.db", output=output, verify="full"
        )
        if report is None:
            return 0, b""
        image = output.read_bytes()
        rows = prefix_of(output)
        output.unlink()
        shutil.rmtree(output.with_name(".restored.db-replicator"))
        return rows, image

    def check_store(self):
        """Transactions that were reported durable are in the store; it holds only whole ones."""
        rows, _ = self.restored()
        assert rows >= self.reported("durable")
        assert (
            rows <= self.reported("committed") + 3
        )  # a commit may take effect before it is reported

    def check_application(self):
        """The database is whole, with every commit that returned."""
        if self.database.exists() or self.reported("committed"):
            assert prefix_of(self.database) >= self.reported("committed")

    def check_end(self):
        """After a new start the store holds the database page by page."""
        rows, image = self.restored()
        assert rows == self.reported("durable") == self.reported("committed")
        with contextlib.closing(sqlite3.connect(self.database)) as db:
            assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        assert image == self.database.read_bytes()


def prefix_of(path):
    """The number of rows, which must be exactly 1 to that number."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            return 0
        rows = db.execute("SELECT seq, body FROM t ORDER BY seq").fetchall()
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert [seq for seq, _ in rows] == list(range(1, len(rows) + 1))
    assert all(body == content(seq) for seq, body in rows)
    return len(rows)


def ended(place, tracer, point):
    """Checks all invariants after a process ended in any way, and after a new start."""
    try:
        place.check_store()
        place.check_application()
        assert tracer.run("go on", place.directory) == 0, (place.directory / "errors").read_text()
        place.check_end()
    except BaseException as error:
        error.add_note(f"at {point}, in {place.directory}: {place.reported('durable')} durable")
        raise
    shutil.rmtree(place.directory)


@pytest.mark.timeout(effort(120, 7200))
def test_kill_at_every_call_of_a_cycle(tracer, tmp_path, seed, scoreboard):
    """A kill before any call of a cycle (start, commits, cuts, appends, roll-over, trim, snapshot,
    end) keeps durable transactions in the store and the application's database whole, and a new
    start on the same cache replicates every page."""
    whole = CycleDirectory(tmp_path / "whole")
    assert tracer.run("cycle", whole.directory) == 0
    assert whole.reported("rolled") >= 1
    ended(whole, tracer, "no point")
    counts = tracer.counts("cycle", CycleDirectory(tmp_path / "empty").directory)
    chosen = points(counts, KILLS, random.Random(seed))
    killed = 0
    for number, point in enumerate(chosen):
        place = CycleDirectory(tmp_path / str(number))
        killed += tracer.killed("cycle", place.directory, *point)
        ended(place, tracer, point)
    assert 2 * killed > len(chosen)  # not every run makes as many calls as the one counted
    scoreboard(
        "kill at every system call of a capture-upload cycle",
        f"{len(chosen)} of {counts.total()} calls of {len({r for r, _ in counts})} threads,"
        f" {killed} killed there, {len(chosen) - killed} took another way, 0 violations",
    )


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.timeout(effort(120, 7200))
def test_error_at_every_call_of_a_cycle(tracer, tmp_path, seed, scoreboard, error):
    """An error of any call that makes something durable, also in the ledger's SQLite, loses no
    acknowledged transaction; a refusal is an exit code and never a traceback."""
    counts = tracer.counts("cycle", CycleDirectory(tmp_path / "empty").directory)
    ours = {key: count for key, count in counts.items() if key[0] != "app 1"}
    chosen = points(ours, FAULTS, random.Random(seed), FAILING)
    refused = 0
    for number, point in enumerate(chosen):
        place = CycleDirectory(tmp_path / str(number))
        code = tracer.failed("cycle", place.directory, *point, error)
        errors = (place.directory / "errors").read_text()
        assert code < 10, (point, errors)
        assert "Traceback" not in errors, (point, errors)
        refused += code != 0
        ended(place, tracer, point)
    scoreboard(
        f"{error} at every fsync, rename, link, write, truncate and open of a cycle",
        f"{len(chosen)} faults, {refused} refused loudly, {len(chosen) - refused} ridden "
        "out, 0 violations",
    )


# ------------------------------------------------------------------------------------ restore


@pytest.mark.timeout(effort(120, 7200))
@pytest.mark.parametrize("old", [True, False], ids=["over an old one", "anew"])
def test_kill_at_every_call_of_a_restore(tracer, stored_archive, tmp_path, seed, scoreboard, old):
    """After a kill before any call, the target is the whole old or the whole new database; a second
    restore resumes from the proved parts and leaves no other file."""
    template = tmp_path / "place"
    template.mkdir()
    if old:
        old_database(template)
    counts = tracer.counts("restore", template)
    every = points(counts, counts.total(), random.Random(seed))  # all, in a random order
    wanted = RESTORE_KILLS or len(every)
    newest = stored_archive.images[stored_archive.txid]
    killed = resumed = 0
    # The work of a thread of the pool differs from run to run, so not every call occurs again.
    for number, point in enumerate(every):
        if killed == wanted:
            break
        place = tmp_path / str(number)
        shutil.copytree(template, place)
        killed += tracer.killed("restore", place, *point)
        check_target(place, newest, old=old)
        report = restore(
            store=stored_archive.store, prefix="app.db", output=place / "app.db", overwrite=True
        )
        resumed += "earlier attempt" in report.verified
        assert (place / "app.db").read_bytes() == newest, point
        left = {path.name for path in place.iterdir()} - {"said", "errors"}
        assert left == {".app.db-replicator", "app.db"}, point
        shutil.rmtree(place)
    assert killed > 0.8 * wanted
    scoreboard(
        f"kill at every system call of a restore, {'over an old one' if old else 'anew'}",
        f"{wanted} of {counts.total()} calls, {killed} killed there, {resumed} second "
        "restores resumed, 0 violations",
    )

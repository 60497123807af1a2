"""Random histories: each state that a flush reported durable can be restored from the store.

One process performs all steps, so that each is known: an application with several connections,
users who move files, a store that goes away and comes back, a replicator that stops and starts.
After each flush an independent reader assembles the database from its files; restores of the
flushed txid must equal that image.
"""

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from replicator import restore
from replicator.capture.holds import WalHolds
from replicator.system import database_files
from tests.helpers.deployment import assert_same_pages
from tests.helpers.random_history import ROWS, ApplicationConnections, ImageReader, other_database
from tests.helpers.replication import LONG, HookedStore, replicator_for
from tests.plugins.scoreboard import SEED, effort

HISTORIES = effort(60, 2000)
STEPS = effort(15, 25)
PAGE_SIZES = (512, 1024, 4096, 8192, 65536)
SIDE_FILES = ("-wal", "-shm", "-journal")
COARSE = 5  # CLOCK_REALTIME_COARSE of clock_gettime(2)
COPYING = threading.RLock()  # held while a checkpoint of the replicator may write
tally = {"histories": 0, "steps": 0, "restores": 0}


class History(RuleBasedStateMachine):
    """One history. Rules with preconditions check them themselves."""

    def __init__(self):
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="history-"))
        self.path = self.directory / "app.db"
        self.store = HookedStore()
        self.app, self.image_reader = ApplicationConnections(self.path), ImageReader(self.path)
        self.replicator, self.images, self.times = None, {}, {}
        self.away, self.lost, self.trace = False, False, []
        tally["histories"] += 1

    # the beginning

    @initialize(
        page_size=st.sampled_from(PAGE_SIZES),
        roll_over=st.sampled_from((1, 5, 30, 1000)),
        number=st.integers(0, 1 << 32),
        early=st.booleans(),
    )
    def begin(self, page_size, roll_over, number, early):
        self.step()
        self.rng = random.Random(number)
        self.limits = {
            "capture": {"roll_over_frames": roll_over},
            "session": {"roll_over_pause": 0.0},
        }
        if early:
            self.start()
        self.app.open(page_size)

    def start(self, **settings):
        values = {
            "sync_interval": self.rng.choice((0.0, 0.001, 0.05)),
            "segment_max_bytes": self.rng.choice((128 << 10, 1 << 20, 16 << 20)),
            "max_cache_bytes": self.rng.choice((1 << 20, 512 << 20)),
            "poll_interval": self.rng.choice((0.01, 1.0)),
            "snapshot_interval": self.rng.choice((0.01, 3600.0)),
            "switch_in_use": True,  # the image reader of this process has the file open, too
        } | settings
        if self.lost:  # without the order, a database that the cache does not know is refused
            values["take_over"] = True
        self.replicator = replicator_for(self.path, self.store, limits=self.limits, **values)
        self.replicator.start()

    def stop(self):
        if self.replicator is not None:
            self.replicator.stop()
        self.replicator = None

    # the application

    @rule(
        who=st.integers(0, 2),
        rows=st.sampled_from((1, 1, 3, 40)),
        size=st.sampled_from((1, 20, 300, 5000)),
    )
    def insert(self, who, rows, size):
        self.step()
        self.app.run(
            self.app.connection(who),
            "INSERT INTO t(body) " + ROWS.format(rows, f"randomblob({size})"),
        )

    @rule(who=st.integers(0, 2), times=st.integers(2, 12))
    def many_small_ones(self, who, times):
        self.step()
        for _ in range(times):
            self.app.run(self.app.connection(who), "INSERT INTO t(body) VALUES (randomblob(50))")

    @rule(who=st.integers(0, 2), nth=st.integers(1, 5))
    def update(self, who, nth):
        self.step()
        self.app.run(
            self.app.connection(who),
            f"UPDATE t SET body = randomblob(length(body) + 7) WHERE id % {nth} = 0",
        )

    @rule(who=st.integers(0, 2), nth=st.integers(1, 3))
    def delete(self, who, nth):
        self.step()
        self.app.run(self.app.connection(who), f"DELETE FROM t WHERE id % {nth} = 0")

    @rule(who=st.integers(0, 2), undone=st.booleans())
    def spill(self, who, undone):
        """A transaction larger than the page cache, rolled back in part or as a whole."""
        self.step()
        many = "INSERT INTO t(body) " + ROWS.format(60, "randomblob(3000)")
        self.app.run(
            self.app.connection(who),
            "BEGIN IMMEDIATE",
            many,
            "SAVEPOINT s",
            "UPDATE t SET body = zeroblob(20) WHERE id % 2",
            "ROLLBACK TO s",
            many,
            "DELETE FROM t WHERE id % 3 = 1",
            "ROLLBACK" if undone else "COMMIT",
        )

    @rule(who=st.integers(0, 2), mode=st.sampled_from(("PASSIVE", "FULL", "RESTART", "TRUNCATE")))
    def checkpoint(self, who, mode):
        self.step()
        self.app.run(self.app.connection(who), f"PRAGMA wal_checkpoint({mode})")

    @rule(who=st.integers(0, 2), frames=st.sampled_from((0, 1, 20, 1000)))
    def autocheckpoint(self, who, frames):
        self.step()
        self.app.run(self.app.connection(who), f"PRAGMA wal_autocheckpoint={frames}")

    @rule(who=st.integers(0, 2), auto=st.sampled_from(("", "NONE", "FULL", "INCREMENTAL")))
    def vacuum(self, who, auto):
        self.step()
        pragma = (f"PRAGMA auto_vacuum={auto}",) if auto else ()
        self.app.run(self.app.connection(who), *pragma, "VACUUM")

    @rule(who=st.integers(0, 2))
    def incremental_vacuum(self, who):
        self.step()
        self.app.run(self.app.connection(who), "PRAGMA incremental_vacuum(5)")

    @rule(
        page_size=st.sampled_from(PAGE_SIZES),
        mode=st.sampled_from(("DELETE", "TRUNCATE")),
        write=st.booleans(),
        stay=st.booleans(),
    )
    def leave_wal_mode(self, page_size, mode, write, stay):
        """Leaves WAL mode; SQLite refuses while a replicator has the database open."""
        self.step()
        self.app.close()
        with contextlib.closing(
            sqlite3.connect(self.path, timeout=0.02, isolation_level=None)
        ) as db:
            if self.app.run(
                db, f"PRAGMA journal_mode={mode}", f"PRAGMA page_size={page_size}", "VACUUM"
            ):
                if write:
                    self.app.run(db, "INSERT INTO t(body) VALUES (randomblob(900))")
                if not stay:
                    self.app.run(db, "PRAGMA journal_mode=WAL")
        self.app.open()

    @precondition(lambda self: self.app.reader is None)
    @rule()
    def hold_a_reader(self):
        self.step()
        self.app.connection()
        self.app.reader = sqlite3.connect(self.path, isolation_level=None)
        self.app.reader.execute("BEGIN")
        self.app.reader.execute("SELECT count(*) FROM t").fetchall()

    @precondition(lambda self: self.app.reader is not None)
    @rule()
    def release_the_reader(self):
        self.step()
        self.app.reader.close()
        self.app.reader = None

    @precondition(lambda self: 0 < len(self.app.connections) < 3)
    @rule()
    def connect_once_more(self):
        self.step()
        self.app.open()

    @rule(reopen=st.booleans())
    def close_all(self, reopen):
        self.step()
        self.app.close()
        if reopen:
            self.app.open()

    # users who move files

    @rule(
        page_size=st.sampled_from(PAGE_SIZES),
        mode=st.sampled_from(("WAL", "DELETE")),
        how=st.sampled_from(("rename", "copy", "backup")),
        older=st.booleans(),
    )
    def replace(self, page_size, mode, how, older):
        """Replaces the database by another one or by an older state of itself."""
        self.step()
        new = self.directory / "new.db"
        if older and self.images:
            new.write_bytes(self.rng.choice(list(self.images.values())))
        else:
            other_database(new, self.rng, page_size, mode)
        if how == "copy" and self.away and self.replicator is not None:
            how = "rename"
        self.lost = True  # until the replicator is known to follow it
        {"rename": self.by_rename, "copy": self.by_copy, "backup": self.by_backup}[how](new)
        for name in (new, *(Path(f"{new}{suffix}") for suffix in SIDE_FILES)):
            name.unlink(missing_ok=True)
        self.app.connection()

    def by_rename(self, new):
        self.app.close()
        self.remove_side_files()
        os.replace(new, self.path)

    def by_copy(self, new):
        """Copies outside of a checkpoint: during one, pages of the WAL may go anywhere."""
        self.app.close()
        with COPYING:
            self.remove_side_files()
            subprocess.run(["cp", new, self.path], check=True)  # closing it here would drop locks
        if self.replicator is not None:
            # In one process SQLite keeps the shared memory of the inode while any connection is
            # open; so the application waits until the replicator has seen the new file.
            self.replicator.flush(LONG)

    def by_backup(self, new):
        """Copies with SQLite's backup API into the live database; it refuses another page size."""
        with (
            contextlib.closing(sqlite3.connect(new)) as source,
            contextlib.suppress(sqlite3.OperationalError),
        ):
            source.backup(self.app.connection(), pages=self.rng.choice((-1, 3)), sleep=0)

    def remove_side_files(self):
        for suffix in SIDE_FILES:
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    @rule(page_size=st.sampled_from(PAGE_SIZES))
    def delete_and_create(self, page_size):
        self.step()
        self.lost = True
        self.app.close()
        self.path.unlink()
        self.remove_side_files()
        self.app.open(page_size)

    # the replicator

    @precondition(lambda self: self.replicator is None)
    @rule(cache=st.sampled_from(("kept", "kept", "kept", "lost")), take_over=st.booleans())
    def start_again(self, cache, take_over):
        self.step()
        if cache == "lost":
            shutil.rmtree(self.directory / ".app.db-replicator", ignore_errors=True)
            self.lost = True
        self.start(take_over=take_over and cache == "kept" and bool(self.images))

    @precondition(lambda self: self.replicator is not None)
    @rule(flushed=st.booleans())
    def end(self, flushed):
        """Stops the replicator with or without a flush; without one it acts like a kill."""
        self.step()
        if flushed and not self.away:
            self.flushed()
        self.stop()

    @precondition(lambda self: self.replicator is not None)
    @rule()
    def restart(self):
        self.step()
        self.stop()
        self.start()

    @precondition(lambda self: self.replicator is not None and not self.away)
    @rule()
    def flush(self):
        self.step()
        self.flushed()

    @precondition(lambda self: self.replicator is not None and not self.away)
    @rule()
    def snapshot(self):
        self.step()
        self.replicator.snapshot(LONG)

    @precondition(lambda self: self.replicator is not None)
    @rule()
    def go_away(self):
        self.step()
        self.away = True
        self.store.go_away()

    @precondition(lambda self: self.away)
    @rule()
    def come_back(self):
        self.step()
        self.away = False
        self.store.come_back()

    # checks

    def step(self):
        rule = sys._getframe(1)
        arguments = ", ".join(
            f"{name}={value!r}" for name, value in rule.f_locals.items() if name != "self"
        )
        self.trace.append(f"{rule.f_code.co_name}({arguments})")
        tally["steps"] += 1

    def flushed(self):
        """Flushes, and records the image of the database under the durable txid."""
        txid = self.replicator.flush(LONG).txid
        self.lost = False
        image, at = self.image_reader.image(), time.time_ns() // 1_000_000
        while time.clock_gettime_ns(COARSE) // 1_000_000 <= at:
            pass  # files are stamped with the kernel's last tick, and commits by their file
        latest = max(self.images, default=0)
        assert txid >= latest
        assert txid not in self.images or self.images[txid] == image
        self.images[txid], self.times[txid] = image, at

    def restored(self, **target):
        tally["restores"] += 1
        output = self.directory / "restored.db"
        report = restore(store=self.store, prefix="app.db", output=output, **target)
        data = output.read_bytes()
        for name in self.directory.glob("restored.db*"):
            name.unlink()
        return report.txid, data

    def teardown(self):
        try:
            self.at_the_end()
        except BaseException:
            print(*self.trace, sep="\n")  # noqa: T201
            raise
        finally:
            self.close()

    def at_the_end(self):
        if self.away:
            self.store.come_back()
        if self.replicator is None:
            self.start()
        self.flushed()
        assert self.restored()[0] == max(self.images)
        some = self.rng.sample(sorted(self.images), min(2, len(self.images)))
        for txid in [max(self.images), *some]:
            found, data = self.restored(txid=txid)
            assert found == txid
            assert_same_pages(data, self.images[txid])
        txid = self.rng.choice(sorted(self.images))
        at = datetime.fromtimestamp(self.times[txid] / 1000, UTC)
        assert self.restored(timestamp=at)[0] == txid

    def close(self):
        self.stop()
        self.app.close()
        self.image_reader.close()
        with database_files._lock:  # no connection has them open now
            for opened in database_files._opened.values():
                os.close(opened.fd)
            database_files._opened.clear()
        shutil.rmtree(self.directory)


def alone(step):
    def locked(*args):
        with COPYING:
            return step(*args)

    return locked


@pytest.mark.timeout(120 + 3 * HISTORIES)
def test_random_histories(monkeypatch, scoreboard):
    """Every flush of every history is restored page by page, and by its time; txids never
    decrease; the application meets no error except locks that SQLite itself reports."""
    print(f"REPLICATOR_SEED={SEED}")  # noqa: T201
    for step in ("_copy", "truncate_wal_if_idle"):
        monkeypatch.setattr(WalHolds, step, alone(getattr(WalHolds, step)))
    run_state_machine_as_test(
        seeded(SEED)(History),
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    scoreboard(
        "random histories, page-exact",
        f"{tally['histories']} histories, {tally['steps']} steps, "
        f"{tally['restores']} restores, each page-exact",
    )

"""Power cuts: every write that was not synced is dropped, torn, or kept, in any order.

strace records all writes of one process while it starts, captures, uploads, trims, saves hashes,
squashes, takes snapshots, ends and starts again; the application and the ledger of the cache are
SQLite databases in the same stream. The test makes some of the states that a power cut may leave
on this disk (the store stays intact), checks each, and starts a replicator on some. See
syscall_trace.py, power_disk.py, power_cut_workload.py and power_check.py.
"""

import os
import random
import shutil
import tempfile
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.helpers.power_check import StoredLog, check_all, check_cache
from tests.helpers.power_disk import Disk, digest, write_tree
from tests.helpers.strace import reason_to_skip
from tests.helpers.syscall_trace import record
from tests.plugins.scoreboard import effort

STATES = effort(220, 12_000)  # different ones
STARTED = effort(10, 3)  # a replicator is started on one of so many
COMMITS = effort(6, 14)  # in each of two of three runs
WORKERS, AHEAD = effort(1, 2), 20
WORKLOAD = Path(__file__).parents[1] / "programs" / "power_cut_workload.py"


@pytest.fixture
def ram_directory(tmp_path):
    """A directory in memory if it has space, because nothing here has to survive."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shutil.disk_usage(shared).free < 1 << 29:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared, prefix="power-cut-") as directory:
        yield Path(directory)


@pytest.fixture
def workload_directory(ram_directory):
    """The directory of the recorded process; skips where strace may not trace."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    workload_directory = ram_directory / "workload_directory"
    (workload_directory / "store").mkdir(parents=True)
    return workload_directory


@pytest.fixture
def workers():
    """Separate processes, because each database that was ever open leaves a descriptor."""
    with get_context("spawn").Pool(WORKERS, maxtasksperchild=60) as pool:
        yield pool


class PowerCutStates:
    """Different states, drawn at instants across the whole stream."""

    def __init__(self, disk, instants, rng):
        self.disk, self.instants, self.rng = disk, instants, rng
        self.seen = set()

    def __iter__(self):
        """(number of the call after which the power failed, state, store, reports)."""
        for instant in self.disk.play():
            missing = (STATES - len(self.seen)) / max(1, self.instants)
            self.instants -= 1
            times = int(missing) + (self.rng.random() < missing % 1)
            store = self.disk.store() if times else {}
            for _ in range(4 * times):
                state = self.disk.cut(self.rng)
                name = digest(state, store)
                if times and name not in self.seen:
                    self.seen.add(name)
                    times -= 1
                    yield instant, state, store, self.disk.reported()


@pytest.mark.timeout(effort(240, 6 * 3600))
def test_power_cuts(workload_directory, ram_directory, workers, seed, scoreboard):
    """In every state the cache opens, knows every segment it ever sent, and reports nothing durable
    that is not stored. In some states a replicator starts with the application: transactions
    that were reported durable are restored by txid, and after a flush the store holds the
    database page by page."""
    calls = record(WORKLOAD, workload_directory, str(COMMITS))
    facts = os.stat(workload_directory / "app.db")
    instants = sum(1 for _ in Disk(workload_directory, calls).play())
    states = PowerCutStates(Disk(workload_directory, calls), instants, random.Random(seed))
    stored, ways, started = StoredLog(), Counter(), []
    for instant, state, store, reported in states:
        ways[checked(ram_directory / "one", state, stored(store), reported, instant)] += 1
        if len(states.seen) % STARTED == 0:
            started.append(
                (
                    instant,
                    workers.apply_async(
                        check_all,
                        (
                            state,
                            store,
                            reported,
                            [facts.st_dev, facts.st_ino],
                            seed + len(states.seen),
                            str(ram_directory),
                        ),
                    ),
                )
            )
            if len(started) > AHEAD:  # so that not all of them are in memory
                started[-AHEAD][1].wait()
    for instant, done in started:
        assert done.get() is None, f"after call {instant}: {done.get()}"
    assert len(states.seen) >= 0.95 * STATES
    told = ", ".join(f"{count} {way}" for way, count in sorted(ways.items()))
    scoreboard(
        "power-cut states (dropped, torn, reordered between fsyncs)",
        f"{len(states.seen)} different states after {len(calls)} calls: of all the cache "
        f"was opened and held against the store ({told}), on {len(started)} a replicator "
        "was started and all of it restored; 0 violations",
    )


def checked(workload_directory, state, log, reported, instant):
    shutil.rmtree(workload_directory, ignore_errors=True)
    write_tree(workload_directory, {"": None}, state)
    try:
        return check_cache(workload_directory, log, reported)
    except BaseException as error:
        error.add_note(f"the power failed after call {instant}")
        raise


def test_the_disk_ends_as_the_real_one(workload_directory):
    """If all calls survive, the model equals the file system, so it misses no call."""
    disk = Disk(workload_directory, record(WORKLOAD, workload_directory, "2"))
    for _ in disk.play():
        pass
    found = disk.everything()
    real = {
        str(path.relative_to(workload_directory)): None if path.is_dir() else path.read_bytes()
        for path in workload_directory.rglob("*")
    }
    assert {path: data for path, data in found.items() if not path.endswith("-shm")} == real

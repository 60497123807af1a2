"""Faults at every call to the local disk: no space, an I/O error, or a short write.

`Files` records the calls of one scenario of a replicator, or of one restore. In each run a fault
strikes one of these calls, once or until the test clears the disk. The application meets no error,
status and exceptions report the fault, and without a restart all data reaches the bucket.
"""

import random
import shutil

import pytest

from replicator import restore
from replicator.errors import LocalIOError
from replicator.system.files import Files
from tests.helpers.bucket import BucketBuilder
from tests.helpers.disk_faults import (
    KINDS,
    DiskScenario,
    name_of,
    names_trouble,
    small_limits,
    strikes,
)
from tests.helpers.files import StrikingFiles
from tests.helpers.restore_target import check_target, old_database
from tests.plugins.scoreboard import effort

RUNS, RESTORES = effort(2, None), effort(3, None)
OFTEN = 40  # calls of each reading kind; polls repeat them without end
TIMES = pytest.mark.parametrize("lasting", [False, True], ids=["once", "until cleared"])


@pytest.fixture(scope="module")
def disk_calls(tmp_path_factory):
    """The number of calls of each kind in a scenario without faults."""
    scenario = DiskScenario(tmp_path_factory.mktemp("recorded") / "scenario")
    try:
        with small_limits():
            scenario.run()
        scenario.check()
        return scenario.files.seen
    finally:
        scenario.close()


@TIMES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(effort(240, 4 * 3600))
def test_every_call_of_a_scenario(tmp_path, disk_calls, seed, scoreboard, kind, lasting):
    """A fault of any call, once or until cleared, is reported while it lasts; the replicator
    recovers without a restart and loses nothing."""
    rng = random.Random(f"{seed} {kind} {lasting}")
    planned = strikes(disk_calls, kind, rng, often=OFTEN, most=RUNS)
    met = reported = 0
    wrong = []
    for point, nth in planned:
        scenario = DiskScenario(tmp_path / "scenario")
        scenario.files.strike(point, nth, KINDS[kind], lasting=lasting)
        try:
            with small_limits():
                scenario.run()
            scenario.check()
        except Exception as error:  # noqa: BLE001 - the end of the test shows all errors
            wrong.append((point, nth, repr(error), scenario.reports()))
        finally:
            scenario.close()
        met += scenario.files.struck > 0
        reported += scenario.files.struck > 0 and scenario.is_reported()
    assert not wrong, "\n".join(map(str, wrong))
    scoreboard(
        f"every local call of a scenario x {kind}, {'until cleared' if lasting else 'once'}",
        f"{len(planned)} of {disk_calls.total()} calls of {len(disk_calls)} kinds struck: {met} "
        f"met it, {reported} reported, 0 lost, all recovered without a restart, all copies exact",
    )


# ------------------------------------------------------------------------------------ restore


class RestoreScenario:
    """An archive with a snapshot of many parts, a segment that is spooled, and small ones; and a
    target with an old database."""

    def __init__(self, place):
        self.place = place
        for name in ("source", "template"):
            (place / name).mkdir(parents=True)
        built = BucketBuilder(place / "source")
        built.insert(400)
        built.cut()
        built.snapshot(frame_bytes=4 * 4096)
        built.insert(300, size=600)
        built.cut()
        built.insert(3)
        built.cut()
        built.close()
        self.store, self.newest = built.store, built.images[built.txid]
        old_database(place / "template")

    def into(self, target, files):
        return restore(
            store=self.store, prefix="app.db", output=target / "app.db", overwrite=True, files=files
        )

    def struck(self, files):
        """(error of a first attempt or None, True if the target has the new database all the same,
        number of parts that a second attempt without faults did not fetch again)."""
        target = self.place / "target"
        shutil.copytree(self.place / "template", target)
        try:
            self.into(target, files)
            error = None
        except LocalIOError as trouble:
            error = trouble
        check_target(target, self.newest, old=True)
        there = (target / "app.db").read_bytes() == self.newest
        kept = parts_in(target / ".app.db.restoring")
        report = self.into(target, Files())
        assert (target / "app.db").read_bytes() == self.newest
        assert {path.name for path in target.iterdir()} == {".app.db-replicator", "app.db"}
        assert not kept or "earlier attempt" in report.verified
        shutil.rmtree(target)
        return error, there, kept


def parts_in(directory):
    """The number of snapshot parts that an attempt left there."""
    if not (directory / "parts").exists() or not (directory / "database").exists():
        return 0
    return (directory / "parts").read_bytes().count(b"\n") - 1


@pytest.fixture(scope="module")
def restore_scenario(tmp_path_factory):
    """One archive and target for all faults of a restore."""
    with small_limits():
        yield RestoreScenario(tmp_path_factory.mktemp("bucket"))


@TIMES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(effort(240, 4 * 3600))
def test_every_call_of_a_restore(restore_scenario, seed, scoreboard, kind, lasting):
    """A restore succeeds, or ends with exit code 7 and leaves the old database whole and the
    fetched parts; the next attempt without faults resumes from them, and the copy is exact."""
    recorded = StrikingFiles(name_of)
    assert restore_scenario.struck(recorded) == (None, True, 0)
    rng = random.Random(f"{seed} {kind} {lasting}")
    planned = strikes(recorded.seen, kind, rng, often=None, most=RESTORES)
    refused = resumed = 0
    for point, nth in planned:
        files = StrikingFiles(name_of)
        files.strike(point, nth, KINDS[kind], lasting=lasting)
        try:
            error, there, kept = restore_scenario.struck(files)
            if error is not None:
                assert error.exit_code == 7
                assert names_trouble(error)
                assert kind != "short write"
            assert there == (error is None) or point[1] == "directory"  # the last sync failed
        except BaseException as wrong:
            wrong.add_note(f"call {nth} of {point}")
            raise
        refused += error is not None
        resumed += kept > 0
    scoreboard(
        f"every local call of a restore x {kind}, {'until cleared' if lasting else 'once'}",
        f"{len(planned)} of {recorded.seen.total()} disk_calls of {len(recorded.seen)} kinds "
        f"struck: {refused} refused with exit 7, the target whole; {resumed} resumed from "
        "fetched parts; all exact in the end",
    )

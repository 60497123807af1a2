"""Every access to the local disk fails, by the call: for lack of space, by an I/O error, in part.

One life of a replicator, or one restore, is recorded through the one door to the file system; in
each run one of its calls is struck, once or until somebody cleared the disk. The application works
on undisturbed, whoever asks is told, and without a restart it all ends in the bucket.
"""

import random
import shutil

import pytest

from replicator import restore
from replicator.errors import LocalIOError
from replicator.system.files import Files
from tests.helpers.bucket import BucketBuilder
from tests.helpers.disk_faults import KINDS, Life, name_of, names_it, short_ways, strikes
from tests.helpers.files import StrikingFiles
from tests.helpers.restore_target import check_target, old_database
from tests.plugins.scoreboard import effort

RUNS, RESTORES = effort(2, None), effort(3, None)
OFTEN = 40  # of the calls of a kind that only look, so many; a poll repeats them without end
TIMES = pytest.mark.parametrize("lasting", [False, True], ids=["once", "until cleared"])


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """How often each kind of call is made in a life without faults."""
    life = Life(tmp_path_factory.mktemp("recorded") / "life")
    try:
        with short_ways():
            life.live()
        life.check()
        return life.files.seen
    finally:
        life.close()


@TIMES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(effort(240, 4 * 3600))
def test_every_call_of_a_life(tmp_path, calls, seed, scoreboard, kind, lasting):
    """Struck once or until cleared: told while it lasts, no restart, nothing lost."""
    rng = random.Random(f"{seed} {kind} {lasting}")
    planned = strikes(calls, kind, rng, often=OFTEN, most=RUNS)
    met = told = 0
    wrong = []
    for point, nth in planned:
        life = Life(tmp_path / "life")
        life.files.strike(point, nth, KINDS[kind], lasting=lasting)
        try:
            with short_ways():
                life.live()
            life.check()
        except Exception as error:  # noqa: BLE001 - all that is wrong is shown at the end
            wrong.append((point, nth, repr(error), life.lies, life.ear.heard, life.refused))
        finally:
            life.close()
        met += life.files.struck > 0
        told += life.files.struck > 0 and life.is_told()
    assert not wrong, "\n".join(map(str, wrong))
    scoreboard(
        f"every local call of a life x {kind}, {'until cleared' if lasting else 'once'}",
        f"{len(planned)} of {calls.total()} calls of {len(calls)} kinds struck: {met} met "
        f"it, {told} told, 0 lost, all recovered by themselves, all copies exact",
    )


# ------------------------------------------------------------------------------------ restore


class Return:
    """A bucket with a snapshot of many parts, a segment that is spooled, and small ones; and a
    target beside it, with an old database."""

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
        """The error of a first attempt, or None; whether the new database was there all the
        same; and how many parts the second one, on a disk in order, needed not fetch again."""
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
    """How many parts of the snapshot an attempt left there."""
    if not (directory / "parts").exists() or not (directory / "database").exists():
        return 0
    return (directory / "parts").read_bytes().count(b"\n") - 1


@pytest.fixture(scope="module")
def way_back(tmp_path_factory):
    with short_ways():
        yield Return(tmp_path_factory.mktemp("bucket"))


@TIMES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(effort(240, 4 * 3600))
def test_every_call_of_a_restore(way_back, seed, scoreboard, kind, lasting):
    """It succeeds, or it ends with exit code 7, the old database whole and what was fetched kept;
    with the disk in order the next attempt goes on from there, and the copy is exact."""
    recorded = StrikingFiles(name_of)
    assert way_back.struck(recorded) == (None, True, 0)
    rng = random.Random(f"{seed} {kind} {lasting}")
    planned = strikes(recorded.seen, kind, rng, often=None, most=RESTORES)
    refused = resumed = 0
    for point, nth in planned:
        files = StrikingFiles(name_of)
        files.strike(point, nth, KINDS[kind], lasting=lasting)
        try:
            error, there, kept = way_back.struck(files)
            if error is not None:
                assert error.exit_code == 7
                assert names_it(error)
                assert kind != "short write"
            assert there == (error is None) or point[1] == "directory"  # the last sync failed
        except BaseException as wrong:
            wrong.add_note(f"call {nth} of {point}")
            raise
        refused += error is not None
        resumed += kept > 0
    scoreboard(
        f"every local call of a restore x {kind}, {'until cleared' if lasting else 'once'}",
        f"{len(planned)} of {recorded.seen.total()} calls of {len(recorded.seen)} kinds "
        f"struck: {refused} refused with exit 7, the target whole; {resumed} went on from "
        "what was fetched; all exact in the end",
    )

"""A small bucket that holds one of each kind of object, for tests that damage all of it.

`Small.outcome` compares every file that a restore makes with an image from a reader of the log of
its own, so a wrong file never passes for success.
"""

from dataclasses import dataclass

import pytest

from replicator import restore
from replicator.archive.keys import parse_key
from replicator.errors import DamageError, NoBackup, ReplicatorError
from replicator.format.database import PageHashes
from replicator.model import Kind
from tests.helpers.bucket import BucketBuilder


@dataclass(frozen=True)
class Step:
    """What a log object is good for, as the test knows it from writing it."""

    key: str
    generation: str
    first: int
    last: int
    divisible: bool = True


class Small:
    """A bucket of every kind of object, and a place to restore to."""

    def __init__(self, directory, *, merged):
        (directory / "source").mkdir(parents=True)
        self.output = directory / "out.db"
        self.built = BucketBuilder(directory / "source", page_size=512)
        self.store = self.built.store
        self.steps = []
        self._fill()
        if merged:
            self._merge()
        self.newest = self.built.txid
        self.saved = {
            key: (self.store.get(key), self.store.head(key).metadata)
            for key in self.built.objects()
        }
        self.targets = [
            None,
            *(txid for txid in self.built.images if self.reach(txid, set()) == txid),
        ]

    def _fill(self):
        self._began()
        self._cut(1)
        self._cut(2)
        self.built.snapshot()
        self._cut(1, kind=Kind.CATCH_UP)
        self._cut(1)
        self.built.start_generation()
        self._began()
        self._cut(2)
        self._cut(2)

    def _began(self):
        txid = self.built.txid
        self.steps.append(Step(self.built.keys.wal(txid), self.built.generation, txid, txid))

    def _cut(self, inserts, **options):
        for _ in range(inserts):
            self.built.insert(1, 10)
        key = self.built.cut(**options)
        last = self.built.txid
        self.steps.append(Step(key, self.built.generation, last - inserts + 1, last))

    def _merge(self):
        """Two merges in the place of their segments."""
        older, newer = self.steps[1:3], self.steps[-2:]
        for kept, make, gone in (
            (True, self._merge_older, older),
            (False, self.built.merge_newest, newer),
        ):
            first, last = gone[0].first, gone[-1].last
            key = make(first, last, drop=True)
            self.steps = [step for step in self.steps if step not in gone]
            self.steps.append(Step(key, gone[0].generation, first, last, divisible=kept))

    def _merge_older(self, first, last, *, drop):
        generation, self.built.generation = self.built.generation, self.steps[0].generation
        try:
            return self.built.merge(first, last, drop=drop)
        finally:
            self.built.generation = generation

    # ------------------------------------------------------------------------------- the store

    def put(self, key, body, metadata=None):
        metadata = self.saved[key][1] if metadata is None else metadata
        self.store.put(key, body, metadata=metadata, if_absent=False)

    def mend(self, *keys):
        for key in keys:
            if key in self.saved:
                self.put(key, self.saved[key][0])
            else:
                self.store.delete(key)

    @property
    def kind(self):
        return "merges" if any("merged/" in key for key in self.saved) else "segments"

    @staticmethod
    def checksum(image):
        hashes = PageHashes(512)
        hashes.extend(1, image)
        return hashes.checksum

    def snapshot_of(self, txid, generation, image):
        """A snapshot that says of itself what its name says, with any image inside."""
        newest, self.built.txid = self.built.txid, txid
        self.built.snapshot(image=image, generation=generation)
        self.built.txid = newest

    # ----------------------------------------------------------------------------- the outcome

    def outcome(self, target, **options):
        """The report of a restore whose file was compared, or the error."""
        try:
            report = restore(
                store=self.store, prefix="app.db", output=self.output, txid=target, **options
            )
        except ReplicatorError as error:
            assert not self.output.exists(), "a file beside an error"
            return error
        if report is None:
            return NoBackup("")
        assert self.output.read_bytes() == self.built.images[report.txid], "a wrong file"
        self.output.unlink()
        return report

    def exact(self, target, **options):
        """A restore that must succeed, at the very transaction."""
        found = self.outcome(target, **options)
        assert not isinstance(found, ReplicatorError), (target, found)
        assert found.txid == (self.newest if target is None else target)

    def named(self, key, target, where):
        """A restore that must name the object: it fails, or others stood in for it exactly."""
        found = self.outcome(target)
        assert named_by(found) == key, (key, target, where, found)
        if isinstance(found, DamageError):
            assert found.exit_code == 3
        else:
            assert target in (None, found.txid)

    def needs(self):
        """(object, newest target that reads all of it): asked of a store in which that object
        is rubbish. Markers hold no data; only what begins with their generation asks them."""
        found = {}
        for key in self.saved:
            self.put(key, b"rubbish" * 9)
            for target in self.targets:
                if named_by(self.outcome(target)) == key:
                    found.setdefault(key, target)
            self.mend(key)
        assert found.keys() == self.saved.keys()
        return found

    # ---------------------------------------------------------- what can be had without an object

    def reach(self, target, gone):
        """The newest transaction ≤ target without those objects, by trying every way; 0: none."""
        limit = self.newest if target is None else target
        steps = [step for step in self.steps if step.key not in gone]
        best = 0
        for key in self.saved.keys() - gone:
            item = parse_key("app.db", key, 0)
            if "snapshots/" in key and item.txid <= limit:
                best = max(best, _furthest(steps, item, limit))
        return best


def named_by(outcome):
    """The damaged object that an error or a report names first; None if there is none."""
    if isinstance(outcome, ReplicatorError):
        return outcome.key if isinstance(outcome, DamageError) else None
    return next(iter(outcome.avoided), None)


def _furthest(steps, snapshot, limit):
    here, moved = snapshot.txid, True
    while moved:
        moved = False
        for step in steps:
            if step.generation == snapshot.generation and step.first <= here + 1 <= step.last:
                if step.last <= limit:
                    here, moved = step.last, True
                elif step.divisible and here < limit:
                    here = limit
    return here


@pytest.fixture(params=["segments", "merges"])
def each(request, tmp_path):
    """Both buckets: with segments alone, and with merges in the place of some."""
    built = Small(tmp_path, merged=request.param == "merges")
    yield built
    built.built.close()

"""A small archive that holds one of each kind of object, for tests that damage all of it.

`SmallArchive.outcome` compares every file that a restore makes with an image that an independent
reader of the WAL assembled, so a wrong file never counts as success.
"""

from dataclasses import dataclass

from replicator import restore
from replicator.archive.keys import Keys
from replicator.archive.names import SnapshotName, parse
from replicator.errors import DamageError, NoBackup, ReplicatorError
from replicator.format.page_hashes import PageHashes
from replicator.model import Kind
from tests.helpers.bucket import BucketBuilder


@dataclass(frozen=True)
class Step:
    """The transactions that a log object advances by, as the test knows from writing it."""

    key: str
    generation: str
    first: int
    last: int
    divisible: bool = True


class SmallArchive:
    """An archive of every kind of object, and a path to restore to."""

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
        """Replaces segments by two merges."""
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
        """Puts the original objects back."""
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
        """Writes a snapshot whose header agrees with its name, with any image inside."""
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
        """Runs a restore that must succeed and reach exactly that transaction."""
        found = self.outcome(target, **options)
        assert not isinstance(found, ReplicatorError), (target, found)
        assert found.txid == (self.newest if target is None else target)

    def named(self, key, target, where):
        """Runs a restore that must name the object: in its error, or in the report of an exact
        restore that used other objects instead."""
        found = self.outcome(target)
        assert named_by(found) == key, (key, target, where, found)
        if isinstance(found, DamageError):
            assert found.exit_code == 3
        else:
            assert target in (None, found.txid)

    def needs(self):
        """{object: target that reads all of it}, found by restores from a store in which that
        object is rubbish. Markers hold no data; only targets at the start of their generation
        read them."""
        found = {}
        for key in self.saved:
            self.put(key, b"rubbish" * 9)
            for target in self.targets:
                if named_by(self.outcome(target)) == key:
                    found.setdefault(key, target)
            self.mend(key)
        assert found.keys() == self.saved.keys()
        return found

    # ------------------------------------------------------------------ reach without an object

    def reach(self, target, gone):
        """The newest transaction ≤ target without those objects, found by trying every path; 0 if
        there is none."""
        limit = self.newest if target is None else target
        steps = [step for step in self.steps if step.key not in gone]
        best = 0
        for key in self.saved.keys() - gone:
            name = parse(Keys("app.db"), key)
            if isinstance(name, SnapshotName) and name.txid <= limit:
                best = max(best, _furthest(steps, name, limit))
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

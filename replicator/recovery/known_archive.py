"""An archive as one restore knows it: an index that grows with every answer.

Owns the listing that planning needs, the objects it leaves out, and the facts of those it asked,
each once. Metadata shows where to look; a fact that nothing else is going to prove comes from the
object itself. Refuses to decide; see :mod:`.planner`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from replicator.archive.facts import FactsReader
from replicator.archive.index import ArchiveObject, Index, WalObject
from replicator.archive.keys import Keys
from replicator.archive.listing import list_for
from replicator.archive.reachable import trust
from replicator.errors import ObjectMissing, Unreadable
from replicator.format.envelope import damaged
from replicator.format.object_header import ObjectFacts
from replicator.store.base import Store

ASKERS = 16  # requests under way

T = TypeVar("T", bound=ArchiveObject)
Ask = Callable[[WalObject], ObjectFacts]


class KnownArchive:
    """The archive below ``keys``, as far as one restore knows it."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self.keys = keys
        self.complete = False  # True once the listing began at the first segment
        self.reader = FactsReader(store)
        self._store = store
        self._listed: dict[str, ArchiveObject] = {}
        self._answers: dict[str, tuple[ObjectFacts, bool]] = {}  # and whether they are proved
        self._excluded: set[str] = set()
        self._index: Index | None = None

    # --------------------------------------------------------------------------- the index

    @property
    def index(self) -> Index:
        """All that is listed and not excluded, with every fact there is."""
        if self._index is None:
            self._index = Index.of(map(self._known, self._listed.values()))
        return self._index

    @property
    def proved_index(self) -> Index:
        """The same with the facts alone that come from the objects themselves."""
        return Index.of(
            self._known(item) if self.is_proved(item.key) else item
            for item in self._listed.values()
        )

    def index_without(self, key: str) -> Index:
        """The index as it would be if that object were not listed."""
        return Index.of(self._known(item) for item in self._listed.values() if item.key != key)

    def _known(self, item: ArchiveObject) -> ArchiveObject:
        if item.key not in self._answers:
            return item
        facts, proved = self._answers[item.key]
        return item.with_facts(facts, proved=proved)

    def load(self, txid: int | None, *, complete: bool = False) -> None:
        """List afresh what a restore to ``txid`` can need, or everything."""
        found = list_for(self._store, self.keys, txid, complete=complete)
        self.complete = found.complete
        self._listed = {i.key: i for i in found.objects if i.key not in self._excluded}
        self._index = None

    def relist(self, txid: int | None) -> bool:
        """List again after an object was missing. True if any other is gone as well, as while a
        prune runs; else the store lists what it does not have."""
        before = self._listed.keys()
        self.load(txid, complete=self.complete)
        return bool(before - self._listed.keys())

    def sift(self, txid: int | None) -> list[Unreadable]:
        """Leave out every object that is damaged at its ends, and every snapshot that the WAL
        objects do not confirm. One request for each object; the errors of those left out.

        ``txid``: a restore to it needs no later snapshot.
        """
        errors = self._left_out(self.index.wal, self.proved)
        for key in trust(self.index).refused:
            self.exclude(key)
        usable = [item for item in self.index.snapshots if txid is None or item.txid <= txid]
        return errors + self._left_out(usable, self.reader.tail)

    def _left_out(self, items: Iterable[T], read: Callable[[T], object]) -> list[Unreadable]:
        """Leave out each object that ``read`` finds damaged or missing; their errors."""
        with ThreadPoolExecutor(ASKERS, "restore-sift") as pool:
            answers = pool.map(partial(_damage, read), items)
            errors = [error for error in answers if error is not None]
        for error in errors:
            self.exclude(error.key)
            error.__context__ = error.__traceback__ = None  # which hold the bytes that were read
        return errors

    def exclude(self, key: str) -> None:
        """Plan without an object that proved useless, now and after the next listing."""
        self._excluded.add(key)
        self._listed.pop(key, None)
        self._index = None

    # --------------------------------------------------------------------------- the facts

    def facts(self, item: WalObject) -> ObjectFacts:
        """By the object's metadata, else proved: good enough to plan by. Before anything is
        refused for it, or if nothing else is going to prove it, see :meth:`proved`."""
        if item.key not in self._answers:
            self._note(self.reader.ask(item))
        return self._answers[item.key][0]

    def proved(self, item: WalObject) -> ObjectFacts:
        """From the object's own first and last bytes; ``Unreadable`` when they are damaged."""
        if not self.is_proved(item.key):
            self._note(self.reader.prove(item))
        return self._answers[item.key][0]

    def is_proved(self, key: str) -> bool:
        return key in self._answers and self._answers[key][1]

    def learn(self, key: str, facts: ObjectFacts) -> None:
        """Keep the facts of an object that was read: its own bytes hold them."""
        self._answers[key] = facts, True
        self._index = None

    def _note(self, item: WalObject) -> None:
        assert item.facts is not None  # it was asked just now
        self._answers[item.key] = item.facts, item.proved
        self._index = None

    def settle(self) -> bool:
        """Ask the objects themselves about every fact that only metadata gave so far. True if
        any of them differs; ``Unreadable`` when one of them is damaged."""
        hinted = [item for item in self.index.wal if item.facts is not None and not item.proved]
        proved = [self.proved(item) for item in hinted]
        return any(
            _planned(item.facts) != _planned(facts)
            for item, facts in zip(hinted, proved, strict=True)
        )


def _damage(read: Callable[[T], object], item: T) -> Unreadable | None:
    """The error of an object that cannot be read, or is missing although it is listed."""
    try:
        read(item)
    except Unreadable as error:
        return error
    except ObjectMissing as error:
        return damaged(item.key, str(error), code="listed_but_missing")
    return None


def _planned(facts: ObjectFacts | None) -> object:
    """The facts that a plan depends on."""
    return facts and (facts.generation, facts.last_txid, facts.kind, facts.indexed)

"""From a point in time to the last transaction committed by then.

Owns the search along the WAL objects by commit times, and the rule for objects that list none.
Metadata shows where to look; the objects found there are asked themselves.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterable

from replicator.archive.index import WalObject
from replicator.archive.point import RestorePoint
from replicator.archive.timespec import to_ms, to_text
from replicator.errors import GapError, NoBackup, ObjectMissing, Unreadable
from replicator.format.object_header import ObjectFacts
from replicator.recovery.known_archive import Ask, KnownArchive
from replicator.recovery.plan import listed_but_missing
from replicator.system import clock


def load_for(known: KnownArchive, point: RestorePoint, *, older: bool = False) -> int | None:
    """The txid of a point without a name, None for the newest; loads the archive with the objects
    that lead to it. ``older`` is that of :func:`txid_at`."""
    if point.timestamp is None:
        known.load(point.txid)
        return point.txid
    now = clock.now_ms()
    known.load(None, complete=True)
    return txid_at(known, to_ms(point.timestamp, now), now, older=older)


def last_by(known: KnownArchive, when_ms: int) -> int:
    """The last transaction committed by then, 0 before the first. Needs the complete listing."""
    try:
        return txid_at(known, when_ms, when_ms)
    except GapError:
        return 0


def txid_at(known: KnownArchive, when_ms: int, now_ms: int, *, older: bool = False) -> int:
    """The last transaction committed at or before ``when_ms``; ``GapError`` outside of the times
    that the archive covers. Needs the complete listing.

    With ``older`` the metadata of a damaged object counts, and its txid may be out of reach.
    """
    while True:
        try:
            return _txid_at(known, when_ms, now_ms, _lenient(known) if older else known.proved)
        except ObjectMissing as error:
            if not known.relist(None):
                raise listed_but_missing(error) from error


def committed_at(known: KnownArchive, txid: int) -> int | None:
    """The commit time of ``txid`` in ms, from an object that ends with it and has facts."""
    for item in known.index.covering(txid):
        if item.facts is not None and item.last == txid and item.facts.last_commit_ms:
            with contextlib.suppress(Unreadable, ObjectMissing):  # nothing depends on it
                return known.proved(item).last_commit_ms
    return None


def _lenient(known: KnownArchive) -> Ask:
    def ask(item: WalObject) -> ObjectFacts:
        """From the object, else from its metadata; ``Unreadable`` when neither answers."""
        try:
            return known.proved(item)
        except Unreadable:
            return known.facts(item)

    return ask


def _txid_at(known: KnownArchive, when_ms: int, now_ms: int, ask: Ask) -> int:
    line = _line(known.index.wal)
    if not line:
        raise NoBackup("there is no backup here")
    at = _search(line, when_ms, known.facts)
    if not _confirmed(line, at, when_ms, ask):
        at = _search(line, when_ms, ask)
    if at < 0 or (when_ms > now_ms and at == len(line) - 1 and when_ms > ask(line[at]).last_ms):
        since, until = ask(line[0]), ask(line[-1])
        raise GapError(
            f"{to_text(when_ms)} is outside of what can be restored, "
            f"{to_text(since.first_ms)} to {to_text(until.last_ms)}",
            restorable=(since.first_txid, until.last_txid),
            code="outside_times",
        )
    return _inside(known, line[at], when_ms, ask(line[at]))


def _inside(known: KnownArchive, item: WalObject, when_ms: int, facts: ObjectFacts) -> int:
    if when_ms >= facts.last_ms:
        return facts.last_txid
    if not known.is_proved(item.key):  # damaged: how many were committed by then is lost
        return facts.first_txid
    times = known.reader.tail(item).trailer.commit_times_ms
    every = facts.last_txid - facts.first_txid + 1
    if not item.with_facts(facts).divisible or len(times) != every:
        return facts.first_txid - 1  # the newest before it that can be restored
    return facts.first_txid + bisect_right(times, when_ms) - 1


def _confirmed(line: list[WalObject], at: int, when_ms: int, ask: Ask) -> bool:
    """True if ``when_ms`` is after the beginning of that object and before the next one's."""
    return (at < 0 or ask(line[at]).first_ms <= when_ms) and (
        at + 1 == len(line) or when_ms < ask(line[at + 1]).first_ms
    )


def _search(line: list[WalObject], when_ms: int, ask: Ask) -> int:
    """Index of the last object that begins at or before ``when_ms``; -1: none does."""
    return bisect_right(line, when_ms, key=lambda item: ask(item).first_ms) - 1


def _line(wal: Iterable[WalObject]) -> list[WalObject]:
    """The finest objects, end to end, oldest first."""
    line: list[WalObject] = []
    here = 0
    for item in sorted(wal, key=lambda item: (item.first, item.last, item.key)):
        if item.first >= here:
            line.append(item)
            here = item.last + 1
    return line

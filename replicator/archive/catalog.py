"""What a prefix holds: listings, and the facts of single objects, each asked for once.

Owns: the requests that planning needs, and keeps them few: three LISTs, of which the one of the
segments begins at the snapshot, one HEAD to see whether the log vouches for the snapshot, and
HEADs by bisection for a point in time. Metadata shows where to look; what nothing else is going to
prove is asked of the objects themselves. Refuses to decide; see :mod:`replicator.recovery.plan`.
"""

from __future__ import annotations

import contextlib
import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from replicator.archive.keys import EncryptedKey, Keys, MergedKey, SnapshotKey, WalKey, parse_key
from replicator.archive.spans import Known, Listing, LogKey, Plan, Span, covering, log_spans
from replicator.archive.timespec import to_text
from replicator.errors import ConfigError, DamageError, GapError, NoBackup, ObjectMissing
from replicator.format.envelope import (
    HEADER_LIMIT,
    TAIL_LIMIT,
    Tail,
    damaged,
    read_header,
    read_tail,
)
from replicator.format.object_header import ObjectFacts, parse_metadata
from replicator.model import Kind
from replicator.store.base import Store
from replicator.store.retry import retry_damaged

Item = TypeVar("Item", WalKey, SnapshotKey, MergedKey)
Ask = Callable[[LogKey], ObjectFacts]

# A target may lie inside these; a merge that keeps the newest images only is one step.
DIVISIBLE = frozenset({Kind.SEGMENT, Kind.MERGE})


class Catalog:
    """The objects below ``prefix``. ``listing`` grows with what is learnt."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.keys = Keys(prefix)
        self.listing = Listing()
        self.complete = False  # whether ``listing`` begins at the first segment
        self._store = store
        self._known: dict[str, Known] = {}
        self._excluded: set[str] = set()
        self._facts: dict[str, ObjectFacts] = {}
        self._proved: dict[str, ObjectFacts] = {}
        self._hints: dict[str, LogKey] = {}  # told by metadata alone
        self._tails: dict[str, Tail] = {}

    def load(self, target: int | None, *, complete: bool = False) -> None:
        """List afresh what a restore to ``target`` can need, or everything."""
        snapshots = self._list(self.keys.snapshot_dir, SnapshotKey)
        usable = [item.txid for item in snapshots if target is None or item.txid <= target]
        since = max(usable, default=0)
        self.complete = complete or since <= 1
        after = "" if self.complete else self.keys.wal(since - 1)
        wal = self._list(self.keys.wal_dir, WalKey, after)
        if not wal and not self.complete:  # the log ends in an object that begins before there
            self.complete, wal = True, self._list(self.keys.wal_dir, WalKey)
        self.listing = Listing(
            wal=wal,
            snapshots=snapshots,
            merged=self._list(self.keys.merged_dir, MergedKey),
            known=self._known,
        )

    def relist(self, target: int | None) -> bool:
        """List again after an object was not there; whether any other is gone as well, as while
        a prune runs. Else the store lists what it does not have."""
        before = self.listing.keys
        self.load(target, complete=self.complete)
        return bool(before - self.listing.keys)

    def _list(self, folder: str, kind: type[Item], after: str = "") -> tuple[Item, ...]:
        found = []
        for info in self._store.list(folder, start_after=after):
            if info.key in self._excluded:
                continue
            key = parse_key(self.keys.prefix, info.key, info.size)
            if isinstance(key, EncryptedKey):
                raise ConfigError(f"{key.key} is encrypted, which this version cannot read")
            if isinstance(key, kind):
                found.append(key)
        return tuple(found)

    def exclude(self, key: str) -> None:
        """Plan without an object that proved useless, now and after the next listing."""
        self._excluded.add(key)
        self._hints.pop(key, None)
        self.listing = self.listing.without(key)

    def learn(self, key: str, known: Known) -> None:
        self._known = {**self._known, key: known}
        self.listing = replace(self.listing, known=self._known)

    def facts(self, item: LogKey) -> ObjectFacts:
        """From the object's metadata, where that tells: good enough to plan by. Before anything
        is refused for it, or nothing else is going to prove it, see :meth:`proved`."""
        if item.key not in self._facts:
            found = parse_metadata(self._store.head(item.key).metadata)
            if found is None or found.first_txid != first_txid(item):
                return self.proved(item)
            self._facts[item.key] = found
            self._hints[item.key] = item
            self.learn(item.key, known_from(found))
        return self._facts[item.key]

    def proved(self, item: LogKey) -> ObjectFacts:
        """From the object's own first and last bytes; ``DamageError`` when they are damaged."""
        if item.key not in self._proved:
            found = retry_damaged(partial(self._read_facts, item))
            self._facts[item.key] = self._proved[item.key] = found
            self._hints.pop(item.key, None)
            self.learn(item.key, known_from(found))
        return self._proved[item.key]

    def settle(self) -> bool:
        """Ask the objects themselves about all that only metadata told so far; whether any of
        them says anything else. ``DamageError`` when one of them is damaged."""
        before, listed = self._known, self.listing.keys
        for item in list(self._hints.values()):
            if item.key in listed:
                self.proved(item)
        return self._known != before

    def _read_facts(self, item: LogKey) -> ObjectFacts:
        small = item.size <= TAIL_LIMIT
        start = self._store.get(item.key, 0, item.size if small else HEADER_LIMIT)
        header, _ = read_header(start[:HEADER_LIMIT], item.key)
        if header.first_txid != first_txid(item):
            raise damaged(
                item.key, f"it holds transaction {header.first_txid}, not what its name says"
            )
        tail = self._tail_in(item, start) if small else self.tail(item)
        trailer = tail.trailer
        if tail.kind is not header.kind or trailer.last_txid < header.first_txid:
            raise damaged(item.key, "its trailer contradicts its header")
        if header.kind is Kind.SNAPSHOT:
            raise damaged(item.key, "it is a snapshot, not what its name says")
        return ObjectFacts(
            header.kind,
            header.generation,
            header.first_txid,
            trailer.last_txid,
            header.page_size,
            trailer.pages,
            trailer.checksum_before,
            trailer.checksum_after,
            header.created_ms,
            trailer.first_commit_ms,
            trailer.last_commit_ms,
            "",
            header.writer,
        )

    def _tail_in(self, item: LogKey, data: bytes) -> Tail:
        if len(data) != item.size:
            raise damaged(item.key, "its length is not the one it was listed with")
        found = read_tail(data, item.size, item.key)
        assert isinstance(found, Tail)  # all there is was given
        if hashlib.sha256(data[: found.trailer_offset]).digest() != found.trailer.data_sha256:
            raise damaged(item.key, "the SHA-256 of its data does not match")
        self._tails[item.key] = found
        return found

    def tail(self, item: LogKey | SnapshotKey) -> Tail:
        """Trailer and seek table, in one request but for very large snapshots."""
        if item.key not in self._tails:
            self._tails[item.key] = retry_damaged(partial(self._read_tail, item))
        return self._tails[item.key]

    def _read_tail(self, item: LogKey | SnapshotKey) -> Tail:
        wanted: Tail | int = TAIL_LIMIT
        while isinstance(wanted, int):
            length = min(item.size, wanted)
            data = self._store.get(item.key, item.size - length, length)
            if len(data) < length:
                raise damaged(item.key, "it is shorter than its listing says")
            wanted = read_tail(data, item.size, item.key)
        return wanted

    # ------------------------------------------------------------------- trust in snapshots

    def vouched(self, plan: Plan) -> bool:
        """Whether the log confirms the snapshot of ``plan``.

        The object that covers its txid must be of its generation and, where it ends there,
        name the same database checksum; the object right after it may stand in. Where the
        log around it was pruned away, nothing can speak against it. Metadata suffices for a
        yes that the segments of the plan are going to prove, never for a no.
        """
        trailer = self.tail(plan.snapshot).trailer
        if trailer.last_txid != plan.snapshot.txid:
            raise damaged(plan.snapshot.key, "it is not the snapshot its name says")
        by_metadata = bool(plan.segments) and self._vouched(plan.snapshot, self.facts)
        return by_metadata or self._vouched(plan.snapshot, self.proved)

    def _vouched(self, snapshot: SnapshotKey, ask: Ask) -> bool:
        checksum = self.tail(snapshot).trailer.checksum_after
        spans = log_spans(self.listing)
        for span in covering(spans, snapshot.txid):
            facts = ask(span.item)
            if facts.last_txid >= snapshot.txid:
                return facts.generation == snapshot.generation and (
                    facts.last_txid != snapshot.txid or facts.checksum_after == checksum
                )
        for span in spans:
            if span.first == snapshot.txid + 1:
                facts = ask(span.item)
                if facts.generation == snapshot.generation:
                    return facts.checksum_before == checksum
        if not self.complete:
            self.load(snapshot.txid, complete=True)
            return self._vouched(snapshot, ask)
        return any(span.first > snapshot.txid for span in spans)

    def committed_at(self, txid: int) -> int | None:
        """When ``txid`` was committed, in ms, as an object that ends with it tells itself."""
        for span in covering(log_spans(self.listing), txid):
            facts = self._facts.get(span.key)
            if facts is not None and facts.last_txid == txid and facts.last_commit_ms:
                with contextlib.suppress(DamageError, ObjectMissing):  # nothing depends on it
                    return self.proved(span.item).last_commit_ms
        return None

    def find_generation_end(self, plan: Plan) -> None:
        """Learn where the generation of the snapshot ends, if some later object of the plan is
        known to be of another one."""
        own = plan.snapshot.generation
        known = [self.listing.known.get(span.key) for span in plan.segments]
        foreign = [at for at, fact in enumerate(known) if fact and fact.generation != own]
        if foreign:
            bisect_left(
                plan.segments[: foreign[0]],
                1,
                key=lambda span: self._span_facts(span).generation != own,
            )

    # ----------------------------------------------------------------------- points in time

    def txid_at(self, when_ms: int, now_ms: int, *, older: bool = False) -> int:
        """The last transaction committed at or before ``when_ms``; ``GapError`` outside of
        what the log tells. Needs the complete listing.

        Metadata shows where to look; what is found there is asked of the objects themselves.
        With ``older`` that of a damaged object counts, and its txid may be out of reach.
        """
        while True:
            try:
                return self._txid_at(when_ms, now_ms, self._told if older else self.proved)
            except ObjectMissing as error:
                if not self.relist(None):
                    raise GapError(f"listed, but not there: {error}") from error

    def _txid_at(self, when_ms: int, now_ms: int, ask: Ask) -> int:
        line = _line(log_spans(self.listing))
        if not line:
            raise NoBackup("there is no backup here")
        at = _search(line, when_ms, self.facts)
        if not _confirmed(line, at, when_ms, ask):
            at = _search(line, when_ms, ask)
        if at < 0 or (
            when_ms > now_ms and at == len(line) - 1 and when_ms > _ends(ask(line[at].item))
        ):
            since, until = ask(line[0].item), ask(line[-1].item)
            raise GapError(
                f"{to_text(when_ms)} is outside of what can be restored, "
                f"{to_text(_begins(since))} to {to_text(_ends(until))}"
            )
        return self._inside(line[at], when_ms, ask(line[at].item))

    def _told(self, item: LogKey) -> ObjectFacts:
        """From the object, else from its metadata; ``DamageError`` when neither tells."""
        try:
            return self.proved(item)
        except DamageError:
            return self.facts(item)

    def _span_facts(self, span: Span) -> ObjectFacts:
        return self.facts(span.item)

    def _inside(self, span: Span, when_ms: int, facts: ObjectFacts) -> int:
        if when_ms >= _ends(facts):
            return facts.last_txid
        if span.key not in self._proved:  # damaged: how many were committed by then is lost
            return facts.first_txid
        times = self.tail(span.item).trailer.commit_times_ms
        if facts.kind not in DIVISIBLE or len(times) != facts.last_txid - facts.first_txid + 1:
            return facts.first_txid - 1  # the newest before it that can be restored
        return facts.first_txid + bisect_right(times, when_ms) - 1


def first_txid(item: LogKey) -> int:
    return item.first_txid if isinstance(item, WalKey) else item.first


def known_from(facts: ObjectFacts) -> Known:
    divisible = facts.kind in DIVISIBLE
    return Known(facts.generation, facts.first_txid, facts.last_txid, divisible)


def _begins(facts: ObjectFacts) -> int:
    """When its first commit took place; the start of a generation counts as one."""
    return facts.created_ms if facts.first_commit_ms is None else facts.first_commit_ms


def _ends(facts: ObjectFacts) -> int:
    return facts.created_ms if facts.last_commit_ms is None else facts.last_commit_ms


def _confirmed(line: list[Span], at: int, when_ms: int, ask: Ask) -> bool:
    """Whether ``when_ms`` lies after the beginning of that object and before the next's."""
    return (at < 0 or _begins(ask(line[at].item)) <= when_ms) and (
        at + 1 == len(line) or when_ms < _begins(ask(line[at + 1].item))
    )


def _search(line: list[Span], when_ms: int, ask: Ask) -> int:
    """Index of the last object that begins at or before ``when_ms``; -1: none does."""
    return bisect_right(line, when_ms, key=lambda span: _begins(ask(span.item))) - 1


def _line(spans: list[Span]) -> list[Span]:
    """The finest objects, end to end, oldest first."""
    line: list[Span] = []
    here = 0
    for span in sorted(spans, key=lambda span: (span.first, span.last, span.key)):
        if span.first >= here:
            line.append(span)
            here = span.last + 1
    return line


def find_databases(store: Store, prefix: str = "", *, depth: int = 4) -> list[str]:
    """Prefixes below ``prefix`` that hold a database, without slashes at the ends.

    A folder with ``wal/`` or ``snapshots/`` in it is one, and is not looked into further.
    """
    root = Keys(prefix).root
    folders = store.folders(root)
    if {f"{root}wal/", f"{root}snapshots/"} & set(folders):
        return [root.rstrip("/")]
    if depth == 0:
        return []
    return [found for folder in folders for found in find_databases(store, folder, depth=depth - 1)]

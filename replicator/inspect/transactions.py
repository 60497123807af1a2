"""The transactions of an archive one by one, newest first, for ``history --transactions``.

Owns the walk along the finest objects, one request each, as far as the caller iterates; and, on
request, the tables that each transaction touched, for which whole objects are read. Refuses to read
the rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from replicator.archive.facts import FactsReader, require_tail_fits
from replicator.archive.index import Index, WalObject
from replicator.archive.keys import Keys
from replicator.archive.locate import no_backup, url_of
from replicator.archive.pins import found
from replicator.archive.point import NEWEST_POINT, RestorePoint
from replicator.archive.timespec import to_ms
from replicator.errors import ConfigError
from replicator.format.wal import HEADER_SIZE
from replicator.inspect.owners import Touched
from replicator.inspect.touched import Follower
from replicator.model import Kind
from replicator.recovery.known_archive import KnownArchive
from replicator.recovery.point_in_time import last_by
from replicator.store.base import Store
from replicator.system import clock
from replicator.system.scratch import scratch_directory

LAST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Transaction:
    """``kind`` is commit; catch-up: the changes made without a replicator; step: transactions kept
    as one; start: of a generation; missing: no object holds ``first_txid`` … ``txid``.
    ``frames`` and ``bytes`` are those of the WAL; they are 0 where nothing was logged.

    ``tables`` are those of which it wrote pages, None where that is not known or was not asked;
    ``unknown_pages`` counts the written pages that may belong to any other table.
    """

    kind: Literal["commit", "catch-up", "step", "start", "missing"]
    first_txid: int
    txid: int
    committed_ms: int | None
    frames: int
    bytes: int
    tables: tuple[str, ...] | None = None
    unknown_pages: int = 0

    def may_touch(self, table: str) -> bool:
        """True unless it is certain that it did not touch the table."""
        names = {name.lower() for name in self.tables or ()}
        return self.tables is None or self.unknown_pages > 0 or table.lower() in names


@dataclass(frozen=True, slots=True)
class Span:
    """Transactions from ``first`` to ``last``."""

    first: int = 1
    last: int = LAST

    def meets(self, first: int, last: int) -> bool:
        return first <= self.last and last >= self.first


EVERYTHING = Span()
Piece: TypeAlias = tuple[
    WalObject, int | None
]  # and the first transaction that is not listed of it
_ONE: dict[Kind, Literal["catch-up", "step", "start"]] = {
    Kind.CATCH_UP: "catch-up",
    Kind.GENERATION: "start",
}


def span_of(
    store: Store,
    prefix: str,
    since: RestorePoint = NEWEST_POINT,
    until: RestorePoint = NEWEST_POINT,
) -> Span:
    """From the first transaction at ``since`` or later to the last one by ``until``: times, txids
    or names; the default is everything. No request for a txid, few for a time."""
    known = KnownArchive(store, Keys(prefix))
    since, until = (found(store, known.keys, point) for point in (since, until))
    now_ms = clock.now_ms()
    if since.timestamp is not None or until.timestamp is not None:
        known.load(None, complete=True)
    first, last = since.txid or 1, until.txid or LAST
    if since.timestamp is not None:
        first = last_by(known, to_ms(since.timestamp, now_ms) - 1) + 1
    if until.timestamp is not None:
        last = last_by(known, to_ms(until.timestamp, now_ms))
    return Span(first, last)


def transactions(store: Store, prefix: str, span: Span = EVERYTHING) -> Iterator[Transaction]:
    """Newest first; three listings, then one request an object. ``NoBackup`` if there is none,
    ``DamageError`` at an object that is damaged."""
    known = _loaded(store, prefix)
    for item, before in _newest_first(known.index.wal, span):
        for each in _inside(known.reader, item, before):
            if span.meets(each.first_txid, each.txid):
                yield each


def touching(
    store: Store,
    prefix: str,
    span: Span = EVERYTHING,
    *,
    table: str = "",
    limit: int | None = None,
    scratch: Path | None = None,
) -> Iterator[Transaction]:
    """The same with the tables that each transaction touched; with ``table`` those alone that may
    have touched it. Up to ``limit`` of them.

    Reads all WAL objects from the snapshot before the span on, and of the snapshot the blocks that
    lead to the pages written. ``scratch`` gets the pages of these objects. ``ConfigError`` if no
    table of that name was seen.
    """
    known = _loaded(store, prefix)
    left = LAST if limit is None else limit
    with scratch_directory(scratch) as directory:
        follower = Follower(store, known, directory)
        for run in reversed(_runs(known.index, span)):
            rows = _rows(follower, run, span, table, left)
            yield from reversed(rows)
            left -= len(rows)
            if left <= 0:
                return
    if table and follower.seen and table.lower() not in follower.seen:
        raise ConfigError(
            f"no table {table} was in the schema of these transactions",
            setting="table",
            code="unknown_table",
            hint="list the names without --table: replicator history --tables",
        )


def _loaded(store: Store, prefix: str) -> KnownArchive:
    known = KnownArchive(store, Keys(prefix))
    known.load(None, complete=True)
    if not known.index.wal:
        raise no_backup(url_of(store, prefix))
    return known


def _newest_first(wal: Sequence[WalObject], span: Span) -> Iterator[Piece]:
    """The finest objects that may have transactions of the span."""
    here: int | None = None  # everything from this txid on is in an object already
    for item in sorted(wal, key=lambda item: (-item.first, item.last)):
        if here is None or item.first < here:
            if span.meets(item.first, LAST if here is None else here - 1):
                yield item, here
            here = item.first


def _runs(index: Index, span: Span) -> list[list[Piece]]:
    """The objects of the span, oldest first, in runs that each begin right after a snapshot."""
    starts = {snapshot.txid + 1 for snapshot in index.snapshots}
    runs: list[list[Piece]] = []
    for piece in reversed(list(_newest_first(index.wal, span))):
        if not runs or piece[0].first in starts:
            runs.append([])
        runs[-1].append(piece)
    return runs


def _rows(
    follower: Follower,
    run: Sequence[Piece],
    span: Span,
    table: str,
    limit: int,
) -> deque[Transaction]:
    """The newest ``limit`` rows of a run, oldest first."""
    rows: deque[Transaction] = deque(maxlen=limit)
    changes = follower.changes(run[0][0].first - 1, [item for item, _ in run])
    change = next(changes, None)
    for item, before in run:
        for row in reversed(list(_inside(follower.known.reader, item, before))):
            while change is not None and change[0] < row.txid:
                change = next(changes, None)
            known = change is not None and change[0] == row.txid and row.kind != "missing"
            full = _with_tables(row, change[1]) if known and change is not None else row
            if span.meets(row.first_txid, row.txid) and (not table or full.may_touch(table)):
                rows.append(full)
    changes.close()
    return rows


def _with_tables(row: Transaction, touched: Touched) -> Transaction:
    return replace(row, tables=touched.tables, unknown_pages=touched.unknown_pages)


def _inside(reader: FactsReader, item: WalObject, before: int | None) -> Iterator[Transaction]:
    """The transactions of an object up to ``before``, newest first."""
    tail = reader.tail(item)
    require_tail_fits(item, tail)
    trailer, first = tail.trailer, item.first
    if before is not None and trailer.last_txid + 1 < before:
        yield Transaction("missing", trailer.last_txid + 1, before - 1, None, 0, 0)
    counts = trailer.commit_frames
    if tail.kind in _ONE or len(counts) != trailer.last_txid - first + 1:
        payload = max(0, trailer.payload_bytes - HEADER_SIZE)
        yield Transaction(
            _ONE.get(tail.kind, "step"),
            first,
            trailer.last_txid,
            trailer.last_commit_ms,
            sum(counts),
            payload,
        )
        return
    frame = (trailer.payload_bytes - HEADER_SIZE) // max(1, sum(counts))
    times = trailer.commit_times_ms
    for at in reversed(range(len(counts))):
        if before is None or first + at < before:
            known = times[at] if len(times) == len(counts) else None
            yield Transaction(
                "commit", first + at, first + at, known, counts[at], counts[at] * frame
            )

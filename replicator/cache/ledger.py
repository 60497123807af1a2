"""The ledger of the cache, ``state.db``: what each segment is, and how far each destination got.

Owns: the queries, and the proof at opening that all rows together make one log. Refuses: to
guess. A row with a wrong check raises ``LedgerDamaged``; a disk that refuses raises ``DiskFull``
or ``LocalIOError``; a ledger of a newer version raises ``LedgerTooNew``. It knows no segment files
and no order of writes; see :mod:`.cache`. The tables, and the rules for several destinations,
are in :mod:`.schema`.

Not safe to share between threads; the cache holds one lock around it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from replicator.cache.connection import LedgerFile
from replicator.cache.migration import migrate
from replicator.cache.records import PRIMARY, Delivery, Fact, SegmentRecord
from replicator.cache.schema import (
    DELIVERY_COLUMNS,
    FORMAT,
    SEGMENT_COLUMNS,
    TABLES,
    delivery_of,
    delivery_row,
    record_of,
    segment_row,
)
from replicator.model import Kind
from replicator.system.files import Files

LAST_TXID = (1 << 63) - 1  # the largest integer that SQLite keeps exactly
SEGMENT_WIDTH = len(SEGMENT_COLUMNS)
SELECT = (
    f"SELECT {', '.join(f's.{name}' for name in SEGMENT_COLUMNS)}, s.check_sum, "  # noqa: S608 - constants
    f"{', '.join(f'd.{name}' for name in DELIVERY_COLUMNS)}, d.check_sum "
    "FROM segment s LEFT JOIN delivery d ON d.first_txid = s.first_txid AND d.destination = ?"
)
WAITING = (
    "FROM delivery d JOIN segment s ON s.first_txid = d.first_txid "
    "WHERE d.status < 3 AND d.destination = ?"
)
ORPHANS = "SELECT count(*) FROM delivery WHERE first_txid NOT IN (SELECT first_txid FROM segment)"


def follows(before: SegmentRecord | None, after: SegmentRecord) -> bool:
    """True if ``after`` may be the next segment. Only the start of a generation may leave txids
    out: those that another writer used."""
    if before is None:
        return True
    expected = before.last_txid + 1
    jumps = after.kind is Kind.GENERATION and after.first_txid > expected
    return after.last_txid >= after.first_txid and (after.first_txid == expected or jumps)


class Ledger:
    """An open ledger. Records are read for one destination; deliveries of others are separate."""

    def __init__(self, path: Path, files: Files) -> None:
        """Open or create; ``LedgerDamaged`` when the content cannot be trusted."""
        self._file = LedgerFile(path, files)
        self._owed_from: dict[str, int] = {}  # destination -> the first txid that it is owed
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def transaction(self) -> AbstractContextManager[None]:
        """One durable commit around the block, or none."""
        return self._file.transaction()

    def check_identity(self) -> None:
        """``LedgerDamaged`` if the ledger's files were removed or replaced."""
        self._file.check_identity()

    # segments

    def add(self, record: SegmentRecord) -> None:
        """Inserts the segment with one delivery for each destination: the record's own for its
        destination, a pending one for each other. Replaces the one with its first txid."""
        self.save_segment(record)
        for name, first in self._owed_from.items():
            own = name == record.delivery.destination
            if record.first_txid >= first:
                self.save_delivery(record.first_txid, record.delivery if own else Delivery(name))

    def save_segment(self, record: SegmentRecord) -> None:
        """Replaces the row of the segment, not those of its deliveries."""
        self._file.put("segment", *segment_row(record))

    def save_delivery(self, first_txid: int, delivery: Delivery) -> None:
        self._file.put("delivery", *delivery_row(first_txid, delivery))

    def remove(self, records: Iterable[SegmentRecord]) -> None:
        for record in records:
            for table in ("segment", "delivery"):
                sql = f"DELETE FROM {table} WHERE first_txid = ?"  # noqa: S608 - constants
                self._file.run(sql, (record.first_txid,))

    def records(
        self, first_txid: int = 0, until: int = LAST_TXID, *, destination: str = PRIMARY
    ) -> list[SegmentRecord]:
        """Every record that begins from ``first_txid`` to ``until``, in log order."""
        where = "WHERE s.first_txid BETWEEN ? AND ? ORDER BY s.first_txid"
        return self._select(destination, where, first_txid, until)

    def find(self, first_txid: int, *, destination: str = PRIMARY) -> SegmentRecord | None:
        return self._one(destination, "WHERE s.first_txid = ?", first_txid)

    def newest(
        self, before_txid: int = LAST_TXID, *, destination: str = PRIMARY
    ) -> SegmentRecord | None:
        """The newest record that begins before a txid."""
        where = "WHERE s.first_txid < ? ORDER BY s.first_txid DESC LIMIT 1"
        return self._one(destination, where, before_txid)

    def waiting(self, limit: int = -1, *, destination: str = PRIMARY) -> list[SegmentRecord]:
        """Records that the destination has not acknowledged, oldest first."""
        where = "WHERE d.status < 3 ORDER BY d.first_txid LIMIT ?"
        return self._select(destination, where, limit)

    def durable(self, *, destination: str = PRIMARY) -> SegmentRecord | None:
        """The newest record that the destination acknowledged together with all before it."""
        waiting = self.waiting(1, destination=destination)
        before = waiting[0].first_txid if waiting else LAST_TXID
        return self.newest(before, destination=destination)

    def oldest_acknowledged(self, limit: int) -> list[SegmentRecord]:
        """The oldest records that are older than every one that any destination waits for."""
        oldest_waiting = "SELECT min(first_txid) FROM delivery WHERE status < 3"
        where = f"WHERE s.first_txid < ifnull(({oldest_waiting}), ?) ORDER BY s.first_txid LIMIT ?"
        return self._select(PRIMARY, where, LAST_TXID, limit)

    def offered(self, first_txid: int, last_txid: int) -> bool:
        """True if any destination may hold one of the segments that begin in this range."""
        sql = (
            "SELECT count(*) FROM delivery "
            "WHERE first_txid BETWEEN ? AND ? AND (attempts > 0 OR status >= 3)"
        )
        return self._file.number(sql, first_txid, last_txid) > 0

    def waiting_bytes(self, *, destination: str = PRIMARY) -> int:
        return self._file.number(f"SELECT sum(s.size) {WAITING}", destination)

    def stored_bytes(self) -> int:
        return self._file.number("SELECT sum(size) FROM segment WHERE stored = 1")

    def count(self) -> int:
        return self._file.number("SELECT count(*) FROM segment")

    def add_destination(self, name: str, first_txid: int) -> None:
        """A destination that is owed every segment from ``first_txid`` on."""
        self._file.put("destination", name, first_txid)
        self._owed_from[name] = first_txid

    # facts

    def get(self, fact: Fact, *, destination: str = PRIMARY) -> str | None:
        return self._facts(destination).get(fact)

    def put(self, fact: Fact, value: str, *, destination: str = PRIMARY) -> None:
        if fact.per_destination:
            self._file.put("destination_fact", destination, fact.value, value)
        else:
            self._file.put("fact", fact.value, value)

    def _facts(self, destination: str) -> dict[str, str]:
        """Every fact of the cache and of one destination, each with the right check."""
        facts = {}
        for name, value, check in self._file.run("SELECT name, value, check_sum FROM fact"):
            self._file.verify((name, value), check, f"fact {name!r}")
            facts[name] = value
        sql = "SELECT name, value, check_sum FROM destination_fact WHERE destination = ?"
        for name, value, check in self._file.run(sql, (destination,)):
            self._file.verify((destination, name, value), check, f"fact {name!r} of {destination}")
            facts[name] = value
        return facts

    # page-hash changes

    def save_change(self, last_txid: int, entries: bytes) -> None:
        self._file.put("change", last_txid, entries)

    def changes(self, after: int, last: int) -> list[bytes]:
        """The changes with ``after`` < txid ≤ ``last``, in order."""
        sql = "SELECT last_txid, entries, check_sum FROM change"
        where = " WHERE last_txid > ? AND last_txid <= ? ORDER BY last_txid"
        rows = self._file.run(sql + where, (after, last))
        for txid, entries, check in rows:
            self._file.verify((txid, entries), check, f"page hashes of txid {txid}")
        return [entries for _, entries, _ in rows]

    def remove_changes(self, first: int, last: int) -> None:
        self._file.run("DELETE FROM change WHERE last_txid BETWEEN ? AND ?", (first, last))

    def change_bytes(self) -> int:
        return self._file.number("SELECT sum(length(entries)) FROM change")

    # opening

    def _prepare(self) -> None:
        if not self._file.number("SELECT count(*) FROM sqlite_schema"):
            self._create()
        answer = self._file.run("PRAGMA integrity_check(1)")
        if answer != [("ok",)]:
            raise self._file.damaged(f"integrity check says {answer[0][0]}")
        migrate(self._file)
        self._check_all()
        self._file.remember_identity()

    def _create(self) -> None:
        with self.transaction():
            for statement in TABLES:
                self._file.run(statement)
            self.add_destination(PRIMARY, 0)
            self._file.put("fact", "format", str(FORMAT))

    def _check_all(self) -> None:
        """Proves that every row is right and that all rows make one log for each destination."""
        for name, first, check in self._file.run("SELECT * FROM destination"):
            self._file.verify((name, first), check, f"destination {name!r}")
            self._owed_from[name] = first
        if PRIMARY not in self._owed_from:
            raise self._file.damaged(f"destination {PRIMARY!r} is missing")
        self._facts(PRIMARY)
        for destination in self._owed_from:
            self._check_log(destination)
        if self._file.number(ORPHANS):
            raise self._file.damaged("a delivery has no segment")

    def _check_log(self, destination: str) -> None:
        before = None
        for record in self.records(destination=destination):
            if not follows(before, record):
                raise self._file.damaged(f"the segment before txid {record.first_txid} is missing")
            before = record

    # reading

    def _select(self, destination: str, where: str, *parameters: int) -> list[SegmentRecord]:
        owed_from = self._owed_from[destination]
        records = []
        for row in self._file.run(f"{SELECT} {where}", (destination, *parameters)):
            segment, (check, *delivery, delivery_check) = row[:SEGMENT_WIDTH], row[SEGMENT_WIDTH:]
            self._file.verify(segment, check, f"segment {segment[0]}")
            if segment[0] >= owed_from:
                self._file.verify(tuple(delivery), delivery_check, f"delivery of {segment[0]}")
                records.append(record_of(segment, delivery_of(delivery)))
        return records

    def _one(self, destination: str, where: str, *parameters: int) -> SegmentRecord | None:
        return next(iter(self._select(destination, where, *parameters)), None)

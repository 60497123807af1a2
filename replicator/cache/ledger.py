"""The cache's memory: one row per segment, small facts, page-hash changes, in ``state.db``.

Owns: the SQLite file of the cache, its schema, and the check that every row carries over its
own values, so that a flipped bit is noticed even where SQLite notices none. Refuses: to guess.
What does not check raises ``LedgerDamaged``; what the disk refuses, ``DiskFull`` or
``LocalIOError``. It knows no files and no order of writes; see :mod:`.cache`.

Not safe to share between threads by itself; the cache holds one lock around it.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import itertools
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replicator.errors import DiskFull, LedgerDamaged, LocalIOError
from replicator.model import DatabaseState, Kind, WalPosition
from replicator.system.files import Files, about

Row = tuple[Any, ...]


class Status(enum.IntEnum):
    """How far a segment got. The numbers are stored, and their order is used."""

    PENDING = 1  # in the cache only, as far as anybody knows
    UPLOADING = 2  # an attempt is under way
    UPLOADED = 3  # the store acknowledged it
    MERGED = 4  # and a merge in the store covers it too


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """What the ledger knows of one segment. Times are ms since the epoch, sizes bytes."""

    first_txid: int
    last_txid: int
    generation: str
    kind: Kind
    key: str
    size: int
    raw_bytes: int  # decompressed
    sha256: str  # hex, of the whole object
    end: WalPosition  # where in the local log it ends
    state: DatabaseState  # after last_txid
    checksum_before: int
    first_commit_ms: int
    commit_ms: int  # of the last transaction
    created_ms: int
    metadata: dict[str, str] = field(default_factory=dict)
    status: Status = Status.PENDING
    attempts: int = 0
    next_attempt_ms: int = 0
    last_error: str | None = None
    upload_id: str | None = None
    part_size: int = 0
    uploaded_ms: int | None = None
    stored: bool = True  # its file is in the cache

    @property
    def file_name(self) -> str:
        """Named by content too, so that a segment that replaces others never overwrites one."""
        return f"{self.first_txid:016x}-{self.sha256[:12]}.wal.zst"

    @property
    def acknowledged(self) -> bool:
        return self.status >= Status.UPLOADED


COLUMNS = (
    "first_txid", "last_txid", "status", "stored", "size", "generation", "kind", "key",
    "raw_bytes", "sha256", "log_end", "pages", "checksum", "checksum_before",
    "first_commit_ms", "commit_ms", "created_ms", "uploaded_ms", "attempts", "next_attempt_ms",
    "last_error", "upload_id", "part_size", "metadata",
)  # fmt: skip
FORMAT = "1"
SMALLEST = 512  # SQLite takes a file that has no page for a database that is new
LAST_TXID = (1 << 63) - 1  # the largest integer that SQLite keeps exactly
SCHEMA = (
    f"CREATE TABLE segment (first_txid INTEGER PRIMARY KEY, {', '.join(COLUMNS[1:])}, check_sum)",
    "CREATE INDEX waiting ON segment (first_txid) WHERE status < 3",
    "CREATE INDEX kept ON segment (stored, size)",
    "CREATE TABLE fact (name PRIMARY KEY, value, check_sum) WITHOUT ROWID",
    "CREATE TABLE change (last_txid INTEGER PRIMARY KEY, entries, check_sum)",
)
PLACES = ", ".join("?" * (len(COLUMNS) + 1))
UPSERT = f"INSERT OR REPLACE INTO segment VALUES ({PLACES})"  # noqa: S608 - constants only
SELECT = f"SELECT {', '.join(COLUMNS)}, check_sum FROM segment"  # noqa: S608 - as above

# Result codes (sqlite.org/rescode.html) that speak of the content, not of the disk.
DAMAGE = frozenset({
    sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_CONSTRAINT,
})  # fmt: skip


def check_sum(values: Row) -> str:
    """64 bits over the values of a row, as hex."""
    return hashlib.blake2b(repr(values).encode(), digest_size=8).hexdigest()


def to_row(record: SegmentRecord) -> Row:
    """The record's values in the order of ``COLUMNS``. 64-bit checksums are hex: SQLite's
    integers are signed."""
    end = record.end
    log_end = [end.salt1, end.salt2, end.frame, *end.checksum, end.big_endian, end.page_size]
    return (
        record.first_txid, record.last_txid, int(record.status), int(record.stored),
        record.size, record.generation, int(record.kind), record.key, record.raw_bytes,
        record.sha256, json.dumps(log_end), record.state.pages,
        f"{record.state.checksum:016x}", f"{record.checksum_before:016x}",
        record.first_commit_ms, record.commit_ms, record.created_ms, record.uploaded_ms,
        record.attempts, record.next_attempt_ms, record.last_error, record.upload_id,
        record.part_size, json.dumps(record.metadata),
    )  # fmt: skip


def from_row(row: Row) -> SegmentRecord:
    """The inverse of :func:`to_row`, for a row that checked."""
    of = dict(zip(COLUMNS, row, strict=True))
    salt1, salt2, frame, first, second, big_endian, page_size = json.loads(of.pop("log_end"))
    state = DatabaseState(of.pop("pages"), int(of.pop("checksum"), 16))
    return SegmentRecord(**of | {
        "end": WalPosition(salt1, salt2, frame, (first, second), big_endian, page_size),
        "state": state,
        "checksum_before": int(of["checksum_before"], 16),
        "kind": Kind(of["kind"]),
        "status": Status(of["status"]),
        "stored": bool(of["stored"]),
        "metadata": json.loads(of["metadata"]),
    })  # fmt: skip


def follows(before: SegmentRecord | None, after: SegmentRecord) -> bool:
    """Whether ``after`` may stand next in the log. Only a generation's start may leave txids
    out: those that another writer used."""
    if before is None:
        return True
    expected = before.last_txid + 1
    jumps = after.kind is Kind.GENERATION and after.first_txid > expected
    return after.last_txid >= after.first_txid and (after.first_txid == expected or jumps)


class Ledger:
    """An open ``state.db``. Every statement passes through ``files.system``."""

    def __init__(self, path: Path, files: Files) -> None:
        """Open or create; ``LedgerDamaged`` when what is there cannot be trusted."""
        self.path = path
        self._files = files
        self._places: list[Path] = [path, path.with_name(path.name + "-wal")]
        self._inodes: list[tuple[int, int]] = []
        with self._mapped():
            self._db = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=5.0
            )
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """One durable commit around the block, or none."""
        self.check_place()
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            raise

    # segments

    def save(self, record: SegmentRecord) -> None:
        """Insert the record, or replace the one with its first txid."""
        row = to_row(record)
        self._run(UPSERT, (*row, check_sum(row)))

    def remove(self, records: Iterable[SegmentRecord]) -> None:
        for record in records:
            self._run("DELETE FROM segment WHERE first_txid = ?", (record.first_txid,))

    def records(self, first_txid: int = 0, until: int = LAST_TXID) -> list[SegmentRecord]:
        """Every record that begins from ``first_txid`` to ``until``, in log order."""
        return self._select(
            "WHERE first_txid BETWEEN ? AND ? ORDER BY first_txid", first_txid, until
        )

    def find(self, first_txid: int) -> SegmentRecord | None:
        return self._one("WHERE first_txid = ?", first_txid)

    def newest(self, before_txid: int | None = None) -> SegmentRecord | None:
        """The newest record, or the newest that begins before a txid."""
        if before_txid is None:
            return self._one("ORDER BY first_txid DESC LIMIT 1")
        return self._one("WHERE first_txid < ? ORDER BY first_txid DESC LIMIT 1", before_txid)

    def waiting(self, limit: int = -1) -> list[SegmentRecord]:
        """Records that are not acknowledged, oldest first."""
        return self._select("WHERE status < 3 ORDER BY first_txid LIMIT ?", limit)

    def oldest_acknowledged(self, limit: int) -> list[SegmentRecord]:
        """The oldest records that are older than every waiting one."""
        where = "first_txid < ifnull((SELECT min(first_txid) FROM segment WHERE status < 3), ?)"
        return self._select(f"WHERE {where} ORDER BY first_txid LIMIT ?", LAST_TXID, limit)

    def waiting_bytes(self) -> int:
        return self._number("SELECT sum(size) FROM segment WHERE status < 3")

    def stored_bytes(self) -> int:
        return self._number("SELECT sum(size) FROM segment WHERE stored = 1")

    def count(self) -> int:
        return self._number("SELECT count(*) FROM segment")

    # facts

    def facts(self) -> dict[str, str]:
        rows = self._run("SELECT name, value, check_sum FROM fact")
        for name, value, check in rows:
            self._verify((name, value), check, f"fact {name!r}")
        return {name: value for name, value, _ in rows}

    def put(self, name: str, value: str) -> None:
        row = (name, value, check_sum((name, value)))
        self._run("INSERT OR REPLACE INTO fact VALUES (?, ?, ?)", row)

    # page-hash changes

    def save_change(self, last_txid: int, entries: bytes) -> None:
        row = (last_txid, entries)
        self._run("INSERT OR REPLACE INTO change VALUES (?, ?, ?)", (*row, check_sum(row)))

    def changes(self, after: int, last: int) -> list[bytes]:
        """The changes with ``after`` < txid ≤ ``last``, in order."""
        sql = "SELECT last_txid, entries, check_sum FROM change"
        where = " WHERE last_txid > ? AND last_txid <= ? ORDER BY last_txid"
        rows = self._run(sql + where, (after, last))
        for txid, entries, check in rows:
            self._verify((txid, entries), check, f"page hashes of txid {txid}")
        return [entries for _, entries, _ in rows]

    def remove_changes(self, first: int, last: int) -> None:
        self._run("DELETE FROM change WHERE last_txid BETWEEN ? AND ?", (first, last))

    def change_bytes(self) -> int:
        return self._number("SELECT sum(length(entries)) FROM change")

    # statements and their errors

    def _prepare(self) -> None:
        self._run("PRAGMA journal_mode = WAL")
        self._run("PRAGMA synchronous = FULL")
        self._run("PRAGMA cell_size_check = ON")
        if not self._number("SELECT count(*) FROM sqlite_schema"):
            self._create()
        self._check_all()
        with about(self.path):
            self._inodes = [_inode(place) for place in self._places]

    def _create(self) -> None:
        with self.transaction():
            for statement in SCHEMA:
                self._run(statement)
            self.put("format", FORMAT)

    def _check_all(self) -> None:
        """Prove structure, format, every row and that the rows make one log."""
        found = self._run("PRAGMA integrity_check(1)")
        if found != [("ok",)]:
            raise self._damaged(f"integrity check says {found[0][0]}")
        if (version := self.facts().get("format")) != FORMAT:
            raise self._damaged(f"its format is {version}, not {FORMAT}")
        before = None
        for record in self.records():
            if not follows(before, record):
                raise self._damaged(f"the segment before txid {record.first_txid} is missing")
            before = record

    def _select(self, where: str, *parameters: int) -> list[SegmentRecord]:
        records = []
        for *values, check in self._run(f"{SELECT} {where}", parameters):
            self._verify(tuple(values), check, f"segment {values[0]}")
            records.append(from_row(tuple(values)))
        return records

    def _one(self, where: str, *parameters: int) -> SegmentRecord | None:
        return next(iter(self._select(where, *parameters)), None)

    def _number(self, sql: str) -> int:
        return int(self._run(sql)[0][0] or 0)

    def _run(self, sql: str, parameters: Row = ()) -> list[Row]:
        with self._mapped():
            return self._files.system(self._execute, sql, parameters)

    def _execute(self, sql: str, parameters: Row) -> list[Row]:
        return self._db.execute(sql, parameters).fetchall()

    def _verify(self, values: Row, check: object, what: str) -> None:
        if check_sum(values) != check:
            raise self._damaged(f"{what} does not match its checksum")

    def _damaged(self, reason: str) -> LedgerDamaged:
        return LedgerDamaged(f"{self.path}: the ledger is damaged: {reason}")

    def check_place(self) -> None:
        """``LedgerDamaged`` for a ledger that lost its name, or its log: it accepts writes that
        nobody will ever read."""
        if not self._inodes:
            return  # being created
        with contextlib.suppress(OSError):
            if [_inode(place) for place in self._places] == self._inodes:
                return
        raise LedgerDamaged(f"{self.path}: the ledger was removed or replaced while in use")

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turns SQLite's errors into ours."""
        try:
            with about(self.path):
                yield
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _translated(self, error: sqlite3.Error) -> LocalIOError:
        # The binding's own errors have no code: misuse of a closed ledger, or text in a row
        # that is not UTF-8.
        if isinstance(error, sqlite3.ProgrammingError):
            return LedgerDamaged(f"{self.path}: {str(error).lower()}")
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        if code & 0xFF in DAMAGE or code == sqlite3.SQLITE_IOERR_SHORT_READ:
            return self._damaged(str(error))
        kind = DiskFull if code & 0xFF == sqlite3.SQLITE_FULL else LocalIOError
        return kind(f"{self.path}: {str(error).lower()}")


def _inode(path: Path) -> tuple[int, int]:
    facts = os.stat(path)
    return facts.st_dev, facts.st_ino


def open_ledger(directory: Path, files: Files, recovered: list[str]) -> Ledger:
    """The ledger, or an empty one in the place of one that cannot be trusted."""
    path = directory / "state.db"
    if files.exists(path):
        try:
            if path.is_dir():
                raise LedgerDamaged(f"{path}: the ledger is a directory")
            if files.size(path) < SMALLEST and files.listdir(directory / "segments"):
                raise LedgerDamaged(f"{path}: the ledger is cut short")
            return Ledger(path, files)
        except LedgerDamaged as error:
            recovered.append(f"{error}; it was set aside")
        set_aside(path, files)
    elif files.listdir(directory / "segments") or files.exists(f"{path}-wal"):
        recovered.append(f"{path}: the ledger was missing; the cache starts empty")
        set_aside(path, files)
    return Ledger(path, files)


def set_aside(path: Path, files: Files) -> None:
    """Rename the ledger and its log; a log left behind would be read into the new ledger."""
    name = next(name for name in _names_aside(path) if not files.exists(name))
    for suffix in ("", "-wal"):
        if files.exists(f"{path}{suffix}"):
            files.rename(f"{path}{suffix}", f"{name}{suffix}")
    files.unlink(f"{path}-shm", missing_ok=True)


def _names_aside(path: Path) -> Iterator[str]:
    return (f"{path}.corrupt-{number}" for number in itertools.count(1))

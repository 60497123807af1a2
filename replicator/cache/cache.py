"""The disk cache: segments between their capture and their acknowledgement, and after.

Owns: one directory per database (``segments/``, the ledger ``state.db``, ``pages.xxh``) and
the order of writes in it. Refuses: to believe. A segment counts as durable when the store
acknowledged it and every one before it, and for no other reason.

Order of writes. A segment: file written, fsync, rename, fsync of the directory, then its row
in one synchronous commit. A crash before the row leaves a file that the next open removes. A
removal goes the other way round: row first, then file. So a row of a waiting segment always
has its file, whole; where it does not (damage, a disk that lied), the next open drops that row
and every waiting one after it, says so in ``recovered``, and the caller catches up.

One lock; safe to share between the threads that capture and upload.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from replicator.cache.ledger import (
    LAST_TXID,
    Ledger,
    SegmentRecord,
    Status,
    follows,
    open_ledger,
    set_aside,
)
from replicator.cache.page_hashes import HashBase
from replicator.errors import DamageError, DiskFull, LedgerDamaged, LocalIOError, ReplicatorError
from replicator.format.page_hashes import PageHashes
from replicator.system.files import Files, InFile, OutFile

__all__ = ["Cache", "LedgerDamaged", "Offered", "SegmentRecord", "Status"]

# Acknowledged segments kept for merges. A steady writer makes one a second and the smallest
# merge covers five minutes, so an hour is ample; the bound keeps opening quick.
KEEP_SEGMENTS = 4096
TRIM_BATCH = 64
# What segments leave free on the disk, for the ledger: its log grows to 4 MB before it begins
# again in place. Without it nothing could be noted as sent, and so nothing be removed.
RESERVE_BYTES = 8 << 20

log = logging.getLogger(__name__)


class Offered(ReplicatorError):
    """A segment was offered to the store, so its bytes may be there: it must keep them."""

    code = "already_offered"


class Cache:
    """An open cache directory; see :meth:`open`."""

    def __init__(self, directory: Path, files: Files, ledger: Ledger, recovered: list[str]) -> None:
        self.directory = directory
        self.recovered = recovered
        """What was found wrong at opening, and what was done about it, in words."""
        self._files = files
        self._ledger = ledger
        self._segments = directory / "segments"
        self._base = HashBase(directory / "pages.xxh", files)
        self._lock = threading.RLock()
        self._drafts = 0
        self.writer = self._writer()
        for line in recovered:
            log.warning("%s", line)
        self._recover()

    @classmethod
    def open(cls, directory: str | Path, files: Files | None = None) -> Cache:
        """Open or create the cache. Damage is set aside or dropped and reported, never fatal;
        a disk that refuses is ``LocalIOError`` or ``DiskFull``."""
        files = files or Files()
        directory = Path(directory)
        files.mkdir(directory / "segments")
        recovered: list[str] = []
        ledger = open_ledger(directory, files, recovered)
        try:
            return cls(directory, files, ledger, recovered)
        except BaseException:
            ledger.close()
            raise

    def reopen(self) -> None:
        """Begin anew, empty, after the ledger was lost or damaged in use.

        Whatever lies in its place by now may be an older copy, so it is set aside. After an error
        the cache is of no use until this is called again.
        """
        with self._lock:
            self._ledger.close()
            self._files.mkdir(self._segments)
            set_aside(self.directory / "state.db", self._files)
            self._ledger = Ledger(self.directory / "state.db", self._files)
            self.put("writer", self.writer)
            self._recover()

    def close(self) -> None:
        with self._lock:
            self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def create_segment(self) -> OutFile:
        """Creates the file of a new segment. The caller writes it and ends with :meth:`commit`,
        or with ``discard()`` of the file."""
        with self._lock:
            self._drafts += 1
            path = self._segments / f"draft-{self._drafts}.tmp"
            self._files.mkdir(self._segments)  # an operator may have removed it
        return self._files.create(path)

    def commit(
        self,
        file: OutFile,
        record: SegmentRecord,
        *,
        change: bytes = b"",
        replaces: Sequence[SegmentRecord] = (),
    ) -> None:
        """Makes the segment in ``file`` durable, with its ``change`` of the page hashes.

        ``replaces`` are the waiting segments that this one replaces (a squash of them).
        ``ValueError`` when the record does not fit, ``Offered`` when a replaced segment was
        offered to the store, ``LocalIOError`` or ``DiskFull`` from the disk. After any error the
        cache is as before and the file is removed.
        """
        try:
            if record.size != file.size or record.status is not Status.PENDING:
                raise ValueError(f"the record says {record.size} bytes, the file has {file.size}")
            if not replaces and self.spare() < 0:
                raise DiskFull(
                    f"{self._segments}: no space left on device but for "
                    f"{RESERVE_BYTES} bytes, which the ledger may need"
                )
            self._files.publish(file, self._path(record))
            self._insert(record, change, replaces)
        except (ReplicatorError, ValueError):
            file.discard()
            self._remove_unclaimed(record)
            raise

    def adopt(self, record: SegmentRecord) -> SegmentRecord:
        """Begin anew from a segment that the store is known to hold; all else is forgotten.

        For a restored database, or one that equals the head of its log in the store.
        """
        adopted = dataclasses.replace(record, status=Status.UPLOADED, stored=False)
        with self._lock:
            gone = self._ledger.records()
            with self._ledger.transaction():
                self._ledger.remove(gone)
                self._ledger.remove_changes(0, LAST_TXID)
                self._ledger.save(adopted)
            self._remove_files(gone)
        return adopted

    def head(self) -> SegmentRecord | None:
        """The newest segment captured."""
        with self._lock:
            return self._ledger.newest()

    def durable(self) -> SegmentRecord | None:
        """The newest segment that the store acknowledged together with all before it."""
        with self._lock:
            waiting = self._ledger.waiting(1)
            return self._ledger.newest(waiting[0].first_txid if waiting else None)

    def pending(self) -> list[SegmentRecord]:
        """Segments that are not acknowledged, oldest first."""
        with self._lock:
            return self._ledger.waiting()

    def waits(self, record: SegmentRecord) -> bool:
        """Whether this very segment is still to be acknowledged."""
        with self._lock:
            known = self._ledger.find(record.first_txid)
            return (
                known is not None and not known.acknowledged and known.file_name == record.file_name
            )

    def next_pending(self) -> SegmentRecord | None:
        with self._lock:
            return next(iter(self._ledger.waiting(1)), None)

    def records(self, first_txid: int = 0, until: int = LAST_TXID) -> list[SegmentRecord]:
        """Every segment that begins from ``first_txid`` to ``until`` and that the ledger still
        knows, in log order."""
        with self._lock:
            return self._ledger.records(first_txid, until)

    def usage(self) -> int:
        """Bytes of all segment files."""
        with self._lock:
            return self._ledger.stored_bytes()

    def spare(self) -> int:
        """Bytes that segments may still take on the disk; negative when they took too many.
        ``LedgerDamaged`` when the cache is not there any more."""
        with self._lock:
            self._ledger.check_place()
        return self._files.disk_free(self.directory) - RESERVE_BYTES

    def pending_bytes(self) -> int:
        with self._lock:
            return self._ledger.waiting_bytes()

    def open_segment(self, record: SegmentRecord) -> InFile:
        """The segment's file, to read in pieces; not verified. ``DamageError``: it is gone."""
        with self._there(record):
            return self._files.open_read(self._path(record))

    def read(self, record: SegmentRecord) -> bytes:
        """The whole segment; ``DamageError`` when it is gone or not what was captured."""
        with self._there(record):
            data = self._files.read(self._path(record))
        if hashlib.sha256(data).hexdigest() != record.sha256:
            raise DamageError(f"{self._path(record)}: the segment is damaged", key=record.key)
        return data

    @contextlib.contextmanager
    def _there(self, record: SegmentRecord) -> Iterator[None]:
        """A file that is gone is damage, which heals; a disk that refuses may answer again."""
        try:
            yield
        except LocalIOError as error:
            if self._files.exists(self._path(record)):
                raise
            raise DamageError(
                f"{self._path(record)}: the segment is gone", key=record.key
            ) from error

    def intact(self, record: SegmentRecord) -> bool:
        """Whether the segment's file is, byte for byte, what was captured."""
        try:
            with self._there(record):
                return self._files.sha256(self._path(record)) == record.sha256
        except DamageError:
            return False

    # the way out. A row must be in flight to be acknowledged, so that an answer about a segment
    # that was dropped meanwhile is never taken for one about its successor of the same txid.

    def uploading(self, first_txid: int) -> SegmentRecord | None:
        """An attempt begins. None: no such segment waits (any more)."""
        with self._lock:
            record = self._ledger.find(first_txid)
            if record is None or record.acknowledged:
                return None
            # in flight already: the end of the attempt before could not be noted
            return self._save(record, status=Status.UPLOADING, attempts=record.attempts + 1)

    def progress(
        self, first_txid: int, upload_id: str | None, part_size: int
    ) -> SegmentRecord | None:
        """A multipart upload began, or (None) is given up. None: as for :meth:`uploaded`."""
        return self._move(first_txid, Status.UPLOADING, upload_id=upload_id, part_size=part_size)

    def uploaded(self, first_txid: int, at_ms: int) -> SegmentRecord | None:
        """The store acknowledged it. None: it is not in flight, and nothing was recorded."""
        return self._move(
            first_txid,
            Status.UPLOADING,
            status=Status.UPLOADED,
            uploaded_ms=at_ms,
            upload_id=None,
            last_error=None,
        )

    def failed(self, first_txid: int, error: str, next_attempt_ms: int) -> SegmentRecord | None:
        """The attempt failed; it waits again. None: as for :meth:`uploaded`."""
        return self._move(
            first_txid,
            Status.UPLOADING,
            status=Status.PENDING,
            last_error=error,
            next_attempt_ms=next_attempt_ms,
        )

    def merged(self, first_txid: int, last_txid: int) -> None:
        """A merge in the store covers the acknowledged segments of this range."""
        with self._lock, self._ledger.transaction():
            for record in self._ledger.records(first_txid, last_txid):
                if record.last_txid <= last_txid and record.status is Status.UPLOADED:
                    self._ledger.save(dataclasses.replace(record, status=Status.MERGED))

    def drop_pending(self, first_txid: int = 0) -> list[SegmentRecord]:
        """Forget the waiting segments from ``first_txid`` on, and return them.

        One with attempts may be in the store all the same: ask it before its txid is used again.
        """
        with self._lock:
            gone = [r for r in self._ledger.waiting() if r.first_txid >= first_txid]
            if gone:
                with self._ledger.transaction():
                    self._ledger.remove(gone)
                    self._ledger.remove_changes(gone[0].first_txid, LAST_TXID)
                self._remove_files(gone)
        return gone

    def trim(self, keep_bytes: int) -> int:
        """Remove files of acknowledged segments, oldest first, until all files together take at
        most ``keep_bytes``; the bytes freed. Rows go with their files, but the newest
        acknowledged one stays: it says how far the store is."""
        freed = 0
        with self._lock:
            while gone := self._trim_some(keep_bytes):
                freed += sum(record.size for record in gone)
        return freed

    def get(self, name: str) -> str | None:
        with self._lock:
            return self._ledger.facts().get(name)

    def put(self, name: str, value: str) -> None:
        """Keep a small fact, durably."""
        with self._lock, self._ledger.transaction():
            self._ledger.put(name, value)

    def save_hashes(self, txid: int, hashes: PageHashes) -> None:
        """Keep the whole array, as it is after ``txid``; changes up to there are forgotten.

        Array and txid must belong together; the segment that ends there may follow later.
        States before ``txid`` can't be loaded any more, so do this when ``txid`` is durable.
        """
        with self._lock:
            self._base.save(txid, hashes)
            with self._ledger.transaction():
                self._ledger.remove_changes(0, txid)

    def load_hashes(self, txid: int) -> PageHashes | None:
        """The array after the segment that ends with ``txid``, proved against its record; None
        when there is no such record or no array that leads there."""
        with self._lock, contextlib.suppress(LedgerDamaged):
            record = self._ledger.newest(txid + 1)
            if record is not None and record.last_txid == txid:
                return self._base.replayed(txid, record.state, self._ledger.changes)
        return None

    def hashes_due(self) -> bool:
        """Whether the changes outgrew the array, so that :meth:`save_hashes` pays."""
        with self._lock:
            return self._ledger.change_bytes() > self._base.limit()

    # helpers, called with the lock held

    def _path(self, record: SegmentRecord) -> Path:
        return self._segments / record.file_name

    def _move(self, first_txid: int, required: Status, **values: object) -> SegmentRecord | None:
        with self._lock:
            record = self._ledger.find(first_txid)
            if record is None or record.status is not required:
                return None
            return self._save(record, **values)

    def _save(self, record: SegmentRecord, **values: object) -> SegmentRecord:
        changed = dataclasses.replace(record, **values)  # type: ignore[arg-type]
        with self._ledger.transaction():
            self._ledger.save(changed)
        return changed

    def _trim_some(self, keep_bytes: int) -> list[SegmentRecord]:
        excess = self._ledger.stored_bytes() - keep_bytes
        crowd = self._ledger.count() - KEEP_SEGMENTS
        if excess <= 0 and crowd <= 0:
            return []
        known = self._ledger.oldest_acknowledged(TRIM_BATCH)
        gone = _oldest(known, excess, crowd)
        if gone:
            with self._ledger.transaction():
                self._release(known, gone)
            self._remove_files(gone)
        return gone

    def _release(self, known: list[SegmentRecord], gone: list[SegmentRecord]) -> None:
        """Note that the files of ``gone`` go. Rows without a file are forgotten at the old end,
        where they leave no hole, but for the last of ``known``."""
        names = {record.first_txid for record in gone}
        kept = next(
            (n for n, r in enumerate(known) if r.stored and r.first_txid not in names),
            len(known) - 1,
        )
        self._ledger.remove(known[:kept])
        for record in known[kept:]:
            if record.first_txid in names:
                self._ledger.save(dataclasses.replace(record, stored=False))

    def _remove_files(self, records: Sequence[SegmentRecord]) -> None:
        for record in records:
            try:
                self._files.unlink(self._path(record), missing_ok=True)
            except LocalIOError as error:
                log.warning("%s; it takes space until the next start", error)

    def _writer(self) -> str:
        known = self.get("writer")
        if known is None:
            known = str(uuid.uuid4())
            self.put("writer", known)
        return known

    def _remove_unclaimed(self, record: SegmentRecord) -> None:
        with self._lock, contextlib.suppress(LocalIOError):
            known = self._ledger.find(record.first_txid)
            if known is None or known.file_name != record.file_name:
                self._remove_files([record])

    def _insert(
        self, record: SegmentRecord, change: bytes, replaces: Sequence[SegmentRecord]
    ) -> None:
        with self._lock:
            self._check_place(record, replaces)
            with self._ledger.transaction():
                self._ledger.remove(replaces)
                self._ledger.save(record)
                if change:
                    self._ledger.save_change(record.last_txid, change)
            self._remove_files(replaces)

    def _check_place(self, record: SegmentRecord, replaces: Sequence[SegmentRecord]) -> None:
        """``ValueError`` unless the record is next in the log, or stands for exactly those it
        replaces; ``Offered`` when the store can have seen one of those."""
        if not replaces:
            if not follows(self._ledger.newest(), record):
                raise ValueError(f"txid {record.first_txid} is not next in the log")
            return
        first, last = replaces[0].first_txid, replaces[-1].last_txid
        known = [r for r in self._ledger.records(first) if r.last_txid <= last]
        if any(r.attempts or r.acknowledged for r in known):
            raise Offered(f"a segment from txid {first} on was offered to the store")
        if known != list(replaces) or (record.first_txid, record.last_txid) != (first, last):
            raise ValueError(f"txids {first} to {last} are not what the cache holds")

    def _tell(self, what: str) -> None:
        self.recovered.append(what)
        log.warning("%s", what)

    def _recover(self) -> None:
        """Make files and rows agree again."""
        records = self._ledger.records()
        sizes = self._tidy({record.file_name: record.stored for record in records})
        self._check_waiting([r for r in records if not r.acknowledged])
        self._check_acknowledged([r for r in records if r.acknowledged], sizes)

    def _tidy(self, known: dict[str, bool]) -> dict[str, int]:
        """Remove files that no row claims; the sizes of the others. A file without any row is
        worth a word: either a crash came between the two, or the ledger lost something."""
        sizes = {}
        for name in self._files.listdir(self._segments):
            if known.get(name):
                sizes[name] = self._files.size(self._segments / name)
                continue
            try:
                self._files.unlink(self._segments / name)
            except LocalIOError as error:  # a directory, say: in nobody's way
                log.warning("%s; left alone", error)
            else:
                if name not in known and not name.endswith(".tmp"):
                    self._tell(f"segment file {name} had no record and was removed")
        return sizes

    def _check_waiting(self, records: list[SegmentRecord]) -> None:
        for record in records:
            if trouble := self._trouble(record):
                gone = self.drop_pending(record.first_txid)
                self._tell(
                    f"{trouble}; transactions {record.first_txid} to "
                    f"{gone[-1].last_txid} must be caught up"
                )
                break
        for record in self._ledger.waiting():
            if record.status is Status.UPLOADING:  # by a process that is gone
                self._save(record, status=Status.PENDING)

    def _trouble(self, record: SegmentRecord) -> str:
        """Why a waiting segment is of no use; "" when it is sound."""
        try:
            sound = self.intact(record)
        except LocalIOError as error:  # it may stay so, and must not keep us from starting
            return str(error)
        return "" if sound else f"segment file {record.file_name} is missing or damaged"

    def _check_acknowledged(self, records: list[SegmentRecord], sizes: dict[str, int]) -> None:
        lost = [r for r in records if r.stored and sizes.get(r.file_name) != r.size]
        if lost:
            with self._ledger.transaction():
                self._release(records, lost)
            self._remove_files(lost)


def _oldest(known: list[SegmentRecord], excess: int, crowd: int) -> list[SegmentRecord]:
    """The oldest stored segments that together free ``excess`` bytes and ``crowd`` rows."""
    gone: list[SegmentRecord] = []
    for record in known:
        if excess <= 0 and crowd <= 0:
            break
        crowd -= 1
        if record.stored:
            excess -= record.size
            gone.append(record)
    return gone

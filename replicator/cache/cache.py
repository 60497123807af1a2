"""The disk cache: segments between their capture and their acknowledgement, and after.

Owns: one directory per database (``segments/``, the ledger ``state.db``, ``pages.xxh``) and
the order of writes in it. Refuses: to believe. A segment counts as durable when the store
acknowledged it and every one before it, and for no other reason.

Order of writes. The commit point of each change is one synchronous commit of the ledger.

- *A segment comes in*: file written, fsync, rename, fsync of the directory, then the row of the
  segment, its deliveries and its change of the page hashes in one commit. A crash before the
  commit leaves a file without a row, which the next open removes.
- *A segment is replaced* (squash): the new file as above; the commit removes the old rows and
  adds the new one; then the old files go. A crash leaves the old files or the new one unclaimed.
- *An upload*: the delivery becomes *uploading* before the request, *uploaded* after the answer.
  A crash in between leaves *uploading*, which the next open turns into *pending*; the uploader
  then finds its own object in the store. Upload id and part size of a multipart upload are
  committed before its first part is sent.
- *A removal* (trim, drop): the commit first, then the file. A crash leaves an unclaimed file.
- *The page hashes*: the base file is replaced atomically, then the commit removes the changes up
  to it. A crash in between leaves changes that are older than the base, which are not read.

So every row of a waiting segment has its whole file. If a file is missing or damaged (a disk that
lied), the next open drops that row and every waiting one after it, reports it in ``recovered``,
and the caller catches up.

One lock; safe to share between the threads that capture and upload.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from replicator.cache.ledger import LAST_TXID, Ledger, follows
from replicator.cache.limits import DEFAULT_LIMITS, CacheLimits
from replicator.cache.page_hashes import HashBase
from replicator.cache.records import Delivery, Fact, SegmentRecord, Status
from replicator.cache.recovery import drop, make_directories, open_ledger, reconcile, set_aside
from replicator.cache.segment_files import SegmentFiles
from replicator.cache.trimming import trim
from replicator.errors import DiskFull, LedgerDamaged, LocalIOError, ReplicatorError
from replicator.format.page_hashes import PageHashes
from replicator.system.files import Files, InFile, OutFile


class Offered(ReplicatorError):
    """A segment was offered to the store, so its bytes may be there: it must keep them."""

    code = "already_offered"


class Cache:
    """An open cache directory; see :meth:`open`."""

    def __init__(
        self,
        directory: Path,
        files: Files,
        ledger: Ledger,
        recovered: list[str],
        limits: CacheLimits,
    ) -> None:
        self.directory = directory
        self.recovered = recovered
        """The damage found at opening and its repair, in words."""
        self._files = files
        self._ledger = ledger
        self._limits = limits
        self._segments = SegmentFiles(directory / "segments", files)
        self._base = HashBase(directory / "pages.xxh", files, limits.least_changes)
        self._lock = threading.RLock()
        self.writer = self._writer()
        reconcile(ledger, self._segments, recovered)

    @classmethod
    def open(
        cls,
        directory: str | Path,
        files: Files | None = None,
        limits: CacheLimits = DEFAULT_LIMITS,
    ) -> Cache:
        """Open or create the cache. Damage is set aside or dropped and reported, never fatal;
        a disk that refuses is ``LocalIOError`` or ``DiskFull``, a ledger of a newer version
        ``LedgerTooNew``, a directory or file of another user ``UnsafePath``."""
        files = files or Files()
        directory = Path(directory)
        make_directories(directory, files)
        recovered: list[str] = []
        ledger = open_ledger(directory, files, recovered)
        try:
            return cls(directory, files, ledger, recovered, limits)
        except BaseException:
            ledger.close()
            raise

    def reopen(self) -> None:
        """Start empty, after the ledger was lost or damaged in use.

        The file that has its name by now may be an older copy, so it is set aside. After an error
        the cache is of no use until this is called again.
        """
        with self._lock:
            self._ledger.close()
            self._segments.make_directory()
            set_aside(self.directory / "state.db", self._files)
            self._ledger = Ledger(self.directory / "state.db", self._files)
            self.put(Fact.WRITER, self.writer)
            reconcile(self._ledger, self._segments, self.recovered)

    def close(self) -> None:
        with self._lock:
            self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # adding segments

    def create_segment(self) -> OutFile:
        """Creates the file of a new segment. The caller writes it and ends with :meth:`commit`,
        or with ``discard()`` of the file."""
        return self._segments.create()

    def commit(
        self,
        file: OutFile,
        record: SegmentRecord,
        *,
        change: bytes = b"",
        counters: str = "",
        replaces: Sequence[SegmentRecord] = (),
    ) -> None:
        """Makes the segment in ``file`` durable, with its ``change`` of the page hashes, and the
        new ``Fact.COUNTERS`` if it has any.

        ``replaces`` are the waiting segments that this one replaces (a squash of them).
        ``ValueError`` when the record does not fit, ``Offered`` when a replaced segment was
        offered to the store, ``LocalIOError`` or ``DiskFull`` from the disk. After any error the
        cache is as before and the file is removed.
        """
        try:
            if record.size != file.size or record.delivery.status is not Status.PENDING:
                raise ValueError(f"the record says {record.size} bytes, the file has {file.size}")
            if not replaces and self.spare() < 0:
                raise DiskFull(
                    f"{self._segments.directory}: no space left on device but for "
                    f"{self._limits.reserve_bytes} bytes, which the ledger may need",
                    path=self._segments.directory,
                )
            self._segments.publish(file, record)
            self._insert(record, change, counters, replaces)
        except (ReplicatorError, ValueError):
            file.discard()
            self._remove_unclaimed(record)
            raise

    def adopt(self, record: SegmentRecord) -> SegmentRecord:
        """Start from a segment that the store is known to hold; all others are forgotten.

        For a restored database, or one that equals the newest state in the archive.
        """
        delivery = replace(record.delivery, status=Status.UPLOADED)
        adopted = replace(record, stored=False, delivery=delivery)
        with self._lock:
            gone = self._ledger.records()
            with self._ledger.transaction():
                self._ledger.remove(gone)
                self._ledger.remove_changes(0, LAST_TXID)
                self._ledger.add(adopted)
            self._segments.remove(gone)
        return adopted

    # reading

    def head(self) -> SegmentRecord | None:
        """The newest segment captured."""
        with self._lock:
            return self._ledger.newest()

    def durable(self) -> SegmentRecord | None:
        """The newest segment that the store acknowledged together with all before it."""
        with self._lock:
            return self._ledger.durable()

    def pending(self) -> list[SegmentRecord]:
        """Segments that are not acknowledged, oldest first."""
        with self._lock:
            return self._ledger.waiting()

    def delivered(self) -> tuple[SegmentRecord | None, list[SegmentRecord]]:
        """:meth:`durable` and :meth:`pending` of one moment: no segment is missing from both."""
        with self._lock:
            return self._ledger.durable(), self._ledger.waiting()

    def waits(self, record: SegmentRecord) -> bool:
        """True if exactly this segment is still to be acknowledged."""
        with self._lock:
            known = self._ledger.find(record.first_txid)
            return (
                known is not None and not known.acknowledged and known.file_name == record.file_name
            )

    def next_pending(self) -> SegmentRecord | None:
        """The oldest segment that is not acknowledged."""
        with self._lock:
            return next(iter(self._ledger.waiting(1)), None)

    def records(self, first_txid: int = 0, until: int = LAST_TXID) -> list[SegmentRecord]:
        """Every segment that begins from ``first_txid`` to ``until`` and that the ledger still
        knows, in log order."""
        with self._lock:
            return self._ledger.records(first_txid, until)

    def holding(self, txid: int) -> SegmentRecord | None:
        """The segment that contains a transaction, if the ledger still knows it."""
        with self._lock:
            record = self._ledger.newest(txid + 1)
        return record if record is not None and txid <= record.last_txid else None

    def usage(self) -> int:
        """Bytes of all segment files."""
        with self._lock:
            return self._ledger.stored_bytes()

    def pending_bytes(self) -> int:
        """Bytes of the segments that are not acknowledged."""
        with self._lock:
            return self._ledger.waiting_bytes()

    def spare(self) -> int:
        """Bytes that segments may still take on the disk; negative when they took too many.
        ``LedgerDamaged`` when the cache was removed or replaced."""
        with self._lock:
            self._ledger.check_identity()
        return self._files.disk_free(self.directory) - self._limits.reserve_bytes

    def open_segment(self, record: SegmentRecord) -> InFile:
        """The segment's file, to read in pieces; not verified. ``DamageError``: it is gone."""
        return self._segments.open(record)

    def read(self, record: SegmentRecord) -> bytes:
        """The whole segment; ``DamageError`` unless it has the captured bytes."""
        return self._segments.read(record)

    def intact(self, record: SegmentRecord) -> bool:
        """True if the segment's file has, byte for byte, the captured content."""
        return self._segments.intact(record)

    # deliveries. A delivery must be in flight to be acknowledged, so that an answer about a
    # dropped segment is never taken for one about its successor of the same txid.

    def uploading(self, first_txid: int) -> SegmentRecord | None:
        """An attempt begins. None: no such segment waits."""
        with self._lock:
            record = self._ledger.find(first_txid)
            if record is None or record.acknowledged:
                return None
            # in flight already: the end of the attempt before could not be recorded
            attempts = record.delivery.attempts + 1
            return self._save(record, status=Status.UPLOADING, attempts=attempts)

    def progress(
        self, first_txid: int, upload_id: str | None, part_size: int
    ) -> SegmentRecord | None:
        """A multipart upload began, or (None) is given up. None: as for :meth:`uploaded`."""
        return self._in_flight(first_txid, upload_id=upload_id, part_size=part_size)

    def uploaded(self, first_txid: int, at_ms: int) -> SegmentRecord | None:
        """The store acknowledged it. None: it is not in flight, and nothing was recorded."""
        return self._in_flight(
            first_txid,
            status=Status.UPLOADED,
            uploaded_ms=at_ms,
            upload_id=None,
            last_error=None,
        )

    def failed(self, first_txid: int, error: str, next_attempt_ms: int) -> SegmentRecord | None:
        """The attempt failed; it waits again. None: as for :meth:`uploaded`."""
        return self._in_flight(
            first_txid,
            status=Status.PENDING,
            last_error=error,
            next_attempt_ms=next_attempt_ms,
        )

    def merged(self, first_txid: int, last_txid: int) -> None:
        """A merge in the store covers the acknowledged segments of this range."""
        with self._lock, self._ledger.transaction():
            for record in self._ledger.records(first_txid, last_txid):
                delivery = record.delivery
                if record.last_txid <= last_txid and delivery.status is Status.UPLOADED:
                    changed = replace(delivery, status=Status.MERGED)
                    self._ledger.save_delivery(record.first_txid, changed)

    # removing segments

    def drop_pending(self, first_txid: int = 0) -> list[SegmentRecord]:
        """Forget the waiting segments from ``first_txid`` on, and return them.

        One with attempts may be in the store all the same: ask it before its txid is used again.
        """
        with self._lock:
            gone = [r for r in self._ledger.waiting() if r.first_txid >= first_txid]
            if gone:
                drop(self._ledger, self._segments, gone)
        return gone

    def trim(self, keep_bytes: int) -> int:
        """Remove files of acknowledged segments, oldest first, until all files together take at
        most ``keep_bytes``; the bytes freed. Rows go with their files, but the newest
        acknowledged one stays: it marks the position of the store."""
        with self._lock:
            return trim(self._ledger, self._segments, keep_bytes, self._limits)

    # facts and page hashes

    def get(self, fact: Fact) -> str | None:
        with self._lock:
            return self._ledger.get(fact)

    def put(self, fact: Fact, value: str) -> None:
        """Keep a small fact, durably."""
        with self._lock, self._ledger.transaction():
            self._ledger.put(fact, value)

    def save_hashes(self, txid: int, hashes: PageHashes) -> None:
        """Keep the whole array, as it is after ``txid``; changes up to there are forgotten.

        Array and txid must belong together; the segment that ends there may follow later.
        It also gives up the states before ``txid``, so call it when ``txid`` is durable.
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
        """True when the changes outgrew the array, so that :meth:`save_hashes` pays."""
        with self._lock:
            return self._ledger.change_bytes() > self._base.limit()

    # helpers

    def _in_flight(self, first_txid: int, **values: object) -> SegmentRecord | None:
        """Changes a delivery that is in flight; None, and no change, when it is not."""
        with self._lock:
            record = self._ledger.find(first_txid)
            if record is None or record.delivery.status is not Status.UPLOADING:
                return None
            return self._save(record, **values)

    def _save(self, record: SegmentRecord, **values: object) -> SegmentRecord:
        delivery: Delivery = replace(record.delivery, **values)  # type: ignore[arg-type]
        with self._ledger.transaction():
            self._ledger.save_delivery(record.first_txid, delivery)
        return replace(record, delivery=delivery)

    def _writer(self) -> str:
        """The id in the ledger. A copy next to it outlives a damaged ledger, so that this cache
        still recognises what it wrote."""
        known = self.get(Fact.WRITER)
        copy = self.directory / "writer"
        if known is None:
            known = _writer_in(copy, self._files) or str(uuid.uuid4())
            self.put(Fact.WRITER, known)
        if not self._files.exists(copy):
            with contextlib.suppress(LocalIOError):  # the next start writes it
                self._files.write_atomic(copy, known.encode())
        return known

    def _remove_unclaimed(self, record: SegmentRecord) -> None:
        with self._lock, contextlib.suppress(LocalIOError):
            known = self._ledger.find(record.first_txid)
            if known is None or known.file_name != record.file_name:
                self._segments.remove([record])

    def _insert(
        self, record: SegmentRecord, change: bytes, counters: str, replaces: Sequence[SegmentRecord]
    ) -> None:
        with self._lock:
            self._check_fit(record, replaces)
            with self._ledger.transaction():
                self._ledger.remove(replaces)
                self._ledger.add(record)
                if change:
                    self._ledger.save_change(record.last_txid, change)
                if counters:
                    self._ledger.put(Fact.COUNTERS, counters)
            self._segments.remove(replaces)

    def _check_fit(self, record: SegmentRecord, replaces: Sequence[SegmentRecord]) -> None:
        """``ValueError`` unless the record is next in the log, or covers exactly those it
        replaces; ``Offered`` when a destination may hold one of those."""
        if not replaces:
            if not follows(self._ledger.newest(), record):
                raise ValueError(f"txid {record.first_txid} is not next in the log")
            return
        first, last = replaces[0].first_txid, replaces[-1].last_txid
        known = [r for r in self._ledger.records(first) if r.last_txid <= last]
        if known and self._ledger.offered(first, known[-1].first_txid):
            raise Offered(f"a segment from txid {first} on was offered to the store")
        if known != list(replaces) or (record.first_txid, record.last_txid) != (first, last):
            raise ValueError(f"txids {first} to {last} are not what the cache holds")


def _writer_in(copy: Path, files: Files) -> str:
    """The writer id in a file; "" if there is none."""
    try:
        return str(uuid.UUID(files.read(copy).decode("ascii", "replace")))
    except (LocalIOError, ValueError):
        return ""

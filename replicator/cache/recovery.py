"""Opening a cache after a crash or damage: a ledger that can be trusted, and files that agree.

Owns: what a crash between two steps leaves behind, and how it is repaired. Refuses: directories
and files that belong to another user; and to lose silently: each repair that may cost a restore
point is logged and added to the list ``repairs`` of the caller. A damaged ledger is renamed, never
deleted; one of a newer version is not touched.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from replicator.cache.ledger import LAST_TXID, Ledger
from replicator.cache.records import SegmentRecord, Status
from replicator.cache.segment_files import SegmentFiles
from replicator.cache.trimming import release
from replicator.errors import LedgerDamaged, LocalIOError
from replicator.system.directory import working_directory
from replicator.system.files import Files
from replicator.system.paths import wal_path

SMALLEST = 512  # SQLite takes a file that has no page for a database that is new

log = logging.getLogger(__name__)


def make_directories(directory: Path, files: Files) -> None:
    """The cache's directories. ``UnsafePath`` if another user owns them, can write to them, or owns
    a file of the cache."""
    with working_directory(directory, files) as held:
        held.require_trusted()
    with working_directory(directory / "segments", files):
        pass


def open_ledger(directory: Path, files: Files, repairs: list[str]) -> Ledger:
    """The ledger; an empty one if it cannot be trusted."""
    path = directory / "state.db"
    if files.exists(path):
        try:
            if path.is_dir():
                raise LedgerDamaged(f"{path}: the ledger is a directory", path=path)
            if files.size(path) < SMALLEST and files.listdir(directory / "segments"):
                raise LedgerDamaged(f"{path}: the ledger is cut short", path=path)
            return Ledger(path, files)
        except LedgerDamaged as error:
            _report(repairs, f"{error}; it was set aside")
        set_aside(path, files)
    elif files.listdir(directory / "segments") or files.exists(wal_path(path)):
        _report(repairs, f"{path}: the ledger was missing; the cache starts empty")
        set_aside(path, files)
    return Ledger(path, files)


def set_aside(path: Path, files: Files) -> None:
    """Renames the ledger and its WAL; SQLite would read a WAL left behind into the new ledger."""
    numbered = (f"{path}.corrupt-{number}" for number in itertools.count(1))
    name = next(name for name in numbered if not files.exists(name))
    for suffix in ("", "-wal"):
        if files.exists(f"{path}{suffix}"):
            files.rename(f"{path}{suffix}", f"{name}{suffix}")
    files.unlink(f"{path}-shm", missing_ok=True)


def reconcile(ledger: Ledger, segments: SegmentFiles, repairs: list[str]) -> None:
    """Makes files and rows agree."""
    records = ledger.records()
    sizes = _remove_unclaimed(segments, {r.file_name: r.stored for r in records}, repairs)
    _check_waiting(ledger, segments, [r for r in records if not r.acknowledged], repairs)
    _check_acknowledged(ledger, segments, [r for r in records if r.acknowledged], sizes)


def drop(ledger: Ledger, segments: SegmentFiles, gone: Sequence[SegmentRecord]) -> None:
    """Removes the newest segments ``gone``: their rows, their changes, their files."""
    with ledger.transaction():
        ledger.remove(gone)
        ledger.remove_changes(gone[0].first_txid, LAST_TXID)
    segments.remove(gone)


def _report(repairs: list[str], line: str) -> None:
    repairs.append(line)
    log.warning("%s", line)


def _remove_unclaimed(
    segments: SegmentFiles, claimed: dict[str, bool], repairs: list[str]
) -> dict[str, int]:
    """Removes the files that no row claims; the sizes of the others. A file without any row is
    reported: either a crash came between the two, or the ledger lost something."""
    sizes, removed = segments.remove_unclaimed(claimed)
    for name in removed:
        if name not in claimed and not name.endswith(".tmp"):
            _report(repairs, f"segment file {name} had no record and was removed")
    return sizes


def _check_waiting(
    ledger: Ledger, segments: SegmentFiles, waiting: Sequence[SegmentRecord], repairs: list[str]
) -> None:
    """Drops the waiting segments from the first damaged one on: the log must have no hole. A
    damaged one that was offered to the store stays, because the store may hold it: its next
    attempt reports the damage, and then the store is asked before its txid is used again."""
    for number, record in enumerate(waiting):
        if reason := _damage(segments, record):
            gone = waiting[number + 1 :] if record.delivery.attempts else waiting[number:]
            if gone:
                drop(ledger, segments, gone)
                reason += (
                    f"; transactions {gone[0].first_txid} to {gone[-1].last_txid} must be caught up"
                )
            _report(repairs, reason)
            break
    _reset_attempts(ledger)


def _reset_attempts(ledger: Ledger) -> None:
    """An attempt of a process that ended waits again."""
    for record in ledger.waiting():
        if record.delivery.status is Status.UPLOADING:
            with ledger.transaction():
                ledger.save_delivery(
                    record.first_txid, replace(record.delivery, status=Status.PENDING)
                )


def _damage(segments: SegmentFiles, record: SegmentRecord) -> str:
    """Why a waiting segment cannot be sent; "" when it is intact."""
    try:
        intact = segments.intact(record)
    except LocalIOError as error:  # it may last, and must not prevent the start
        return str(error)
    return "" if intact else f"segment file {record.file_name} is missing or damaged"


def _check_acknowledged(
    ledger: Ledger,
    segments: SegmentFiles,
    records: Sequence[SegmentRecord],
    sizes: dict[str, int],
) -> None:
    lost = [r for r in records if r.stored and sizes.get(r.file_name) != r.size]
    if lost:
        release(ledger, segments, records, lost)

"""``diff()``: the changes between two restore points, table by table.

Owns both points in a scratch directory, and the report. Pages are compared first, so that two
equal points need no SQL.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from replicator.archive.locate import open_archive
from replicator.archive.point import RestorePoint
from replicator.errors import Inconclusive
from replicator.inspect.open import restore_point
from replicator.model import RestoreReport
from replicator.recovery.progress import Progress
from replicator.sqlite.compare import Comparison, SchemaChange, TableChange
from replicator.sqlite.connect import Prepare, unprepared
from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.system.files import Files
from replicator.system.scratch import scratch_directory

CHUNK_BYTES = 4 << 20  # whole pages of every size


@dataclass(frozen=True, slots=True)
class ComparedPoint:
    """One of the two: its transaction, and the size of the database (pages)."""

    txid: int
    committed_at: int | None
    pages: int
    page_size: int


@dataclass(frozen=True, slots=True)
class DiffReport:
    """``changed_pages`` counts pages that differ or are in one of the two only; None where
    the page sizes differ."""

    url: str
    older: ComparedPoint
    newer: ComparedPoint
    changed_pages: int | None
    schema: tuple[SchemaChange, ...]
    tables: tuple[TableChange, ...]

    @property
    def inconclusive(self) -> tuple[str, ...]:
        """The tables that this SQLite library cannot compare, each with the reason."""
        return tuple(f"table {each.table} {each.note}" for each in self.tables if each.inconclusive)

    @property
    def exit_code(self) -> int:
        """10 if a table could not be compared, else 0."""
        return Inconclusive.exit_code if self.inconclusive else 0


def diff_at(
    address: StoreAddress,
    since: RestorePoint,
    until: RestorePoint,
    *,
    scratch: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    prepare: Prepare = unprepared,
) -> DiffReport:
    """:func:`diff` of the database an address names, or of the only one there."""
    with open_archive(address) as (store, prefix):
        return diff(
            store, prefix, since, until, scratch=scratch, progress=progress, prepare=prepare
        )


def diff(
    store: Store,
    prefix: str,
    since: RestorePoint,
    until: RestorePoint,
    *,
    scratch: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    prepare: Prepare = unprepared,
) -> DiffReport:
    """Restore both points to ``scratch`` and compare them. They may be given in any order: the
    figures always lead from ``since`` to ``until``. ``prepare`` registers what the schema needs.
    Raises what a restore raises."""
    with scratch_directory(scratch) as directory:
        old, new = directory / "from.db", directory / "to.db"
        first = restore_point(store, prefix, since, old, progress)
        second = restore_point(store, prefix, until, new, progress)
        pages = _changed_pages(old, new, first, second)
        report = DiffReport(first.url, _point(first), _point(second), pages, (), ())
        if pages == 0:
            return report
        with Comparison(old, new, prepare) as comparison:
            return replace(
                report, schema=tuple(comparison.schema()), tables=tuple(comparison.tables())
            )


def _point(report: RestoreReport) -> ComparedPoint:
    return ComparedPoint(report.txid, report.committed_at, report.pages, report.page_size)


def _changed_pages(old: Path, new: Path, first: RestoreReport, second: RestoreReport) -> int | None:
    if first.page_size != second.page_size:
        return None
    size, changed = first.page_size, abs(first.pages - second.pages)
    common = min(first.pages, second.pages) * size
    with contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(Files().open_read(path)) for path in (old, new))
        for at in range(0, common, CHUNK_BYTES):
            length = min(CHUNK_BYTES, common - at)
            before, after = one.pread(length, at), two.pread(length, at)
            if before != after:
                changed += sum(
                    before[page : page + size] != after[page : page + size]
                    for page in range(0, length, size)
                )
    return changed

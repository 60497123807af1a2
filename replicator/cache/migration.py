"""Older formats of the ledger: each is brought to the next one in one transaction.

Owns: the formats that came before :data:`.schema.FORMAT`, and the decision about a ledger of
another version. A kill at any instant leaves the old ledger or the new one, because SQLite
commits the tables, the rows and the format number together. 4097 segments took 0.4 s of CPU and
3.7 MB of WAL; a disk without that space is ``DiskFull``, and the old ledger stays. Refuses: to
touch the ledger of a newer version (``LedgerTooNew``); that ledger is sound, and its version can
still use it.

Format 1 had no ``delivery``: the row of a segment also had the status at the store, and the
facts about the store were among those of the cache. Format 2 moves both to the destination
``primary``. Nothing is dropped and no value changes.
"""

from __future__ import annotations

import logging
from typing import Any

from replicator.cache.connection import LedgerFile
from replicator.cache.records import PRIMARY, Fact
from replicator.cache.schema import (
    DELIVERY_COLUMNS,
    FORMAT,
    SEGMENT_COLUMNS,
    SEGMENT_TABLES,
    Row,
)
from replicator.errors import LedgerTooNew

FORMAT_1_COLUMNS = (
    "first_txid",
    "last_txid",
    "status",
    "stored",
    "size",
    "generation",
    "kind",
    "key",
    "raw_bytes",
    "sha256",
    "log_end",
    "pages",
    "checksum",
    "checksum_before",
    "first_commit_ms",
    "commit_ms",
    "created_ms",
    "uploaded_ms",
    "attempts",
    "next_attempt_ms",
    "last_error",
    "upload_id",
    "part_size",
    "metadata",
)

log = logging.getLogger(__name__)


def migrate(file: LedgerFile) -> None:
    """Brings the ledger to today's format. ``LedgerTooNew``, or ``LedgerDamaged`` when the
    format or any row of the old ledger cannot be trusted."""
    found = _format(file)
    if found > FORMAT:
        raise LedgerTooNew(
            f"{file.path}: the ledger has format {found}, this version knows formats to {FORMAT}",
            path=file.path,
            found=found,
            known=FORMAT,
        )
    if found == FORMAT:
        return
    with file.transaction():
        count = _from_format_1(file)
        file.put("fact", "format", str(FORMAT))
    log.info("%s: %d segments were migrated from format %d to %d", file.path, count, found, FORMAT)


def _format(file: LedgerFile) -> int:
    """The number of the ledger's format, at least 1."""
    value: Any = None
    for value, check in file.run("SELECT value, check_sum FROM fact WHERE name = 'format'"):
        file.verify(("format", value), check, "fact 'format'")
    if not str(value).isdecimal() or int(value) < 1:
        raise file.damaged(f"its format is {value}, not {FORMAT}")
    return int(value)


def _from_format_1(file: LedgerFile) -> int:
    """Returns the number of segments."""
    rows = _rows(file, "segment", FORMAT_1_COLUMNS)
    facts = _rows(file, "fact", ("name", "value"))
    file.run("DROP TABLE segment")
    for statement in SEGMENT_TABLES:
        file.run(statement)
    file.put("destination", PRIMARY, 0)
    for row in rows:
        values = dict(zip(FORMAT_1_COLUMNS, row, strict=True)) | {"destination": PRIMARY}
        file.put("segment", *(values[column] for column in SEGMENT_COLUMNS))
        file.put("delivery", *(values[column] for column in DELIVERY_COLUMNS))
    for name, value in facts:
        if name in set(Fact) and Fact(name).per_destination:
            file.run("DELETE FROM fact WHERE name = ?", (name,))
            file.put("destination_fact", PRIMARY, name, value)
    return len(rows)


def _rows(file: LedgerFile, table: str, columns: tuple[str, ...]) -> list[Row]:
    """Every row of an old table, each with the right check."""
    names = ", ".join((*columns, "check_sum"))
    rows = []
    for *values, check in file.run(f"SELECT {names} FROM {table} ORDER BY 1"):  # noqa: S608 - constants
        file.verify(tuple(values), check, f"{table} {values[0]!r}")
        rows.append(tuple(values))
    return rows

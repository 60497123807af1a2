"""A file that has the name of a restore's output: is it what the restore would make?

Owns the comparison by checksum, which proves that nothing is left to do. Refuses to write, and to
call a file complete that has a WAL or a journal with content.
"""

from __future__ import annotations

from pathlib import Path

from replicator.format.database import HEADER_BYTES, parse_database_header
from replicator.model import DatabaseState
from replicator.recovery.checksum import checksum_of
from replicator.recovery.report import PlannedRestore
from replicator.sqlite.local_file import has_log
from replicator.system.database_files import database_reader, release_database
from replicator.system.files import Files, RawFile
from replicator.system.restore_marker import read_restore_marker


def is_complete(output: Path, plan: PlannedRestore, files: Files) -> bool:
    """True if the file is, page by page, the database of the plan.

    The archive proves that with the checksum of the transaction. Where it holds none, inside an
    object, the marker of the restore does: it names the transaction and the checksum.
    """
    if not output.is_file() or has_log(output):
        return False
    report = plan.report
    reader = database_reader(output, files)
    try:
        state = _state(reader, report.page_size)
    finally:
        release_database(reader, unless_used=True)
    if plan.exact or state is None:
        return state == DatabaseState(report.pages, report.checksum)
    marker = read_restore_marker(output)
    return marker is not None and (marker.generation, marker.txid, marker.state) == (
        report.generation,
        report.txid,
        state,
    )


def _state(reader: RawFile, page_size: int) -> DatabaseState | None:
    """The state of a file of whole pages of that size; None for any other file."""
    header = parse_database_header(reader.pread(HEADER_BYTES, 0))
    if header is None or header.page_size != page_size or reader.size() % page_size:
        return None
    pages = reader.size() // page_size
    return DatabaseState(pages, checksum_of(reader, page_size, pages, lambda _: None))

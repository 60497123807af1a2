"""The local file of a database before SQLite opens it: is there something to lose?

Owns the distinction between no database, one without tables, and one with content; and the check
that no connection uses the files. Refuses to open a SQLite connection, to write, and to call a
database empty in case of doubt.
"""

from __future__ import annotations

import contextlib
import enum
import sys
from collections.abc import Iterator
from pathlib import Path

from replicator.errors import LocalIOError
from replicator.format.database import HEADER_BYTES, parse_database_header
from replicator.format.wal import FRAME_HEADER_SIZE, HEADER_SIZE, frame_header
from replicator.sqlite.check import in_use, openers
from replicator.sqlite.live import SHARED_FIRST, SHARED_SIZE
from replicator.sqlite.wal_file import WalFile
from replicator.sqlite.wal_index import locked_by_another
from replicator.system.database_files import count_descriptors, database_reader, release_database
from replicator.system.files import LOCAL, Files, RawFile
from replicator.system.paths import wal_path

LEAF = 13  # the page type of a table that fits into one page; SQLite documentation, 1.6


class FileState(enum.Enum):
    """The states of a local file, in the words of the table of starts."""

    MISSING = enum.auto()
    EMPTY = enum.auto()
    FRESH = enum.auto()
    ORPHANED = enum.auto()
    NOT_A_DATABASE = enum.auto()
    CONTENT = enum.auto()


def examine_file(path: Path, files: Files = LOCAL) -> FileState:
    """The state of the file at ``path``. A file that cannot be read has content."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return FileState.ORPHANED if has_log(path) else FileState.MISSING
    except OSError:
        return FileState.CONTENT
    if not size:  # SQLite removes a WAL or a journal of such a file
        return FileState.ORPHANED if has_log(path) else FileState.EMPTY
    if not path.is_file():
        return FileState.CONTENT
    try:
        return _examine_content(path, files)
    except LocalIOError:
        return FileState.CONTENT


def has_log(path: Path) -> bool:
    """True if a WAL or a journal with content is next to the database."""
    return any(_size(path.with_name(path.name + suffix)) for suffix in ("-wal", "-journal"))


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _examine_content(path: Path, files: Files) -> FileState:
    with _reading(path, files) as raw:
        header = parse_database_header(raw.pread(HEADER_BYTES, 0))
        page = raw.pread(header.page_size, 0) if header is not None else b""
    if header is None:
        return FileState.NOT_A_DATABASE
    journal = _size(path.with_name(f"{path.name}-journal"))
    if not _without_tables(page) or journal or _log_has_tables(path, header.page_size, files):
        return FileState.CONTENT
    return FileState.FRESH


def in_wal_mode(path: Path, files: Files = LOCAL) -> bool:
    """True if the header names WAL mode."""
    with _reading(path, files) as raw:
        header = parse_database_header(raw.pread(HEADER_BYTES, 0))
    return header is not None and header.wal_mode


@contextlib.contextmanager
def _reading(path: Path, files: Files) -> Iterator[RawFile]:
    raw = database_reader(path, files)
    try:
        yield raw
    finally:
        release_database(raw)


def _without_tables(page: bytes) -> bool:
    """True for a first page whose table of the schema has no row."""
    return len(page) > HEADER_BYTES + 8 and page[100] == LEAF and page[103:105] == b"\0\0"


def _log_has_tables(path: Path, page_size: int, files: Files) -> bool:
    """True if a frame of the WAL, committed or not, has a first page with a table."""
    wal = WalFile(wal_path(path), files)
    try:
        if wal.refresh() is None:
            return False
        header, at = wal.header(), HEADER_SIZE
        while header is not None:
            head = wal.read(FRAME_HEADER_SIZE, at)
            if len(head) < FRAME_HEADER_SIZE:
                return False
            pgno, _, salt1, salt2, _ = frame_header(head)
            page = wal.read(page_size, at + FRAME_HEADER_SIZE) if pgno == 1 else b""
            known = (salt1, salt2) == (header.salt1, header.salt2)
            if known and page and not _without_tables(page):
                return True
            at += FRAME_HEADER_SIZE + page_size
        return False
    finally:
        wal.close()


def refuse_if_used(path: Path, files: Files = LOCAL) -> None:
    """``TargetExists`` if a connection has the database open, as far as the system shows it."""
    if not path.is_file():
        return
    pids = openers(path)
    if pids:
        raise in_use(path, f"process {pids[0]}")
    with _reading(path, files) as raw:
        # one descriptor of this process is that of the raw reads
        if _locked(raw) or count_descriptors(raw.identity()) > 1:
            raise in_use(path, "another connection")


def _locked(raw: RawFile) -> bool:
    """True if another process, also one in another namespace, has the database open."""
    linux = sys.platform.startswith("linux")
    return linux and locked_by_another(raw.fileno(), SHARED_FIRST, SHARED_SIZE)

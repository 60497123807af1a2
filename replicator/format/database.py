"""The header of a SQLite database file, and the one page without content.

Owns the interpretation of the first 100 bytes. Refuses I/O, and everything about page content.
Source: SQLite documentation, "Database File Format", sections 1.3 and 1.4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from replicator.format.buffers import Buffer
from replicator.format.wal import valid_page_size

HEADER_BYTES = 100

_MAGIC = b"SQLite format 3\0"
_PENDING_BYTE = 0x40000000


@dataclass(frozen=True, slots=True)
class DatabaseHeader:
    """Fields of the first 100 bytes.

    ``pages`` is the field at offset 28. It is 0 or stale after a write by software older than
    SQLite 3.7.0. ``change_counter`` grows with every change of page 1, ``schema_cookie`` with every
    change of the schema. SQLite lowers neither of them in a file.
    """

    page_size: int
    pages: int
    wal_mode: bool
    auto_vacuum: bool
    change_counter: int = 0
    schema_cookie: int = 0


def parse_database_header(data: Buffer) -> DatabaseHeader | None:
    """The header, or None if the first 100 bytes do not belong to a SQLite database."""
    if len(data) < HEADER_BYTES or bytes(data[:16]) != _MAGIC:
        return None
    size, write_version, read_version = struct.unpack_from(">HBB", data, 16)
    page_size = 65536 if size == 1 else size
    if not valid_page_size(page_size):
        return None
    changes, pages, schema, largest_root = (
        struct.unpack_from(">I", data, at)[0] for at in (24, 28, 40, 52)
    )
    wal_mode = (write_version, read_version) == (2, 2)
    return DatabaseHeader(page_size, pages, wal_mode, largest_root != 0, changes, schema)


def lock_page(page_size: int) -> int:
    """Number of the page that contains byte 0x40000000. It has no content and no WAL frame."""
    return _PENDING_BYTE // page_size + 1

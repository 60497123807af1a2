"""The header of a database file, and the lock page."""

import sqlite3
from contextlib import closing

import pytest

from replicator.format.database import lock_page, parse_database_header
from tests.helpers.oracle_wal import Source


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("auto_vacuum", [0, 1])
def test_header_of_a_database(tmp_path, page_size, auto_vacuum):
    """Page size (65536 is stored as 1), pages, journal mode and auto_vacuum equal SQLite's."""
    source = Source(tmp_path, page_size, auto_vacuum=auto_vacuum)
    source.checkpoint("TRUNCATE")
    data, _ = source.files()
    source.close()
    header = parse_database_header(data[:100])
    assert header.page_size == page_size
    assert header.pages == len(data) // page_size
    assert header.wal_mode
    assert header.auto_vacuum == bool(auto_vacuum)


def test_header_of_a_database_with_a_rollback_journal(tmp_path):
    """Bytes 18 and 19 of the file hold the journal mode."""
    path = tmp_path / "plain.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t(x)")
    assert not parse_database_header(path.read_bytes()).wal_mode


def test_what_is_no_database(tmp_path):
    """Too short, another magic, or a page size that cannot be: None."""
    path = tmp_path / "plain.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t(x)")
    data = path.read_bytes()[:100]
    assert parse_database_header(data) is not None
    assert parse_database_header(data[:99]) is None
    assert parse_database_header(b"x" + data[1:]) is None
    assert parse_database_header(data[:16] + b"\x03\xe8" + data[18:]) is None


@pytest.mark.parametrize("page_size", [512 << n for n in range(8)])
def test_lock_page_contains_its_byte(page_size):
    """It contains the first byte of the second gigabyte."""
    first = (lock_page(page_size) - 1) * page_size
    assert first <= 0x40000000 < first + page_size

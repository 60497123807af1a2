"""B-tree pages: keys in the order of SQLite, and bytes that are none."""

import contextlib
import itertools
import sqlite3
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.format.btree import KeyColumn, compare_keys, parse_btree_page, record, varint

VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
    st.sampled_from(["a", "A", "a ", "A  ", "b", "é", "\U00010000", "\uffff"]),
    st.binary(max_size=6),
)
ENCODINGS = {"UTF-8": "utf-8", "UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}


@given(
    st.lists(VALUES, min_size=2, max_size=12),
    st.sampled_from(["BINARY", "NOCASE", "RTRIM"]),
    st.booleans(),
    st.sampled_from(list(ENCODINGS)),
)
def test_keys_sort_as_sqlite_sorts_them(values, collation, descending, encoding):
    """Types before values, collations, directions, and the bytes of the encoding."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"PRAGMA encoding = '{encoding}'")
        db.execute("CREATE TABLE t(x)")
        db.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
        direction = "DESC" if descending else "ASC"
        query = f"SELECT x FROM t ORDER BY x COLLATE {collation} {direction}, rowid"
        rows = [row[0] for row in db.execute(query)]
    order = (KeyColumn(collation, descending),)
    for one, other in itertools.pairwise(rows):
        assert compare_keys((one,), (other,), order, ENCODINGS[encoding]) <= 0
        assert compare_keys((other,), (one,), order, ENCODINGS[encoding]) >= 0


@given(st.binary(min_size=512, max_size=512), st.integers(1, 3))
def test_bytes_that_are_no_page(data, pgno):
    """Nothing but ValueError for a cell that cannot be; never a read beyond the page."""
    for kind in (2, 5, 10, 13):
        start = 100 if pgno == 1 else 0
        data = data[:start] + bytes([kind]) + data[start + 1 :]
        for count in (struct.unpack_from(">H", data, start + 3)[0], 3):
            data = data[: start + 3] + struct.pack(">H", count) + data[start + 5 :]
            page = parse_btree_page(pgno, data, 512)
            for cell in range(len(page.cells)) if page is not None else ():
                with contextlib.suppress(ValueError):
                    payload = page.payload(cell)
                    assert len(payload.local) <= payload.size
                if page.of_table:
                    with contextlib.suppress(ValueError):
                        assert -(2**63) <= page.rowid(cell) < 2**63


@given(st.lists(st.binary(max_size=5), min_size=2, max_size=8), st.sampled_from(list(ENCODINGS)))
def test_texts_of_any_bytes_sort_as_sqlite_sorts_them(values, encoding):
    """SQLite does not look whether a text is one, and BINARY needs no text."""
    name = ENCODINGS[encoding]
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"PRAGMA encoding = '{encoding}'")
        db.execute("CREATE TABLE t(x)")
        db.executemany("INSERT INTO t VALUES (CAST(? AS TEXT))", [(value,) for value in values])
        rows = db.execute("SELECT CAST(x AS BLOB) FROM t ORDER BY x, rowid").fetchall()
    texts = [record(bytes([2, 13 + 2 * len(data)]) + data, name) for (data,) in rows]
    for one, other in itertools.pairwise(texts):
        assert compare_keys(one, other, (), name) <= 0 <= compare_keys(other, one, (), name)


@given(st.binary(max_size=40))
def test_bytes_that_are_no_record(data):
    """Nothing but ValueError."""
    with contextlib.suppress(ValueError):
        record(data, "utf-8")


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"\x7f", 127), (b"\x81\x00", 128), (b"\xff" * 9, (1 << 64) - 1), (b"\x80" * 8 + b"\x01", 1)],
)
def test_numbers_have_one_to_nine_bytes(data, value):
    """The ninth has eight bits."""
    assert varint(data, 0) == (value, len(data))
    with pytest.raises(ValueError, match="beyond"):
        varint(data[:-1], 0)

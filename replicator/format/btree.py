"""Pages of b-trees: cells, keys, records. For reports about pages, not for restores.

Owns the interpretation of one page, and of the payload of a cell. A page that is no b-tree page may
look like one: only the way from the root of a tree proves what it is. Refuses I/O, and SQL.
Source: SQLite documentation, "Database File Format", sections 1.5 to 2.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from replicator.format.database import HEADER_BYTES

INTERIOR_INDEX, INTERIOR_TABLE, LEAF_INDEX, LEAF_TABLE = 2, 5, 10, 13
_INTERIOR = (INTERIOR_INDEX, INTERIOR_TABLE)
_U16, _U32 = struct.Struct(">H"), struct.Struct(">I")
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # bytes by serial type

Value: TypeAlias = int | float | str | bytes | None


class InvalidText(bytes):
    """The bytes of a text that is none in its encoding. SQLite keeps and orders such a text."""


@dataclass(frozen=True, slots=True)
class Payload:
    """The payload of a cell: its ``size`` in bytes, those on the page, and the first page of the
    chain with the others (0: there is none)."""

    size: int
    local: bytes
    overflow: int


@dataclass(frozen=True)
class BtreePage:
    """A page that has the form of a b-tree page. ``usable`` are its bytes without reserved ones."""

    pgno: int
    data: bytes
    usable: int
    kind: int
    cells: tuple[int, ...]  # offsets, in the order of the keys
    right: int  # the last child of an interior page, else 0

    @property
    def interior(self) -> bool:
        return self.kind in _INTERIOR

    @property
    def of_table(self) -> bool:
        """True for a page of a table with rowids."""
        return self.kind in (INTERIOR_TABLE, LEAF_TABLE)

    @cached_property
    def children(self) -> tuple[int, ...]:
        """In the order of the keys; none of a leaf."""
        if not self.interior:
            return ()
        return (*(_U32.unpack_from(self.data, at)[0] for at in self.cells), self.right)

    @cached_property
    def below(self) -> frozenset[int]:
        return frozenset(self.children)

    def rowid(self, cell: int) -> int:
        """The key of a cell of a table."""
        at = self.cells[cell]
        if self.interior:
            return _signed(varint(self.data, at + 4)[0])
        return _signed(varint(self.data, varint(self.data, at)[1])[0])

    def payload(self, cell: int) -> Payload:
        """Of a leaf of a table, or of any page of an index; ``ValueError`` beyond the page."""
        at = self.cells[cell] + (4 if self.interior else 0)
        size, at = varint(self.data, at)
        if self.kind == LEAF_TABLE:
            at = varint(self.data, at)[1]
        local = _local_bytes(size, self.usable, table=self.kind == LEAF_TABLE)
        end = at + local
        if end + (4 if local < size else 0) > self.usable:
            raise ValueError("a cell reaches beyond its page")
        overflow = _U32.unpack_from(self.data, end)[0] if local < size else 0
        return Payload(size, self.data[at:end], overflow)

    def payloads(self) -> Iterator[Payload]:
        """Of every cell that has one."""
        if self.kind != INTERIOR_TABLE:
            yield from map(self.payload, range(len(self.cells)))


def parse_btree_page(pgno: int, data: bytes, usable: int) -> BtreePage | None:
    """The page, None if it has not the form of one."""
    start = HEADER_BYTES if pgno == 1 else 0
    kind = data[start]
    if kind not in (*_INTERIOR, LEAF_INDEX, LEAF_TABLE):
        return None
    head = 12 if kind in _INTERIOR else 8
    count = _U16.unpack_from(data, start + 3)[0]
    first = start + head
    if first + 2 * count > usable:
        return None
    cells = struct.unpack_from(f">{count}H", data, first)
    if any(not first + 2 * count <= at < usable - 3 for at in cells):
        return None
    right = _U32.unpack_from(data, start + 8)[0] if kind in _INTERIOR else 0
    return BtreePage(pgno, data, usable, kind, cells, right)


def _local_bytes(size: int, usable: int, *, table: bool) -> int:
    """Bytes of a payload that are on the page of its cell."""
    most = usable - 35 if table else (usable - 12) * 64 // 255 - 23
    if size <= most:
        return size
    least = (usable - 12) * 32 // 255 - 23
    local = least + (size - least) % (usable - 4)
    return local if local <= most else least


def varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned number of 1 to 9 bytes, and the offset after it; ``ValueError`` at the end."""
    value = 0
    for index, byte in enumerate(data[at : at + 9]):
        if index == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("a number reaches beyond its page")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def record(payload: bytes, encoding: str) -> tuple[Value, ...]:
    """The columns of a record; ``ValueError`` for other bytes."""
    end, at = varint(payload, 0)
    types: list[int] = []
    while at < end:
        kind, at = varint(payload, at)
        types.append(kind)
    values: list[Value] = []
    for kind in types:
        size = _INTEGERS.get(kind, 8 if kind == 7 else (kind - 12) // 2 if kind >= 12 else 0)
        data = payload[at : at + size]
        if len(data) < size:
            raise ValueError("a record is shorter than its header claims")
        values.append(_value(kind, data, encoding))
        at += size
    return tuple(values)


def _value(kind: int, data: bytes, encoding: str) -> Value:
    if kind in _INTEGERS:
        return int.from_bytes(data, "big", signed=True)
    if kind == 7:
        return float(struct.unpack(">d", data)[0])
    if kind in (8, 9):
        return kind - 8
    if kind >= 12:
        return _decoded(data, encoding) if kind % 2 else data
    return None


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """The order of one column of an index: its collation, and whether it descends."""

    collation: str = "BINARY"
    descending: bool = False


def compare_keys(
    one: Sequence[Value], other: Sequence[Value], order: Sequence[KeyColumn], encoding: str
) -> int:
    """Negative, 0 or positive, in the order of an index; columns beyond ``order`` ascend."""
    plain = KeyColumn()
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        column = order[at] if at < len(order) else plain
        left, right = (_sort_key(each, column.collation.upper(), encoding) for each in (a, b))
        if left != right:
            ascending = -1 if left < right else 1
            return -ascending if column.descending else ascending
    return len(one) - len(other)


def _sort_key(value: Value, collation: str, encoding: str) -> tuple[int, int | float | bytes]:
    """NOCASE and RTRIM compare UTF-8; every other collation counts as BINARY, which compares the
    bytes of the encoding. ``ValueError`` for text that has no UTF-8."""
    match value:
        case None:
            return 0, 0
        case str():
            if collation == "NOCASE":
                return 2, _encoded(value, "utf-8").lower()
            if collation == "RTRIM":
                return 2, _encoded(value.rstrip(" "), "utf-8")
            return 2, _encoded(value, encoding)
        case InvalidText():
            if collation in ("NOCASE", "RTRIM"):
                raise ValueError("a text is none in its encoding")
            return 2, bytes(value)
        case bytes():
            return 3, value
    return 1, value


def _decoded(data: bytes, encoding: str) -> str | InvalidText:
    """Bytes that are no UTF-8 survive :func:`_encoded`."""
    try:
        return data.decode(encoding, "surrogateescape" if encoding == "utf-8" else "surrogatepass")
    except UnicodeDecodeError:
        return InvalidText(data)


def _encoded(text: str, encoding: str) -> bytes:
    return text.encode(encoding, "surrogateescape" if encoding == "utf-8" else "surrogatepass")

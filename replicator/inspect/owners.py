"""The owner of a page: the table whose b-tree, or index, or overflow chain holds it in one state.

A page is looked for from the root of a tree by a key of its own, so that a few pages answer and the
database is not read. A way that reaches the page is the proof; nothing else counts. A page that no
way reaches has no known owner: an overflow page that changed in place without the page of its row
(except with auto_vacuum, which maps it), an index whose collation is not built in, a damaged page.

Owns: the schema as its pages have it, and the ways that were found. Refuses I/O: ``read`` gives the
newest image of a page.
"""

from __future__ import annotations

import contextlib
import struct
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from replicator.format.btree import (
    BtreePage,
    KeyColumn,
    Payload,
    Value,
    compare_keys,
    parse_btree_page,
    record,
)
from replicator.format.database import HEADER_BYTES, lock_page
from replicator.sqlite.index_order import index_orders

SCHEMA = "sqlite_schema"
MOST_PARSED = 4096  # pages
MOST_PARENTS = 1 << 20  # pages whose parent is remembered
MOST_SCHEMA_PAGES = 10_000
MOST_TRUNKS = 10_000  # pages of the free list that are read for one commit
MOST_KEY_BYTES = 64 << 10  # of a key that is compared; it may be read many times
MOST_ROW_BYTES = 4 << 20  # of the schema
LONGEST_CHAIN = 100_000  # pages of a row, by the map of a database with auto_vacuum
MAPPED = (3, 4, 5)  # first and later pages of a chain, and pages of a b-tree
DEEPEST = 20  # levels of a b-tree; SQLite refuses more
ENCODINGS = {2: "utf-16-le", 3: "utf-16-be"}
_U32 = struct.Struct(">I")

Odd = (ValueError, IndexError, struct.error)  # a page is not what it seemed to be


@dataclass(frozen=True, slots=True)
class Touched:
    """The tables of which a commit wrote pages, those of indexes included, sorted; and the number
    of written pages whose owner is not known."""

    tables: tuple[str, ...]
    unknown_pages: int = 0


@dataclass(frozen=True, slots=True)
class Tree:
    """A b-tree of the schema. ``order`` is that of its keys, if it is an index."""

    table: str
    order: tuple[KeyColumn, ...] = ()


@dataclass(frozen=True, slots=True)
class Schema:
    """Trees by their roots; tables without one (virtual ones) in lower case; the rows."""

    trees: dict[int, Tree]
    virtual: frozenset[str]
    rows: frozenset[tuple[object, ...]]

    @classmethod
    def of(cls, rows: Iterable[tuple[object, ...]]) -> Schema:
        """Rows have type, name, table, root and SQL."""
        kept = [row for row in rows if len(row) == 5 and isinstance(row[2], str)]
        statements = sorted((str(row[4]) for row in kept if row[4]), key=_tables_first)
        orders = index_orders(statements)
        trees = {1: Tree(SCHEMA)}
        for _, name, table, root, _ in kept:
            if isinstance(root, int) and root > 1:
                trees[root] = Tree(str(table), orders.get(str(name).lower(), ()))
        virtual = {str(row[2]).lower() for row in kept if row[0] == "table" and not row[3]}
        return cls(trees, frozenset(virtual), frozenset(kept))


def _tables_first(statement: str) -> bool:
    return " INDEX " in f" {statement[:20].upper()} "


class Owners:
    """Follows a database from commit to commit."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._parsed: OrderedDict[int, BtreePage | None] = OrderedDict()
        self._parents: dict[int, int] = {}
        self._first = read(1)
        self._seen: set[str] = set()
        self._load()

    @property
    def seen(self) -> frozenset[str]:
        """Every table that the schema has had so far, in lower case."""
        return frozenset(self._seen)

    def after(self, changed: Iterable[int], size: int) -> Touched:
        """The owners of the changed pages of a commit that left ``size`` pages."""
        pages = {pgno for pgno in changed if pgno <= size and pgno != self._lock_page}
        for pgno in pages:
            self._parsed.pop(pgno, None)
        tables = self._schema_changes() if 1 in pages else set()
        pages.discard(1)
        found = {pgno: owner for pgno in pages if (owner := self._owner(pgno)) is not None}
        left = pages - found.keys()
        holders = found | ({1: SCHEMA} if tables else {})
        tables |= set(found.values()) | self._chained(holders, left)
        if self._auto_vacuum:
            tables |= self._mapped(left)
        if left:
            self._remove_free(left)
        return Touched(self._shown(tables), len(left))

    def _shown(self, tables: set[str]) -> tuple[str, ...]:
        """With the virtual tables to which the others belong."""
        owners = {
            virtual
            for virtual in self._schema.virtual
            if any(table.lower().startswith(f"{virtual}_") for table in tables)
        }
        return tuple(sorted(tables | owners))

    # ------------------------------------------------------------------------------ the schema

    def _load(self) -> None:
        page = self._first
        self._usable = len(page) - page[20]
        self._lock_page = lock_page(len(page))
        self._encoding = ENCODINGS.get(page[59], "utf-8")
        self._auto_vacuum = bool(_U32.unpack_from(page, 52)[0])
        self._schema = Schema.of(self._schema_rows())
        self._parents.clear()
        self._seen |= {tree.table.lower() for tree in self._schema.trees.values()}
        self._seen |= self._schema.virtual

    def _schema_rows(self) -> Iterator[tuple[object, ...]]:
        below, seen = [1], {1}
        while below and len(seen) <= MOST_SCHEMA_PAGES:
            page = self._page(below.pop())
            if page is None or not page.of_table:
                continue
            below += page.below - seen
            seen |= page.below
            with contextlib.suppress(*Odd):
                for payload in () if page.interior else page.payloads():
                    yield record(self._whole(payload, MOST_ROW_BYTES), self._encoding)

    def _schema_changes(self) -> set[str]:
        """The schema itself, and the tables whose rows in it changed, if page 1 shows any of it."""
        before, self._first = self._first, self._read(1)
        head, rows = slice(40, 44), self._schema.rows
        changed = {SCHEMA} if before[HEADER_BYTES:] != self._first[HEADER_BYTES:] else set()
        if before[head] == self._first[head] and len(before) == len(self._first):
            return changed
        self._parsed.clear()
        self._load()
        return {SCHEMA} | {str(row[2]) for row in rows ^ self._schema.rows}

    # ------------------------------------------------------------------------------- the trees

    def _page(self, pgno: int) -> BtreePage | None:
        if pgno in self._parsed:
            self._parsed.move_to_end(pgno)
            return self._parsed[pgno]
        page = parse_btree_page(pgno, self._read(pgno), self._usable)
        self._parsed[pgno] = page
        while len(self._parsed) > MOST_PARSED:
            self._parsed.popitem(last=False)
        return page

    def _owner(self, pgno: int) -> str | None:
        tree = self._schema.trees.get(pgno)
        if tree is None:
            with contextlib.suppress(*Odd):
                tree = self._known_way(pgno) or self._new_way(pgno)
        return None if tree is None else tree.table

    def _known_way(self, pgno: int) -> Tree | None:
        """Up along the parents that were seen before, each of which must still lead down."""
        for _ in range(DEEPEST):
            parent = self._page(self._parents.get(pgno, 0)) if pgno in self._parents else None
            if parent is None or pgno not in parent.below:
                return None
            pgno = parent.pgno
            if pgno in self._schema.trees:
                return self._schema.trees[pgno]
        return None

    def _new_way(self, pgno: int) -> Tree | None:
        """Down from each root, by the first key of the page."""
        page = self._page(pgno)
        if page is None or not page.cells:
            return None
        key: object = page.rowid(0) if page.of_table else self._key(page, 0)
        for root, tree in self._schema.trees.items():
            node = self._page(root)
            if node is not None and node.interior and node.of_table == page.of_table:
                with contextlib.suppress(*Odd):
                    if self._leads(node, tree, page, key):
                        return tree
        return None

    def _leads(self, node: BtreePage, tree: Tree, page: BtreePage, key: object) -> bool:
        for _ in range(DEEPEST):
            child = self._child(node, tree, key)
            self._remember(node)
            if child == page.pgno:
                return True
            below = self._page(child)
            if below is None or not below.interior or below.of_table != page.of_table:
                return False
            node = below
        return False

    def _child(self, node: BtreePage, tree: Tree, key: object) -> int:
        """The child of an interior page in which the key would be."""
        cells = range(len(node.cells))
        if node.of_table:
            assert isinstance(key, int)  # a rowid
            return node.children[bisect_left(cells, key, key=node.rowid)]
        assert isinstance(key, tuple)  # a record

        def order(cell: int) -> int:
            return compare_keys(self._key(node, cell), key, tree.order, self._encoding)

        return node.children[bisect_left(cells, 0, key=order)]

    def _remember(self, node: BtreePage) -> None:
        if len(self._parents) > MOST_PARENTS:
            self._parents.clear()
        self._parents.update(dict.fromkeys(node.children, node.pgno))

    def _key(self, page: BtreePage, cell: int) -> tuple[Value, ...]:
        return record(self._whole(page.payload(cell)), self._encoding)

    def _whole(self, payload: Payload, most: int = MOST_KEY_BYTES) -> bytes:
        """With the pages of the overflow chain. ``ValueError`` if it is too long or ends early."""
        if payload.size > most:
            raise ValueError("a payload is too long")
        data, pgno = payload.local, payload.overflow
        while len(data) < payload.size:
            if not pgno:
                raise ValueError("a chain ends early")
            page = self._read(pgno)
            data += page[4 : self._usable]
            pgno = _U32.unpack_from(page)[0]
        return data[: payload.size]

    # -------------------------------------------------------------------------- the other pages

    def _chained(self, found: dict[int, str], left: set[int]) -> set[str]:
        """Takes the overflow pages of rows on the pages that were found out of ``left``; the
        tables they belong to."""
        tables: set[str] = set()
        for pgno, table in found.items() if left else ():
            page = self._page(pgno)
            with contextlib.suppress(*Odd):
                for payload in page.payloads() if page is not None else ():
                    chained = payload.overflow
                    while chained in left:
                        left.discard(chained)
                        tables.add(table)
                        chained = _U32.unpack_from(self._read(chained))[0]
        return tables

    def _mapped(self, left: set[int]) -> set[str]:
        """The same by the map that a database with auto_vacuum has, whose own pages are of no
        table."""
        tables: set[str] = set()
        for pgno in list(left):
            if pgno == self._map_of(pgno):
                left.discard(pgno)
            elif (table := self._mapped_owner(pgno)) is not None:
                left.discard(pgno)
                tables.add(table)
        return tables

    def _mapped_owner(self, pgno: int) -> str | None:
        """From an overflow page to the one before it, and from page to parent up to the root."""
        for _ in range(LONGEST_CHAIN):
            if pgno in self._schema.trees:
                return self._schema.trees[pgno].table
            at = self._map_of(pgno)
            entry = 5 * (pgno - at - 1)
            if not 0 <= entry <= self._usable - 5:
                return None
            kind, pgno = struct.unpack_from(">BI", self._read(at), entry)
            if kind not in MAPPED:
                return None
        return None

    def _map_of(self, pgno: int) -> int:
        """The page of the map that holds the entry of a page."""
        step = self._usable // 5 + 1
        at = (pgno - 2) // step * step + 2
        return at + (at == self._lock_page)

    def _remove_free(self, left: set[int]) -> None:
        """Takes the pages of the free list out of ``left``."""
        trunk = _U32.unpack_from(self._first, 32)[0]
        for _ in range(MOST_TRUNKS):
            if not trunk or not left:
                return
            page = self._read(trunk)
            left.discard(trunk)
            trunk, count = struct.unpack_from(">2I", page)
            count = min(count, self._usable // 4 - 2)
            left.difference_update(struct.unpack_from(f">{count}I", page, 8))

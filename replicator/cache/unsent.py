"""Reads from outside which transactions wait in a cache, also while a replicator uses it.

Owns: one query, on a connection that cannot write. Refuses: to repair, to migrate, and to follow a
symbolic link.
"""

from __future__ import annotations

from pathlib import Path

from replicator.cache.connection import read_only
from replicator.cache.records import PRIMARY
from replicator.errors import LocalIOError

QUERY = (
    "SELECT s.first_txid, s.last_txid, s.key FROM delivery d "
    "JOIN segment s ON s.first_txid = d.first_txid "
    "WHERE d.status < 3 AND d.destination = ? ORDER BY s.first_txid"
)


def unsent(directory: Path) -> list[tuple[int, int, str]]:
    """(first txid, last txid, key) of each waiting segment, oldest first; empty without a cache.
    ``LocalIOError`` if the ledger cannot be read."""
    ledger = directory / "state.db"
    if ledger.is_symlink():
        raise LocalIOError(f"{ledger} is a symbolic link", path=ledger)
    if not ledger.exists():
        return []
    rows = read_only(ledger, QUERY, (PRIMARY,))
    return [(int(first), int(last), str(key)) for first, last, key in rows]

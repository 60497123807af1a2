"""The page hashes on disk: a base file with the whole array, and changes in the ledger.

Owns: ``pages.xxh``, written whole and atomically, stamped with its txid. Refuses: to trust. An
array is handed out only when the changes up to a txid lead to exactly the database state that
the ledger recorded there; anything else is None and costs a scan or a snapshot, never
correctness. Read into memory, never mapped: a mapped file that shrinks kills the process.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from collections.abc import Callable
from pathlib import Path

from replicator.errors import LocalIOError
from replicator.format.page_hashes import PageHashes, replay
from replicator.model import DatabaseState
from replicator.system.files import Files

HEAD = struct.Struct(">8sQ8s")  # magic, txid, check over both
MAGIC = b"RPLPAGE1"

log = logging.getLogger(__name__)


class HashBase:
    """The array as it was after one txid, in one file."""

    def __init__(self, path: Path, files: Files, least_changes: int) -> None:
        """Changes of less than ``least_changes`` bytes never make a new base due."""
        self.path = path
        self._least_changes = least_changes
        self._files = files
        self._size = 0  # as it was saved or loaded last

    def save(self, txid: int, hashes: PageHashes) -> None:
        data = hashes.to_bytes()
        self._files.write_atomic(self.path, _head(txid), data)
        self._size = HEAD.size + len(data)

    def load(self) -> tuple[int, PageHashes] | None:
        """Txid and array, or None when the file is missing or damaged."""
        try:
            data = self._files.read(self.path)
        except LocalIOError as error:
            if self._files.exists(self.path):
                log.warning("%s; the hashes of all pages are lost", error)
            return None
        self._size = len(data)
        if len(data) < HEAD.size:
            return None
        _, txid, _ = HEAD.unpack_from(data)
        hashes = PageHashes.from_bytes(data[HEAD.size :])
        if data[: HEAD.size] != _head(txid) or hashes is None:
            return None
        return txid, hashes

    def limit(self) -> int:
        """Bytes of changes from which on the base should be written anew."""
        return max(self._least_changes, self._size)

    def replayed(
        self, txid: int, state: DatabaseState, changes: Callable[[int, int], list[bytes]]
    ) -> PageHashes | None:
        """The array after ``txid``, proved against ``state``; None if it cannot be proved.

        ``changes`` returns the changes after one txid up to another."""
        base = self.load()
        if base is None or base[0] > txid:
            return None
        since, hashes = base
        try:
            for change in changes(since, txid):
                replay(hashes, change)
        except ValueError:
            return None
        return hashes if hashes.state == state else None


def _head(txid: int) -> bytes:
    check = hashlib.blake2b(MAGIC + txid.to_bytes(8, "big"), digest_size=8).digest()
    return HEAD.pack(MAGIC, txid, check)

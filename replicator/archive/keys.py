"""Names of objects in a bucket: builds the keys of one database.

Owns the layout below a prefix. Keys sort in the order of transactions, because a txid is written
as 16 hexadecimal digits. :mod:`.names` reads keys back; only this room imports it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one database. Slashes around ``prefix`` are dropped; it may be empty."""

    prefix: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", self.prefix.strip("/"))

    def wal(self, first_txid: int) -> str:
        return f"{self.wal_dir}{first_txid:016x}.wal.zst"

    def merged(self, level: int, first: int, last: int) -> str:
        return f"{self.merged_dir}{level}/{first:016x}-{last:016x}.wal.zst"

    def snapshot(self, txid: int, generation: str) -> str:
        return f"{self.snapshot_dir}{txid:016x}-{generation}.sqlite.zst"

    def proof(self, at_ms: int, outcome: str, txid: int) -> str:
        return f"{self.proof_dir}{at_ms:013d}-{outcome}-{txid:016x}.json"

    def pin(self, txid: int) -> str:
        return f"{self.pin_dir}{txid:016x}.json"

    def named_pin(self, name: str) -> str:
        """A name begins with a letter, so that no key of :meth:`pin` is one of a name."""
        return f"{self.pin_dir}{name}.json"

    @property
    def pin_dir(self) -> str:
        return f"{self.root}pins/"

    @property
    def proof_dir(self) -> str:
        return f"{self.root}proofs/"

    @property
    def metadata(self) -> str:
        return f"{self.root}metadata.json"

    @property
    def wal_dir(self) -> str:
        return f"{self.root}wal/"

    @property
    def merged_dir(self) -> str:
        return f"{self.root}merged/"

    @property
    def snapshot_dir(self) -> str:
        return f"{self.root}snapshots/"

    def foreign(self, folders: Iterable[str]) -> list[str]:
        """Those of the folders below :attr:`root` that hold nothing of this database."""
        own = {self.wal_dir, self.snapshot_dir, self.merged_dir, self.pin_dir, self.proof_dir}
        return [each for each in folders if each not in own]

    @property
    def root(self) -> str:
        """The common beginning of every key of this database: "" or the prefix and a slash."""
        return f"{self.prefix}/" if self.prefix else ""


def default_prefix(db_path: str | os.PathLike[str]) -> str:
    """The database's file name."""
    return os.path.basename(os.path.abspath(db_path))

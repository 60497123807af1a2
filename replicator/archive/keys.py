"""The names of objects in a bucket, and what a name says.

Owns the layout below a prefix; keys sort in log order because txids are written in 16
hexadecimal digits. A name it did not make is foreign: reported as None, never guessed at.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TypeAlias

ENCRYPTED_SUFFIX = ".age"  # reserved for encryption on the client

_TXID = "[0-9a-f]{16}"
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_WAL = re.compile(rf"wal/({_TXID})\.wal\.zst")
_MERGED = re.compile(rf"merged/(0|[1-9][0-9]?)/({_TXID})-({_TXID})\.wal\.zst")
_PROOF = re.compile(rf"proofs/([0-9]{{13,16}})-([a-z]+)-({_TXID})\.json")
_PIN = re.compile(rf"pins/({_TXID})\.json")
_SNAPSHOT = re.compile(rf"snapshots/({_TXID})-({_UUID})\.sqlite\.zst")


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

    @property
    def root(self) -> str:
        """What every key of this database starts with: "" or the prefix and a slash."""
        return f"{self.prefix}/" if self.prefix else ""


@dataclass(frozen=True, slots=True)
class WalKey:
    key: str
    first_txid: int
    size: int


@dataclass(frozen=True, slots=True)
class MergedKey:
    key: str
    level: int
    first: int
    last: int
    size: int


@dataclass(frozen=True, slots=True)
class SnapshotKey:
    key: str
    txid: int
    generation: str
    size: int


@dataclass(frozen=True, slots=True)
class ProofKey:
    """A note of what was proved or found; no part of the log."""

    key: str
    at_ms: int
    outcome: str
    txid: int


@dataclass(frozen=True, slots=True)
class EncryptedKey:
    """A key of this layout whose object was encrypted before it was stored."""

    key: str
    size: int


ParsedKey: TypeAlias = WalKey | MergedKey | SnapshotKey | EncryptedKey


def parse_key(prefix: str, key: str, size: int) -> ParsedKey | None:
    """What ``key`` names below ``prefix``; None for anything foreign."""
    root = Keys(prefix).root
    if not key.startswith(root):
        return None
    name = key[len(root) :]
    if name.endswith(ENCRYPTED_SUFFIX):
        plain = _parse(name.removesuffix(ENCRYPTED_SUFFIX), key, size)
        return EncryptedKey(key, size) if plain else None
    return _parse(name, key, size)


def parse_proof_key(prefix: str, key: str) -> ProofKey | None:
    """The same for the notes in ``proofs/``."""
    root = Keys(prefix).root
    match = _PROOF.fullmatch(key[len(root) :]) if key.startswith(root) else None
    return ProofKey(key, int(match[1]), match[2], int(match[3], 16)) if match else None


def parse_pin_key(prefix: str, key: str) -> int | None:
    """The txid of a pinned restore point; None for any other key."""
    root = Keys(prefix).root
    match = _PIN.fullmatch(key[len(root) :]) if key.startswith(root) else None
    return int(match[1], 16) if match else None


def _parse(name: str, key: str, size: int) -> ParsedKey | None:
    if match := _WAL.fullmatch(name):
        return WalKey(key, int(match[1], 16), size)
    if match := _MERGED.fullmatch(name):
        return MergedKey(key, int(match[1]), int(match[2], 16), int(match[3], 16), size)
    if match := _SNAPSHOT.fullmatch(name):
        return SnapshotKey(key, int(match[1], 16), match[2], size)
    return None


def default_prefix(db_path: str | os.PathLike[str]) -> str:
    """The database's file name."""
    return os.path.basename(os.path.abspath(db_path))

"""Reads the keys that :mod:`.keys` builds.

A name that does not match the layout exactly is foreign: the answer is None, never a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from replicator.archive.keys import Keys
from replicator.archive.point import is_name
from replicator.format.limits import DEFAULT_FORMAT_LIMITS as LIMITS

ENCRYPTED_SUFFIX = ".age"  # reserved for encryption on the client

_TXID = "[0-7][0-9a-f]{15}"  # no transaction has a larger number, see format/limits.py
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_SEGMENT = re.compile(rf"wal/({_TXID})\.wal\.zst")
_MERGE = re.compile(rf"merged/([1-9][0-9]?)/({_TXID})-({_TXID})\.wal\.zst")
_SNAPSHOT = re.compile(rf"snapshots/({_TXID})-({_UUID})\.sqlite\.zst")
_PROOF = re.compile(rf"proofs/([0-9]{{13,16}})-([a-z]+)-({_TXID})\.json")
_PIN = re.compile(rf"pins/({_TXID})\.json")
_NAMED_PIN = re.compile(r"pins/([A-Za-z][^/]*)\.json")


@dataclass(frozen=True, slots=True)
class SegmentName:
    """An object in ``wal/``. The name holds the first txid only."""

    first: int


@dataclass(frozen=True, slots=True)
class MergeName:
    level: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class SnapshotName:
    txid: int
    generation: str


@dataclass(frozen=True, slots=True)
class ProofName:
    """``at_ms`` is a time in ms since the epoch."""

    at_ms: int
    outcome: str
    txid: int


@dataclass(frozen=True, slots=True)
class PinName:
    txid: int


@dataclass(frozen=True, slots=True)
class NamedPin:
    """A name that users gave a pin. The transaction is in the object."""

    name: str


@dataclass(frozen=True, slots=True)
class EncryptedName:
    """A segment, merge or snapshot that was encrypted before it was stored."""


Record: TypeAlias = ProofName | PinName | NamedPin
Name: TypeAlias = SegmentName | MergeName | SnapshotName | Record | EncryptedName


def parse(keys: Keys, key: str) -> Name | None:
    """The name of an object of this database; None for every foreign key."""
    root = keys.root
    if not key.startswith(root):
        return None
    name = key[len(root) :]
    if name.endswith(ENCRYPTED_SUFFIX):
        plain = _replicated(name.removesuffix(ENCRYPTED_SUFFIX))
        return EncryptedName() if plain else None
    return _replicated(name) or _record(name)


def _replicated(name: str) -> SegmentName | MergeName | SnapshotName | None:
    """Txids begin at 1, and no merge ends before it begins: such a name is foreign."""
    if match := _SEGMENT.fullmatch(name):
        first = int(match[1], 16)
        return SegmentName(first) if first else None
    if match := _MERGE.fullmatch(name):
        level, first, last = int(match[1]), int(match[2], 16), int(match[3], 16)
        return MergeName(level, first, last) if 1 <= first <= last else None
    if match := _SNAPSHOT.fullmatch(name):
        txid = int(match[1], 16)
        return SnapshotName(txid, match[2]) if txid else None
    return None


def _record(name: str) -> Record | None:
    if match := _PROOF.fullmatch(name):
        at_ms, outcome, txid = int(match[1]), match[2], int(match[3], 16)
        return ProofName(at_ms, outcome, txid) if at_ms <= LIMITS.last_ms else None
    if match := _PIN.fullmatch(name):
        return PinName(int(match[1], 16))
    if (match := _NAMED_PIN.fullmatch(name)) and is_name(match[1]):
        return NamedPin(match[1])
    return None

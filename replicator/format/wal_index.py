"""The WAL index as values: how long the WAL is, and how much of it the database contains.

Owns the layout of the first bytes of a ``-shm`` file. Refuses to read one, and to interpret locks.
Source: SQLite documentation, "WAL-mode File Format", 2.1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from replicator.model import WalPosition

INDEX_BYTES = 100  # two copies of the header, then the number of copied frames

_COPY = 48
_VERSION = 3007000
_HEADER = struct.Struct("=IIIBBHI")  # in the byte order of the machine, unlike the salts
_SALTS = struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class WalIndexState:
    """The committed frames of a WAL, and how many of them are copied into the database."""

    salt1: int
    salt2: int
    frames: int
    copied: int

    def same_wal(self, other: WalIndexState) -> bool:
        return (self.salt1, self.salt2) == (other.salt1, other.salt2)

    def ends_at(self, position: WalPosition) -> bool:
        """True if ``position`` is the end of the committed frames."""
        here = position.salt1, position.salt2, position.frame
        return position.frame > 0 and here == (self.salt1, self.salt2, self.frames)

    def all_copied(self, position: WalPosition) -> bool:
        """True if the WAL ends at ``position`` and the database contains all of it."""
        return self.ends_at(position) and self.copied == self.frames


def parse_index(data: bytes) -> WalIndexState | None:
    """None while a writer changes the header, and for an index of another version."""
    if len(data) < INDEX_BYTES or data[:_COPY] != data[_COPY : 2 * _COPY]:
        return None
    version, _, _, initialised, _, _, frames = _HEADER.unpack_from(data)
    if version != _VERSION or not initialised:
        return None
    salt1, salt2 = _SALTS.unpack_from(data, 32)
    (copied,) = struct.unpack_from("=I", data, 2 * _COPY)
    return WalIndexState(salt1, salt2, frames, copied)

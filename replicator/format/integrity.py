"""The seal of an object: a keyed hash of its trailer, for its place.

The trailer holds the SHA-256 of all that comes before it, so the seal covers every byte. It binds
the object to its key in the bucket, and by the header to generation and transactions, and by the
checksums in the trailer to the objects before and after it. Owns the keys and the bytes of the
seal. Refuses to read a file. docs/format.md describes every byte.
Source: RFC 2104 (HMAC); FIPS 180-4 (SHA-256).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.errors import DamageError

if TYPE_CHECKING:  # settings need no numpy
    from replicator.format.buffers import Buffer

REFUSALS = frozenset({"not_sealed", "wrong_seal", "other_key"})  # the codes of a refused seal
SHORTEST_KEY = 32  # bytes
# A skippable frame: its magic, the length of the content; then key id, HMAC, bytes from the trailer
# to the end, end magic.
_SEAL = struct.Struct("<II8s32sI4s")
_FRAME_MAGIC, _CONTENT = 0x184D2A5C, _SEAL.size - 8
_MAGIC = b"RPLK"
_DOMAIN = b"integrity-seal-1\0"
SEAL_SIZE = _SEAL.size


@dataclass(frozen=True, slots=True)
class Integrity:
    """The keys of an archive: the first one seals, all are accepted."""

    keys: tuple[bytes, ...] = field(repr=False)

    def place(self, key: str) -> SealPlace:
        """The object ``key`` of the bucket, to seal."""
        return SealPlace(self, key)

    def check(self, seal: Buffer | None, trailer: Buffer, seek: Buffer, key: str) -> None:
        """``DamageError`` unless the object at ``key`` was sealed with one of the keys."""
        if seal is None:
            raise _refused(key, "it has no seal, and an integrity key is set", "not_sealed")
        _, _, key_id, code, _, _ = _SEAL.unpack(seal)
        for secret in self.keys:
            if _id(secret) == key_id:
                if hmac.compare_digest(code, _code(secret, key, trailer, seek)):
                    return
                reason = "its seal does not match: it is forged, or from another place"
                raise _refused(key, reason, "wrong_seal")
        raise _refused(key, "none of the integrity keys has sealed it", "other_key")


@dataclass(frozen=True, slots=True)
class SealPlace:
    """The key of an object that is being made, and the keys of its archive."""

    integrity: Integrity
    key: str

    def seal(self, trailer: Buffer, seek: Buffer = b"") -> bytes:
        """The frame that ends the object, after ``trailer`` and ``seek`` (whole frames)."""
        secret = self.integrity.keys[0]
        code = _code(secret, self.key, trailer, seek)
        length = len(trailer) + len(seek) + SEAL_SIZE
        return _SEAL.pack(_FRAME_MAGIC, _CONTENT, _id(secret), code, length, _MAGIC)


def place_of(integrity: Integrity | None, key: str) -> SealPlace | None:
    """The place of an object that is being made, if it gets a seal."""
    return None if integrity is None else integrity.place(key)


def seal_length(tail: Buffer) -> int:
    """Bytes of the seal at the end of an object, 0 if there is none."""
    end = memoryview(tail)[-SEAL_SIZE:]
    if len(end) < SEAL_SIZE:
        return 0
    magic, length, _, _, _, last = _SEAL.unpack(end)
    return SEAL_SIZE if (magic, length, last) == (_FRAME_MAGIC, _CONTENT, _MAGIC) else 0


def _refused(key: str, reason: str, code: str) -> DamageError:
    return DamageError(f"{key}: {reason}", key=key, code=code)


def _id(secret: bytes) -> bytes:
    return hashlib.sha256(b"integrity-key-id\0" + secret).digest()[:8]


def _code(secret: bytes, key: str, trailer: Buffer, seek: Buffer) -> bytes:
    place = key.encode()
    found = hmac.new(secret, _DOMAIN + struct.pack("<I", len(place)) + place, hashlib.sha256)
    found.update(trailer)
    found.update(seek)
    return found.digest()

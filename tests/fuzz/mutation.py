"""Changes objects as an attacker would: some bytes, and claims under checksums that are valid.

A mutation that breaks a seal ends at the first checksum. So most mutations are sealed again: the
checksum of the header, the SHA-256 of the data, the checksums of the trailer and the seek table.
"""

import hashlib
import struct

from xxhash import xxh64_intdigest

from tests.helpers.hostile import zeros_frame

MAGICS = (0x184D2A5A, 0x184D2A5B, 0x184D2A5E, 0xFD2FB528)
VALUES = (0, 1, 2, 7, 127, 128, 255, 512, 4096, 65535, 65536, 1 << 20, (1 << 31) - 1, 1 << 31)
VALUES += ((1 << 32) - 1, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
HEADER_FIELDS = (4, 8, 12, 13, 14, 16, 48, 56, 64, 68)
TRAILER_FIELDS = (4, 8, 12, 13, 16, 24, 28, 32, 36, 40, 48, 56, 64, 72, 80, 112)
LONGEST = 1 << 18  # bytes of a mutated input


def mutated(data, others, rng):
    """``data`` after one to four changes; parts of ``others`` may be spliced in."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        rng.choice(CHANGES)(changed, others, rng)
        del changed[LONGEST:]
    if rng.random() < 0.8:
        seal(changed, rng)
    return bytes(changed)


def _place(changed, rng):
    return rng.randrange(len(changed) + 1)


def flip(changed, others, rng):
    if changed:
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)


def overwrite(changed, others, rng):
    width, at = rng.choice((1, 2, 4, 8)), _place(changed, rng)
    value = rng.choice(VALUES) if rng.random() < 0.7 else rng.getrandbits(64)
    changed[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, rng.choice(ENDS))


ENDS = ("little", "big")


def truncate(changed, others, rng):
    at = _place(changed, rng)
    if rng.random() < 0.5:
        del changed[at:]
    else:
        del changed[:at]


def cut(changed, others, rng):
    at = _place(changed, rng)
    del changed[at : at + rng.choice((1, 4, 8, 64, 1000))]


def repeat(changed, others, rng):
    at = _place(changed, rng)
    part = changed[at : at + rng.choice((1, 4, 8, 64, 1000))]
    changed[at:at] = part * rng.choice((1, 2, 50))


def splice(changed, others, rng):
    other, at = rng.choice(others), _place(changed, rng)
    start = rng.randrange(len(other) + 1)
    part = other[start : start + rng.choice((4, 16, 128, len(other)))]
    if rng.random() < 0.5:
        changed[at:at] = part
    else:
        changed[at : at + len(part)] = part


def bomb(changed, others, rng):
    """A zstd frame of much more than its bytes, in any place."""
    at = _place(changed, rng)
    changed[at:at] = zeros_frame(rng.choice((1, 4096, 1 << 20, 1 << 24, 1 << 28)))


def claim_in_header(changed, others, rng):
    _claim(changed, 0, HEADER_FIELDS, rng)


def claim_in_trailer(changed, others, rng):
    at = trailer_offset(changed)
    if at is not None:
        _claim(changed, at, TRAILER_FIELDS, rng)


def claim_in_end(changed, others, rng):
    """The length of the trailer, the number of blocks, or their sizes."""
    _claim(changed, max(0, len(changed) - rng.choice((4, 8, 9, 13, 17, 21, 25))), (0,), rng)


def _claim(changed, base, offsets, rng):
    at, width = base + rng.choice(offsets), rng.choice((1, 2, 4, 4, 8))
    if at + width <= len(changed):
        old = int.from_bytes(changed[at : at + width], "little")
        value = rng.choice((*VALUES, old + 1, old - 1, old * 2, old ^ 1))
        changed[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")


CHANGES = (
    flip,
    flip,
    overwrite,
    overwrite,
    truncate,
    cut,
    repeat,
    splice,
    bomb,
    claim_in_header,
    claim_in_header,
    claim_in_trailer,
    claim_in_trailer,
    claim_in_trailer,
    claim_in_end,
)


def trailer_offset(data):
    """The offset of the trailer frame, if the end of the data leads to one."""
    end = len(data) - seek_length(data)
    if end < 16 or bytes(data[end - 4 : end]) != b"RPLE":
        return None
    length = int.from_bytes(data[end - 8 : end - 4], "little")
    return end - length if 128 <= length <= end else None


def seek_length(data):
    """The length of the seek table at the end, 0 if there is none."""
    if len(data) < 17 or bytes(data[-4:]) != struct.pack("<I", 0x8F92EAB1):
        return 0
    length = 8 + 8 * int.from_bytes(data[-9:-5], "little") + 9
    return length if length <= len(data) else 0


def seal(data, rng):
    """Make the checksums match, as far as the parts can still be found."""
    header = 8 + int.from_bytes(data[4:8], "little")
    if 80 <= header <= min(len(data), 256):
        data[header - 8 : header] = struct.pack("<Q", xxh64_intdigest(bytes(data[: header - 8])))
    at = trailer_offset(data)
    if at is None:
        return
    end = len(data) - seek_length(data)
    if seek_length(data):
        data[at + 64 : at + 72] = struct.pack("<Q", xxh64_intdigest(bytes(data[end:])))
    if rng.random() < 0.8 and data[at + 12] == 1:
        data[at + 80 : at + 112] = hashlib.sha256(bytes(data[:at])).digest()
    frame = bytes(data[at : end - 16])
    data[end - 16 : end - 8] = struct.pack("<Q", xxh64_intdigest(frame))

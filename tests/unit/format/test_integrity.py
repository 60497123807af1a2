"""format/integrity.py: the seal of an object covers every byte of it, and its place."""

import hashlib
import hmac
import struct

import pytest
from xxhash import xxh64_intdigest

from replicator.errors import DamageError
from replicator.format.envelope import read_tail
from replicator.format.integrity import SEAL_SIZE, Integrity
from replicator.format.segment import SegmentDecoder, generation_marker
from replicator.format.snapshot_blocks import SnapshotEncoder, compress_block
from replicator.model import Kind
from tests.helpers.errors import raises
from tests.helpers.sample_objects import OBJECTS, STATE, decode_any, header, stock
from tests.helpers.seals import OTHERS, OURS, parts, with_seal

PLACE = "app.db/wal/0000000000000005.wal.zst"
CODES = ("wrong_seal", "contradiction", "beyond_limits", "undecodable")
every_kind = pytest.mark.parametrize("kind", list(OBJECTS))


def checked(body, key=PLACE, integrity=OURS):
    """Reads the tail as a reader with keys does."""
    return read_tail(body, len(body), key, integrity)


@every_kind
def test_a_seal_is_no_matter_for_readers_without_a_key(kind):
    """Stock zstd and a reader without keys find the same content; the seal adds 56 bytes."""
    body = OBJECTS[kind]()
    sealed = with_seal(body, PLACE)
    assert sealed[: len(body)] == body
    assert len(sealed) == len(body) + SEAL_SIZE == len(body) + 56
    assert stock(sealed) == stock(body)
    assert decode_any(sealed, PLACE)[-1] == decode_any(body, PLACE)[-1]
    assert checked(sealed).sealed


@every_kind
@pytest.mark.parametrize(
    ("forge", "code"),
    [
        (lambda body: body, "not_sealed"),
        (lambda body: with_seal(body, PLACE, OTHERS), "other_key"),
        (lambda body: with_seal(body, PLACE.replace("app", "other")), "wrong_seal"),
        (lambda body: with_seal(body, PLACE.replace("5", "6")), "wrong_seal"),
    ],
)
def test_another_seal_is_refused(kind, forge, code):
    """No seal, one by another key, and one for another database or another name."""
    with raises(DamageError, code=code, key=PLACE):
        checked(forge(OBJECTS[kind]()))


@every_kind
def test_a_forged_trailer_is_refused(kind):
    """The attacker computes every checksum of an object anew; he cannot compute the seal."""
    body = OBJECTS[kind]()
    data, trailer, seek = parts(body, PLACE)
    seal = with_seal(body, PLACE)[len(body) :]
    for at in range(16, 112):  # each field after the kind
        if 36 <= at < 44 or 64 <= at < 72:  # lengths, and the sum of the seek table
            continue
        forged = bytearray(trailer)
        forged[at] ^= 1
        forged[-16:-8] = struct.pack("<Q", xxh64_intdigest(bytes(forged[:-16])))
        whole = data + bytes(forged) + seek + seal
        with pytest.raises(DamageError) as caught:
            checked(whole)
        assert caught.value.code in (
            "wrong_seal",
            "contradiction",
            "beyond_limits",
            "undecodable",
        ), at
    assert checked(data + trailer + seek + seal).sealed


def test_forged_data_is_refused():
    """The data is bound by the SHA-256 in the trailer."""
    sealed = with_seal(OBJECTS["segment"](), PLACE)
    decoder = SegmentDecoder(PLACE, integrity=OURS)
    decoder.feed(sealed)
    assert decoder.finish().size == len(sealed)
    decoder = SegmentDecoder(PLACE, integrity=OTHERS)
    decoder.feed(sealed)
    with raises(DamageError, code="other_key"):
        decoder.finish()


def test_keys_are_changed_by_a_list_of_them():
    """The first key seals, all are accepted."""
    body = OBJECTS["segment"]()
    both = Integrity((*OTHERS.keys, *OURS.keys))
    assert checked(with_seal(body, PLACE, OURS), integrity=both).sealed
    new = with_seal(body, PLACE, both)
    assert checked(new, integrity=OTHERS).sealed
    with raises(DamageError, code="other_key"):
        checked(new, integrity=OURS)


def test_the_seal_is_what_the_page_on_the_format_describes():
    """Computed anew from docs/format.md."""
    body = OBJECTS["segment"]()
    _, trailer, _ = parts(body, PLACE)
    secret = OURS.keys[0]
    text = b"integrity-seal-1\0" + struct.pack("<I", len(PLACE)) + PLACE.encode() + trailer
    content = (
        hashlib.sha256(b"integrity-key-id\0" + secret).digest()[:8]
        + hmac.new(secret, text, hashlib.sha256).digest()
        + struct.pack("<I", len(trailer) + 56)
        + b"RPLK"
    )
    assert with_seal(body, PLACE) == body + struct.pack("<II", 0x184D2A5C, 48) + content


def test_encoders_seal_what_they_make():
    """The same bytes as without a place, and then the seal."""
    marker, _ = generation_marker(header(Kind.GENERATION), state=STATE)
    sealed, summary = generation_marker(
        header(Kind.GENERATION), state=STATE, place=OURS.place(PLACE)
    )
    assert sealed == with_seal(marker, PLACE)
    assert summary.size == len(sealed)
    assert summary.sha256 == hashlib.sha256(sealed).hexdigest()
    encoders = [
        SnapshotEncoder(header(Kind.SNAPSHOT), place) for place in (None, OURS.place(PLACE))
    ]
    bodies = []
    for encoder in encoders:
        body = encoder.start() + encoder.add(compress_block(bytes(9 * 512), 3))
        rest, summary = encoder.finish(last_txid=5, state=STATE)
        bodies.append(body + rest)
        assert summary.size == len(body + rest)
    assert bodies[1] == with_seal(bodies[0], PLACE)

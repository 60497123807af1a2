"""The proof of a snapshot's data: the same for pieces of any size, and for nothing else."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from replicator.errors import DamageError
from replicator.format.envelope import read_tail
from replicator.format.object_header import FORMAT_VERSION
from replicator.format.snapshot_blocks import SnapshotProof
from tests.helpers.errors import raises
from tests.helpers.sample_objects import KEY, small_snapshot

OLD = Path(__file__).parents[2] / "fixtures" / "format-v1" / "snapshot.zst"


@pytest.fixture(params=[1, 2])
def snapshot(request):
    """The bytes before the trailer, and the tail, of either format."""
    data = OLD.read_bytes() if request.param == FORMAT_VERSION else small_snapshot()[0]
    tail = read_tail(data, len(data), KEY)
    assert (tail.trailer.blocks is None) == (request.param == FORMAT_VERSION)
    return data[: tail.trailer_offset], tail


def prove(data, tail, size=1 << 20):
    proof = SnapshotProof(tail, KEY)
    for at in range(0, len(data), size):
        proof.update(data[at : at + size])
    proof.update(b"")
    proof.finish()


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_pieces_of_any_size(snapshot, size):
    """Cut anywhere, also within the header and across frames."""
    prove(*snapshot, size)


def test_every_bit_counts(snapshot):
    """Of the header and of the frames; the error names the object."""
    data, tail = snapshot
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        with raises(DamageError, "checksum_mismatch", key=KEY):
            prove(damaged, tail)


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_more_or_less_is_damage(snapshot, size):
    """A proof that was given too little, or bytes behind the last frame."""
    data, tail = snapshot
    for wrong in (data[:-1], b"", data + b"x", tail.seek and data[: tail.seek[-1].offset]):
        with pytest.raises(DamageError):
            prove(wrong, tail, size)


def test_a_list_that_was_made_to_fit_is_not_believed():
    """The SHA-256 in the trailer is over the list, so a frame and its entry cannot change
    together."""
    data, _, _ = small_snapshot()
    tail = read_tail(data, len(data), KEY)
    entry, frames = tail.seek[0], tail.trailer.blocks
    forged = bytearray(data[: tail.trailer_offset])
    forged[entry.offset + 20] ^= 1
    frame = forged[entry.offset : entry.offset + entry.compressed]
    packed = hashlib.sha256(frame).digest() + frames.packed[32:]
    trailer = replace(tail.trailer, blocks=replace(frames, packed=packed))
    with pytest.raises(DamageError):
        prove(bytes(forged), replace(tail, trailer=trailer))

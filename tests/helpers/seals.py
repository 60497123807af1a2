"""Seals of objects that were made without, and keys for tests."""

from replicator.format.envelope import Tail, read_tail
from replicator.format.integrity import SEAL_SIZE, Integrity

OURS = Integrity((b"a" * 32,))
OTHERS = Integrity((b"b" * 32,))


def parts(body, key):
    """(data, trailer, seek table) of an object, without its seal."""
    tail = read_tail(body, len(body), key)
    assert isinstance(tail, Tail)
    body = body[:-SEAL_SIZE] if tail.sealed else body
    end = tail.trailer_offset + 8 + int.from_bytes(body[tail.trailer_offset + 4 :][:4], "little")
    return body[: tail.trailer_offset], body[tail.trailer_offset : end], body[end:]


def with_seal(body, key, integrity=OURS):
    """The object with a seal for ``key``."""
    data, trailer, seek = parts(body, key)
    return data + trailer + seek + integrity.place(key).seal(trailer, seek)


def seal_all(store, integrity=OURS):
    """Seal every object of the store. The sizes and the SHA-256 in the metadata stay as they were:
    with keys, no reader believes them."""
    for info in list(store.list("")):
        body = store.get(info.key)
        metadata = store.head(info.key).metadata
        sealed = with_seal(body, info.key, integrity)
        store.put(info.key, sealed, metadata=metadata, if_absent=False)

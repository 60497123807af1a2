"""One target for each parser of bytes from a bucket, a cache or a control socket.

A target takes any bytes. It returns, or raises one of its documented errors; every other exception
is a defect. `SEEDS` gives the valid inputs that mutations begin with.
"""

import io
import json
import random
from functools import cache
from types import SimpleNamespace

import numpy as np

from replicator.archive.index import Index
from replicator.archive.keys import Keys
from replicator.archive.listing import to_object
from replicator.archive.names import parse
from replicator.archive.reachable import restorable, trust
from replicator.archive.timespec import to_text
from replicator.errors import ReplicatorError, Unreadable, from_dict
from replicator.format import zstd
from replicator.format.bounded_json import parse_json, text_fields
from replicator.format.buffers import page_numbers
from replicator.format.database import parse_database_header
from replicator.format.envelope import Tail, read_header, read_tail
from replicator.format.latest_pages import Overlay
from replicator.format.object_header import parse_metadata
from replicator.format.page_hashes import PageHashes
from replicator.format.printable import printable
from replicator.format.segment import SegmentDecoder, decode_segment, generation_marker
from replicator.format.snapshot_blocks import decode_block, decode_snapshot
from replicator.format.wal import FrameBuilder, newest, parse_header, scan, transaction_ends
from replicator.model import Kind
from replicator.recovery.limits import DEFAULT_LIMITS
from replicator.recovery.partial import _parse, _parts
from replicator.recovery.plan import newest_reachable, plan
from replicator.recovery.segment import load_segment
from replicator.recovery.snapshot import page_size_of
from replicator.sidecar.control_client import checked
from replicator.sidecar.control_server import ControlSocket, _answers_of
from replicator.store.base import ObjectInfo
from tests.fuzz.whole_archive import archive, archive_seeds, forged_log, forged_seeds
from tests.helpers.sample_objects import (
    GENERATION,
    KEY,
    STATE,
    encoded,
    header,
    small_segment,
    small_snapshot,
    wal,
)

MOST_PAGES = 1 << 16  # of an overlay that a target builds; a restore compares it with the disk


def object_header(data):
    read_header(data, KEY)


def object_tail(data):
    """From the whole object and from its last bytes alone."""
    for part in (data, data[-64:]):
        tail = read_tail(part, len(data), KEY)
        if isinstance(tail, Tail):
            trailer = tail.trailer
            assert len(trailer.commit_frames) + len(trailer.commit_times_ms) <= 1 << 18
            assert sum(entry.raw for entry in tail.seek or ()) >= 0
            if trailer.commit_times_ms:
                to_text(trailer.commit_times_ms[-1])


def segment(data):
    """In pieces of odd sizes, with every frame scanned, as a restore reads it."""
    step = 1 + len(data) % 977
    found = load_segment(
        KEY, lambda: (data[at : at + step] for at in range(0, len(data), step)), in_memory=1 << 20
    )
    assert len(found.index) in (0, found.trailer.last_txid - found.header.first_txid + 1)
    if found.trailer.pages <= MOST_PAGES:
        overlay = Overlay(found.header.page_size, found.trailer.pages)
        chosen = overlay.choose(found.frames, found.frames.count)
        for first, part, _ in found.chunks():
            for _ in chosen.images(part, first):
                pass


def whole_segment(data):
    decode_segment(data, KEY)


def snapshot(data):
    decode_snapshot(data, KEY)


def snapshot_parts(data):
    """Each block alone, as a restore reads it."""
    tail = read_tail(data, len(data), KEY)
    if isinstance(tail, Tail):
        item = SimpleNamespace(key=KEY, txid=5, generation=GENERATION)
        page_size_of(item, tail, DEFAULT_LIMITS)
        for entry in tail.seek or ():
            decode_block(data[entry.offset : entry.offset + entry.compressed], entry, KEY)


def zstd_stream(data):
    """At most two megabytes at a time, whatever the frame holds."""
    decoder = SegmentDecoder(KEY)
    for piece in decoder._stream.feed(data):
        assert len(piece) <= 2 << 20
        if decoder._payload > 64 << 20:
            return
        decoder._payload += len(piece)


def zstd_frame(data):
    assert len(zstd.decompress_frame(data, 1 << 20)) <= 1 << 20


def wal_file(data):
    """Header and frames, the newest images, and the transactions."""
    found = parse_header(data)
    if found is not None:
        frames = scan(data[32:], found.start())
        newest(frames, frames.count)
        assert len(transaction_ends(frames, frames.count)) <= frames.count


def database_header(data):
    parse_database_header(data)


def page_hashes(data):
    PageHashes.from_bytes(data)


def metadata(data):
    """Of an object in the store; the values of the JSON stand for those of a HEAD."""
    found = parse_metadata(text_fields(parse_json(data)))
    if found is not None:
        to_text(found.last_ms)
        assert max(found.first_txid, found.last_txid) < 1 << 63


def json_document(data):
    json.dumps(parse_json(data), ensure_ascii=False).encode()


def control_answer(data):
    for command in ("status", "flush", "snapshot", "metrics"):
        checked(command, parse_json(data))


def control_error(data):
    document = parse_json(data)
    if isinstance(document, dict):
        printable(str(from_dict(document)))
        json.dumps(from_dict(document).to_dict())


@cache
def _server():
    replicator = SimpleNamespace(
        flush=lambda timeout, snapshot: STATE,
        repair=lambda timeout, reason: STATE,
        snapshot=lambda timeout: 1,
        look_at_proofs=lambda: None,
        status=lambda: STATE,
        metrics=SimpleNamespace(snapshot=dict),
    )
    return SimpleNamespace(_answers=_answers_of(replicator))


def control_request(data):
    json.dumps(ControlSocket._reply(_server(), data))


def kept_parts(data):
    """The list of parts that an earlier restore left beside its output."""
    lines = data.splitlines()
    if lines:
        _parse(lines[0])
        dict(_parts(lines[1:]))


def names(data):
    """Keys of a bucket, one a line: read back, judged, and planned with."""
    keys = Keys("app.db")
    found = []
    for line in io.BytesIO(data):
        key = line.rstrip(b"\n").decode(errors="surrogateescape")
        name = parse(keys, key)
        item = None if name is None else to_object(name, ObjectInfo(key, 100, 0))
        if item is not None:
            found.append(item)
    index = Index.of({item.key: item for item in found}.values())
    trust(index)
    restorable(index)
    for txid in (None, 5):
        for make in (plan, newest_reachable):
            try:
                make(index, txid)
            except ReplicatorError:
                continue


def text(data):
    shown = printable(data.decode(errors="surrogateescape"))
    assert shown.isprintable()
    shown.encode()


TARGETS = {
    target.__name__: target
    for target in (
        object_header,
        object_tail,
        segment,
        whole_segment,
        snapshot,
        snapshot_parts,
        zstd_stream,
        zstd_frame,
        wal_file,
        database_header,
        page_hashes,
        metadata,
        json_document,
        control_answer,
        control_error,
        control_request,
        kept_parts,
        names,
        text,
        archive,
        forged_log,
    )
}

# Errors that each target documents; all but these accept any bytes.
DAMAGE = {
    "object_header",
    "object_tail",
    "segment",
    "whole_segment",
    "snapshot",
    "snapshot_parts",
    "zstd_stream",
    "zstd_frame",
    "names",
}
JSON = {"metadata", "json_document", "control_answer", "control_error"}


def errors_of(name):
    """The exceptions that a target may raise."""
    if name in DAMAGE:
        return (Unreadable,)
    if name == "archive":
        return (ReplicatorError,)
    if name == "control_answer":
        return (ValueError, ReplicatorError)
    return (ValueError,) if name in JSON else ()


# ------------------------------------------------------------------------------------- seeds


@cache
def _objects():
    rng = random.Random(1)
    frames = [rng.randrange(1, 4) for _ in range(40)]
    times = sorted(1_700_000_000_000 + rng.randrange(10**6) for _ in frames)
    marker = generation_marker(header(Kind.GENERATION), state=STATE)[0]
    merge = encoded(wal(3, 3), (), (1_700_000_000_001,) * 2, last=9, kind=Kind.MERGE_NEWEST)[0]
    large = encoded(wal(2, 2, page_size=4096), (2, 2), (5, 6), page_size=4096)[0]
    return (
        small_segment()[0],
        encoded(wal(*frames), frames, times)[0],
        marker,
        merge,
        large,
        small_snapshot()[0],
        small_snapshot(frame_pages=1)[0],
    )


@cache
def _frames():
    stream = zstd.StreamCompressor(3, 20)
    streamed = stream.compress(random.Random(2).randbytes(300) * 3000) + stream.finish()
    return (
        streamed,
        zstd.compress_frame(b"abc" * 1000, 3),
        zstd.compress_frame(b"", 3),
        zstd.skippable_frame(0xA, b"hello"),
    )


@cache
def _wals():
    big = FrameBuilder(512, salts=(7, 8), big_endian=True)
    swapped = big.header + big.feed(page_numbers(1, 2), bytes(1024), commit=2)
    return wal(2, 1, 3), wal(1, page_size=4096), swapped


@cache
def _names():
    keys = Keys("app.db")
    made = [keys.wal(n) for n in (1, 2, 5, 9)]
    made += [keys.merged(1, 2, 4), keys.merged(2, 2, 8), keys.snapshot(1, GENERATION)]
    made += [keys.snapshot(5, GENERATION), keys.pin(3), keys.proof(10**12, "proven", 2)]
    return "\n".join([*made, keys.metadata, "app.db/wal/junk"]).encode(), made[-1].encode()


@cache
def _documents():
    status = {"answer": {"generation": GENERATION, "txid": 7}}
    error = {"error": "gone", "kind": "GapError", "code": "gap", "restorable": [1, 2], "hint": ""}
    values = (
        small_segment()[1].metadata(),
        small_snapshot()[1].metadata(),
        {"txid": 3, "note": "before the migration"},
        status,
        error,
        {"error": error},
        {"command": "flush", "timeout": 3.5, "snapshot": True},
        {"command": "status"},
        {"page": 1, "hashes": "AAAAAAAAAAA="},
        [[[[1]]], None, True, "\ud83d\ude00"],
    )
    return tuple(json.dumps(value).encode() for value in values)


def _hashes():
    found = PageHashes(512)
    found.extend(1, random.Random(3).randbytes(512 * 9))
    return found.to_bytes()


def _database():
    page = bytearray(b"SQLite format 3\0" + bytes(496))
    page[16:20] = b"\x02\x00\x02\x02"
    return bytes(page)


def seeds(name):
    """Valid inputs for a target."""
    if name in ("object_header", "object_tail", "segment", "whole_segment", "snapshot"):
        return _objects()
    return {
        "snapshot_parts": _objects,
        "zstd_stream": _frames,
        "zstd_frame": _frames,
        "wal_file": _wals,
        "database_header": lambda: (_database(),),
        "page_hashes": lambda: (_hashes(),),
        "names": _names,
        "archive": archive_seeds,
        "forged_log": forged_seeds,
        "text": lambda: (*_names(), *_documents(), np.arange(256, dtype=np.uint8).tobytes()),
    }.get(name, _documents)()

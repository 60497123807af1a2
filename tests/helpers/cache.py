"""Segments for tests of the cache: small, and with every field different from its default."""

import dataclasses
import hashlib
import os
import sqlite3

from replicator.cache.cache import Cache
from replicator.cache.records import Delivery, Fact, SegmentRecord
from replicator.format.page_hashes import PageHashes
from replicator.model import DatabaseState, Kind, WalPosition

PAGE_SIZE = 512
DELIVERY = {field.name for field in dataclasses.fields(Delivery)}


def content(first, last=None):
    return b"segment %d to %d" % (first, last or first) * 3


def record(first, last=None, *, data=None, **values):
    """A record whose numbers all follow from its txids; ``values`` may be of its delivery."""
    last = last or first
    data = content(first, last) if data is None else data
    settings = {
        "first_txid": first,
        "last_txid": last,
        "generation": "0190-gen",
        "kind": Kind.SEGMENT,
        "key": f"app.db/wal/{first:016x}.wal.zst",
        "size": len(data),
        "raw_bytes": 4128 * last,
        "sha256": hashlib.sha256(data).hexdigest(),
        "end": WalPosition(2**32 - first, last, first, (7, 2**32 - 1), first % 2 == 0, 4096),
        "state": DatabaseState(last, 2**64 - last),
        "checksum_before": 2**63 + first,
        "first_commit_ms": 1000 + first,
        "commit_ms": 1000 + last,
        "created_ms": 2000 + last,
        "metadata": {"kind": "segment", "note": "é\n"},
    }
    settings["delivery"] = Delivery(**{k: values.pop(k) for k in DELIVERY & set(values)})
    return SegmentRecord(**settings | values)


def add(cache, first, last=None, **options):
    """Capture one segment."""
    values = options.pop("values", {})
    return commit(cache, content(first, last), record(first, last, **values), **options)


def commit(cache, data, segment, **options):
    """Write ``data`` as the file of the record ``segment``, and commit both."""
    file = cache.create_segment()
    file.write(data)
    cache.commit(file, segment, **options)
    return segment


def upload(cache, first, at_ms=9000):
    cache.uploading(first)
    return cache.uploaded(first, at_ms)


def page(number):
    return bytes([number % 251]) * PAGE_SIZE


def hashes_of(count):
    """The hashes of ``count`` different pages."""
    hashes = PageHashes(PAGE_SIZE)
    hashes.extend(1, b"".join(page(number) for number in range(1, count + 1)))
    return hashes


def reopened(cache):
    cache.close()
    return Cache.open(cache.directory)


def txids(records):
    return [r.first_txid for r in records]


def files_in(directory):
    """The names of the segment files of a cache directory."""
    return sorted(os.listdir(directory / "segments"))


def query(directory, sql, *parameters):
    """One statement on the ledger of a closed cache, by a connection of its own."""
    db = sqlite3.connect(directory / "state.db", isolation_level=None)
    rows = db.execute(sql, parameters).fetchall()
    db.close()
    return rows


def assert_set_aside(directory, reason, number=1):
    """The next opening sets the ledger aside for this reason, and the cache starts empty."""
    with Cache.open(directory) as cache:
        assert cache.head() is cache.get(Fact.DATABASE) is None
        assert reason in cache.recovered[0]
        assert "set aside" in cache.recovered[0]
        assert files_in(directory) == []
        assert (directory / f"state.db.corrupt-{number}").exists()
        add(cache, 1)
    with Cache.open(directory) as cache:
        assert cache.recovered == []
        assert cache.head().first_txid == 1

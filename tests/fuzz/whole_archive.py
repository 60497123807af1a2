"""A target for the readers of a whole archive: one object is replaced by any bytes.

The first byte of an input selects the object, the second what is done with the archive, the rest
are the object's bytes. A restored file must be an exact state of the database.
"""

import contextlib
import struct
import tempfile
from functools import cache
from pathlib import Path

from replicator import restore
from replicator.errors import ReplicatorError
from replicator.format.buffers import page_numbers
from replicator.format.envelope import read_header, read_tail
from replicator.format.segment import SegmentEncoder
from replicator.format.wal import FrameBuilder
from replicator.inspect.history import history
from replicator.inspect.transactions import transactions
from replicator.model import DatabaseState
from replicator.verify.verify import verify
from tests.helpers.bucket import BucketBuilder

PREFIX = "app.db"


class WholeArchive:
    """A small archive with one object of each kind in memory, and a path to restore to."""

    def __init__(self, directory):
        self.output = directory / "o"
        self.built = BucketBuilder(directory, page_size=512)
        for count in (2, 1):
            self._cut(count)
        self.built.snapshot()
        for count in (1, 2):
            self._cut(count)
        self.built.merge(2, 4)
        self.built.merge_newest(5, 7)
        self.saved = {
            key: (self.built.store.get(key), self.built.store.head(key).metadata)
            for key in self.built.objects()
        }

    def _cut(self, inserts):
        for _ in range(inserts):
            self.built.insert(1, 10)
        self.built.cut()

    def restored(self, **options):
        report = restore(store=self.built.store, prefix=PREFIX, output=self.output, **options)
        if report is not None and not options.get("dry_run"):
            assert self.output.read_bytes() == self.built.images[report.txid], "a wrong file"
            self.output.unlink()

    def uses(self):
        store = self.built.store
        return (
            lambda: self.restored(dry_run=True),
            self.restored,
            lambda: self.restored(allow_older=True),
            lambda: self.restored(txid=4),
            lambda: self.restored(timestamp="1 hour ago", dry_run=True),
            lambda: list(transactions(store, PREFIX)),
            lambda: history(store, PREFIX, url="memory://"),
            lambda: verify(store, PREFIX),
            lambda: verify(store, PREFIX, data=True),
        )


@cache
def _archive():
    directory = Path(tempfile.mkdtemp(prefix="replicator-fuzz-"))
    return WholeArchive(directory)


def archive(data):
    """Replaces the object, uses the archive, and puts the object back."""
    whole = _archive()
    keys = sorted(whole.saved)
    key = keys[data[0] % len(keys)] if data else keys[0]
    body, metadata = whole.saved[key]
    uses = whole.uses()
    try:
        whole.built.store.put(key, data[2:], metadata=metadata, if_absent=False)
        uses[data[1] % len(uses) if len(data) > 1 else 0]()
    finally:
        whole.built.store.put(key, body, metadata=metadata, if_absent=False)


def forged_log(data):
    """Replaces the newest segment by frames with valid checksums and any page numbers, sizes and
    claims, which the bytes give; then restores its end and a transaction inside."""
    whole = _archive()
    built, key = whole.built, max(key for key in whole.saved if "/wal/" in key)
    body, metadata = whole.saved[key]
    numbers = [value for (value,) in struct.iter_unpack("<I", data[: len(data) // 4 * 4])][:200]
    found = read_header(body, key)[0]
    last = read_tail(body, len(body), key).trailer
    builder = FrameBuilder(found.page_size, salts=(3, 4))
    payload, per_commit, count = builder.header, [], 0
    for pgno, commit in zip(numbers[2::2], numbers[3::2], strict=False):
        size = commit % 64 if commit & 64 else commit if commit & 128 else 0
        payload += builder.feed(page_numbers(pgno or 1), bytes(512), commit=size)
        count += 1
        if size:
            per_commit.append(count)
            count = 0
    pages = numbers[0] if numbers else last.pages
    encoder = SegmentEncoder(found, level=1)
    start = encoder.start() + encoder.write(payload)
    try:
        rest, summary = encoder.finish(
            last_txid=found.first_txid + len(per_commit) - 1,
            state=DatabaseState(pages, last.checksum_after),
            before=last.checksum_before,
            commit_frames=per_commit,
            commit_times_ms=range(len(per_commit)),
        )
    except ValueError:  # the encoder refuses frames after the last commit
        return
    try:
        built.store.put(key, start + rest, metadata=summary.metadata(), if_absent=False)
        for options in ({}, {"txid": found.first_txid}, {"allow_older": True}):
            with contextlib.suppress(ReplicatorError):
                restore(store=built.store, prefix=PREFIX, output=whole.output, **options)
            whole.output.unlink(missing_ok=True)
    finally:
        built.store.put(key, body, metadata=metadata, if_absent=False)


def forged_seeds():
    """Page numbers and sizes as a database has them, and one that grows beyond every disk."""
    small = struct.pack("<6I", 9, 0, 1, 64 + 9, 2, 64 + 9)
    return small, struct.pack("<6I", 0xFFFFFFBF, 0, 1, 64 + 9, 2, 0xFFFFFFBF)


def archive_seeds():
    """Each object under each use."""
    whole = _archive()
    return tuple(
        bytes([at, use]) + whole.saved[key][0]
        for at, key in enumerate(sorted(whole.saved))
        for use in range(len(whole.uses()))
    )

"""Builds an archive from a real SQLite database with the format encoders, without a replicator.

``BucketBuilder`` runs transactions on a database in WAL mode, reads the real WAL, and writes
segments, snapshots, generations and merges as the design specifies. ``images`` holds the database
after every txid, assembled by a plain reader of the WAL that shares no code with the project.
"""

import sqlite3
import struct
import uuid
from pathlib import Path

import numpy as np

from replicator.archive.keys import Keys
from replicator.format.object_header import ObjectHeader
from replicator.format.page_hashes import PageHashes
from replicator.format.segment import SegmentEncoder, decode_segment, generation_marker
from replicator.format.snapshot_blocks import SnapshotEncoder, compress_block
from replicator.format.wal import FrameBuilder, Rebaser, parse_header, scan
from replicator.model import DatabaseState, Kind
from replicator.store.memory import MemoryStore
from tests.helpers.page_hashes import apply_frames

EPOCH_MS = 1_700_000_000_000


def commit_ms(txid):
    """Simulated commit times, ten seconds apart."""
    return EPOCH_MS + 10_000 * txid


def plain_state(image, log):
    """The database that SQLite would recover from an image and its WAL."""
    if len(log) < 32:
        return image
    page_size = struct.unpack(">I", log[8:12])[0]
    salts = log[16:24]
    pages = {
        n + 1: image[n * page_size : (n + 1) * page_size] for n in range(len(image) // page_size)
    }
    pending, size = {}, len(pages)
    for at in range(32, len(log) - 24 - page_size + 1, 24 + page_size):
        if log[at + 8 : at + 16] != salts:
            break
        pgno, commit = struct.unpack(">II", log[at : at + 8])
        pending[pgno] = log[at + 24 : at + 24 + page_size]
        if commit:
            pages.update(pending)
            pages = {n: page for n, page in pages.items() if n <= commit}
            pending, size = {}, commit
    return b"".join(pages.get(n, bytes(page_size)) for n in range(1, size + 1))


class BucketBuilder:
    """One database and its prefix in a store. Every ``run`` is one transaction."""

    def __init__(
        self,
        directory,
        store=None,
        *,
        prefix="app.db",
        page_size=4096,
        auto_vacuum=False,
        when=commit_ms,
    ):
        self.store = store if store is not None else MemoryStore()
        self.keys = Keys(prefix)
        self.prefix = prefix
        self.page_size = page_size
        self.path = Path(directory) / "source.db"
        self.images = {}
        self.txid = 0
        self.first = None
        self._when = when
        self._db = sqlite3.connect(self.path, isolation_level=None)
        self._db.execute(f"PRAGMA page_size={page_size}")
        self._db.execute(f"PRAGMA auto_vacuum={'FULL' if auto_vacuum else 'NONE'}")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA wal_autocheckpoint=0")
        self._db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
        self._restart_log()
        self.start_generation()

    def close(self):
        self._db.close()

    # ------------------------------------------------------------------ the application

    def run(self, *statements):
        """One transaction; returns its txid."""
        if len(statements) == 1:
            self._db.execute(statements[0])
        else:
            self._db.execute("BEGIN")
            for statement in statements:
                self._db.execute(statement)
            self._db.execute("COMMIT")
        self.txid += 1
        self.images[self.txid] = plain_state(self._base, self._log())
        return self.txid

    def insert(self, rows=1, size=300):
        return self.run(
            "INSERT INTO t(body) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT "
            f"i+1 FROM n WHERE i < {rows}) SELECT randomblob({size}) FROM n"
        )

    def delete_all_and_shrink(self):
        self.run("DELETE FROM t")
        return self.run("VACUUM")

    # ------------------------------------------------------------- the replicator

    def cut(self, *, metadata=True, kind=Kind.SEGMENT, put=True):
        """Everything since the last cut as one segment; returns its key."""
        log = self._log()
        base = self._position or parse_header(log[:32]).start()
        offset = 32 + base.frame * (self.page_size + 24)
        data = log[offset:]
        frames = scan(data, base)
        count = frames.committed
        rebaser = Rebaser(base)
        payload = rebaser.header + rebaser.feed(data, frames, count)
        ends = np.flatnonzero(frames.commits[:count]) + 1
        per_commit = np.diff(ends, prepend=0).tolist()
        first, last = self.first, self.first + len(per_commit) - 1
        assert last == self.txid
        before = self._hashes.checksum
        apply_frames(self._hashes, frames, count, data)
        key = self.keys.wal(first)
        body, summary = self.encode(
            kind,
            first,
            last,
            payload,
            self._hashes.state,
            before,
            per_commit,
            [self._when(txid) for txid in range(first, last + 1)],
        )
        if put:
            self.put(key, body, summary.metadata() if metadata else None)
        self._position = frames.position(base, count)
        self.first = last + 1
        return key

    def squash(self):
        """Everything since the last cut as one step without restore points."""
        key = self.cut(put=False)
        first = int(key.split("/")[-1][:16], 16)
        return self._put_newest(key, first, self.txid)

    def snapshot(self, *, metadata=True, frame_bytes=None, image=None, generation=None):
        """The database after the newest transaction; returns the key."""
        image = self.images[self.txid] if image is None else image
        key = self.keys.snapshot(self.txid, generation or self.generation)
        hashes = PageHashes(self.page_size)
        hashes.extend(1, image)
        encoder = SnapshotEncoder(self._header(Kind.SNAPSHOT, self.txid, generation))
        step = frame_bytes or SnapshotEncoder.BLOCK_BYTES
        body = encoder.start()
        for at in range(0, len(image), step):
            raw = image[at : at + step]
            body += encoder.add(compress_block(raw, 1))
        rest, summary = encoder.finish(last_txid=self.txid, state=hashes.state)
        self.put(key, body + rest, summary.metadata() if metadata else None)
        return key

    def start_generation(self):
        """A snapshot and a marker at the next txid, as after a gap."""
        self.generation = str(uuid.uuid4())
        self.txid += 1
        image = plain_state(self._base, self._log())
        self.images[self.txid] = image
        self.snapshot()
        self._hashes = PageHashes(self.page_size)
        self._hashes.extend(1, image)
        body, summary = generation_marker(
            self._header(Kind.GENERATION, self.txid), state=self._hashes.state
        )
        self.put(self.keys.wal(self.txid), body, summary.metadata())
        self.first = self.txid + 1
        log = self._log()
        header = parse_header(log[:32])
        if header is None:
            self._position = None
        else:
            frames = scan(log[32:], header.start())
            self._position = frames.position(header.start())

    def checkpoint(self):
        """Truncates the WAL; no transaction may be pending."""
        assert self.first == self.txid + 1
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._restart_log()

    def merge(self, first, last, *, level=1, drop=False):
        """Every transaction of whole segments as one object; returns its key."""
        builder = FrameBuilder(self.page_size, salts=(7, 8))
        payload, per_commit, times, states = builder.header, [], [], []
        for key in self._whole(first, last):
            summary, wal = decode_segment(self.store.get(key), key)
            frames = scan(wal[32:], parse_header(wal[:32]).start())
            rows = np.frombuffer(wal[32:], np.uint8).reshape(frames.count, -1)[:, 24:]
            at = 0
            for count in summary.trailer.commit_frames:
                pages = frames.pages[at : at + count]
                commit = int(frames.commits[at + count - 1])
                payload += builder.feed(pages, rows[at : at + count].tobytes(), commit=commit)
                at += count
            per_commit += summary.trailer.commit_frames
            times += summary.trailer.commit_times_ms
            states.append(summary.trailer)
            if drop:
                self.store.delete(key)
        key = self.keys.merged(level, first, last)
        body, summary = self.encode(
            Kind.MERGE,
            first,
            last,
            payload,
            DatabaseState(states[-1].pages, states[-1].checksum_after),
            states[0].checksum_before,
            per_commit,
            times,
        )
        self.put(key, body, summary.metadata())
        return key

    def merge_newest(self, first, last, *, drop=False):
        key = self._put_newest(self.keys.merged(2, first, last), first, last)
        if drop:
            for old in self._whole(first, last):
                self.store.delete(old)
        return key

    # ------------------------------------------------------------------------------ details

    def _put_newest(self, key, first, last):
        """From the images: the pages that differ between two states."""
        old, new = self.images[first - 1], self.images[last]
        size, pages = self.page_size, len(new) // self.page_size
        changed = [
            n
            for n in range(pages)
            if new[n * size : (n + 1) * size] != old[n * size : (n + 1) * size]
        ] or [0]
        builder = FrameBuilder(size, salts=(5, 6))
        payload = builder.header + builder.feed(
            np.array(changed, np.uint32) + np.uint32(1),
            b"".join(new[n * size : (n + 1) * size] for n in changed),
            commit=pages,
        )
        before, after = PageHashes(size), PageHashes(size)
        before.extend(1, old)
        after.extend(1, new)
        body, summary = self.encode(
            Kind.MERGE_NEWEST,
            first,
            last,
            payload,
            after.state,
            before.checksum,
            (),
            [self._when(first), self._when(last)],
        )
        self.put(key, body, summary.metadata())
        return key

    def encode(self, kind, first, last, payload, state, before, per_commit, times):
        encoder = SegmentEncoder(self._header(kind, first), level=3)
        body = encoder.start() + encoder.write(payload)
        rest, summary = encoder.finish(
            last_txid=last,
            state=state,
            before=before,
            commit_frames=per_commit,
            commit_times_ms=times,
        )
        return body + rest, summary

    def put(self, key, body, metadata):
        self.store.put(key, body, metadata=metadata)

    def objects(self):
        """Every key of the prefix."""
        return [info.key for info in self.store.list(self.keys.root)]

    def _whole(self, first, last):
        found = [info.key for info in self.store.list(self.keys.wal_dir)]
        return [key for key in found if first <= int(key.split("/")[-1][:16], 16) <= last]

    def _header(self, kind, first, generation=None):
        return ObjectHeader(
            kind,
            generation or self.generation,
            first,
            self.page_size,
            str(uuid.UUID(int=1)),
            self._when(first),
            "tests",
        )

    def _log(self):
        log = self.path.with_name(self.path.name + "-wal")
        return log.read_bytes() if log.exists() else b""

    def _restart_log(self):
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._base = self.path.read_bytes()
        self._position = None


def busy_bucket(directory, store=None, *, page_size=4096, **options):
    """A little of everything: two generations, snapshots in between, merges, a shrink."""
    bucket = BucketBuilder(directory, store, page_size=page_size, **options)
    for _ in range(3):
        bucket.insert(20)
        bucket.insert(5)
        bucket.cut()
    bucket.snapshot()
    bucket.insert(60)
    bucket.run("UPDATE t SET body = randomblob(200) WHERE id % 3 = 0")
    bucket.cut()
    bucket.delete_all_and_shrink()
    bucket.insert(4)
    bucket.cut()
    bucket.checkpoint()
    bucket.insert(30)
    bucket.cut()
    bucket.start_generation()
    bucket.insert(8)
    bucket.cut()
    bucket.insert(8)
    bucket.insert(3)
    bucket.cut()
    return bucket

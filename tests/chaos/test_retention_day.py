"""A day at one PUT a second with concurrent merges: the requests of a restore at its end."""

import random
import uuid
from math import inf

import numpy as np
import pytest

from replicator import restore
from replicator.archive.index import WalObject
from replicator.format.object_header import ObjectHeader, parse_metadata
from replicator.format.page_hashes import PageHashes
from replicator.format.segment import SegmentEncoder, generation_marker
from replicator.format.snapshot_blocks import SnapshotEncoder, compress_block
from replicator.format.wal import FrameBuilder
from replicator.metrics import Metrics
from replicator.model import Kind, Retention
from replicator.retention.limits import RetentionLimits
from replicator.retention.worker import RetentionSteps
from replicator.system.mailbox import Mailbox
from tests.helpers.page_hashes import set_pages
from tests.helpers.replication import HookedStore
from tests.helpers.retention import HOUR, KEYS, SECOND, AgedStore, GivenSegments
from tests.plugins.scoreboard import effort

PAGE, PAGES = 512, 16
SIZE = PAGE * PAGES


class Writer:
    """Writes the archive of a database of sixteen pages; each transaction changes two."""

    def __init__(self, store, seed):
        self.store, self.rng = store, random.Random(seed)
        self.generation, self.writer = str(uuid.UUID(int=7)), str(uuid.UUID(int=8))
        self.image = bytearray(self.rng.randbytes(SIZE))
        self.hashes = PageHashes(PAGE)
        self.hashes.extend(1, bytes(self.image))
        self.fed = []
        self.txid = 1
        self._begin()

    def _header(self, kind, txid):
        return ObjectHeader(
            kind, self.generation, txid, PAGE, self.writer, self.store.now_ms, "tests"
        )

    def _begin(self):
        encoder = SnapshotEncoder(self._header(Kind.SNAPSHOT, 1))
        body = encoder.start() + encoder.add(compress_block(bytes(self.image), 1))
        rest, summary = encoder.finish(last_txid=1, state=self.hashes.state)
        self.store.put(KEYS.snapshot(1, self.generation), body + rest, metadata=summary.metadata())
        self._put(*generation_marker(self._header(Kind.GENERATION, 1), state=self.hashes.state))

    def commit(self):
        self.txid += 1
        before = self.hashes.checksum
        pgnos = np.array(sorted({1, self.rng.randint(2, PAGES)}), np.uint32)
        pages = self.rng.randbytes(PAGE * len(pgnos))
        for at, pgno in enumerate(pgnos.tolist()):
            self.image[(pgno - 1) * PAGE : pgno * PAGE] = pages[at * PAGE : (at + 1) * PAGE]
        set_pages(self.hashes, pgnos, pages, pages=PAGES)
        builder = FrameBuilder(PAGE, salts=(1, self.txid))
        encoder = SegmentEncoder(self._header(Kind.SEGMENT, self.txid), level=1)
        body = encoder.start() + encoder.write(builder.header)
        body += encoder.write(builder.feed(pgnos, pages, commit=PAGES))
        rest, summary = encoder.finish(
            last_txid=self.txid,
            state=self.hashes.state,
            before=before,
            commit_frames=[len(pgnos)],
            commit_times_ms=[self.store.now_ms],
        )
        self._put(body + rest, summary)

    def _put(self, body, summary):
        metadata = summary.metadata()
        key = KEYS.wal(self.txid)
        self.store.put(key, body, metadata=metadata)
        facts = parse_metadata(metadata)
        self.fed.append(
            WalObject(key, 0, self.txid, self.txid, len(body), self.store.now_ms, facts)
        )

    def appended(self, since):
        return self.fed[since:]


@pytest.mark.timeout(3600)
def test_a_day_at_one_put_a_second(tmp_path, seed, scoreboard):
    """A restore to any state needs at most a few hundred GETs and two or three LISTs and is exact;
    only the newest minutes remain as segments."""
    store = AgedStore()
    writer = Writer(store, seed)
    steps = RetentionSteps(
        store=store,
        keys=KEYS,
        rules=Retention(every_transaction=inf),
        segments=GivenSegments(writer.appended),
        metrics=Metrics(),
        mailbox=Mailbox(),
        limits=RetentionLimits(),
        created_by="tests",
        level=1,
    )
    steps.step(store.now_ms)
    seconds = effort(3 * HOUR, 24 * HOUR) // SECOND
    images, wanted = {}, set(random.Random(seed).sample(range(2, seconds), 5))
    for second in range(seconds):
        store.now_ms += SECOND
        writer.commit()
        if writer.txid in wanted:
            images[writer.txid] = bytes(writer.image)
        if second % 60 == 0:
            while steps.step(store.now_ms):
                pass
    images[None] = bytes(writer.image)
    figures = [requests(tmp_path, store, txid, image) for txid, image in images.items()]
    gets, lists = max(get for get, _ in figures), max(each for _, each in figures)
    segments = len(list(store.list(KEYS.wal_dir)))
    assert gets < 500
    assert lists <= 3
    assert segments < 1000  # one page of a listing
    scoreboard(
        "restore after a day at one PUT a second",
        f"{seconds} segments, of which {segments} are left; at most {gets} GETs and HEADs, "
        f"{lists} LISTs",
    )


def requests(tmp_path, store, txid, image):
    """(GETs and HEADs, LISTs) of one exact restore."""
    counted = HookedStore(store)
    output = tmp_path / f"{txid}.db"
    restore(store=counted, prefix="app.db", output=output, txid=txid)
    assert output.read_bytes() == image
    return len(counted.keys("get")) + len(counted.keys("head")), len(counted.keys("list"))

"""Squashing: what waits in a cache that fills up becomes small, and nothing is lost by it."""

import contextlib
import os
from dataclasses import replace

import pytest

from replicator.cache.cache import Offered
from replicator.cache.quota import CacheQuota
from replicator.cache.records import Delivery
from replicator.cache.squash import TooLarge, squash, squashable
from replicator.errors import DamageError, GapError, NotDurable
from replicator.metrics import Metrics
from replicator.model import Kind
from tests.helpers.errors import raises
from tests.helpers.mail import ReadableMailbox
from tests.helpers.replication import replicating, restored, wait_for

LONG = 60.0
CACHE = 4 << 20


def busy(app, replicator, rounds):
    """The same rows change over and over, and each change is captured."""
    for _ in range(rounds):
        before = replicator.status().txid
        app.run("UPDATE t SET body = randomblob(20000)")
        with pytest.raises(NotDurable):
            replicator.flush(0.02)
        wait_for(lambda before=before: replicator.status().txid != before)


def away(app, store, replicator):
    """Ten rows of 20 KB, the store gone, one segment offered to it in vain."""
    app.insert(10, 20_000)
    first = replicator.flush(LONG)
    store.go_away()
    app.insert()
    with pytest.raises(NotDurable):
        replicator.flush(0.02)
    wait_for(lambda: replicator.status().failed_uploads)
    return first


def test_an_outage_longer_than_the_cache_loses_no_commit(app, store, tmp_path):
    """20 MB are written into a cache of 4 MB: it never holds more, the replicator goes on
    following, and the newest state is in the store once that is back."""
    with replicating(
        app.path, store, max_cache_bytes=CACHE, segment_max_bytes=128 << 10
    ) as replicator:
        first = away(app, store, replicator)
        for _ in range(100):
            busy(app, replicator, 1)
            assert segments_size(replicator) <= CACHE
        status = replicator.status()
        assert status.state == "following"
        assert not status.healthy
        assert replicator.metrics.get("squashes") > 1
        assert replicator.metrics.get("catch_ups") == 0
        store.come_back()
        last = replicator.flush(LONG)
        assert last.generation == first.generation
    report, image = restored(store, tmp_path)
    assert report.txid == last.txid
    assert image == app.image()


def path_in(cache, record):
    return cache.directory / "segments" / record.file_name


def segments_size(replicator):
    """Bytes of all files there, drafts and files about to go too."""
    total = 0
    for entry in os.scandir(replicator._engine.cache.directory / "segments"):
        with contextlib.suppress(FileNotFoundError):
            total += entry.stat().st_size
    return total


def test_what_was_squashed_is_one_step(app, store, tmp_path):
    """Its end restores; a transaction inside is refused with the two that can be had; what was
    before and what came after restores as ever."""
    with replicating(
        app.path, store, max_cache_bytes=CACHE, segment_max_bytes=128 << 10
    ) as replicator:
        first = away(app, store, replicator)
        before = app.image()
        while not replicator.metrics.get("squashes"):
            busy(app, replicator, 1)
        (record,) = [r for r in replicator._engine.cache.pending() if r.kind is Kind.MERGE_NEWEST]
        store.come_back()
        replicator.flush(LONG)
        app.insert()
        replicator.flush(LONG)
    assert record.last_txid > record.first_txid > first.txid
    with raises(
        GapError, "inside_step", first_missing=record.first_txid, last_missing=record.first_txid
    ) as caught:
        restored(store, tmp_path, txid=record.first_txid)
    assert str(record.last_txid) in caught.value.hint
    assert restored(store, tmp_path, txid=record.last_txid)[0].txid == record.last_txid
    assert restored(store, tmp_path, txid=first.txid + 1)[1] == before
    assert restored(store, tmp_path)[1] == app.image()


def test_a_database_that_shrank_and_grew_is_squashed_exactly(app, store, tmp_path):
    """VACUUM in the middle of what is squashed: pages that went and came back are right."""
    with replicating(
        app.path, store, max_cache_bytes=CACHE, segment_max_bytes=128 << 10
    ) as replicator:
        away(app, store, replicator)
        app.insert(30, 3000)
        while not replicator.metrics.get("squashes"):
            app.run("DELETE FROM t WHERE id > 10", "VACUUM")
            app.insert(30, 3000)
            busy(app, replicator, 1)
        store.come_back()
        replicator.flush(LONG)
    assert restored(store, tmp_path)[1] == app.image()


def test_squashing_survives_a_restart(app, store, tmp_path):
    """The squashed segment waits in the cache like any other, and the page hashes still lead to
    the newest transaction: no new generation."""
    settings = {"max_cache_bytes": CACHE, "segment_max_bytes": 128 << 10}
    with replicating(app.path, store, **settings) as replicator:
        first = away(app, store, replicator)
        while not replicator.metrics.get("squashes"):
            busy(app, replicator, 1)
    app.checkpoint("TRUNCATE")
    app.insert()
    with replicating(app.path, store, **settings) as replicator:
        store.come_back()
        last = replicator.flush(LONG)
    assert last.generation == first.generation
    assert restored(store, tmp_path)[1] == app.image()


def test_a_damaged_segment_found_while_squashing_is_captured_anew(app, store, tmp_path):
    """It is dropped with what follows it, and the log or the database fills the gap."""
    with replicating(
        app.path, store, max_cache_bytes=CACHE, segment_max_bytes=128 << 10
    ) as replicator:
        first = away(app, store, replicator)
        cache = replicator._engine.cache
        while len(cache.pending()) < 4:
            busy(app, replicator, 1)
        victim = path_in(cache, cache.pending()[2])
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
        while not replicator.metrics.get("squashes"):
            busy(app, replicator, 1)
        store.come_back()
        last = replicator.flush(LONG)
        assert last.generation == first.generation
    assert restored(store, tmp_path)[1] == app.image()


def test_a_segment_that_was_offered_keeps_its_bytes(app, store, tmp_path):
    """The uploader may come first; then nothing is squashed, and nothing is harmed."""
    with replicating(app.path, store, segment_max_bytes=128 << 10) as replicator:
        away(app, store, replicator)
        busy(app, replicator, 4)
        cache = replicator._engine.cache
        records = squashable(cache.pending())
        assert len(records) > 2
        cache.uploading(records[1].first_txid)
        with pytest.raises(Offered):
            squash(cache, records, created_by="test", created_ms=1, level=1, most_bytes=CACHE)
        assert not list((cache.directory / "segments").glob("*.tmp"))
        cache.failed(records[1].first_txid, "", 0)
        store.come_back()
        replicator.flush(LONG)
    assert restored(store, tmp_path)[1] == app.image()


class LateCache:
    """The cache, with a hook that runs before the file of a squash is created."""

    def __init__(self, cache, hook):
        self.cache = cache
        self.hook = hook

    def __getattr__(self, name):
        return getattr(self.cache, name)

    def create_segment(self):
        self.hook()
        return self.cache.create_segment()


def test_a_segment_that_was_sent_before_its_squash_is_not_damaged(app, store, tmp_path):
    """The uploader sends the chosen segments, and their files are trimmed, before the squash."""
    with replicating(app.path, store, segment_max_bytes=128 << 10) as replicator:
        away(app, store, replicator)
        busy(app, replicator, 4)
        mailbox, cache = ReadableMailbox(), replicator._engine.cache
        squashes = []

        def send_all():
            squashes.append(cache.pending())
            store.come_back()
            replicator.flush(LONG)
            cache.trim(0)

        quota = CacheQuota(
            LateCache(cache, send_all),
            Metrics(),
            mailbox,
            max_bytes=cache.pending_bytes(),
            level=1,
            created_by="test",
        )
        quota.half_is_free()
        assert len(squashes) == 1
        assert mailbox.reported == []
    assert restored(store, tmp_path)[1] == app.image()


def test_only_segments_that_were_never_offered_are_squashed(app, store):
    """Nor the oldest, nor the start of a generation, nor a single one."""
    with replicating(app.path, store) as replicator:
        away(app, store, replicator)
        busy(app, replicator, 3)
        waiting = replicator._engine.cache.pending()
    assert squashable(waiting) == waiting[1:]
    assert squashable(waiting[:2]) == []
    assert squashable([]) == []
    offered = [*waiting[:2], replace(waiting[2], delivery=Delivery(attempts=1)), *waiting[2:]]
    assert squashable(offered) == waiting[2:]
    marker = replace(waiting[2], kind=Kind.GENERATION)
    assert squashable([*waiting[:2], marker, *waiting[2:]]) == waiting[2:]


def test_what_would_not_fit_is_left_as_it_is(app, store, tmp_path):
    """The newest images alone may be more than the room there is; no draft is left behind."""
    with replicating(app.path, store, segment_max_bytes=128 << 10) as replicator:
        away(app, store, replicator)
        busy(app, replicator, 4)
        cache = replicator._engine.cache
        waiting = cache.pending()
        with pytest.raises(TooLarge):
            squash(
                cache,
                squashable(waiting),
                created_by="test",
                created_ms=1,
                level=1,
                most_bytes=100_000,
            )
        assert cache.pending()[1:] == waiting[1:]
        assert not list((cache.directory / "segments").glob("*.tmp"))


def test_damage_names_the_object(app, store):
    """So that it is known what must be caught up."""
    with replicating(app.path, store) as replicator:
        away(app, store, replicator)
        busy(app, replicator, 3)
        cache = replicator._engine.cache
        records = squashable(cache.pending())
        path_in(cache, records[1]).write_bytes(b"")
        with pytest.raises(DamageError) as caught:
            squash(cache, records, created_by="test", created_ms=1, level=1, most_bytes=CACHE)
        assert caught.value.key == records[1].key

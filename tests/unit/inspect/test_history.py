"""replicator.inspect.history: what the bucket holds, from one listing."""

import contextlib

import pytest

from replicator import restore
from replicator.archive.index import Index, PinnedPoint, WalObject
from replicator.archive.keys import Keys
from replicator.archive.listing import to_object
from replicator.archive.names import parse
from replicator.archive.pins import pin
from replicator.errors import ConfigError, GapError, NoBackup
from replicator.inspect import history as module
from replicator.inspect.history import history, telling
from replicator.model import Kind
from replicator.store.base import ObjectInfo
from replicator.store.memory import MemoryStore
from tests.helpers.errors import raises
from tests.helpers.objects import facts

GENERATIONS = [f"0000000{n}-0000-7000-8000-000000000000" for n in range(4)]
KEYS = Keys("app.db")


def entry(key: str, size: int = 10, at: int = 0):
    return to_object(parse(KEYS, key), ObjectInfo(key, size, at))


def snapshot(txid: int, generation: int, *, size: int = 100, at: int = 0):
    return entry(KEYS.snapshot(txid, GENERATIONS[generation]), size, at)


def wal(first: int, *, size: int = 10, at: int = 0):
    return entry(KEYS.wal(first), size, at)


def fact(first: int, last: int, generation: int, commit_ms: int | None = None, **told):
    return facts(first, last, GENERATIONS[generation], commit_ms=commit_ms, **told)


def summarise(objects, known, *, url):
    """The summary of a listing, with the facts of some segments by first txid."""
    return module.summarise(
        Index.of(
            item.with_facts(known[item.first])
            if isinstance(item, WalObject) and not item.level and item.first in known
            else item
            for item in objects
        ),
        url=url,
    )


def test_the_window_reaches_from_the_oldest_snapshot_to_the_newest_commit():
    """Sizes and counts are sums over the listing; the end is what the newest HEAD says."""
    found = summarise(
        [
            snapshot(1, 0, at=5),
            wal(1),
            wal(2, size=20),
            wal(5, size=30, at=9),
            entry(KEYS.merged(1, 2, 4), 7),
            snapshot(4, 0, size=50, at=7),
        ],
        {1: fact(1, 1, 0), 5: fact(5, 8, 0, 1234)},
        url="s3://b/app.db",
    )
    assert (found.first_txid, found.last_txid, found.last_commit_ms) == (1, 8, 1234)
    assert (found.segments, found.segment_bytes) == (3, 60)
    assert (found.merged, found.merged_bytes, found.snapshot_bytes) == (1, 7, 150)
    assert (found.total_bytes, found.last_stored_ms) == (217, 9)
    assert [(each.txid, each.size, each.stored_ms) for each in found.snapshots] == [
        (1, 100, 5),
        (4, 50, 7),
    ]


def merged(level: int, first: int, last: int):
    return entry(KEYS.merged(level, first, last))


@pytest.mark.parametrize(
    ("objects", "steps", "expected"),
    [
        ([snapshot(1, 0), wal(1), wal(2), wal(5)], set(), ((1, 8),)),
        ([snapshot(1, 0), wal(1), merged(2, 2, 4), wal(5)], set(), ((1, 1), (4, 8))),
        ([snapshot(1, 0), wal(1), merged(2, 2, 4), merged(1, 2, 4), wal(5)], set(), ((1, 8),)),
        ([snapshot(1, 0), wal(1), wal(2), wal(5)], {2}, ((1, 1), (4, 8))),
        ([snapshot(1, 0), wal(1), merged(1, 3, 4), wal(5)], set(), ((1, 1),)),
        ([snapshot(3, 0), merged(1, 1, 4), wal(5)], set(), ((3, 8),)),
        ([snapshot(1, 0), wal(1), snapshot(5, 1), wal(5)], set(), ((1, 1), (5, 8))),
    ],
    ids=[
        "all",
        "a step",
        "a step and its sources",
        "a squashed segment",
        "a gap",
        "a snapshot within a merge",
        "a gap before a generation",
    ],
)
def test_what_can_be_restored_is_told_by_names(objects, steps, expected):
    """A target inside what is kept as one step, or behind a gap, is not promised."""
    anew = any(item.key == KEYS.snapshot(5, GENERATIONS[1]) for item in objects)
    known = {1: fact(1, 1, 0), 5: fact(5, 8, int(anew))}
    known |= {first: fact(first, 4, 0, kind=Kind.MERGE_NEWEST) for first in steps}
    found = summarise(objects, known, url="")
    assert found.restorable == expected


def test_what_is_told_is_what_a_restore_plans(bucket):
    """For each txid of a log with merges of both kinds: promised exactly where there is a plan."""
    bucket.merge_newest(15, 17, drop=True)
    found = history(bucket.store, "app.db", url="")
    told = {txid for first, last in found.restorable for txid in range(first, last + 1)}
    planned = set()
    for txid in range(1, found.last_txid + 1):
        with contextlib.suppress(GapError):
            restore(store=bucket.store, prefix="app.db", txid=txid, dry_run=True, output="o")
            planned.add(txid)
    assert told == planned
    assert told < set(range(1, found.last_txid + 1))


def test_pins_are_told(bucket):
    """With their notes, which need a GET each."""
    pin(bucket.store, bucket.keys, PinnedPoint(3, "before the migration"))
    assert history(bucket.store, "app.db", url="").pins == (PinnedPoint(3, "before the migration"),)


def test_a_generation_ends_where_the_next_begins():
    """Generations are told apart by the ids in their snapshots' names."""
    found = summarise(
        [snapshot(1, 0), wal(1), wal(2), snapshot(10, 1), wal(10), snapshot(20, 1), wal(11)],
        {11: fact(11, 30, 1)},
        url="",
    )
    assert [
        (each.id, each.first_txid, each.last_txid, each.snapshots, each.size)
        for each in found.generations
    ] == [(GENERATIONS[0], 1, 9, 1, 100), (GENERATIONS[1], 10, 30, 2, 200)]


def test_a_start_that_lost_the_race_for_its_marker_is_not_shown():
    """A snapshot whose txid belongs to another generation in the log is an orphan."""
    found = summarise(
        [snapshot(1, 0), wal(1), snapshot(5, 1), snapshot(5, 2), wal(5)], {5: fact(5, 5, 2)}, url=""
    )
    assert [each.id for each in found.generations] == [GENERATIONS[0], GENERATIONS[2]]


def test_a_start_that_crashed_before_its_marker_is_not_shown():
    """A snapshot beyond the end of the log is an orphan."""
    found = summarise([snapshot(1, 0), wal(1), snapshot(6, 1)], {1: fact(1, 5, 0)}, url="")
    assert [each.id for each in found.generations] == [GENERATIONS[0]]


def test_without_metadata_the_end_is_a_lower_bound():
    """A store that keeps no metadata costs the commit time, not the answer."""
    found = summarise([snapshot(1, 0), wal(1), wal(7)], {}, url="")
    assert (found.last_txid, found.last_commit_ms) == (7, None)


def test_heads_are_asked_for_where_they_tell_something():
    """One for the newest segment, one for each generation's start, none for the rest."""
    objects = [
        snapshot(1, 0),
        wal(1),
        wal(2),
        wal(3),
        snapshot(3, 1),
        wal(4),
        wal(9),
        snapshot(9, 1),
        snapshot(8, 2),
    ]
    assert [item.first for item in telling(Index.of(objects))] == [1, 3, 9]
    assert telling(Index()) == []


def test_history_of_a_store_reads_the_metadata_and_ignores_foreign_objects():
    """Two HEADs and one LIST give the same picture as the values they hold."""
    store = MemoryStore()
    store.put(KEYS.snapshot(1, GENERATIONS[0]), b"s" * 11)
    store.put(KEYS.wal(1), b"m")
    store.put(
        KEYS.wal(2),
        b"xyz",
        metadata={
            "format": "1",
            "kind": "segment",
            "generation": GENERATIONS[0],
            "first-txid": "2",
            "last-txid": "6",
            "page-size": "4096",
            "pages": "9",
            "checksum-before": "0",
            "checksum-after": "0",
            "created": "7",
            "first-time": "8",
            "last-time": "9",
            "sha256": "0" * 64,
            "writer": GENERATIONS[3],
        },
    )
    store.put("app.db/notes.txt", b"foreign")
    found = history(store, "app.db", url="s3://b/app.db")
    assert (found.last_txid, found.last_commit_ms, found.total_bytes) == (6, 9, 15)


@pytest.mark.parametrize("objects", [[], [wal(1)]])
def test_no_snapshot_is_no_backup(objects):
    """Nothing to start from is nothing to restore."""
    with raises(NoBackup, url="s3://b"):
        summarise(objects, {}, url="s3://b")


def test_encrypted_objects_are_reported(bucket):
    """As docs/format.md demands: a history that left them out would be wrong."""
    bucket.store.put(bucket.keys.wal(900) + ".age", b"x")
    with raises(ConfigError, "encrypted"):
        history(bucket.store, "app.db", url="")

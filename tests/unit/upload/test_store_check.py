"""A store is proved before it is trusted with a log: once, anew when it matters, loudly if not."""

import secrets
import unicodedata

import pytest

from replicator.cache.cache import Cache
from replicator.cache.records import Fact
from replicator.errors import AccessDenied, StoreUnavailable, StoreUnsafe
from replicator.store.address import StoreAddress
from replicator.store.memory import MemoryStore
from replicator.upload.store_check import RACERS, require_conditional_put
from tests.helpers.errors import raises
from tests.helpers.odd_stores import InventingStore, RewritingStore
from tests.helpers.replication import LONG, App, HookedStore, config_for, replicating, restored

PROBES = "app.db/probe/"


class Lying(MemoryStore):
    """Takes If-None-Match and ignores it."""

    def put(self, key, body, *, metadata=None, if_absent=True):
        super().put(key, body, metadata=metadata, if_absent=False)


@pytest.fixture
def ask(tmp_path, cache):
    """Ask whether a store is to be trusted; how many requests that took."""

    def ask(store, *, anew=False, allow_unsafe_store=False, **settings):
        spied = HookedStore(store)
        try:
            require_conditional_put(
                config_for(tmp_path / "app.db", **settings).address,
                spied,
                spied,
                cache,
                allow_unsafe=allow_unsafe_store,
                anew=anew,
            )
        finally:
            assert all(key.startswith(PROBES) for _, key in spied.calls)
        return len(spied.calls)

    return ask


def test_a_good_store_is_asked_once(ask, memory_store):
    """What was found is remembered; nothing stays in the store."""
    assert ask(memory_store) > RACERS
    assert ask(memory_store) == 0
    assert list(memory_store.list("")) == []


@pytest.mark.parametrize(
    "change",
    [{"url": "s3://other/app.db"}, {"endpoint_url": "http://127.0.0.1:1"}, {"anew": True}],
    ids=["another bucket", "another server", "a take-over"],
)
def test_another_store_is_asked_again(ask, memory_store, change):
    """The proof is of one place, and a take-over believes nothing."""
    ask(memory_store)
    assert ask(memory_store, **change) > RACERS


def test_the_proof_outlives_the_process(ask, memory_store, cache, tmp_path):
    """It is in the ledger."""
    ask(memory_store)
    with Cache.open(cache.directory) as later:
        config = config_for(tmp_path / "app.db")
        require_conditional_put(
            config.address, None, None, later, allow_unsafe=False, anew=False
        )  # or it would ask no store


@pytest.mark.parametrize(
    "rewrite",
    [
        pytest.param(lambda key: key.replace("\\", "/"), id="backslash"),
        pytest.param(lambda key: unicodedata.normalize("NFD", key), id="NFD"),
        pytest.param(lambda key: unicodedata.normalize("NFC", key), id="NFC"),
        pytest.param(str.lower, id="case"),
    ],
)
def test_a_key_that_the_store_rewrites_is_refused(ask, cache, rewrite):
    """A restore lists the archive, and would find none; a plain key passes on the same store."""
    store, odd = RewritingStore(rewrite), "A\\b \u00fc u\u0308.db"
    address = StoreAddress("s3", bucket="b", prefix=odd)
    for allow in (False, True):
        with raises(StoreUnsafe, "other_key"):
            require_conditional_put(address, store, store, cache, allow_unsafe=allow, anew=False)
    assert list(store.list("")) == []
    assert ask(store)


@pytest.mark.parametrize("invent", [lambda size: 0, lambda size: size + 1, lambda size: 1 << 62])
def test_a_store_that_lists_other_sizes_is_refused(ask, invent):
    """A restore reads as many bytes as are listed, and would find every object damaged."""
    with raises(StoreUnsafe, "other_size"):
        ask(InventingStore(invent))


def test_a_backslash_is_refused_on_a_real_server(seaweed_store, path, tmp_path):
    """SeaweedFS takes it for a slash: the replicator stops at the first start, and nothing is said
    to be durable."""
    with App(path) as app:
        app.insert()
        name = f"{secrets.token_hex(6)}\\b.db"
        with replicating(path, seaweed_store, url=f"s3://bucket/{name}") as replicator:
            with raises(StoreUnsafe, "other_key"):
                replicator.flush(LONG)
            assert replicator.status().durable_txid == 0


def test_a_store_that_lies_is_refused_each_time(ask):
    """Nothing is remembered in its favour; the message has the figures, the hint a way out."""
    store = Lying()
    for _ in range(2):
        with pytest.raises(StoreUnsafe, match=f"{RACERS} of {RACERS} writers") as caught:
            ask(store)
        assert "--allow-unsafe-store" in caught.value.hint
        assert list(store.list("")) == []


def test_a_store_that_was_mended_is_accepted(ask, memory_store):
    """A refusal is no verdict for ever."""
    with pytest.raises(StoreUnsafe):
        ask(Lying())
    assert ask(memory_store) > RACERS
    assert ask(memory_store) == 0


def test_a_store_that_lies_can_be_allowed(ask, caplog):
    """It is asked once all the same, and each start warns."""
    store = Lying()
    assert ask(store, allow_unsafe_store=True) > RACERS
    assert ask(store, allow_unsafe_store=True) == 0
    warnings = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 2
    assert all("allow_unsafe_store" in message for message in warnings)
    with pytest.raises(StoreUnsafe):
        ask(store)


def test_a_store_on_which_nobody_wins_is_refused(ask):
    """Nothing could ever be appended to it."""

    class Full(MemoryStore):
        def put(self, key, body, *, metadata=None, if_absent=True):
            super().put(key, body, if_absent=False)
            super().put(key, body, if_absent=True)

    with pytest.raises(StoreUnsafe, match=f"0 of {RACERS}"):
        ask(Full())


@pytest.mark.parametrize("error", [AccessDenied("403"), StoreUnavailable("503")])
def test_a_bucket_that_forbids_deletes_is_fine(tmp_path, cache, error):
    """The probe stays, where no reader looks."""
    store = HookedStore()

    def before(method, key):
        if method == "delete":
            raise error

    store.before = before
    address = config_for(tmp_path / "app.db").address
    require_conditional_put(address, store, store, cache, allow_unsafe=False, anew=False)
    assert [info.key.startswith(PROBES) for info in store.inner.list("")] == [True]
    assert cache.get(Fact.STORE_CHECK)


def test_trouble_is_no_verdict(tmp_path, cache):
    """A store that is away has not lied; it is asked again."""
    store = HookedStore()
    store.go_away()
    config = config_for(tmp_path / "app.db")
    with pytest.raises(StoreUnavailable):
        require_conditional_put(config.address, store, store, cache, allow_unsafe=False, anew=False)
    assert cache.get(Fact.STORE_CHECK) is None


def test_a_replicator_refuses_a_store_that_lies(tmp_path):
    """Before anything else is written: the bucket stays empty, and each waiter gets the error."""
    store = HookedStore(Lying())
    with App(tmp_path / "app.db") as app:
        app.insert()
        with replicating(app.path, store) as replicator:
            with pytest.raises(StoreUnsafe):
                replicator.flush(LONG)
            status = replicator.status()
            assert isinstance(replicator.failed, StoreUnsafe)
            assert (status.state, status.healthy) == ("failed", False)
            assert "alone created it" in status.last_error
    assert all(key.startswith(PROBES) for method, key in store.calls if method == "put")
    assert list(store.inner.list("")) == []


def test_a_replicator_that_may_goes_on_with_it(tmp_path):
    """One writer alone is safe even there."""
    store = HookedStore(Lying())
    (tmp_path / "out").mkdir()
    with App(tmp_path / "app.db") as app:
        app.insert(5)
        with replicating(app.path, store, allow_unsafe_store=True) as replicator:
            replicator.flush(LONG)
            _, data = restored(store, tmp_path / "out")
            assert data == app.image()


def test_a_second_start_makes_no_such_request(tmp_path):
    """Nor does a rejoin."""
    store = HookedStore()
    with App(tmp_path / "app.db") as app:
        for _ in range(2):
            app.insert()
            with replicating(app.path, store) as replicator:
                replicator.flush(LONG)
    assert len([key for key in store.keys("put") if key.startswith(PROBES)]) == RACERS

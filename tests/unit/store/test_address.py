"""StoreAddress and open_store: the store of each address, and the addresses that are refused."""

import sys
import types

import pytest

from replicator.errors import ConfigError
from replicator.store.address import SCHEMES, StoreAddress
from replicator.store.directory import DirectoryStore
from replicator.store.registry import open_store
from replicator.store.s3 import S3Store
from tests.helpers.errors import raises


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://b", "b", ""),
        ("s3://b/", "b", ""),
        ("s3://b/app.db", "b", "app.db"),
        ("s3://b/a/b/", "b", "a/b"),
        ("s3://b//a", "b", "a"),
        ("s3://b/ä b%20?#", "b", "ä b%20?#"),
    ],
)
def test_an_s3_address_names_bucket_and_prefix(url, bucket, prefix):
    """Keys are taken as they are written: nothing in them is an escape or a query."""
    address = StoreAddress.parse(url)
    assert (address.scheme, address.bucket, address.prefix) == ("s3", bucket, prefix)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///dir", "/dir"),
        ("file:///a/b/", "/a/b"),
        ("file://localhost/a", "/a"),
        ("file:///with%20space", "/with space"),
        ("file:///", "/"),
    ],
)
def test_a_file_address_names_a_directory(url, path):
    """Escapes are undone, as everywhere in file addresses."""
    address = StoreAddress.parse(url, prefix="app.db")
    assert (address.scheme, address.path, address.prefix) == ("file", path, "app.db")


def test_the_prefix_of_the_address_goes_first():
    """The separate argument is for a URL without one."""
    assert StoreAddress.parse("s3://b/own", prefix="other").prefix == "own"
    assert StoreAddress.parse("s3://b", prefix="/other/").prefix == "other"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "b/prefix",
        "http://b/p",
        "s3:/b",
        "s3://",
        "s3:///prefix",
        "file://dir",
        "file:dir",
        "file://host/dir",
        "gs://b",
        "file://",
    ],
)
def test_any_other_address_is_refused_with_a_hint(url):
    """Nothing is guessed."""
    with pytest.raises(ConfigError) as caught:
        StoreAddress.parse(url)
    assert "three slashes" in caught.value.hint or "s3://bucket/prefix" in caught.value.hint


@pytest.mark.parametrize(
    "make",
    [
        lambda: StoreAddress.parse("s3://KEY:hunter2@bucket/p"),
        lambda: StoreAddress.parse("s3://b", endpoint_url="https://KEY:hunter2@host"),
        lambda: StoreAddress("s3", bucket="b", endpoint_url="http://KEY:hunter2@host:1/x"),
    ],
    ids=["url", "endpoint", "direct"],
)
def test_credentials_in_an_address_are_refused_and_not_shown(make):
    """They would end up in logs."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert "hunter2" not in str(caught.value) + caught.value.hint


def test_a_new_scheme_is_one_module_and_one_line(monkeypatch):
    """A store that the registry learns is parsed, opened and named like the others."""
    opened = {}
    module = types.ModuleType("stores_of_a_plugin")
    module.open_address = lambda address, pool: opened.setdefault((address.url, pool), "store")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(SCHEMES, "gs", module.__name__)
    address = StoreAddress.parse("gs://b/app.db")
    assert open_store(address, pool=3) == "store"
    assert opened == {("gs://b/app.db", 3): "store"}


@pytest.mark.parametrize("endpoint", ["localhost:9000", "ftp://host", "http://", ""])
def test_an_endpoint_must_be_a_web_address(endpoint):
    """It is checked before any request."""
    with raises(ConfigError, setting="endpoint_url"):
        StoreAddress("s3", bucket="b", endpoint_url=endpoint)


@pytest.mark.parametrize("url", ["s3://b/app.db", "s3://b", "file:///a/b%20c", "file:///"])
def test_a_target_tells_its_address(url):
    """The way it is written."""
    assert StoreAddress.parse(url).url.rstrip("/") == url.rstrip("/")


def test_a_file_target_with_a_prefix_tells_both():
    """So that people find the files."""
    assert StoreAddress.parse("file:///a", prefix="p").url == "file:///a/p"


def test_opening_asks_nothing(tmp_path):
    """The store need not be reachable, or exist; each setting arrives."""
    opened = open_store(
        StoreAddress(
            "s3",
            bucket="b",
            endpoint_url="http://127.0.0.1:1",
            region="eu-west-1",
            profile="p",
            checksums="when_supported",
        )
    )
    assert isinstance(opened, S3Store)
    assert opened.url == "s3://b"
    directory = open_store(StoreAddress("file", path=str(tmp_path / "none")))
    assert isinstance(directory, DirectoryStore)
    opened.close()

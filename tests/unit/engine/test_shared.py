"""engine/shared.py: what replicators of one process share, by endpoint and by store."""

import pytest

from replicator.engine.shared import SharedResources
from replicator.store.address import StoreAddress


@pytest.fixture
def shared():
    """Shared resources of several replicators."""
    with SharedResources() as shared:
        yield shared


def test_a_bucket_has_one_client_whatever_the_prefix(shared):
    """Another endpoint, bucket, region or profile is another one."""

    def opened(url, **options):
        return shared.stores.open(StoreAddress.parse(url, **options))

    first = opened("s3://b/x")
    assert opened("s3://b/y") is first
    others = [
        opened("s3://c/x"),
        opened("s3://b/x", endpoint_url="http://h:1"),
        opened("s3://b/x", region="r"),
        opened("s3://b/x", profile="p"),
        opened("file:///d"),
    ]
    assert len({id(store) for store in (first, *others)}) == 6


def test_an_endpoint_that_hangs_does_not_block_the_others(shared):
    """Databases wait for slots among those of the same endpoint only."""

    def limits(url, **options):
        return shared.endpoint(StoreAddress.parse(url, **options))

    assert limits("s3://b/x") is limits("s3://c/y")
    assert limits("s3://b/x") is not limits("s3://b/x", endpoint_url="http://h:1")
    assert limits("s3://b/x") is not limits("file:///d")

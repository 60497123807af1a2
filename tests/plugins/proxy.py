"""A proxy in front of the real S3 server that spoils requests on demand."""

import pytest

from tests.helpers.proxy import FaultProxy


@pytest.fixture
def fault_proxy(seaweed):
    """A `FaultProxy` in front of the real server."""
    proxy = FaultProxy(seaweed.endpoint_url)
    yield proxy
    proxy.stop()

"""The store is away when an application ends, and back at its next start."""

import secrets
import signal

import pytest

from tests.helpers.framework_sites import ORDERS, SITES


@pytest.fixture
def distant_bucket(seaweed, fault_proxy):
    """The variables of a bucket on a real S3 server, which the test takes away by its proxy."""
    return seaweed.environment() | {
        "REPLICATOR_BUCKET": seaweed.bucket,
        "REPLICATOR_ENDPOINT_URL": fault_proxy.url,
        "REPLICATOR_PREFIX": f"{secrets.token_hex(4)}/shop.db",
    }


@pytest.mark.frameworks
@pytest.mark.timeout(600)
@pytest.mark.parametrize("form", ["around", "inside"])
@pytest.mark.parametrize("name", ["Django, --preload", "FastAPI"])
def test_the_next_start_sends_what_the_last_end_could_not(
    machine_with, scoreboard, distant_bucket, fault_proxy, name, form
):
    """The end takes its time, and no longer; the cache keeps the rest on this machine."""
    machine = machine_with(SITES[name], form, distant_bucket)
    machine.start()
    machine.load(ORDERS)
    fault_proxy.down()
    machine.load(ORDERS)
    machine.send(signal.SIGTERM)
    machine.ended()
    fault_proxy.up()
    machine.start()
    machine.load(ORDERS)
    machine.send(signal.SIGTERM)
    assert machine.ended() == 0, machine.log
    machine.check_bucket()
    figure = f"{len(machine.acknowledged):,} acknowledged, 0 lost"
    scoreboard(f"{name}, replicator {form}: store away at the end", figure)

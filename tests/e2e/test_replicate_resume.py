"""A transfer that a crash interrupted goes on on the real server, it does not start over."""

import contextlib

import pytest

from tests.helpers.command import Desk, wait_for
from tests.helpers.proxy import hang
from tests.helpers.replication import App

PART = 8 << 20
PARTS = 6


@pytest.fixture
def desk(seaweed, fault_proxy, tmp_path):
    desk = Desk(tmp_path, seaweed, endpoint_url=fault_proxy.url)
    yield desk
    desk.leave()


def parts_sent(proxy):
    return proxy.count("PUT", "partNumber=")


def test_the_first_snapshot_goes_on_after_a_kill(desk, fault_proxy):
    """kill -9 when half of the parts are there: the next start sends the others only, and the
    restored database is the source."""
    db = desk.directory("app") / "app.db"
    with App(db, mode="DELETE") as app:
        app.insert(PARTS - 1, PART)  # incompressible: about one part each
        app.insert(1, PART // 2)
    source = db.read_bytes()
    fault_proxy.fault(hang, method="PUT", path="partNumber=", nth=4, times=None)
    sidecar = desk.sidecar(db)
    wait_for(lambda: parts_sent(fault_proxy) >= 3)  # whatever follows gets no answer
    sidecar.process.kill()
    sidecar.process.wait()
    fault_proxy.heal()
    before = parts_sent(fault_proxy)
    sidecar = desk.sidecar(db)
    sidecar.until_following()
    assert sidecar.stop() == 0
    assert "going on with the upload" in sidecar.said
    total = -(-len(source) // PART)
    assert parts_sent(fault_proxy) - before == total - 3
    with contextlib.closing(desk.store()) as store:
        assert store.list_uploads("") == []
    out = desk.home / "out.db"
    assert desk.call("restore", *desk.place, "--output", out).code == 0
    restored = out.read_bytes()
    assert len(restored) == len(source)
    assert restored == db.read_bytes()

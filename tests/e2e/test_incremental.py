"""Snapshots out of the snapshot before, on the real server: what goes over the wire is counted."""

import contextlib
import threading

import pytest

from tests.helpers.command import Desk, wait_for
from tests.helpers.proxy import hang, status
from tests.helpers.replication import App, image_of
from tests.plugins.scoreboard import effort

MIB = 1 << 20
PART = 5 * MIB
HALF_RANDOM = "randomblob(2000) || zeroblob(2000)"


class Wire:
    """Sees every part on its way to the store. ``fault`` is what a copy meets from the
    ``nth`` on."""

    def __init__(self, proxy):
        self.sent = self.copies = 0
        self.fault, self.nth = None, 1
        proxy.fault(self, method="PUT", path="partNumber=", times=None)

    async def __call__(self, exchange):
        if b"x-amz-copy-source:" not in exchange.raw.lower():
            self.sent += exchange.size
            return await exchange.forward()
        self.copies += 1
        if self.fault is not None and self.copies >= self.nth:
            return await self.fault(exchange)
        return await exchange.forward()

    def forget(self):
        self.sent = self.copies = 0


@pytest.fixture
def desk(seaweed, fault_proxy, tmp_path):
    desk = Desk(tmp_path, seaweed, endpoint_url=fault_proxy.url)
    yield desk
    desk.leave()


@pytest.fixture
def wire(fault_proxy):
    return Wire(fault_proxy)


@pytest.fixture
def app(desk):
    """An application with a database of rows of which half is random."""
    with App(desk.directory("app") / "app.db", autocheckpoint=1000) as app:
        rows = effort(48, 220) * MIB // 4000
        app.run(
            f"INSERT INTO t(body) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 "
            f"FROM n WHERE i < {rows}) SELECT {HALF_RANDOM} FROM n"
        )
        yield app


def change(app, first):
    """One row in a hundred, all beside each other."""
    rows = app.db.execute("SELECT max(id) FROM t").fetchone()[0] // 100
    app.run(f"UPDATE t SET body = {HALF_RANDOM} WHERE id BETWEEN {first} AND {first + rows}")


def snapshots(desk):
    with contextlib.closing(desk.store()) as store:
        return list(store.list("app.db/snapshots/"))


def check(desk, app):
    """The bucket alone gives the database back, no upload is left, and the newest snapshot,
    by the stock tool, is one plain database."""
    out = desk.home / "out.db"
    done = desk.call("restore", *desk.place, "--output", out, "--overwrite", "--json")
    assert done.code == 0, done.err
    assert out.read_bytes() == image_of(app.path)
    with contextlib.closing(desk.store()) as store:
        assert store.list_uploads("") == []


def test_a_snapshot_costs_the_network_what_changed(desk, wire, app, scoreboard):
    """After a clustered change of one percent: the parts that hold the change, the first and
    the last one are sent; all else is copied in the store."""
    sidecar = desk.sidecar(app.path)
    sidecar.until_following()
    whole = snapshots(desk)[0].size
    assert wire.copies == 0
    wire.forget()
    change(app, 2000)
    assert desk.call("snapshot", app.path).code == 0
    assert wire.sent + wire.copies * PART == snapshots(desk)[1].size
    assert wire.sent <= whole // 100 + 4 * PART
    check(desk, app)
    assert sidecar.stop() == 0
    scoreboard(
        "snapshot after a clustered 1 %: bytes sent, of a whole one",
        f"{wire.sent / MIB:.1f} of {whole / MIB:.1f} MiB",
    )


def test_copies_go_on_after_a_kill(desk, fault_proxy, wire, app):
    """kill -9 between two copies: the next start goes on with that upload, and the object is
    the database."""
    sidecar = desk.sidecar(app.path)
    sidecar.until_following()
    wire.forget()
    change(app, 2000)
    wire.fault, wire.nth = hang, 3
    asking = threading.Thread(target=desk.call, args=("snapshot", app.path))
    asking.start()
    wait_for(lambda: wire.copies >= 3)
    sidecar.process.kill()
    sidecar.process.wait()
    asking.join()
    fault_proxy.heal()
    again = Wire(fault_proxy)
    sidecar = desk.sidecar(app.path)
    sidecar.until_following()
    assert desk.call("snapshot", app.path).code == 0
    assert "going on with the upload" in sidecar.said
    assert again.sent + again.copies * PART < snapshots(desk)[1].size
    check(desk, app)
    assert sidecar.stop() == 0


@pytest.mark.parametrize("fault", effort(["deleted"], ["deleted", "refused"]))
def test_without_copies_all_of_it_is_sent(desk, wire, app, fault):
    """The source is deleted in the middle, or the store does not know the request: the
    snapshot is sent as a whole, and nobody has to do anything."""
    sidecar = desk.sidecar(app.path)
    sidecar.until_following()
    (first,) = snapshots(desk)
    wire.forget()
    change(app, 2000)

    async def deleted(exchange):
        with contextlib.closing(desk.store()) as store:
            store.delete(first.key)
        return await exchange.forward()

    refused = status(501, "NotImplemented")
    wire.fault, wire.nth = (deleted, 3) if fault == "deleted" else (refused, 1)
    assert desk.call("snapshot", app.path).code == 0
    assert wire.copies >= wire.nth
    assert wire.sent >= snapshots(desk)[-1].size
    check(desk, app)
    assert sidecar.stop() == 0
    assert "starts over" in sidecar.said

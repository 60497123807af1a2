"""Snapshots made from the previous snapshot on a real server; the test counts the bytes sent."""

import contextlib
import threading

import pytest

from tests.helpers.proxy import hang, status
from tests.helpers.replication import App, image_of, wait_for
from tests.plugins.scoreboard import effort

MIB = 1 << 20
PART = 5 * MIB
HALF_RANDOM = "randomblob(2000) || zeroblob(2000)"


class PartCounter:
    """Counts the parts on their way to the store. ``fault`` strikes copies from the ``nth`` on."""

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
def part_counter(fault_proxy):
    """A `PartCounter` in front of the server."""
    return PartCounter(fault_proxy)


@pytest.fixture
def large_app(proxied_cli):
    """An application with a database of rows of which half the bytes are random."""
    with App(proxied_cli.directory("app") / "app.db", autocheckpoint=1000) as app:
        rows = effort(48, 220) * MIB // 4000
        app.run(
            f"INSERT INTO t(body) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 "
            f"FROM n WHERE i < {rows}) SELECT {HALF_RANDOM} FROM n"
        )
        yield app


def change(app, first):
    """Changes a contiguous range of one row in a hundred."""
    rows = app.db.execute("SELECT max(id) FROM t").fetchone()[0] // 100
    app.run(f"UPDATE t SET body = {HALF_RANDOM} WHERE id BETWEEN {first} AND {first + rows}")


def snapshots(proxied_cli):
    with contextlib.closing(proxied_cli.store()) as store:
        return list(store.list("app.db/snapshots/"))


def check(proxied_cli, app):
    """A restore from the bucket equals the database, and no multipart upload is left."""
    out = proxied_cli.home / "out.db"
    done = proxied_cli.call(
        "restore", *proxied_cli.bucket_options, "--output", out, "--overwrite", "--json"
    )
    assert done.code == 0, done.err
    assert out.read_bytes() == image_of(app.path)
    with contextlib.closing(proxied_cli.store()) as store:
        assert store.list_uploads("") == []


def test_a_snapshot_sends_only_changed_parts(proxied_cli, part_counter, large_app, scoreboard):
    """After a clustered change of one percent, a snapshot sends the changed parts, the first and
    the last one; the store copies all others."""
    sidecar = proxied_cli.sidecar(large_app.path)
    sidecar.until_following()
    whole = snapshots(proxied_cli)[0].size
    assert part_counter.copies == 0
    part_counter.forget()
    change(large_app, 2000)
    assert proxied_cli.call("snapshot", large_app.path).code == 0
    assert part_counter.sent + part_counter.copies * PART == snapshots(proxied_cli)[1].size
    assert part_counter.sent <= whole // 100 + 4 * PART
    check(proxied_cli, large_app)
    assert sidecar.stop() == 0
    scoreboard(
        "snapshot after a clustered 1 %: bytes sent, of a whole one",
        f"{part_counter.sent / MIB:.1f} of {whole / MIB:.1f} MiB",
    )


def test_copies_resume_after_a_kill(proxied_cli, fault_proxy, part_counter, large_app):
    """After SIGKILL between two copies the next start resumes that upload, and the object is the
    database."""
    sidecar = proxied_cli.sidecar(large_app.path)
    sidecar.until_following()
    part_counter.forget()
    change(large_app, 2000)
    part_counter.fault, part_counter.nth = hang, 3
    asking = threading.Thread(target=proxied_cli.call, args=("snapshot", large_app.path))
    asking.start()
    wait_for(lambda: part_counter.copies >= 3)
    sidecar.process.kill()
    sidecar.process.wait()
    asking.join()
    fault_proxy.heal()
    again = PartCounter(fault_proxy)
    sidecar = proxied_cli.sidecar(large_app.path)
    sidecar.until_following()
    assert proxied_cli.call("snapshot", large_app.path).code == 0
    sidecar.until_written("resuming the upload")
    assert again.sent + again.copies * PART < snapshots(proxied_cli)[1].size
    check(proxied_cli, large_app)
    assert sidecar.stop() == 0


@pytest.mark.parametrize("fault", effort(["deleted"], ["deleted", "refused"]))
def test_without_copies_all_of_it_is_sent(proxied_cli, part_counter, large_app, fault):
    """If the source is deleted during the copies, or the store does not support them, the snapshot
    is sent as a whole without any help."""
    sidecar = proxied_cli.sidecar(large_app.path)
    sidecar.until_following()
    (first,) = snapshots(proxied_cli)
    part_counter.forget()
    change(large_app, 2000)

    async def deleted(exchange):
        with contextlib.closing(proxied_cli.store()) as store:
            store.delete(first.key)
        return await exchange.forward()

    refused = status(501, "NotImplemented")
    part_counter.fault, part_counter.nth = (deleted, 3) if fault == "deleted" else (refused, 1)
    assert proxied_cli.call("snapshot", large_app.path).code == 0
    assert part_counter.copies >= part_counter.nth
    assert part_counter.sent >= snapshots(proxied_cli)[-1].size
    check(proxied_cli, large_app)
    assert sidecar.stop() == 0
    sidecar.until_written("starts over")

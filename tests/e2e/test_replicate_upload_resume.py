"""An upload that a crash interrupted resumes on a real server and does not start over."""

import contextlib

from tests.helpers.proxy import hang
from tests.helpers.replication import App, wait_for

PART = 8 << 20
PARTS = 6


def parts_sent(proxy):
    return proxy.count("PUT", "partNumber=")


def test_the_first_snapshot_resumes_after_a_kill(proxied_cli, fault_proxy):
    """After SIGKILL with half of the parts uploaded, the next start sends the others only, and the
    restored database equals the source."""
    db = proxied_cli.directory("app") / "app.db"
    with App(db, mode="DELETE") as app:
        app.insert(PARTS - 1, PART)  # incompressible: about one part each
        app.insert(1, PART // 2)
    source = db.read_bytes()
    fault_proxy.fault(hang, method="PUT", path="partNumber=", nth=4, times=None)
    sidecar = proxied_cli.sidecar(db)
    wait_for(lambda: parts_sent(fault_proxy) >= 3)  # later parts get no answer
    sidecar.process.kill()
    sidecar.process.wait()
    fault_proxy.heal()
    before = parts_sent(fault_proxy)
    sidecar = proxied_cli.sidecar(db)
    sidecar.until_following()
    assert sidecar.stop() == 0
    sidecar.until_written("resuming the upload")
    total = -(-len(source) // PART)
    assert parts_sent(fault_proxy) - before == total - 3
    with contextlib.closing(proxied_cli.store()) as store:
        assert store.list_uploads("") == []
    out = proxied_cli.home / "out.db"
    assert proxied_cli.call("restore", *proxied_cli.bucket_options, "--output", out).code == 0
    restored = out.read_bytes()
    assert len(restored) == len(source)
    assert restored == db.read_bytes()

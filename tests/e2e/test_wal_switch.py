"""``replicator run`` next to an application in rollback mode."""

from tests.helpers.other_app import OtherApp
from tests.helpers.replication import App


def test_run_waits_beside_an_open_transaction_and_says_why(deployment):
    """The application keeps its rollback transaction, and commits it. The sidecar follows once the
    application has ended, and has every row."""
    with App(deployment.path, mode="DELETE"), OtherApp(deployment.path) as other:
        other.run("BEGIN IMMEDIATE")
        other.run("INSERT INTO t(body) VALUES (1)")
        sidecar = deployment.sidecar()
        status = sidecar.until(lambda status: status["state"] == "stalled")
        assert "the switch to WAL mode waits" in status["last_error"]
        assert other.run("COMMIT") == []
        assert other.run("PRAGMA journal_mode") == [["delete"]]
    sidecar.until_following()
    assert sidecar.stop() == 0
    sidecar.until_written("BEGIN IMMEDIATE")
    copy, _ = deployment.restore()
    assert copy.read_bytes() == deployment.source()

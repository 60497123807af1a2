"""An idle minute in real time costs no request and less than 1 % of a core (``make soak``)."""

import time

import pytest

from tests.helpers.replication import App

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MINUTE = 60.0


def quiet(sidecar):
    return sidecar.until(
        lambda status: (
            status["txid"] > 2
            and status["durable_txid"] == status["txid"]
            and status["lag_bytes"] == 0
            and status["last_snapshot"]
        )
    )


def test_an_idle_minute_costs_nothing(cli, fault_proxy, capsys):
    """The application has the database open and writes nothing: for a minute the store sees
    neither a request nor a connection, and the sidecar uses less than 1 % of one core."""
    with App(cli.home / "app.db") as app:
        sidecar = cli.sidecar(app.path, bucket_options=cli.options_through(fault_proxy.url))
        sidecar.until_following()
        for _ in range(3):
            app.insert(10)
            cli.call("flush", app.path)
        quiet(sidecar)
        before, began = list(fault_proxy.requests), sidecar.cpu_seconds()
        assert before
        time.sleep(MINUTE)  # the property is about elapsed time
        spent = sidecar.cpu_seconds() - began
        with capsys.disabled():
            print(  # noqa: T201
                f"\nidle: {spent:.2f} s of CPU a minute, "
                f"{sidecar.rss() / 1e6:.0f} MB resident, {sidecar.peak_rss() / 1e6:.0f} at peak"
            )
        assert fault_proxy.requests == before
        assert spent < MINUTE / 100
        app.insert(1)
        cli.call("flush", app.path)
        came = [kind for kind, *_ in fault_proxy.requests[len(before) :]]
        # After a minute it checks the holder of the archive: one listing, one HEAD.
        assert sorted(came) == ["GET", "HEAD", "PUT"]
        assert sidecar.stop() == 0

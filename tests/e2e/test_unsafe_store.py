"""A server that ignores If-None-Match is refused, or used with an explicit option."""

import contextlib
from types import SimpleNamespace

import pytest

from tests.helpers.command_line import CommandLine
from tests.helpers.proxy import FaultProxy
from tests.helpers.replication import App


async def unconditional(exchange):
    """Drops the condition, as proxies do that pass on only headers they know."""
    lines = exchange.head.split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith(b"if-none-match")]
    exchange.head = b"\r\n".join(kept)
    return await exchange.forward()


@pytest.fixture
def unsafe_cli(moto_server, tmp_path):
    """A user whose server verifies no signature and so accepts requests without the header."""
    proxy = FaultProxy(moto_server)
    proxy.fault(unconditional, method="PUT", times=None)
    environment = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    cli = CommandLine(
        tmp_path,
        SimpleNamespace(
            endpoint_url=proxy.url, access_key="a", secret_key="b", environment=lambda: environment
        ),
    )
    cli.proxy = proxy
    yield cli
    cli.close()
    proxy.stop()


def objects(cli):
    with contextlib.closing(cli.store()) as store:
        return [info.key for info in store.list("")]


def test_an_unsafe_store_is_refused(unsafe_cli):
    """Exit code 6 with figures and a hint, no object stays in the bucket, and doctor agrees."""
    with App(unsafe_cli.home / "app.db") as app:
        app.insert()
        sidecar = unsafe_cli.sidecar(app.path)
        assert sidecar.wait() == 6
        sidecar.until_written("4 of 4 writers to one key")
        sidecar.until_written("--allow-unsafe-store")
        assert objects(unsafe_cli) == []
        done = unsafe_cli.call("doctor", app.path, *unsafe_cli.bucket_options)
        assert done.code == 1
        assert "16 winners of 16" in done.out


@pytest.mark.parametrize("how", ["option", "variable"])
def test_an_unsafe_store_is_used_on_request(unsafe_cli, how):
    """The option gives a warning at each start; with one writer the backup is good."""
    option = ("--allow-unsafe-store",) if how == "option" else ()
    variable = {} if how == "option" else {"REPLICATOR_ALLOW_UNSAFE_STORE": "1"}
    with App(unsafe_cli.home / "app.db") as app:
        for _ in range(2):
            app.insert()
            sidecar = unsafe_cli.sidecar(app.path, *option, **variable)
            sidecar.until_following()
            assert sidecar.stop() == 0
            sidecar.until_written("allow_unsafe_store")
        image = app.image()
    assert unsafe_cli.proxy.count("PUT", "/probe/") == 4
    output = unsafe_cli.home / "restored.db"
    done = unsafe_cli.call("restore", *unsafe_cli.bucket_options, "--output", output)
    assert done.code == 0, done.err
    assert output.read_bytes() == image

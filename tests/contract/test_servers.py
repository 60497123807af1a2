"""The real server, and the proxy in front of it, which other tests use."""

import os
import secrets
import socket
import subprocess
import sys

import pytest

from replicator.errors import AccessDenied, StoreUnavailable
from replicator.store.retry import RetryingStore, RetryPolicy
from replicator.store.s3 import S3Store
from replicator.testing import SeaweedServer
from replicator.testing.seaweed import free_ports
from tests.helpers.errors import raises
from tests.helpers.proxy import FaultProxy, corrupt, delay
from tests.helpers.replication import wait_for


def quick(server, **settings):
    return S3Store(
        server.bucket,
        endpoint_url=server.endpoint_url,
        read_timeout=0.3,
        credentials=(server.access_key, server.secret_key),
        **settings,
    )


def test_a_vacuum_gives_the_room_back(tmp_path):
    """Deleted objects free their disk space soon after, and the other objects stay."""
    with SeaweedServer(tmp_path / "objects") as server:
        store = server.store()
        store.put("kept", b"x")
        store.put("gone", os.urandom(4 << 20))
        store.delete("gone")

        def small():
            server.vacuum()
            volumes = (tmp_path / "objects").glob("*.dat")
            return sum(file.stat().st_size for file in volumes) < 4 << 20

        wait_for(small)
        assert store.get("kept") == b"x"


def test_a_server_of_ones_own(tmp_path):
    """It hangs and comes to itself; it dies and comes back at its address, with every
    acknowledged object; its directory stays if it was given, and holds no open secret."""
    server = SeaweedServer(tmp_path / "objects", bucket="mine")
    with server:
        store, address = quick(server), server.endpoint_url
        server.store().put("a", b"x", metadata={"n": "1"})
        server.pause()
        with pytest.raises(StoreUnavailable):
            store.get("a")
        server.resume()
        server.kill()
        with pytest.raises(StoreUnavailable):
            store.get("a")
        server.start()
        assert server.endpoint_url == address
        patient = RetryingStore(server.store(), RetryPolicy(deadline=60))  # its volumes load
        assert patient.get("a") == b"x"
        assert dict(patient.head("a").metadata) == {"n": "1"}
        pid = server.pid
        assert (tmp_path / "objects/s3.json").stat().st_mode & 0o077 == 0
    assert not os.path.exists(f"/proc/{pid}")
    assert (tmp_path / "objects").is_dir()


def test_a_server_that_was_never_started_can_be_stopped():
    """As after a failure to start."""
    SeaweedServer().stop()


def test_a_busy_port_is_avoided():
    """The server ends if a port is taken before its start; it starts with other ports, and its
    own directory is removed at the end."""
    calls = []

    def ports():
        calls.append(free_ports())
        if len(calls) == 1:
            return {**calls[0], "master.port": busy.getsockname()[1]}
        return calls[-1]

    with (
        socket.create_server(("127.0.0.1", 0)) as busy,
        SeaweedServer(choose_ports=ports) as server,
    ):
        assert len(calls) == 2
        server.store().put("a", b"x")
        directory = server._directory
    assert not directory.exists()


@pytest.mark.parametrize("taken", ["itself", "its twin"])
def test_only_free_pairs_of_ports_are_chosen(taken):
    """A port is passed over when it, or its twin 10 000 above, is taken."""
    first = free_ports()["s3.port"]
    choices = iter([first - 12_000])
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", first + (10_000 if taken == "its twin" else 0)))
        ports = free_ports(lambda n: next(choices, secrets.randbelow(n)))
    assert len(set(ports.values())) == 10
    assert first not in ports.values()
    assert all(
        ports[f"{name}.port.grpc"] - ports[f"{name}.port"] == 10_000
        for name in ("master", "volume", "filer", "s3", "admin")
    )


def test_a_server_that_never_starts_is_an_error(tmp_path):
    """With the last lines of its log."""
    failing = tmp_path / "weed"
    failing.write_text("#!/bin/sh\necho 'no such flag' >&2\nexit 1\n")
    failing.chmod(0o755)
    with raises(StoreUnavailable) as caught:
        SeaweedServer(tmp_path / "objects", find=lambda: str(failing)).start()
    assert "no such flag" in str(caught.value)


def test_the_server_asks_for_credentials(seaweed):
    """Without them nothing is possible, or the refusals of other tests would prove nothing."""
    with pytest.raises(AccessDenied):
        S3Store(seaweed.bucket, endpoint_url=seaweed.endpoint_url, credentials=("x", "y")).put(
            "a", b""
        )


def test_a_users_environment_suffices(seaweed_credentials, prefix):
    """The server's environment is enough for a process."""
    store = S3Store(seaweed_credentials.bucket, endpoint_url=seaweed_credentials.endpoint_url)
    store.put(f"{prefix}/a", b"x")


def test_nothing_of_the_machine_reaches_a_test(monkeypatch):
    """Nor a process that a test starts."""
    code = "import os; print(*sorted(os.environ))"
    names = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    foreign = [
        n
        for n in names
        if n.startswith(("AWS_", "REPLICATOR_")) or n.upper().endswith(("_PROXY", "_CA_BUNDLE"))
    ]
    assert foreign == ["AWS_EC2_METADATA_DISABLED", "NO_PROXY"]
    assert not os.path.exists(os.path.expanduser("~/.aws"))


def test_the_proxy_counts_and_hands_on(seaweed, fault_proxy, prefix):
    """Method, path and the server's answer, in order; a delay changes nothing but the time."""
    store = S3Store(
        seaweed.bucket,
        endpoint_url=fault_proxy.url,
        credentials=(seaweed.access_key, seaweed.secret_key),
    )
    fault_proxy.fault(delay(0), method="GET")
    store.put(f"{prefix}/a", bytes(2 << 20))
    assert store.get(f"{prefix}/a") == bytes(2 << 20)
    path = f"/{seaweed.bucket}/{prefix}/a"
    assert fault_proxy.requests == [("PUT", path, 200), ("GET", path, 200)]
    assert (fault_proxy.count(), fault_proxy.count("PUT"), fault_proxy.count(path="/b")) == (
        2,
        1,
        0,
    )


def test_a_corrupted_answer_reaches_the_caller(seaweed, fault_proxy, prefix):
    """S3 protects no ranged read; that is why every object carries digests of its own."""
    store = S3Store(
        seaweed.bucket,
        endpoint_url=fault_proxy.url,
        credentials=(seaweed.access_key, seaweed.secret_key),
    )
    store.put(f"{prefix}/a", b"value")
    fault_proxy.fault(corrupt, method="GET", nth=2)
    assert store.get(f"{prefix}/a") == b"value"
    assert store.get(f"{prefix}/a") == b"valud"


def test_a_slow_line_is_not_a_dead_one():
    """The time to send counts for each block, not for the whole body: one that takes longer
    than the timeout, but moves, arrives."""
    import asyncio

    blocks = 8

    async def slowly(exchange):
        for _ in range(blocks):
            await asyncio.sleep(0.1)
            await exchange.reader.readexactly(exchange.size // blocks)
        return b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'

    proxy = FaultProxy("http://127.0.0.1:1", streaming=True)
    proxy.fault(slowly)
    try:
        S3Store(
            "b", endpoint_url=proxy.url, credentials=("a", "b"), connect_timeout=0.5, read_timeout=5
        ).put("k", bytes(16 << 20))
    finally:
        proxy.stop()

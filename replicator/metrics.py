"""The figures of one running replicator: named counters and gauges with their meaning.

Owns the numbers and their text form. Refuses unknown names (a typing error does not create a
figure), clocks and I/O. Safe to use from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """The meaning of one number. Counters only grow; gauges rise and fall."""

    name: str
    kind: Literal["counter", "gauge"]
    doc: str


def _counter(name: str, doc: str) -> Figure:
    return Figure(name, "counter", doc)


def _gauge(name: str, doc: str) -> Figure:
    return Figure(name, "gauge", doc)


FIGURES = (
    _gauge("txid", "newest transaction captured"),
    _gauge("durable_txid", "newest transaction that the store acknowledged, with all before it"),
    _gauge("healthy", "1 while the durable position keeps up with the database, else 0"),
    _gauge("lag_seconds", "age of the oldest commit that is not durable"),
    _gauge("lag_bytes", "committed bytes of WAL that are not durable"),
    _gauge("pending_segments", "segments in the cache that are not acknowledged"),
    _gauge("pending_bytes", "size of these segments"),
    _gauge("cache_bytes", "size of all segment files in the cache"),
    _gauge("wal_frames", "frames in the WAL"),
    _gauge("last_upload_ms", "time of the last acknowledged segment, ms since the epoch"),
    _gauge("last_snapshot_ms", "time of the last acknowledged snapshot, ms since the epoch"),
    _gauge("last_verified_ms", "time of the last successful drill, ms since the epoch"),
    _gauge("last_verified_txid", "the transaction that it restored"),
    _counter("drills", "drills started"),
    _counter("failed_drills", "drills that failed"),
    _counter("repairs", "snapshots and generations started because the newest state was damaged"),
    _counter("captured_transactions", "transactions captured from the WAL"),
    _counter("captured_frames", "frames captured from the WAL"),
    _counter("captured_bytes", "bytes captured from the WAL"),
    _counter("segments", "segments made"),
    _counter("uploaded_objects", "objects that the store acknowledged"),
    _counter("uploaded_bytes", "size of these objects"),
    _counter("failed_uploads", "upload attempts that failed"),
    _counter("snapshots", "snapshots that the store acknowledged"),
    _counter("snapshot_bytes", "bytes of snapshots that were sent"),
    _counter("copied_bytes", "bytes of snapshots that the store copied from an earlier snapshot"),
    _counter("generations", "generations started"),
    _counter("catch_ups", "gaps closed by a catch-up segment"),
    _counter("replaced_databases", "times that another content took the place of the database"),
    _counter("shrunk_starts", "starts on a database that lost half of its pages, or its tables"),
    _counter("squashes", "merges of waiting segments in the cache, to save space"),
    _counter("merges", "merges stored"),
    _counter("merged_bytes", "size of these merges"),
    _counter(
        "pruned_objects",
        "objects deleted because no rule keeps them or a merge has them",
    ),
    _counter("pruned_bytes", "size of these objects"),
    _counter("roll_overs", "resets of the WAL that the replicator permitted"),
    _counter("write_lock_holds", "roll-overs that needed the write lock"),
    _gauge("longest_write_lock_ms", "longest duration of the write lock"),
    _counter("wake_ups", "iterations of the capture loop"),
)


class Metrics:
    """The current value of every figure. All start at 0."""

    def __init__(
        self,
        figures: tuple[Figure, ...] = FIGURES,
        *,
        collect: Callable[[], object] = lambda: None,
    ) -> None:
        """``collect`` sets the gauges that change with time; it runs before each snapshot."""
        self._figures = figures
        self._collect = collect
        self._values: dict[str, float] = {figure.name: 0 for figure in figures}
        self._lock = threading.Lock()

    def add(self, name: str, amount: float = 1) -> None:
        """Raise a counter."""
        with self._lock:
            self._values[name] += amount

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._values[self._known(name)] = value

    def observe_max(self, name: str, value: float) -> None:
        """Set a gauge if ``value`` is its largest so far."""
        with self._lock:
            self._values[name] = max(self._values[name], value)

    def get(self, name: str) -> float:
        with self._lock:
            return self._values[name]

    def values(self) -> dict[str, float]:
        """Every figure as it was set last."""
        with self._lock:
            return dict(self._values)

    def snapshot(self) -> dict[str, float]:
        """Every figure of this moment."""
        self._collect()
        return self.values()

    def render(self, labels: dict[str, str] | None = None) -> str:
        """The figures in Prometheus' text format, version 0.0.4."""
        return render(self._figures, self.snapshot(), labels or {})

    def _known(self, name: str) -> str:
        if name not in self._values:
            raise KeyError(name)
        return name


def render(figures: tuple[Figure, ...], values: dict[str, float], labels: dict[str, str]) -> str:
    """Prometheus' text format, version 0.0.4."""
    suffix = _labels(labels)
    lines: list[str] = []
    for figure in figures:
        name = _exported(figure)
        lines += [
            f"# HELP {name} {figure.doc}",
            f"# TYPE {name} {figure.kind}",
            f"{name}{suffix} {values[figure.name]:.15g}",
        ]
    return "\n".join(lines) + "\n"


def _exported(figure: Figure) -> str:
    suffix = "_total" if figure.kind == "counter" else ""
    return f"replicator_{figure.name}{suffix}"


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escape(value)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')

"""The metrics of a sidecar, as a handle shows them.

Owns: the last figures, which stay after the end of the sidecar. Refuses: to change a figure.
"""

from __future__ import annotations

from collections.abc import Callable

from replicator.metrics import FIGURES, render


class SidecarMetrics:
    """Any thread may call its methods."""

    def __init__(self, fetch: Callable[[], dict[str, float] | None]) -> None:
        """``fetch`` gets the figures of this moment, None if no sidecar answers."""
        self._fetch = fetch
        self._last: dict[str, float] = {figure.name: 0 for figure in FIGURES}

    def snapshot(self) -> dict[str, float]:
        """Every figure of this moment; the last known ones while no sidecar answers."""
        found = self._fetch()
        if found is not None:
            self._last = {name: found.get(name, 0) for name in self._last}
        return dict(self._last)

    def render(self, labels: dict[str, str] | None = None) -> str:
        """The figures in Prometheus' text format, version 0.0.4."""
        return render(FIGURES, self.snapshot(), labels or {})

"""Watches the size of the WAL, and calls observers when it crosses a threshold.

A WAL grows while something keeps it from a reset: a read that does not end, a transaction that is
open for long, a replicator that cannot follow. Each query becomes slower, and the disk fills.

Owns the thread that looks, and the thresholds. Refuses to open the WAL, and to checkpoint.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from replicator.errors import ConfigError

MIB = 1 << 20
WalLevel: TypeAlias = Literal["normal", "warning", "critical"]
RANKS: dict[WalLevel, int] = {"normal": 0, "warning": 1, "critical": 2}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WalThresholds:
    """Sizes in bytes, ``interval`` in seconds. A level ends when the file has shrunk to ``relief``
    of its threshold, so that a size near a threshold causes one call, not many."""

    warning: int = 64 * MIB
    critical: int = 512 * MIB
    relief: float = 0.75
    interval: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.warning < self.critical:
            raise ConfigError("warning is smaller than critical", setting="wal_thresholds")

    def level(self, size: int, before: WalLevel) -> WalLevel:
        """The level of a WAL of this size, which had the level ``before``."""
        bounds: dict[WalLevel, int] = {"warning": self.warning, "critical": self.critical}
        found: WalLevel = "normal"
        for name, bound in bounds.items():
            held = RANKS[before] >= RANKS[name]
            if size >= bound or (held and size > bound * self.relief):
                found = name
        return found


@dataclass(frozen=True, slots=True)
class WalChange:
    """The WAL has another level now. ``size`` is in bytes."""

    size: int
    level: WalLevel
    before: WalLevel


WalObserver: TypeAlias = Callable[[WalChange], object]


def size_of(wal: Path) -> int:
    """Bytes of the file; 0 if there is none."""
    try:
        return os.stat(wal).st_size
    except OSError:
        return 0


class WalMonitor:
    """Of one file. Observers run in the thread of the monitor, or in that of :meth:`check`."""

    def __init__(self, wal: Path, thresholds: WalThresholds) -> None:
        self.thresholds = thresholds
        self.level: WalLevel = "normal"
        self._wal = wal
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._observers: list[WalObserver] = []
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def observe(self, observer: WalObserver) -> None:
        """Call ``observer`` at each change of the level from now on; begins to watch. A forked
        child has no observers."""
        self._enter_process()
        with self._lock:
            self._observers.append(observer)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="replicator-wal", daemon=True
                )
                self._thread.start()

    def check(self) -> WalChange | None:
        """Look now; the change since the last look, None if there is none."""
        self._enter_process()
        with self._lock:
            size, before = size_of(self._wal), self.level
            self.level = self.thresholds.level(size, before)
            if self.level == before:
                return None
            change = WalChange(size, self.level, before)
            self._call(change)
            return change

    def close(self) -> None:
        """End the thread."""
        self._enter_process()
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _enter_process(self) -> None:
        if self._process != os.getpid():
            self._begin()

    def _run(self) -> None:
        while not self._stop.wait(self.thresholds.interval):
            self.check()

    def _call(self, change: WalChange) -> None:
        worse = RANKS[change.level] > RANKS[change.before]
        log.log(
            logging.WARNING if worse else logging.INFO,
            "the WAL has %.1f MiB: %s",
            change.size / MIB,
            change.level,
        )
        for observer in self._observers:
            try:
                observer(change)
            except Exception:
                log.exception("an observer of the WAL failed")

"""Wakes the capture thread for its next look: at a file event, a message, or after a while.

Owns: the watch on the database's files, and the time of the last look. Refuses: to look.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from replicator.engine.limits import LoopLimits
from replicator.engine.session import Session
from replicator.system.mailbox import Mailbox
from replicator.system.watch import FileWatcher, Watch
from replicator.upload.watermark import UploadState


class Wakeups:
    """Used by the capture thread alone, but for :attr:`looked`."""

    def __init__(
        self, database: Path, files: FileWatcher, mailbox: Mailbox, limits: LoopLimits
    ) -> None:
        self._database = database
        self._files = files
        self._mailbox = mailbox
        self._limits = limits
        self._watch: Watch | None = None
        self._unannounced = False  # no file event announced the change that woke the thread
        self._looked = time.monotonic()
        self._again: list[float] = []  # seconds until each look that is due although nothing comes

    @property
    def looked(self) -> float:
        """The last time at which the WAL contained nothing unnoticed, or the start (monotonic)."""
        watch = self._watch
        return max(self._looked, watch.checked if watch is not None else 0.0)

    def looks(self) -> None:
        """The thread looks at the WAL now."""
        self._looked = time.monotonic()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Changes of the files wake the thread inside the block."""
        self.looks()
        self._again = [*self._limits.again]
        self._watch = Watch(self._files, self._database, self._changed)
        try:
            yield
        finally:
            self._watch.stop()
            self._watch = None

    def _changed(self, announced: bool) -> None:
        self._unannounced = not announced
        self._mailbox.wake()

    def sleep(self, session: Session, upload: UploadState, *, in_vain: bool) -> bool:
        """Wait for the next look; True if a message or a file event ended the wait.

        ``in_vain``: the last wake-up was no commit, such as a connection that closed. Such events
        may come by the thousand, so the next one has to wait a little.
        """
        if in_vain:
            self._again = [*self._limits.again]
            if self._mailbox.wait(self._limits.rest):
                return True
        if session.busy:
            timeout = min(session.calm(upload), self._limits.calm_tick) or self._limits.tick
        else:
            timeout = session.poll_interval
            if self._watch is not None:
                self._watch.arm()
                if self._again:
                    timeout = self._until_again(timeout)
                elif session.at_rest:  # the file watcher compares the files every so often
                    timeout = self._watch.rest(timeout)
            if session.look(hinted=True):
                return True
        woken = self._wait(session, timeout) if session.busy else self._mailbox.wait(timeout)
        unannounced, self._unannounced = self._unannounced, False
        return woken and not unannounced

    def _until_again(self, most: float) -> float:
        """Seconds until the next further look, at most ``most``."""
        rest = self._again.pop(0)
        if rest > most:
            self._again.insert(0, rest - most)
        return min(rest, most)

    def _wait(self, session: Session, timeout: float) -> bool:
        """Wait, with looks for a checkpoint of the application, which no file event announces
        while frames are uncaptured."""
        until = time.monotonic() + timeout
        while not (woken := self._mailbox.wait(min(timeout, session.way_pause))):
            timeout = until - time.monotonic()
            if timeout <= 0 or session.checkpoint_waits():
                break
        return woken

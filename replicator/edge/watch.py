"""File events as hints: something may have been committed, look now rather than at the next poll.

Owns: one inotify watch on the database's directory, through watchdog. Refuses: to be relied on
(network and container mounts are silent, limits run out, directories vanish), to raise, and to
open the database: inotify takes a path, whereas watchdog's kqueue back end opens and closes the
files, which would drop the process's SQLite locks. So there is no other back end than inotify.

A watch fires once and is gone until it is armed again: thousands of commits a second cost one
event. Arming and disarming cost 0.14 ms of CPU together, most of it the thread that watchdog
starts per watch, and a commit wakes within 0.2 ms; watchdog 7.1 holds back renames by half a
second, but never a modification.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers.api import ObservedWatch
    from watchdog.observers.inotify import InotifyObserver

SUFFIXES = ("", "-wal", "-shm")
# A busy neighbour in the directory must not cost more than a poll; then the watch gives up
# until it is armed again.
MAX_FOREIGN = 100


class Watcher:
    """Calls ``wake`` once per :meth:`arm`, from a thread of its own, when the database, its WAL
    or its shared memory file changes, or somebody who could have changed it closes it. ``wake``
    must be quick and must not call back."""

    def __init__(self, database: str | os.PathLike[str], wake: Callable[[], None]) -> None:
        path = os.path.realpath(database)
        self._directory = os.path.dirname(path)
        self._paths = frozenset(path + suffix for suffix in SUFFIXES)
        self._wake = wake
        self._lock = threading.Lock()
        self._observer: InotifyObserver | None = None
        self._once: _Once | None = None
        self._stopped = False
        self.active = False
        """Whether the last :meth:`arm` worked. False: only the poll finds changes."""

    def arm(self) -> None:
        """Watch for the next change. Does nothing while armed; without inotify, nothing at all."""
        with self._lock:
            if self._stopped or (self._once is not None and self._once.waiting()):
                return
            self._release()
            try:
                self._once = self._watch()
            except Exception:  # noqa: BLE001 - a hint that cannot be had is no error, whatever it is
                self._once = None
            self.active = self._once is not None

    def disarm(self) -> None:
        """Stop watching until armed again."""
        with self._lock:
            self._release()

    def stop(self) -> None:
        """Disarm for good and end the threads."""
        with self._lock:
            self._release()
            self._stopped = True
            self.active = False
            observer, self._observer = self._observer, None
        if observer is not None:
            with contextlib.suppress(Exception):  # then its threads, daemons, end with us
                observer.stop()
                observer.join()

    def _watch(self) -> _Once:
        from watchdog.events import (
            FileClosedEvent,
            FileCreatedEvent,
            FileModifiedEvent,
            FileMovedEvent,
        )
        from watchdog.observers.api import ObservedWatch
        from watchdog.observers.inotify import InotifyObserver

        if self._observer is None:
            logging.getLogger("watchdog.observers.inotify").addFilter(_matters)
            self._observer = InotifyObserver()
            self._observer.start()
        once = _Once(self._observer, self._paths, self._wake)
        changes: list[type[FileSystemEvent]] = [
            FileModifiedEvent, FileCreatedEvent, FileMovedEvent, FileClosedEvent]
        # Events may come before schedule() answers; what it will answer is equal to this.
        once.watch = ObservedWatch(self._directory, recursive=False, event_filter=changes)
        once.watch = self._observer.schedule(
            cast("FileSystemEventHandler", once), self._directory, event_filter=changes
        )
        return once

    def _release(self) -> None:
        once, self._once = self._once, None
        if once is not None:
            once.release()


class _Once:
    """What watchdog calls with each event of one watch. :meth:`dispatch` runs in the observer's
    thread under the observer's lock; it takes no lock of ours, so the two never interlock."""

    watch: ObservedWatch

    def __init__(self, observer: InotifyObserver, paths: frozenset[str],
                 wake: Callable[[], None]) -> None:
        self._observer = observer
        self._paths = paths
        self._wake = wake
        self._spent = False
        self._foreign = 0

    def waiting(self) -> bool:
        """Whether it can still fire. A deleted directory ends its emitter's thread."""
        return not self._spent and any(
            emitter.watch is self.watch and emitter.is_alive()
            for emitter in list(self._observer.emitters)
        )

    def dispatch(self, event: FileSystemEvent) -> None:
        ours = {event.src_path, event.dest_path} & self._paths
        self._foreign += not ours
        if self._spent or not (ours or self._foreign > MAX_FOREIGN):
            return
        self._spent = True
        self.release()
        if ours:
            with contextlib.suppress(Exception):  # the observer's thread must live on
                self._wake()

    def release(self) -> None:
        with contextlib.suppress(Exception):  # KeyError: it fired at the same moment
            self._observer.unschedule(self.watch)


def _matters(record: logging.LogRecord) -> bool:
    """False for what watchdog logs as an error when a watch ends while it is being read."""
    return "called when the thread is inactive" not in record.getMessage()

"""Looking after database files: one thread hears of changes and looks by itself, for everybody.

File events are hints: something may have been committed, look now. They come through inotify,
from one watch on the database and one on its log, and are not relied upon: network and container
mounts are silent, limits run out. What is relied upon is stat(2): as long as device, inode, size
and modification time of both files stay what they were, nothing was written. So a database at
rest costs two stats a second, and nobody wakes for it.

Owns: the one inotify instance and the one thread of a :class:`Lookout`. Refuses: to raise, and to
open the database: inotify takes a path, whereas watchdog's kqueue back end opens and closes the
files, which would drop the process's SQLite locks. So there is no other back end than inotify,
and of watchdog only its door to the system calls is used.

A watch fires once and is gone until it is armed again: thousands of commits a second cost one
event. Arming costs two system calls; neighbours in the directory cost nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

SETTLED = 2.0  # seconds; file systems tell times in steps of at most that
LONG_REST = 30.0  # seconds after which even a database whose files stay the same is looked at
EVENT = struct.Struct("iIII")  # struct inotify_event of inotify(7), before its name
EVENTS_BYTES = 65536

Seen = tuple[tuple[int, ...], ...]


class Lookout:
    """The thread; it is started with the first watch that needs it. :meth:`stop` ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Any = None  # watchdog's module, None as long as there is no instance
        self._inotify = -1
        self._armed: dict[int, Watcher] = {}  # by watch descriptor
        self._resting: dict[float, set[Watcher]] = {}  # by seconds between two looks
        self._beats: dict[float, float] = {}  # when each of these is next (monotonic)
        self._planned = 0.0  # when the thread looks next (monotonic)
        self._poller = select.poll()
        self._signal = -1, -1
        self._thread: threading.Thread | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the thread; watches are silent from here on."""
        with self._lock:
            self._stopped = True
            self._nudge()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
            for descriptor in (*self._signal, *([self._inotify] if self._inotify >= 0 else [])):
                os.close(descriptor)
            self._inotify = -1

    # ---------------------------------------------------------------- for watchers

    def _arm(self, watcher: Watcher, paths: tuple[str, ...]) -> bool:
        """Whether the next change of each of the files will be heard."""
        with self._lock:
            if self._stopped or not self._open():
                return False
            heard = True
            for path in paths:
                descriptor = self._calls.inotify_add_watch(
                    self._inotify, os.fsencode(path), self._mask
                )
                heard = heard and descriptor >= 0
                if descriptor >= 0:
                    self._armed[descriptor] = watcher
            return heard

    def _rest(self, watcher: Watcher, interval: float) -> None:
        """Look at the watcher's files every ``interval`` seconds until they changed."""
        with self._lock:
            if self._stopped:
                return
            self._begin()
            group = self._resting.setdefault(interval, set())
            group.add(watcher)
            now = time.monotonic()
            if len(group) == 1:
                self._beats[interval] = now + interval
            if self._beats[interval] < self._planned:
                self._nudge()

    def _forget(self, watcher: Watcher) -> None:
        with self._lock:
            for group in self._resting.values():
                group.discard(watcher)
            for descriptor in [d for d, each in self._armed.items() if each is watcher]:
                del self._armed[descriptor]
                with contextlib.suppress(Exception):  # it fired at the same moment
                    self._calls.inotify_rm_watch(self._inotify, descriptor)

    def _open(self) -> bool:
        """Have an inotify instance. Whatever is in the way, hints are not worth an error."""
        if self._calls is not None:
            return True
        try:
            from watchdog.observers import inotify_c

            known = inotify_c.InotifyConstants
            self._mask = (
                known.IN_MODIFY
                | known.IN_ATTRIB
                | known.IN_CLOSE_WRITE
                | known.IN_DELETE_SELF
                | known.IN_MOVE_SELF
                | known.IN_ONESHOT
            )
            descriptor = inotify_c.inotify_init()
        except Exception:  # noqa: BLE001 - another platform, or another watchdog
            return False
        if descriptor < 0:
            return False
        os.set_inheritable(descriptor, False)
        os.set_blocking(descriptor, False)
        self._calls, self._inotify = inotify_c, descriptor
        self._begin()
        self._poller.register(descriptor, select.POLLIN)
        self._nudge()
        return True

    # ---------------------------------------------------------------- the thread

    def _begin(self) -> None:
        if self._thread is not None:
            return
        self._signal = os.pipe()
        for descriptor in self._signal:
            os.set_blocking(descriptor, False)
        self._poller.register(self._signal[0], select.POLLIN)
        self._thread = threading.Thread(target=self._run, name="replicator-lookout", daemon=True)
        self._thread.start()

    def _nudge(self) -> None:
        if self._thread is not None:
            with contextlib.suppress(BlockingIOError):  # it is full: the thread will wake anyway
                os.write(self._signal[1], b"!")

    def _run(self) -> None:
        while not self._stopped:
            ready = [descriptor for descriptor, _ in self._poller.poll(self._pause())]
            if self._signal[0] in ready:
                os.read(self._signal[0], EVENTS_BYTES)
            if self._inotify in ready:
                self._hear()
            self._look()

    def _pause(self) -> float | None:
        """Milliseconds until the next look, None: until somebody nudges."""
        with self._lock:
            beats = [at for interval, at in self._beats.items() if self._resting[interval]]
            self._planned = min(beats, default=float("inf"))
        return max(0.0, 1000 * (self._planned - time.monotonic())) + 1 if beats else None

    def _hear(self) -> None:
        """Wake those whose files changed; each once."""
        with contextlib.suppress(OSError):
            data = os.read(self._inotify, EVENTS_BYTES)
            at = 0
            while at + EVENT.size <= len(data):
                descriptor, _, _, size = EVENT.unpack_from(data, at)
                at += EVENT.size + size
                for watcher in self._spent(descriptor):
                    watcher.heard()

    def _spent(self, descriptor: int) -> list[Watcher]:
        """Whose watch fired; everybody's when the kernel dropped events (descriptor -1)."""
        with self._lock:
            if descriptor < 0:
                everybody = list(self._armed.values())
                self._armed.clear()
                return everybody
            watcher = self._armed.pop(descriptor, None)
            return [watcher] if watcher is not None else []

    def _look(self) -> None:
        """Compare the files of those at rest whose time has come."""
        now = time.monotonic()
        with self._lock:
            due = [
                interval
                for interval, at in self._beats.items()
                if at <= now and self._resting[interval]
            ]
            watchers = [watcher for interval in due for watcher in self._resting[interval]]
            for interval in due:
                self._beats[interval] = now + interval
        changed = [watcher for watcher in watchers if not watcher.unchanged(now)]
        if not changed:
            return
        with self._lock:
            for group in self._resting.values():
                group.difference_update(changed)
        for watcher in changed:
            watcher.found()


class Watcher:
    """What a :class:`Lookout` knows of one database.

    ``wake`` is called from its thread, must be quick and must not call back: with True when an
    event told of a change (once per :meth:`arm`), or that somebody who could have changed a file
    closed it; with False when the files were found changed although no event told (once per
    :meth:`rest`).
    """

    def __init__(
        self, lookout: Lookout, database: str | os.PathLike[str], wake: Callable[[bool], None]
    ) -> None:
        path = os.path.realpath(database)
        self._lookout = lookout
        self._paths = path, f"{path}-wal"
        self._wake = wake
        self._waiting = False  # for an event
        self._resting = False
        self._seen: Seen | None = None
        self._since = 0.0  # when the files were first seen as they are (monotonic)
        self._stopped = False
        self.active = False
        """Whether the last :meth:`arm` worked. False: only looking finds changes."""
        self.checked = 0.0
        """When the files of a database at rest were last found unchanged (monotonic)."""

    def arm(self) -> None:
        """Hear of the next change. Does nothing while armed; without inotify, nothing at all."""
        if self._stopped or (self._waiting and self.active):
            return
        self._waiting = True
        self.active = self._lookout._arm(self, self._paths)  # noqa: SLF001 - the two are one

    def rest(self, interval: float) -> float:
        """Call it before the last look at the log: seconds that may pass before the next one.

        Within these, ``wake`` is called at the latest ``interval`` seconds after the files
        changed. Not before they have been the same for a while: a change right after another
        one may leave size and time as they were.
        """
        seen, now = _facts(self._paths), time.monotonic()
        if seen != self._seen:
            self._seen, self._since = seen, now
        if not self.active or now - self._since < SETTLED:
            return interval
        self._resting = True
        self._lookout._rest(self, interval)  # noqa: SLF001
        return max(interval, LONG_REST)

    def stop(self) -> None:
        """Be silent for good."""
        self._stopped, self._waiting, self.active = True, False, False
        self._lookout._forget(self)  # noqa: SLF001

    # ---------------------------------------------------------------- from the lookout's thread

    def unchanged(self, now: float) -> bool:
        """Whether the files are as :meth:`rest` saw them."""
        same = _facts(self._paths) == self._seen
        if same:
            self.checked = now
        return same

    def heard(self) -> None:
        if self._waiting:
            self._waiting = self._resting = False
            self._tell(event=True)

    def found(self) -> None:
        if self._resting:
            self._resting = False
            self._tell(event=False)

    def _tell(self, *, event: bool) -> None:
        with contextlib.suppress(Exception):  # the thread must live on for the others
            self._wake(event)


def _facts(paths: tuple[str, ...]) -> Seen:
    """What changes with every write to the files: () for one that is not there."""
    found: list[tuple[int, ...]] = []
    for path in paths:
        try:
            facts = os.stat(path)
        except OSError:
            found.append(())
        else:
            found.append((facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns))
    return tuple(found)

"""Notices changes of database files: one thread for all databases of the process.

File events are hints: there may be a commit, so capture now. They come through inotify, from one
watch on the database and one on its WAL. The replicator does not rely on them, because network and
container mounts send none, and limits run out. It relies on stat(2): as long as device, inode,
size and modification time of both files are unchanged, nothing was written. So an idle database
costs two stats a second and wakes no other thread.

Owns the one inotify instance and the one thread of a :class:`FileWatcher`. Refuses to raise, and to
open the database. Inotify takes a path, but watchdog's kqueue back end opens and closes the files,
which would drop the process's SQLite locks. So inotify is the only back end, and watchdog provides
only its bindings of the system calls.

A watch fires once and is gone until it is armed again: thousands of commits a second cost one
event. Arming costs two system calls; other files in the directory cost nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from replicator.system.paths import resolved, wal_path

SETTLED = 2.0  # seconds; no file system has coarser modification times
LONG_REST = 30.0  # seconds after which a database is captured although its files are unchanged
EVENT = struct.Struct("iIII")  # struct inotify_event of inotify(7), before its name
EVENTS_BYTES = 65536

FileStates: TypeAlias = tuple[tuple[int, ...], ...]


class FileWatcher:
    """The thread, which starts with the first watch that needs it. :meth:`stop` ends it.

    ``settled`` is the time in seconds that files must stay unchanged before a comparison can be
    trusted. ``monotonic`` is the clock.
    """

    def __init__(
        self, *, settled: float = SETTLED, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.settled = settled
        self.monotonic = monotonic
        self._lock = threading.Lock()
        self._calls: Any = None  # watchdog's module, None without an inotify instance
        self._inotify = -1
        self._armed: dict[int, Watch] = {}  # by watch descriptor
        self._idle: dict[float, set[Watch]] = {}  # by seconds between two comparisons
        self._next: dict[float, float] = {}  # time of each interval's next comparison (monotonic)
        self._planned = 0.0  # time of the thread's next comparison (monotonic)
        self._poller = select.poll()
        self._signal = -1, -1
        self._thread: threading.Thread | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the thread. No watch calls ``wake`` afterwards."""
        with self._lock:
            self._stopped = True
            self._nudge()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
            for descriptor in (*self._signal, *([self._inotify] if self._inotify >= 0 else [])):
                os.close(descriptor)
            self._inotify = -1

    # ---------------------------------------------------------------- for watches

    def arm(self, watch: Watch, paths: tuple[str, ...]) -> bool:
        """Ask for an event at the next change of the files. False if one of them gives none."""
        with self._lock:
            if self._stopped or not self._open():
                return False
            complete = True
            for path in paths:
                descriptor = self._calls.inotify_add_watch(
                    self._inotify, os.fsencode(path), self._mask
                )
                complete = complete and descriptor >= 0
                if descriptor >= 0:
                    self._armed[descriptor] = watch
            return complete

    def compare_every(self, watch: Watch, interval: float) -> None:
        """Compare the watch's files every ``interval`` seconds, until they change."""
        with self._lock:
            if self._stopped:
                return
            self._begin()
            group = self._idle.setdefault(interval, set())
            group.add(watch)
            now = self.monotonic()
            if len(group) == 1:
                self._next[interval] = now + interval
            if self._next[interval] < self._planned:
                self._nudge()

    def forget(self, watch: Watch) -> None:
        with self._lock:
            for group in self._idle.values():
                group.discard(watch)
            for descriptor in [d for d, each in self._armed.items() if each is watch]:
                del self._armed[descriptor]
                with contextlib.suppress(Exception):  # it fired at the same time
                    self._calls.inotify_rm_watch(self._inotify, descriptor)

    def _open(self) -> bool:
        """Create the inotify instance if needed. False if that fails: hints are optional."""
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
        self._thread = threading.Thread(target=self._run, name="replicator-watch", daemon=True)
        self._thread.start()

    def _nudge(self) -> None:
        if self._thread is not None:
            with contextlib.suppress(BlockingIOError):  # a full pipe wakes the thread anyway
                os.write(self._signal[1], b"!")

    def _run(self) -> None:
        while not self._stopped:
            ready = [descriptor for descriptor, _ in self._poller.poll(self._pause())]
            if self._signal[0] in ready:
                os.read(self._signal[0], EVENTS_BYTES)
            if self._inotify in ready:
                self._read_events()
            self._compare()

    def _pause(self) -> float | None:
        """Milliseconds until the next comparison; None: until a nudge."""
        with self._lock:
            times = [at for interval, at in self._next.items() if self._idle[interval]]
            self._planned = min(times, default=float("inf"))
        return max(0.0, 1000 * (self._planned - self.monotonic())) + 1 if times else None

    def _read_events(self) -> None:
        """Report each watch that fired, once."""
        with contextlib.suppress(OSError):
            data = os.read(self._inotify, EVENTS_BYTES)
            at = 0
            while at + EVENT.size <= len(data):
                descriptor, _, _, size = EVENT.unpack_from(data, at)
                at += EVENT.size + size
                for watch in self._fired(descriptor):
                    watch.fired()

    def _fired(self, descriptor: int) -> list[Watch]:
        """The watch of a descriptor; every watch if the kernel dropped events (-1)."""
        with self._lock:
            if descriptor < 0:
                every = list(self._armed.values())
                self._armed.clear()
                return every
            watch = self._armed.pop(descriptor, None)
            return [watch] if watch is not None else []

    def _compare(self) -> None:
        """Compare the files of the idle databases that are due."""
        now = self.monotonic()
        with self._lock:
            due = [
                interval
                for interval, at in self._next.items()
                if at <= now and self._idle[interval]
            ]
            watches = [watch for interval in due for watch in self._idle[interval]]
            for interval in due:
                self._next[interval] = now + interval
        changed = [watch for watch in watches if not watch.unchanged(now)]
        if not changed:
            return
        with self._lock:
            for group in self._idle.values():
                group.difference_update(changed)
        for watch in changed:
            watch.found_changed()


class Watch:
    """The watch on the files of one database.

    Calls ``wake`` from the watcher's thread, with True after an event (once per :meth:`arm`),
    with False when a comparison found a change without an event (once per :meth:`rest`). An
    event is a change, or that a process closed a file that it could have written. ``wake`` must
    be quick and must not call the watch.
    """

    def __init__(
        self, watcher: FileWatcher, database: str | os.PathLike[str], wake: Callable[[bool], None]
    ) -> None:
        real = resolved(database)
        self._watcher = watcher
        # The path itself is compared: a link that is switched changes no file.
        self._paths = os.fspath(database), str(wal_path(real))
        self._wake = wake
        self._waiting = False  # for an event
        self._resting = False
        self._seen: FileStates | None = None
        self._since = 0.0  # time of the first look at the files as they are (monotonic)
        self._stopped = False
        self.active = False
        """True if the last :meth:`arm` worked. If not, only comparisons find changes."""
        self.checked = 0.0
        """Time of the last comparison that found an idle database unchanged (monotonic)."""

    def arm(self) -> None:
        """Ask for an event at the next change. Does nothing while armed, or without inotify."""
        if self._stopped or (self._waiting and self.active):
            return
        self._waiting = True
        self.active = self._watcher.arm(self, self._paths)

    def rest(self, interval: float) -> float:
        """The seconds that may pass before the next capture. Call it before the last look at
        the WAL.

        Within that time, the watch calls ``wake`` at most ``interval`` seconds after a change.
        That needs files that have not changed for a while: a change directly after another one
        may keep size and time.
        """
        seen, now = _file_states(self._paths), self._watcher.monotonic()
        if seen != self._seen:
            self._seen, self._since = seen, now
        if not self.active or now - self._since < self._watcher.settled:
            return interval
        self._resting = True
        self._watcher.compare_every(self, interval)
        return max(interval, LONG_REST)

    def stop(self) -> None:
        """Never call ``wake`` again."""
        self._stopped, self._waiting, self.active = True, False, False
        self._watcher.forget(self)

    # ---------------------------------------------------------------- in the watcher's thread

    def unchanged(self, now: float) -> bool:
        """True if the files are as :meth:`rest` saw them."""
        same = _file_states(self._paths) == self._seen
        if same:
            self.checked = now
        return same

    def fired(self) -> None:
        if self._waiting:
            self._waiting = self._resting = False
            self._call(event=True)

    def found_changed(self) -> None:
        if self._resting:
            self._resting = False
            self._call(event=False)

    def _call(self, *, event: bool) -> None:
        with contextlib.suppress(Exception):  # the thread serves other watches
            self._wake(event)


def _file_states(paths: tuple[str, ...]) -> FileStates:
    """Device, inode, size and modification time of each file; () for a missing one."""
    found: list[tuple[int, ...]] = []
    for path in paths:
        try:
            facts = os.stat(path)
        except OSError:
            found.append(())
        else:
            found.append((facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns))
    return tuple(found)

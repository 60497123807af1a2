"""File systems that fail at the call that a test names, injected instead of `Files`."""

import errno
import os
import signal
import sqlite3
import threading
from collections import Counter

from replicator.errors import DiskFull
from replicator.system.files import Files


class Crash(BaseException):
    """The process ended here. Nothing but the test itself catches it."""


class CountingFiles(Files):
    """Numbers the calls and remembers their names; the base of the others."""

    def __init__(self):
        self.log = []

    def system(self, call, /, *args, **kwargs):
        self.log.append((call.__name__, args))
        return self.act(len(self.log), call, args, kwargs)

    def act(self, number, call, args, kwargs):
        return call(*args, **kwargs)

    def names(self):
        return [name for name, _ in self.log]


class CrashingFiles(CountingFiles):
    """Raises `Crash` before call number ``at``, so that no later call takes effect."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def act(self, number, call, args, kwargs):
        if number >= self.at:
            raise Crash
        return call(*args, **kwargs)


class KillingFiles(CountingFiles):
    """Kills the process with SIGKILL at call number ``at``; for use in a subprocess."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def act(self, number, call, args, kwargs):
        if number == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)


class FailingFiles(CountingFiles):
    """Fails call number ``at`` once, with ENOSPC or an I/O error."""

    def __init__(self, at, code=errno.ENOSPC):
        super().__init__()
        self.at = at
        self.code = code

    def act(self, number, call, args, kwargs):
        if number == self.at:
            raise injected(call, self.code)
        return call(*args, **kwargs)


class KeepingFiles(Files):
    """Refuses to remove any file while ``keeps`` is true."""

    keeps = True

    def system(self, call, /, *args, **kwargs):
        if call is os.unlink and self.keeps:
            raise OSError(errno.EIO, "Input/output error")
        return call(*args, **kwargs)


class TearingFiles(CountingFiles):
    """Writes at most ``most`` bytes at a time, as the kernel may."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def act(self, number, call, args, kwargs):
        if call is os.write:
            return os.write(args[0], args[1][: self.most])
        if call is os.pread:
            return os.pread(args[0], min(args[1], self.most), args[2])
        if call is os.preadv:
            return os.preadv(args[0], [args[1][0][: self.most]], args[2])
        return call(*args, **kwargs)


class FullFiles(Files):
    """The next ``left`` calls of the name ``step`` find the disk full."""

    def __init__(self, step):
        self.step, self.left = step, 0
        self._lock = threading.Lock()

    def system(self, call, /, *args, **kwargs):
        with self._lock:
            fails = self.left > 0 and call.__name__ == self.step
            self.left -= fails
        if fails:
            raise DiskFull("no space left on the test's disk")
        return call(*args, **kwargs)


class PowerCutFiles(CrashingFiles):
    """The power fails before call number ``at``: only synced changes survive.

    Content that was not synced is lost. A created, replaced or removed name reverts unless its
    directory was synced. SQLite's own files stay as they are, because SQLite syncs them itself.
    """

    def __init__(self, at):
        super().__init__(at)
        self.open = {}  # descriptor -> path
        self.dirty = {}  # inode -> a path of it, content not synced
        self.undo = []  # (directory, path, content before or None)

    def act(self, number, call, args, kwargs):
        if call is os.rename:
            return self._rename(number, *args)
        if call is os.unlink and number < self.at:
            self._remember(self._path(args, kwargs))
        result = super().act(number, call, args, kwargs)
        if call is os.open:
            self.open[result] = self._path(args, kwargs)
        elif call is os.write:
            self.dirty[os.fstat(args[0]).st_ino] = self.open[args[0]]
        elif call is os.fsync:
            self._synced(args[0])
        return result

    def _path(self, args, kwargs):
        """The path of a call that may resolve a name in an open directory."""
        return os.path.join(self.open.get(kwargs.get("dir_fd"), ""), os.fspath(args[0]))

    def _remember(self, path):
        content = None
        if os.path.isfile(path):
            with open(path, "rb") as file:
                content = file.read()
        self.undo.append((os.path.dirname(path), path, content))

    def _rename(self, number, old, new):
        if number < self.at and not os.fspath(old).endswith("state.db"):
            self._remember(new)
        inode = os.stat(old).st_ino if os.path.exists(old) else None
        super().act(number, os.rename, (old, new), {})
        if inode in self.dirty:
            self.dirty[inode] = new

    def _synced(self, fd):
        self.dirty.pop(os.fstat(fd).st_ino, None)
        directory = self.open[fd]
        self.undo = [step for step in self.undo if os.path.dirname(step[1]) != directory]

    def cut(self):
        """Brings the disk into the state after the power cut."""
        for path in self.dirty.values():
            if os.path.exists(path):
                os.truncate(path, 0)
        for _, path, content in reversed(self.undo):
            if content is None:
                if os.path.exists(path):
                    os.unlink(path)
                continue
            with open(path, "wb") as file:
                file.write(content)


class StrikingFiles(Files):
    """Strikes calls with a fault until it is cleared. A point names the operation and its object,
    as ``("write", "segment")`` or ``("COMMIT", "ledger")``; ``seen`` counts the calls per point.

    ``strike(point, n, fault, lasting)`` fails the n-th call of that point. A ``lasting`` fault
    also strikes all later calls that it would affect: on a full disk every call that needs space,
    with an I/O error every call of that point, with short writes every write.
    """

    GROWS = frozenset(
        {
            "open to write",
            "write",
            "pwrite",
            "mkdir",
            "rename",
            "fsync",
            "ftruncate",
            "INSERT",
            "CREATE",
            "COMMIT",
            "PRAGMA",
        }
    )
    WRITES = frozenset({"write", "pwrite"})

    def __init__(self, name_of):
        """``name_of`` gives a short word for a path."""
        self._name_of = name_of
        self._lock = threading.Lock()
        self._names = {}  # descriptor -> word
        self._plan = None
        self.seen = Counter()
        self.struck = 0

    def strike(self, point, nth, fault, *, lasting):
        self._plan = point, nth, fault, lasting

    def clear(self):
        self._plan = None

    def system(self, call, /, *args, **kwargs):
        point = self._point(call, args)
        fault = self._fault(point)
        if fault == "short":
            cut = max(1, len(args[1]) // 2)
            return call(args[0], args[1][:cut], *args[2:])
        if fault is not None:
            raise injected(call, fault)
        result = call(*args, **kwargs)
        if call is os.open:
            self._names[result] = point[1]
        return result

    def _point(self, call, args):
        if call.__name__ == "_execute":
            return args[0].split()[0], "ledger"
        if call is os.open:
            doing = "open to write" if args[1] & (os.O_WRONLY | os.O_RDWR) else "open"
            return doing, self._name_of(args[0])
        target = args[0]
        known = self._names.get(target) if isinstance(target, int) else self._name_of(target)
        return call.__name__, known or "database"  # its descriptor outlives its opener

    def _fault(self, point):
        with self._lock:
            self.seen[point] += 1
            if self._plan is None:
                return None
            planned, nth, fault, lasting = self._plan
            first = point == planned and self.seen[point] == nth
            if not first and not (lasting and self.struck and self._alike(point, planned, fault)):
                return None
            self.struck += 1
            return fault

    def _alike(self, point, planned, fault):
        if fault == "short":
            return point[0] in self.WRITES
        return point[0] in self.GROWS if fault == errno.ENOSPC else point == planned


def injected(call, code):
    """The error that a system call, or SQLite, would raise."""
    if call.__name__ != "_execute":
        return OSError(code, os.strerror(code))
    full = code == errno.ENOSPC
    error = sqlite3.OperationalError("database or disk is full" if full else "disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_IOERR
    return error

"""File systems that fail: through the seam of edge/files.py, at the call that a test names."""

import errno
import os
import signal
import sqlite3

from replicator.edge.files import Files


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
    """Ends the process before call number ``at``: nothing that comes later takes effect."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def act(self, number, call, args, kwargs):
        if number >= self.at:
            raise Crash
        return call(*args, **kwargs)


class KillingFiles(CountingFiles):
    """As above, with SIGKILL; for a process of its own."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def act(self, number, call, args, kwargs):
        if number == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)


class FailingFiles(CountingFiles):
    """Call number ``at`` fails, once, for lack of space or with an I/O error."""

    def __init__(self, at, code=errno.ENOSPC):
        super().__init__()
        self.at = at
        self.code = code

    def act(self, number, call, args, kwargs):
        if number == self.at:
            raise self.error(call)
        return call(*args, **kwargs)

    def error(self, call):
        if call.__name__ != "_execute":
            return OSError(self.code, os.strerror(self.code))
        full = self.code == errno.ENOSPC
        error = sqlite3.OperationalError("injected")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_IOERR
        return error


class TearingFiles(CountingFiles):
    """Writes at most ``most`` bytes at a time, as the kernel may."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def act(self, number, call, args, kwargs):
        if call is os.write:
            return os.write(args[0], args[1][:self.most])
        if call is os.pread:
            return os.pread(args[0], min(args[1], self.most), args[2])
        if call is os.preadv:
            return os.preadv(args[0], [args[1][0][:self.most]], args[2])
        return call(*args, **kwargs)


class PowerCutFiles(CrashingFiles):
    """Before call number ``at`` the power fails: what was not synced is as if never done.

    Content that was not synced is gone; a name that was made, replaced or removed is as it was
    until its directory is synced. SQLite's own files are left alone: it syncs for itself.
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
            self._remember(args[0])
        result = super().act(number, call, args, kwargs)
        if call is os.open:
            self.open[result] = os.fspath(args[0])
        elif call is os.write:
            self.dirty[os.fstat(args[0]).st_ino] = self.open[args[0]]
        elif call is os.fsync:
            self._synced(args[0])
        return result

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
        """What the disk holds when the power is back."""
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

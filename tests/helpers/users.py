"""Other users of the machine: parts of a test that run without root's rights.

Most of the users exist by number only. Tests that need them run as root, as in CI.
"""

import os
import pickle
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

OTHER = 65534  # has no rights, and on most machines a name
APP, SIDECAR, COLLEAGUE, SHARED = 54321, 54322, 54323, 54399  # users, and a group


def as_user(uid, gid, groups, function, *arguments, measured=False):
    """The result of ``function`` in a forked process of that user; an exception is raised here.

    Coverage takes a second or more to write its data at the end of a process that is ``measured``.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.umask(0o022)
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, 0)  # the saved id counts for no right
            try:
                answer = True, function(*arguments)
            except Exception as error:  # noqa: BLE001 - it is raised in the parent
                answer = False, error
            os.write(write, pickle.dumps(answer))
        finally:
            if not measured:
                os.kill(os.getpid(), signal.SIGKILL)
            os.seteuid(0)  # coverage writes its data at the end
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        good, value = pickle.loads(pipe.read())
    os.waitpid(pid, 0)
    if not good:
        raise value
    return value


class Place:
    """A directory that every user can reach, unlike those of pytest."""

    def __init__(self):
        self.path = Path(tempfile.mkdtemp())
        self.path.chmod(0o755)

    def directory(self, name, uid, gid, mode):
        made = self.path / name
        made.mkdir()
        os.chown(made, uid, gid)
        made.chmod(mode)
        return made

    def remove(self):
        shutil.rmtree(self.path)

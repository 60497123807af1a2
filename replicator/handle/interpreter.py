"""The Python that runs a sidecar, and the log of it.

Owns: which program is started, and which open file becomes its standard error. Refuses: to guess a
program that is no Python.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path

from replicator.errors import ConfigError
from replicator.system.paths import side_files

STANDARD_ERROR = 2


def interpreter(executable: str | None = None) -> str:
    """The path of the Python of this process, also where a server embeds it (uWSGI, mod_wsgi).

    ``multiprocessing.set_executable()`` names another one. ``ConfigError`` if there is none.
    """
    given = [sys.executable if executable is None else executable]
    if (spawn := sys.modules.get("multiprocessing.spawn")) is not None:
        given.insert(0, os.fsdecode(spawn.get_executable() or ""))
    beside = [str(Path(prefix, "bin", "python3")) for prefix in (sys.prefix, sys.base_prefix)]
    for path in [*given, *beside]:
        name = os.path.basename(path)
        if name.startswith(("python", "pypy")) and os.access(path, os.X_OK):
            return path
    raise ConfigError(
        f"the sidecar needs a Python interpreter, and {sys.executable or 'this process'} is none",
        code="no_interpreter",
        hint="name one with multiprocessing.set_executable(), or start `replicator run` yourself",
    )


def standard_error(database: Path) -> int | None:
    """The descriptor for the log of a sidecar: that of standard error, None if it is closed.

    A server may have closed it, and then the number can be that of the application's database.
    """
    try:
        found = os.fstat(STANDARD_ERROR)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return STANDARD_ERROR
    for path in (database, *side_files(database)):
        with contextlib.suppress(OSError):
            if os.path.samestat(found, os.stat(path)):
                return None
    return STANDARD_ERROR

"""A second SQLite library in a process that is about to open a database with the standard one.

POSIX locks belong to a process: when one library closes the file, the locks of the other are gone,
and writers of other processes damage the database. Each library avoids this for its own connections
only. Source: SQLite documentation, "How To Corrupt An SQLite Database File", 2.2.1.

Owns: the warning. Refuses: to load a library, to open a file, and to touch a connection of the
application, which may end the process while another thread uses or closes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import sys
from pathlib import Path
from types import ModuleType

from replicator.system.database_files import count_descriptors

# Modules with a library of their own.
OTHERS = ("apsw", "pysqlite3", "sqlcipher3", "pysqlcipher3", "sqlean")

log = logging.getLogger(__name__)


def warn_of_second_library(database: Path) -> None:
    """A warning in the log if this process has the file open already and another library than the
    standard one is loaded, which may be the one that opened it."""
    loaded = [name for name in OTHERS if name in sys.modules and not _is_standard(name)]
    if loaded and _is_open(database):
        log.warning(
            "%s is open in this process already, and %s is loaded; when one of two SQLite "
            "libraries closes a file, the locks of the other are lost: open each database with "
            "one library in a process",
            database,
            " and ".join(loaded),
        )


def _is_open(database: Path) -> bool:
    """True if a descriptor of this process has the file open."""
    with contextlib.suppress(OSError):  # there is no file
        facts = database.stat()
        return count_descriptors((facts.st_dev, facts.st_ino)) > 0
    return False


def _is_standard(name: str) -> bool:
    """True if a module was built against the library that the standard module uses."""
    ours, theirs = _address(sys.modules.get("_sqlite3")), _address(_extension(name))
    return ours is not None and ours == theirs


def _extension(name: str) -> ModuleType | None:
    """The compiled part of a module."""
    return sys.modules.get(f"{name}._sqlite3", sys.modules.get(name))


def _address(module: ModuleType | None) -> int | None:
    """The address of SQLite in memory as a compiled module sees it; None if it is not visible."""
    try:
        library = ctypes.CDLL(getattr(module, "__file__", None) or "")
        return ctypes.cast(library.sqlite3_libversion, ctypes.c_void_p).value
    except (OSError, AttributeError):
        return None

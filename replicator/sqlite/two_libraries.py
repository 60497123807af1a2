"""Two SQLite libraries in one process that have the same database open.

POSIX locks belong to a process: when one library closes the file, the locks of the other are gone,
and writers of other processes damage the database. Each library avoids this for its own connections
only. Source: SQLite documentation, "How To Corrupt An SQLite Database File", 2.2.1.

Owns: the list of libraries that have a file open here. Refuses: to load a library, and to open a
file.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from replicator.errors import DatabaseUnusable

STANDARD = "sqlite3"
# Modules with a library of their own, or a class `Connection` of it.
OTHERS = ("apsw", "pysqlite3", "sqlcipher3", "pysqlcipher3", "sqlean")
HINT = "open each database with one library in a process; the replicator needs none there"

log = logging.getLogger(__name__)


def refuse_second_library(database: Path) -> None:
    """``DatabaseUnusable`` (code ``second_library``) if another library than the standard one has
    the database open in this process."""
    found = libraries_with(database) - {STANDARD}
    if found:
        raise DatabaseUnusable(
            f"{_list(found)} has {database} open in this process; when one of two "
            "libraries closes a file, the locks of the other are lost",
            path=database,
            code="second_library",
            hint=HINT,
        )


def warn_of_two_libraries(database: Path) -> None:
    """A warning in the log if two libraries have the database open in this process."""
    found = libraries_with(database)
    if len(found) > 1:
        log.warning("%s: %s have it open in this process; %s", database, _list(found), HINT)


def libraries_with(database: Path) -> set[str]:
    """The modules with a library of their own that have the file open here.

    Costs a walk over all objects of the process, and only if one of them is loaded. Connections
    that only their own thread may use count as soon as this process has the file open at all.
    """
    loaded = [name for name in OTHERS if name in sys.modules and not _is_standard(name)]
    if not loaded:
        return set()
    try:
        file = _identity(database)
    except OSError:  # nothing to have open
        return set()
    kinds = {name: kind for name in (STANDARD, *loaded) if (kind := _connection_class(name))}
    objects = gc.get_objects()
    return {
        name
        for name, kind in kinds.items()
        if any(_has_open(each, file) for each in objects if issubclass(type(each), kind))
    }


def _list(names: set[str]) -> str:
    return " and ".join(sorted(names))


def _connection_class(name: str) -> type | None:
    kind = getattr(sys.modules.get(name), "Connection", None)
    return kind if isinstance(kind, type) else None


def _identity(path: str | Path) -> tuple[int, int]:
    facts = os.stat(path)
    return facts.st_dev, facts.st_ino


def _has_open(connection: Any, file: tuple[int, int]) -> bool:
    """True if a connection, which may be closed or belong to another thread, has a file open."""
    try:
        names = list(_files_of(connection))
    except Exception as error:  # noqa: BLE001 - each library has errors of its own
        return "thread" in str(error) and file in _open_files()
    for name in names:
        with contextlib.suppress(OSError):
            if name and _identity(name) == file:
                return True
    return False


def _files_of(connection: Any) -> Iterator[str]:
    if hasattr(connection, "db_filename"):  # apsw
        for name in connection.db_names():
            yield connection.db_filename(name)
    else:
        cursor = connection.cursor()
        cursor.row_factory = None
        for (name,) in cursor.execute("SELECT file FROM pragma_database_list"):
            yield name


def _open_files() -> set[tuple[int, int]]:
    """The files that this process has open."""
    found = set()
    for entry in os.scandir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(_identity(entry.path))
    return found


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

"""From the names of databases in a bucket to paths below one directory.

Names of a bucket are foreign: anyone who can write to it chooses them. Owns: which names become a
path, the paths that get in each other's way, and the check of the directories between. Refuses a
name that leads out of the directory or into the files of another database, and to decide which of
two databases gets a path that both want: neither does.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from replicator.errors import ConfigError, TargetExists, UnsafePath
from replicator.system.directory import hold_directory
from replicator.system.files import Files, about
from replicator.system.paths import SIDE_SUFFIXES

LONGEST_NAME = 255 - len(".-replicator")  # bytes; the directory next to the file has a longer name
LONGEST_PATH = 4096 - 256  # bytes; room for the names in those directories
RESERVED = re.compile(r"\..*(?:\.restoring|-replicator)")  # directories next to other databases

_HINT = "restore it alone, with --prefix NAME --output PATH"


def refusal(name: str, into: Path) -> ConfigError | None:
    """The reason why ``name`` becomes no path below ``into``; None if it does."""
    parts = name.split("/")
    problem = ""
    if not name.isprintable():
        problem = "has characters that cannot be shown"
    elif any(part in ("", ".", "..") for part in parts):
        problem = "is no path below a directory"
    elif _too_long(parts) or len(os.fsencode(into / name)) > LONGEST_PATH:
        problem = "is too long for a path"
    elif any(RESERVED.fullmatch(part) for part in parts):
        problem = "is that of a directory which belongs to another database"
    elif name.endswith(SIDE_SUFFIXES):
        problem = "is that of a file which belongs to another database"
    if not problem:
        return None
    return ConfigError(
        f"the name {name!r} {problem}",
        setting="into",
        code="unsafe_name",
        hint=_HINT,
    )


def _too_long(parts: list[str]) -> bool:
    return any(len(os.fsencode(part)) > LONGEST_NAME for part in parts)


def collisions(names: Iterable[str], *, folded: bool) -> dict[str, ConfigError]:
    """The names whose files would get in each other's way, each with the reason: the same file, or
    a file where another database needs a directory. ``folded``: the file system takes names for
    equal that differ in case or in their Unicode form."""
    same = fold if folded else str
    paths = [(name, *map(same, _files_of(name))) for name in names]
    files: dict[str, list[str]] = {}
    directories: dict[str, str] = {}
    for name, *claimed in paths:
        for path in claimed:
            files.setdefault(path, []).append(name)
        for directory in _above(claimed[0]):
            directories.setdefault(directory, name)
    found: dict[str, ConfigError] = {}
    for name, *claimed in paths:
        rivals = [other for path in claimed for other in files[path] if len(files[path]) > 1]
        rivals += [directories[path] for path in claimed if path in directories]
        rivals += [other for path in _above(claimed[0]) for other in files.get(path, ())]
        if rivals:
            found[name] = _collision(name, next((each for each in rivals if each != name), name))
    return found


def fold(name: str) -> str:
    """``name`` as a file system compares it that ignores case and Unicode forms."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _files_of(name: str) -> Iterator[str]:
    """The database, and the files that SQLite makes for it. :data:`RESERVED` has the others."""
    yield from (name, *(name + suffix for suffix in SIDE_SUFFIXES))


def _above(path: str) -> Iterator[str]:
    """The directories above a path, without that of all."""
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts)))


def _collision(name: str, other: str) -> ConfigError:
    return ConfigError(
        f"{name!r} and {other!r} cannot both be restored below one directory",
        setting="into",
        code="name_collision",
        hint=_HINT,
    )


def folds_names(directory: Path, files: Files) -> bool:
    """True if the file system takes two names for equal that differ in case. Makes a file in
    ``directory`` and removes it."""
    with hold_directory(directory, files) as held:
        name = f".replicator-{secrets.token_hex(8)}-case"
        files.create(held.entry(name)).close()
        try:
            return files.exists(held.entry(name.upper()))
        finally:
            files.unlink(held.entry(name))


def require_below(into: Path, output: Path, files: Files) -> None:
    """``UnsafePath`` if a symbolic link is part of the way from ``into`` to ``output``, or another
    user can exchange a directory of it; ``TargetExists`` if a file is in the way."""
    here = into
    for part in output.relative_to(into).parts:
        facts = _facts(here)
        if facts is None:
            return
        if here != output.parent:  # publish holds that one, and follows no link in it
            with hold_directory(here, files) as held:
                held.require_own_names()
        here /= part
        _require_kind(here, directory=here != output)


def _facts(path: Path) -> os.stat_result | None:
    with about(path), contextlib.suppress(FileNotFoundError):
        return os.lstat(path)
    return None


def _require_kind(path: Path, *, directory: bool) -> None:
    facts = _facts(path)
    if facts is None:
        return
    if stat.S_ISLNK(facts.st_mode):
        raise UnsafePath(
            f"{path} is a symbolic link; several restores in one directory follow none",
            path=path,
            owner=facts.st_uid,
            code="link_below",
            hint="move it away, or restore this database alone, with --prefix and --output",
        )
    if directory and not stat.S_ISDIR(facts.st_mode):
        raise TargetExists(
            f"{path} is a file where a directory is needed",
            path=path,
            hint="move it away, or name another directory with --into",
        )

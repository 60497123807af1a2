"""The files that a pattern of the TOML file names.

A part of the path that exists under its literal name is no pattern: ``[`` and ``*`` may be in the
name of a file or a directory. Owns: which part is a pattern, and which files and names match.
Refuses: to open a file.
"""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from replicator.errors import ConfigError
from replicator.system.paths import SIDE_SUFFIXES, cache_directory

WILDCARDS = "*?["


@dataclass(frozen=True, slots=True)
class Pattern:
    """``fixed`` is the directory above the first wildcard."""

    fixed: str
    rest: str

    @classmethod
    def of(cls, path: str) -> Pattern | None:
        """The pattern in an absolute path; None if it names one file."""
        parts = Path(path).parts
        fixed = Path(parts[0])
        for number, part in enumerate(parts[1:], 1):
            literal = fixed / part
            if any(sign in part for sign in WILDCARDS) and not os.path.lexists(literal):
                return cls(str(fixed), os.path.join(*parts[number:]))
            fixed = literal
        return None

    def files(self) -> list[str]:
        """The files that match now, sorted; without the WAL and other files of SQLite."""
        found = set(glob.glob(os.path.join(glob.escape(self.fixed), self.rest), recursive=True))
        found.add(os.path.join(self.fixed, self.rest))  # a file of that literal name
        return sorted(
            path for path in found if not path.endswith(SIDE_SUFFIXES) and os.path.isfile(path)
        )

    def names(self, name: str) -> bool:
        """True if the pattern names a file whose path below :attr:`fixed` is ``name``. A name from
        a bucket is foreign: one that leads elsewhere is not named."""
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or not name.isprintable():
            return False
        return not name.endswith(SIDE_SUFFIXES) and matches(Path(self.rest).parts, parts)

    def caches(self) -> list[str]:
        """The default cache directories of files that match, or did before they vanished."""
        place, name = os.path.split(self.rest)
        cache = cache_directory(Path(self.fixed, place, name))
        return sorted(glob.glob(os.path.join(glob.escape(self.fixed), place, cache.name)))

    def unmatched(self, entry: str) -> ConfigError:
        """The error of ``entry``, whose pattern matches no file."""
        gone = "" if os.path.isdir(self.fixed) else f", because {self.fixed!r} is no directory"
        return ConfigError(
            f"{entry} matches no database{gone}",
            setting="path",
            hint="correct the pattern, or let the application create the first database",
            code="no_match",
        )


def matches(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    """As :func:`glob.glob` does with ``recursive``: ``**`` is any number of directories, and a
    wildcard names no hidden file."""
    if not pattern:
        return not parts
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        deeper = bool(parts) and not parts[0].startswith(".")
        return matches(rest, parts) or (deeper and matches(pattern, parts[1:]))
    if not parts or (parts[0].startswith(".") and not first.startswith(".")):
        return False
    return fnmatch.fnmatchcase(parts[0], first) and matches(rest, parts[1:])

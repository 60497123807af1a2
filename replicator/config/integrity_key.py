"""The integrity keys of an archive, from the file that the setting ``integrity_key`` names.

One key per line: the first one seals new objects, all are accepted. Owns the form of the file.
Refuses a key on the command line or in a variable, where other users could see it.
"""

from __future__ import annotations

import os
from pathlib import Path

from replicator.errors import ConfigError
from replicator.format.integrity import SHORTEST_KEY, Integrity

LONGEST_FILE = 1 << 16  # bytes


def read_keys(path: str | os.PathLike[str]) -> Integrity:
    """The keys in a file; ``ConfigError`` if it cannot be read, or a key is too short."""
    place = Path(path).expanduser()
    try:
        with place.open("rb") as file:
            lines = file.read(LONGEST_FILE).split(b"\n")
    except OSError as error:
        raise _unusable(f"{place} cannot be read: {error.strerror}") from error
    keys = tuple(key for key in map(bytes.strip, lines) if key)
    if not keys:
        raise _unusable(f"{place} holds no key")
    if any(len(key) < SHORTEST_KEY for key in keys):
        raise _unusable(f"{place} holds a key of fewer than {SHORTEST_KEY} characters")
    return Integrity(keys)


def _unusable(reason: str) -> ConfigError:
    return ConfigError(
        f"integrity_key: {reason}",
        setting="integrity_key",
        hint="write a key to the file, one per line: openssl rand -hex 32",
    )

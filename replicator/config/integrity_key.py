"""The integrity keys of an archive, from the file that the setting ``integrity_key`` names.

One key per line: the first one seals new objects, all are accepted. Owns the form of the file.
Refuses a key on the command line or in a variable, where other users could see it.
"""

from __future__ import annotations

import os

from replicator.errors import ConfigError
from replicator.format.integrity import SHORTEST_KEY, Integrity
from replicator.system.paths import expanded

LONGEST_FILE = 1 << 16  # bytes


def read_keys(path: str | os.PathLike[str]) -> Integrity:
    """The keys in a file; ``ConfigError`` if it cannot be read, or a key is too short."""
    place = expanded(path)
    try:
        with place.open("rb") as file:
            content = file.read(LONGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _unusable(f"{place} cannot be read: {reason}") from error
    if len(content) > LONGEST_FILE:
        raise _unusable(f"{place} has more than {LONGEST_FILE} bytes")
    lines = content.split(b"\n")
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

"""The settings of SQLite for each connection of an application, in three presets.

Owns their values and the pragmas that set them; docs/guide/application.md has the reason for each
and its measurement. Refuses to change anything that a file keeps, except WAL mode.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal

from replicator.errors import ConfigError

MIB = 1 << 20
Synchronous = Literal["OFF", "NORMAL", "FULL", "EXTRA"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Sizes in bytes, times in seconds. Derive one of your own with :func:`dataclasses.replace`.

    ``synchronous`` applies to the writer; the others to every connection.
    """

    name: str
    synchronous: Synchronous = "NORMAL"
    cache_bytes: int = 8 * MIB  # pages in memory, for each connection
    mmap_bytes: int = 0
    busy_timeout: float = 5.0  # for the locks of other processes
    journal_size_limit: int = 64 * MIB  # of the WAL after it was reset
    foreign_keys: bool = True
    temp_in_memory: bool = True
    readers: int = 8  # connections that read, at most
    wait: float = 30.0  # for the writer, or for a free reader, in this process
    cached_statements: int = 256


DEFAULT = Preset(name="default")
"""For most applications."""
PRODUCTION = Preset(
    name="production",
    synchronous="FULL",
    cache_bytes=32 * MIB,
    mmap_bytes=256 * MIB,
    busy_timeout=10.0,
    readers=16,
    cached_statements=512,
)
"""More memory and readers, and each commit survives a power cut without the bucket."""
MINIMAL = Preset(
    name="minimal",
    cache_bytes=1 * MIB,
    journal_size_limit=4 * MIB,
    temp_in_memory=False,
    readers=2,
    cached_statements=32,
)
"""Little memory: a small machine, or many databases in one process."""
PRESETS = {preset.name: preset for preset in (DEFAULT, PRODUCTION, MINIMAL)}


def find_preset(preset: Preset | str) -> Preset:
    """The preset of that name; ``ConfigError`` if there is none."""
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise ConfigError(
            f"there is no preset {preset!r}",
            setting="preset",
            hint=f"use one of {', '.join(PRESETS)}, or a Preset",
        )
    return PRESETS[preset]


def pragmas(preset: Preset, *, writes: bool) -> list[str]:
    """The statements that prepare a connection. WAL mode is none of them: it needs a lock."""
    found = [
        f"synchronous = {preset.synchronous}",
        f"cache_size = -{max(1, preset.cache_bytes // 1024)}",
        f"mmap_size = {preset.mmap_bytes}",
        f"journal_size_limit = {preset.journal_size_limit}",
        f"foreign_keys = {int(preset.foreign_keys)}",
        f"temp_store = {'MEMORY' if preset.temp_in_memory else 'DEFAULT'}",
    ]
    return [f"PRAGMA {each}" for each in found] + ([] if writes else ["PRAGMA query_only = 1"])


def prepare(connection: sqlite3.Connection, preset: Preset, *, writes: bool) -> None:
    """Apply the preset to a connection."""
    for statement in pragmas(preset, writes=writes):
        connection.execute(statement).close()

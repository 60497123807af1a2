"""The model of migrations: versions, what they do, and which ones a database needs. Pure.

    MIGRATIONS = [
        Migration("1.0.0", "users", "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)"),
        Migration("1.1.0", "their mail", "ALTER TABLE users ADD COLUMN mail TEXT"),
        Migration("2.0.0", "the whole schema of 2.0", SCHEMA, baseline=True),
    ]

An *incremental* migration changes the schema of the version before it. A *baseline* makes the
schema of its version from nothing: a new database begins with the newest one, and has no use for
the older migrations.

Owns the order of versions, checksums, and the plan. Refuses, with ``MigrationError``, a plan whose
result depends on the order in which programs were installed.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from replicator.errors import MigrationError

Version: TypeAlias = tuple[int, int, int]
Steps: TypeAlias = str | Callable[[sqlite3.Connection], object]
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", re.ASCII)


def version_key(text: str) -> Version:
    """The order of versions, as in Semantic Versioning; ``MigrationError`` (code
    ``migration_version``) for anything but three numbers with dots."""
    found = _VERSION.fullmatch(text)
    if found is None:
        raise MigrationError(
            f"{text!r} is not a version",
            version=text,
            code="migration_version",
            hint="write three numbers, e.g. 1.4.0",
        )
    major, minor, patch = map(int, found.groups())
    return major, minor, patch


@dataclass(frozen=True, slots=True)
class Migration:
    """``steps`` is a script of SQL, or a function that receives the connection. A function has no
    checksum of its own: raise ``revision`` when it changes. Without ``foreign_keys`` they are not
    enforced while it runs, as a table that is made anew needs; they are checked at its end.
    """

    version: str
    description: str
    steps: Steps
    baseline: bool = False
    foreign_keys: bool = True
    revision: int = 1

    @property
    def key(self) -> Version:
        """The parts of the version, by which migrations are ordered."""
        return version_key(self.version)

    @property
    def checksum(self) -> str:
        """SHA-256 of the script, or of the name of the function and its revision."""
        if isinstance(self.steps, str):
            text = self.steps
        else:
            text = f"{self.steps.__module__}.{self.steps.__qualname__} {self.revision}"
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class AppliedMigration:
    """A row of the history. ``applied_at`` is in ms since 1970 UTC; ``mark`` names the restore
    point before it, "" without a replicator."""

    version: str
    description: str
    kind: str  # baseline, incremental, adopted
    checksum: str
    applied_at: int
    seconds: float
    mark: str


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """The state of a database: ``current`` is its version, "" before the first migration."""

    current: str
    applied: tuple[AppliedMigration, ...]
    pending: tuple[Migration, ...]


def ordered(migrations: Iterable[Migration]) -> list[Migration]:
    """By version, a baseline after the increment that leads to the same version.
    ``MigrationError`` (code ``migration_repeated``) if two of a kind have the same version."""
    found = sorted(migrations, key=lambda each: (each.key, each.baseline))
    for one, other in itertools.pairwise(found):
        if (one.key, one.baseline) == (other.key, other.baseline):
            raise MigrationError(
                f"two migrations have the version {one.version}",
                version=one.version,
                code="migration_repeated",
            )
    return found


def plan(
    migrations: Sequence[Migration], applied: Sequence[AppliedMigration]
) -> tuple[Migration, ...]:
    """The migrations that a database with this history needs, in order.

    ``MigrationError``: ``migration_changed`` if an applied one has another checksum now,
    ``migration_unknown`` if the database is newer than the program, ``migration_order`` if a
    migration was added below the version of the database.
    """
    known = ordered(migrations)
    history = {each.version: each for each in applied}
    if not history:
        return tuple(_from_nothing(known))
    _require_known(known, history)
    current = max(map(version_key, history))
    first = min(map(version_key, history))
    increments = [each for each in known if not each.baseline]
    for each in increments:
        if first < each.key < current and each.version not in history:
            raise MigrationError(
                f"migration {each.version} was added below version {_text(current)} of the "
                "database",
                version=each.version,
                code="migration_order",
                hint="give it a version above that of the database",
            )
    return tuple(each for each in increments if each.key > current)


def _from_nothing(known: list[Migration]) -> list[Migration]:
    """From the newest baseline on, or all of them."""
    baselines = [each for each in known if each.baseline]
    if not baselines:
        return known
    newest = baselines[-1]
    return [newest, *(each for each in known if not each.baseline and each.key > newest.key)]


def _require_known(known: list[Migration], history: Mapping[str, AppliedMigration]) -> None:
    if not known:
        return
    newest = max(each.key for each in known)
    for applied in history.values():
        if version_key(applied.version) > newest:
            raise MigrationError(
                f"the database has version {applied.version}, this program knows up to "
                f"{_text(newest)}",
                version=applied.version,
                code="migration_unknown",
                hint="run the newer program, or undo the migration",
            )
        _require_unchanged(known, applied)


def _require_unchanged(known: list[Migration], applied: AppliedMigration) -> None:
    """An adopted version has no checksum, and one that was dropped from the program has none."""
    same = [
        each
        for each in known
        if each.version == applied.version and each.baseline == (applied.kind == "baseline")
    ]
    if same and applied.checksum and same[0].checksum != applied.checksum:
        raise MigrationError(
            f"migration {applied.version} was changed after it was applied",
            version=applied.version,
            code="migration_changed",
            hint="restore its text, and add a new migration; accept() takes a harmless change",
        )


def _text(key: Version) -> str:
    return ".".join(map(str, key))

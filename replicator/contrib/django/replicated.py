"""The replicated databases of a project, and their handles in this process.

    REPLICATOR = {"default": {"bucket": "backups", "prefix": "shop"}}

Owns: the reading of the setting, once, when Django starts; one handle for each alias. Refuses: a
database that tests made, whose name differs from that of the settings.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from replicator import SqliteReplicator, SqliteReplicatorConfig
from replicator.errors import ConfigError

OWN = {"mark_before_migrate", "commands", "prepare", "log"}  # keys that are no settings of a config

_lock = threading.RLock()
_handles: dict[str, SqliteReplicator] = {}


@dataclass(frozen=True, slots=True)
class Replicated:
    """One entry of ``REPLICATOR``, with the name of its database when Django started.

    ``commands`` are management commands that replicate as a server does, for example
    ``("run_huey",)``. ``prepare`` and ``log`` are those of ``SqliteReplicator``.
    """

    alias: str
    name: str
    given: Mapping[str, Any]
    mark_before_migrate: bool = True
    commands: tuple[str, ...] = ()
    prepare: str = ""
    log: str | os.PathLike[str] | None = None

    def config(self) -> SqliteReplicatorConfig:
        """The settings with those of the environment below them; ``ConfigError`` if they cannot
        work."""
        try:
            return SqliteReplicatorConfig.from_env(
                without(os.environ, self.hidden()), db_path=self.name, **self.given
            )
        except TypeError as error:
            raise ConfigError(
                f"REPLICATOR[{self.alias!r}]: {error}", code="unknown_setting"
            ) from error

    def hidden(self) -> set[str]:
        """Settings whose variables do not count: the destination, if the entry names one, and what
        each database needs for itself, if there are several."""
        named = {"bucket", "url"} if {"bucket", "url"} & self.given.keys() else set()
        return named | ({"prefix", "cache_dir"} if len(replicated()) > 1 else set())


def without(environ: Mapping[str, str], names: set[str]) -> dict[str, str]:
    """An environment without the variables of some settings."""
    hidden = {f"REPLICATOR_{name.upper()}" for name in names}
    return {name: value for name, value in environ.items() if name not in hidden}


@functools.cache
def replicated() -> dict[str, Replicated]:
    """The entries of ``REPLICATOR`` by alias, as they were at the first call."""
    entries = getattr(settings, "REPLICATOR", {})
    return {alias: read(alias, given) for alias, given in entries.items()}


def read(alias: str, given: Mapping[str, Any]) -> Replicated:
    """One entry. An alias that ``DATABASES`` does not have has no name: a check reports it."""
    name = os.fspath(settings.DATABASES.get(alias, {}).get("NAME") or "")
    own = {key: value for key, value in given.items() if key in OWN}
    own["commands"] = tuple(own.get("commands", ()))
    rest = {key: value for key, value in given.items() if key not in OWN}
    return Replicated(alias, str(name), rest, **own)


def entry(alias: str) -> Replicated:
    """The entry of an alias; ``ImproperlyConfigured`` if it has none."""
    try:
        return replicated()[alias]
    except KeyError as error:
        raise ImproperlyConfigured(f"REPLICATOR has no entry for the database {alias!r}") from error


def under_test(alias: str) -> bool:
    """True in a test run, and for another database than that of the settings."""
    state = getattr(sys.modules.get("django.test.utils"), "_TestState", None)
    if hasattr(state, "saved_data"):  # setup_test_environment() was called
        return True
    now = os.fspath(connections[alias].settings_dict["NAME"] or "")
    return str(now) != entry(alias).name


def start(alias: str) -> SqliteReplicator:
    """The handle of an alias in this process, started once. Raises the errors of its start."""
    with _lock:
        if alias not in _handles:
            found = entry(alias)
            handle = SqliteReplicator(found.config(), prepare=found.prepare, log=found.log)
            handle.start()
            _handles[alias] = handle
        return _handles[alias]


def stop(alias: str) -> None:
    """Gives up the handle of an alias, if this process has one."""
    with _lock:
        handle = _handles.pop(alias, None)
    if handle is not None:
        handle.stop()


def handle_of(alias: str) -> SqliteReplicator | None:
    """The handle of an alias, None if this process did not start it, or its parent before."""
    return _handles.get(alias)

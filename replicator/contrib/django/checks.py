"""System checks: settings under which a replicator cannot work, loses its purpose, or costs more.

``manage.py check`` reads the settings only. ``manage.py check --deploy`` also asks the database for
its journal mode and the bucket for its history.

Owns: the identifiers ``replicator.E…`` and ``replicator.W…``, each with a hint; the page
docs/guide/django.md lists them. Refuses: to open the database but through Django.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.cache import caches
from django.core.checks import CheckMessage, Error, Info, Warning  # noqa: A004 - Django's names
from django.db import connections, router
from django.db.utils import OperationalError

from replicator import SqliteReplicatorConfig
from replicator.app.file_systems import MOUNTS, network_file_system
from replicator.contrib.django.deployment import several_hosts
from replicator.contrib.django.replicated import Replicated, replicated
from replicator.errors import ConfigError

ENGINES = ("django.db.backends.sqlite3",)
DATABASE_CACHE = "django.core.cache.backends.db.DatabaseCache"
SESSIONS = "django.contrib.sessions"
DATABASE_SESSIONS = (f"{SESSIONS}.backends.db", f"{SESSIONS}.backends.cached_db")
STARTPROJECT = "db.sqlite3"


def check_settings(**_: Any) -> list[CheckMessage]:
    """The checks that need the settings alone."""
    found = replicated()
    if not hasattr(settings, "REPLICATOR"):
        return [
            Warning(
                "no database is replicated: the setting REPLICATOR is missing",
                hint='write REPLICATOR = {"default": {"bucket": "…"}}, or REPLICATOR = {} to '
                "replicate nothing",
                id="replicator.W001",
            )
        ]
    messages = [message for each in found.values() for message in check_entry(each)]
    return [*messages, *check_destinations(found), *check_restore_points(found)]


def check_deployment(**_: Any) -> list[CheckMessage]:
    """The checks of a server that need no bucket."""
    messages = list(check_writers(replicated()))
    for alias, config in configs(replicated()).items():
        messages += [*check_debug(alias), *check_name(config), *check_journal(alias)]
    return messages


def check_archives(**_: Any) -> list[CheckMessage]:
    """The check of each archive, which asks the bucket."""
    every = configs(replicated()).values()
    return [message for config in every for message in several_hosts(config)]


def configs(found: Mapping[str, Replicated]) -> dict[str, SqliteReplicatorConfig]:
    """The settings of each entry that can work; :func:`check_settings` reports the others."""
    working = {}
    for each in found.values():
        with contextlib.suppress(ConfigError):
            working[each.alias] = each.config()
    return working


# ------------------------------------------------------------------------- the settings


def check_entry(each: Replicated) -> Iterator[CheckMessage]:
    """One entry of ``REPLICATOR``, and the options of its database."""
    entry = settings.DATABASES.get(each.alias)
    if entry is None:
        yield Error(
            f"REPLICATOR names the database {each.alias!r}, and DATABASES does not",
            hint=f"DATABASES has {', '.join(sorted(settings.DATABASES))}",
            id="replicator.E001",
        )
        return
    if entry["ENGINE"] not in ENGINES:
        yield Error(
            f"the database {each.alias!r} is not one of SQLite: {entry['ENGINE']}",
            hint=f"remove it from REPLICATOR, or set its ENGINE to {ENGINES[0]}",
            id="replicator.E002",
        )
        return
    yield from check_config(each)
    yield from check_options(each.alias, entry.get("OPTIONS", {}))


def check_config(each: Replicated) -> Iterator[CheckMessage]:
    """The values of an entry, and the path of its database."""
    try:
        config = each.config()
    except ConfigError as error:
        missing = error.setting == "bucket" and not each.given.get("bucket")
        yield Error(
            f"REPLICATOR[{each.alias!r}]: {error}",
            hint="name the bucket here, or in the variable REPLICATOR_BUCKET"
            if missing
            else error.hint or "docs/configuration.md lists the settings",
            id="replicator.E004" if missing else "replicator.E003",
        )
        return
    if not Path(each.name).is_absolute():
        yield Warning(
            f"the database {each.alias!r} has the relative path {each.name}",
            hint="a server in another directory opens another file; write BASE_DIR / …",
            id="replicator.W002",
        )
    yield from check_place(config.database.parent)


def check_place(directory: Path, mounts: Path = MOUNTS) -> Iterator[CheckMessage]:
    """The file system of the database; ``mounts`` is the mount table of the kernel."""
    if kind := network_file_system(directory, mounts):
        yield Error(
            f"{directory} is on a network file system ({kind}), where WAL mode does not work",
            hint="move the database to a local disk",
            id="replicator.E006",
        )


def check_options(alias: str, options: Mapping[str, Any]) -> Iterator[CheckMessage]:
    """The options of the connection that :func:`replicator.contrib.django.sqlite` sets."""
    ours = f"write DATABASES[{alias!r}] = sqlite(…) of replicator.contrib.django"
    if str(options.get("transaction_mode") or "").upper() not in ("IMMEDIATE", "EXCLUSIVE"):
        yield Warning(
            f"transactions of {alias!r} begin without the write lock: one that reads before it "
            'writes fails with "database is locked" while another one writes',
            hint=f'set OPTIONS["transaction_mode"] = "IMMEDIATE", or {ours}',
            id="replicator.W003",
        )
    command = str(options.get("init_command") or "")
    mode = pragma(command, "journal_mode")
    if mode != "wal":
        yield Warning(
            f"init_command of {alias!r} sets the journal mode {mode}, and the replicator needs WAL"
            if mode
            else f"init_command of {alias!r} does not set WAL mode",
            hint=f'set it to "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL", or {ours}',
            id="replicator.W004",
        )
    if pragma(command, "synchronous") in ("off", "0"):
        yield Warning(
            f"init_command of {alias!r} sets synchronous=OFF: a power cut can damage the database",
            hint="NORMAL is as fast in WAL mode, but for checkpoints",
            id="replicator.W005",
        )


def pragma(command: str, name: str) -> str:
    """The last value of a pragma in an ``init_command``, in lower case; empty if it is not set."""
    pattern = rf"\bpragma\s+{name}\s*(?:=\s*|\(\s*)['\"]?(\w+)"
    values: list[str] = re.findall(pattern, command, re.IGNORECASE)
    return values[-1].lower() if values else ""


def check_destinations(found: Mapping[str, Replicated]) -> Iterator[CheckMessage]:
    """Two databases never share a prefix, and two aliases never a file."""
    owners: dict[tuple[object, ...], str] = {}
    for alias, config in configs(found).items():
        address = config.address
        for key, words in (
            ((address.url, address.endpoint_url, address.prefix), "replicates to the prefix of"),
            ((config.database,), "is the same file as"),
        ):
            if (other := owners.setdefault(key, alias)) != alias:
                yield Error(
                    f"the database {alias!r} {words} {other!r}",
                    hint=f'give REPLICATOR[{alias!r}] a "prefix" and a file of its own',
                    id="replicator.E005",
                )


def check_restore_points(found: Mapping[str, Replicated]) -> Iterator[CheckMessage]:
    """A restore point is one of a replicated database."""
    for alias, entry in settings.DATABASES.items():
        of = entry.get("RESTORE_POINT", {}).get("of")
        if of is not None and of not in found:
            yield Error(
                f"{alias!r} is a restore point of {of!r}, which REPLICATOR does not have",
                hint=f'add REPLICATOR[{of!r}] = {{"bucket": "…"}}',
                id="replicator.E007",
            )


# ----------------------------------------------------------------------- the deployment


def check_debug(alias: str) -> Iterator[CheckMessage]:
    """A development machine would write to the archive of the server."""
    if settings.DEBUG:
        yield Warning(
            f"DEBUG is on, and {alias!r} is replicated",
            hint="give development a bucket or a prefix of its own, or REPLICATOR = {}",
            id="replicator.W010",
        )


def check_name(config: SqliteReplicatorConfig) -> Iterator[CheckMessage]:
    """The name that ``startproject`` gives to every database is the prefix of every project."""
    if config.address.prefix == STARTPROJECT:
        yield Warning(
            f"the prefix in the bucket is {STARTPROJECT}, as in every new project",
            hint='set a "prefix" in REPLICATOR; another project with this bucket is refused',
            id="replicator.W011",
        )


def check_writers(found: Mapping[str, Replicated]) -> Iterator[CheckMessage]:
    """Caches and sessions are commits, and each is replicated and kept."""
    for name, cache in settings.CACHES.items():
        if cache.get("BACKEND") == DATABASE_CACHE:
            alias = router.db_for_write(caches[name].cache_model_class)
            if alias in found:
                yield Warning(
                    f"the cache {name!r} is in the replicated database {alias!r}: each entry is "
                    "kept in the bucket",
                    hint="use memory, files or Redis, or a database of its own by a router",
                    id="replicator.W012",
                )
    if settings.SESSION_ENGINE in DATABASE_SESSIONS and apps.is_installed(SESSIONS):
        alias = router.db_for_write(apps.get_model("sessions", "Session"))
        if alias in found:
            yield session_message(alias)


def session_message(alias: str) -> CheckMessage:
    """A warning if each request is a commit, an information if each login is one."""
    if settings.SESSION_SAVE_EVERY_REQUEST:
        return Warning(
            f"SESSION_SAVE_EVERY_REQUEST makes each request a commit in {alias!r}, which is kept",
            hint="turn it off, or set SESSION_ENGINE to signed cookies or a cache",
            id="replicator.W013",
        )
    return Info(
        f"sessions are in the replicated database {alias!r}: each login is kept in the bucket",
        hint="SESSION_ENGINE with signed cookies or a cache keeps them out of it",
        id="replicator.I001",
    )


def check_journal(alias: str) -> Iterator[CheckMessage]:
    """The journal mode that the database has now, if it exists."""
    if not Path(replicated()[alias].name).exists():
        return
    try:
        with connections[alias].cursor() as cursor:
            mode = cursor.execute("PRAGMA journal_mode").fetchone()[0]
    except OperationalError:
        return  # in use by another program for longer than the timeout
    if mode != "wal":
        yield Warning(
            f"the database {alias!r} is in the journal mode {mode}, not in WAL mode",
            hint="the replicator switches it once no other connection uses it",
            id="replicator.W014",
        )

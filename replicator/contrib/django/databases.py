"""Entries of ``DATABASES``: a SQLite database with the right options, and a restore point.

Owns the options and their reasons. Refuses to open a file: ``settings.py`` calls this.
"""

from __future__ import annotations

import os
from typing import Any

ENGINE = "django.db.backends.sqlite3"
RESTORED = "replicator.contrib.django.restored"
PRAGMAS = {
    "journal_mode": "WAL",  # the replicator switches to it anyway; readers never wait for writers
    "synchronous": "NORMAL",  # no fsync for each commit; no commit is torn by a power cut
    "busy_timeout": None,  # Django's option ``timeout`` sets it
    "cache_size": "-20000",  # 20 MB of pages for each connection, SQLite's default is 2 MB
    "temp_store": "MEMORY",  # sorts need no file
}


def sqlite(
    name: str | os.PathLike[str],
    *,
    timeout: float = 20.0,
    pragmas: dict[str, str] | None = None,
    **entry: Any,
) -> dict[str, Any]:
    """An entry of ``DATABASES`` for a SQLite database that several threads and processes write.

    ``name`` is the path; a relative one is another file in another working directory, so
    write ``BASE_DIR / "shop.db"``. Transactions begin with the write lock (``BEGIN IMMEDIATE``):
    one that reads first and then writes waits for its turn, where a deferred one fails at once with
    "database is locked". ``timeout`` is the longest wait in seconds. ``pragmas`` add to the
    defaults, or replace them; further arguments are keys of the entry, such as ``CONN_MAX_AGE``.
    """
    chosen = {key: value for key, value in (PRAGMAS | (pragmas or {})).items() if value}
    options = {
        "transaction_mode": "IMMEDIATE",
        "timeout": timeout,
        "init_command": "; ".join(f"PRAGMA {key}={value}" for key, value in chosen.items()),
    }
    options |= entry.pop("OPTIONS", {})
    return {"ENGINE": ENGINE, "NAME": name, "OPTIONS": options, **entry}


def restore_point(
    alias: str,
    *,
    at: str,
    max_age: float | None = 3600.0,
    directory: str | os.PathLike[str] | None = None,
    **entry: Any,
) -> dict[str, Any]:
    """A read-only entry of ``DATABASES``: the database ``alias`` as it was.

    ``at`` is a time (``"2 hours ago"``, ``"yesterday"`` for 24 hours ago, RFC 3339), a transaction,
    or the name of a mark. The first connection restores it, into ``directory`` (default: a
    directory next to the database), for all processes; the first one after ``max_age`` seconds
    restores it again, None: never. SQLite refuses every write. Tests use ``alias`` instead.
    """
    restored = {"of": alias, "at": at, "max_age": max_age, "directory": directory}
    mirror = {"MIRROR": alias}
    made = {"ENGINE": RESTORED, "NAME": f"restore point {at!r} of {alias}", "TEST": mirror}
    return {**made, "RESTORE_POINT": restored | {"name": made["NAME"]}, **entry}

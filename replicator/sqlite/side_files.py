"""The ``-wal`` and ``-shm`` files that this process would make next to a database.

SQLite gives them the permissions of the database. It gives them the owner and the group of the
database only if root makes them; otherwise they get the user and the group of the process, and the
application may be locked out of its own database.

Owns: the refusal of a database whose users would be locked out, and the group of side files.
Refuses to open ``-shm``: closing a descriptor of it would drop SQLite's locks.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from replicator.errors import DatabaseUnusable
from replicator.system.files import Files, about
from replicator.system.owners import Identity, Owner, group_name, groups_of, user_name
from replicator.system.paths import index_path, wal_path


def prepare_side_files(database: Path, files: Files) -> None:
    """Call it before a connection makes them. ``DatabaseUnusable`` before anything is made."""
    with about(database):
        user, owner = Identity.current(), Owner.of(database)
        directory = Owner.of(database.parent)
    _refuse_denied(database, user)
    made = user.makes_like(owner, directory)
    excluded = made.locks_out(owner, groups_of(owner))
    if excluded:
        raise _lock_out(database, user, owner, excluded)
    if made.gid != user.makes_like(Owner(user.uid, -1, 0), directory).gid:
        for path in (wal_path(database), index_path(database)):
            if not path.exists():
                _make(path, made, files)


def _refuse_denied(database: Path, user: Identity) -> None:
    """Refuse side files of another user that this process cannot use."""
    for path in (wal_path(database), index_path(database)):
        with contextlib.suppress(FileNotFoundError):
            found = Owner.of(path)
            if not os.access(path, os.R_OK | os.W_OK):
                raise _denied(database, path, found, user)


def _denied(database: Path, side: Path, found: Owner, user: Identity) -> DatabaseUnusable:
    owner, me = user_name(found.uid), user_name(user.uid)
    return DatabaseUnusable(
        f"{side} belongs to user {owner}, group {group_name(found.gid)}, mode {found.mode:o}: "
        f"user {me} may not use it",
        path=database,
        code="side_file_denied",
        hint=f"run the replicator as user {owner}, or put both users into the group of the "
        f"directory and let new files get it (chmod g+s {database.parent})",
    )


def _lock_out(database: Path, user: Identity, found: Owner, excluded: str) -> DatabaseUnusable:
    owner, me = user_name(found.uid), user_name(user.uid)
    return DatabaseUnusable(
        f"{database} belongs to user {owner}, group {group_name(found.gid)}, mode "
        f"{found.mode:o}: its -wal and -shm, made by user {me}, would lock {excluded} out",
        path=database,
        code="side_files_lock_out",
        hint=f"run the replicator as user {owner}, or put both users into the group of the "
        "database and let that group write to it (chmod g+rw)",
    )


def _make(path: Path, owner: Owner, files: Files) -> None:
    """An empty file of that owner, which SQLite takes for a missing one.

    It gets its name only after it is closed, so no lock on it can be dropped.
    """
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    files.create(draft).close()
    try:
        files.set_owner(draft, owner.uid, owner.gid, owner.mode & 0o777)
        with about(path), contextlib.suppress(FileExistsError):  # another connection was first
            files.system(os.link, draft, path)
    finally:
        files.unlink(draft)

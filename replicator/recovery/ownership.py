"""The owner, the group and the permissions of a restored database.

They are those of the file that it replaces, or follow the directory. Owns: that rule, and the
refusal of a restore that would lock out a user of the replaced file. Refuses to change a file.
"""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

from replicator.errors import TargetExists
from replicator.system.files import Files
from replicator.system.owners import Identity, Owner, groups_of, shared_mode, user_name


def restored_owner(output: Path, mode: int) -> Owner:
    """The owner of the restored file. ``mode`` are the permissions of one that replaces none."""
    directory, user = Owner.of(output.parent), Identity.current()
    if output.exists():
        return user.makes_like(Owner.of(output), directory)
    made = user.makes_like(directory, directory)
    return replace(made, mode=mode | shared_mode(directory, made))


def refuse_lock_out(output: Path) -> None:
    """``TargetExists`` if the restored file would lock a user of the existing one out."""
    old = Owner.of(output)
    excluded = restored_owner(output, old.mode).locks_out(old, groups_of(old))
    if excluded:
        owner, me = user_name(old.uid), user_name(Identity.current().uid)
        raise TargetExists(
            f"{output} belongs to user {owner}; a file of user {me} in its place would lock "
            f"{excluded} out",
            path=output,
            code="owner_would_change",
            hint=f"restore as root or as user {owner}, or to another path",
        )


def make_parents(directory: Path, files: Files) -> None:
    """Make the directory of the output and its missing parents. What root makes belongs to the
    owner of the directory above, and a group that may write there may write here too."""
    if directory.is_dir():
        return
    make_parents(directory.parent, files)
    above = Owner.of(directory.parent)
    files.mkdir(directory)
    made = Identity.current().makes_like(above, above)
    group = above.mode & stat.S_ISGID | (0o070 if shared_mode(above, made) else 0)
    files.set_owner(directory, made.uid, made.gid, 0o700 | group)

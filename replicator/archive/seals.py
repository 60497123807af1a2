"""The seals of an archive, seen by a program without its integrity key.

Without the key every reader works, because the owner of a lost key needs his data; but nothing
proves who wrote what it reads. Owns the question whether an archive is sealed, and the warning.
Refuses to check a seal; see :mod:`replicator.format.integrity`.
"""

from __future__ import annotations

import logging

from replicator.archive.facts import tail_of
from replicator.archive.keys import Keys
from replicator.archive.listing import newest_segment
from replicator.errors import ObjectMissing, Unreadable
from replicator.store.base import Store

log = logging.getLogger(__name__)


def is_sealed(store: Store, keys: Keys) -> bool | None:
    """True if the newest object of the archive has a seal; None if there is none, or it cannot be
    read. One listing and one GET."""
    newest = newest_segment(store, keys)
    if newest is None:
        return None
    try:
        return tail_of(store, newest.key, newest.size).sealed
    except (Unreadable, ObjectMissing):  # another check reports it
        return None


def warn_unauthenticated(url: str) -> None:
    """Logs that a sealed archive was read without its key."""
    log.warning(
        "%s is sealed, and no integrity key was given: nothing proves who wrote it; give its key "
        "with --integrity-key",
        url,
    )

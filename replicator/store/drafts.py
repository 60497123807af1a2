"""Files that appear completely and durably under their final names, for :mod:`.directory`.

Owns the drafts and the order draft, fsync, link, fsync of the directory. Refuses to know the
content or the meaning of a file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Callable
from typing import IO

from replicator.errors import StoreUnsafe

STALE_SECONDS = 86_400  # a draft without a write for this long belongs to a killed process
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class DraftDirectory:
    """The directory ``drafts`` below ``root``, which must exist. Removes stale drafts once."""

    def __init__(self, root: str, drafts: str) -> None:
        self._root = root
        self._path = drafts
        self._swept = False

    def publish(self, path: str, write: Callable[[IO[bytes]], object], *, if_absent: bool) -> None:
        """Let ``write`` fill a draft, and give it the name ``path``. ``FileExistsError`` if
        ``if_absent`` and the name is taken."""
        os.stat(self._root)
        _make_durable_directory(self._path)
        _make_durable_directory(os.path.dirname(path))
        if not self._swept:
            self._swept = True
            _sweep(self._path, time.time() - STALE_SECONDS)
        draft = os.path.join(self._path, uuid.uuid4().hex)
        try:
            with open(draft, "xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            _name(draft, path, if_absent)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
        sync_directory(os.path.dirname(path))


def _sweep(drafts: str, before: float) -> None:
    """Remove the drafts that were last written before a time (seconds since the epoch)."""
    for name in os.listdir(drafts):
        path = os.path.join(drafts, name)
        with contextlib.suppress(FileNotFoundError):  # finished since the listing
            if os.stat(path).st_mtime < before:
                os.unlink(path)


def _name(draft: str, path: str, if_absent: bool) -> None:
    """Give the finished draft its name. Linking to an existing name fails, atomically."""
    if not if_absent:
        os.replace(draft, path)
        return
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise StoreUnsafe(
            "the file system has no hard links, so two writers could both win",
            code="no_hard_links",
            hint="keep the directory on another file system, or use an S3 store",
        ) from error


def _make_durable_directory(path: str) -> None:
    if os.path.isdir(path):
        return
    _make_durable_directory(os.path.dirname(path))
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

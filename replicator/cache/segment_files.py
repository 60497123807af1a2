"""The files of the segments, in the directory ``segments/`` of the cache.

Owns: their names, and the proof that a file still has the bytes that were captured. Refuses: to
know the ledger. A file that is missing or different is ``DamageError``, because the missing
transactions can be captured again; a disk that refuses is ``LocalIOError``, because it may
answer later.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from replicator.cache.records import SegmentRecord
from replicator.errors import DamageError, LocalIOError
from replicator.system.directory import working_directory
from replicator.system.files import Files, HeldName, InFile, OutFile

log = logging.getLogger(__name__)


class SegmentFiles:
    """The directory of segment files. Safe to share between threads."""

    def __init__(self, directory: Path, files: Files) -> None:
        self.directory = directory
        self._files = files
        self._numbers = itertools.count(1)

    def make_directory(self) -> None:
        """``UnsafePath`` if another user controls it."""
        with working_directory(self.directory, self._files):
            pass

    def create(self) -> OutFile:
        """A new file under a temporary name."""
        self._files.mkdir(self.directory)  # an operator may have removed it
        return self._files.create(self.directory / f"draft-{next(self._numbers)}.tmp")

    def publish(self, file: OutFile, record: SegmentRecord) -> None:
        """Gives the file its final name, durably."""
        self._files.publish(file, self.path(record))

    def path(self, record: SegmentRecord) -> Path:
        return self.directory / record.file_name

    def open(self, record: SegmentRecord) -> InFile:
        """The file, to read in pieces; not verified."""
        with self._present(record):
            return self._files.open_read(self.path(record))

    def read(self, record: SegmentRecord) -> bytes:
        """The whole segment; ``DamageError`` unless it has the captured bytes."""
        with self._present(record):
            data = self._files.read(self.path(record))
        if hashlib.sha256(data).hexdigest() != record.sha256:
            raise DamageError(f"{self.path(record)}: the segment is damaged", key=record.key)
        return data

    def intact(self, record: SegmentRecord) -> bool:
        """True if the file has, byte for byte, the captured content."""
        try:
            with self._present(record):
                return self._files.sha256(self.path(record)) == record.sha256
        except DamageError:
            return False

    def remove(self, records: Sequence[SegmentRecord]) -> None:
        """Removes the files; one that stays is removed at the next opening."""
        for record in records:
            try:
                self._files.unlink(self.path(record), missing_ok=True)
            except LocalIOError as error:
                log.warning("%s; it takes space until the next start", error)

    def remove_unclaimed(self, claimed: Mapping[str, bool]) -> tuple[dict[str, int], list[str]]:
        """Removes the files that ``claimed`` does not claim. The sizes of the others, and the names
        of the removed files. The directory is held meanwhile, so no other file is removed."""
        sizes: dict[str, int] = {}
        removed = []
        with working_directory(self.directory, self._files) as held:
            for name in held.names():
                if claimed.get(name):
                    sizes[name] = self._files.size(held.entry(name))
                elif self._remove(held.entry(name)):
                    removed.append(name)
        return sizes, removed

    def _remove(self, name: HeldName) -> bool:
        """False when the name cannot be removed."""
        try:
            self._files.unlink(name)
        except LocalIOError as error:  # a directory, for example; it disturbs nothing
            log.warning("%s; left alone", error)
            return False
        return True

    @contextlib.contextmanager
    def _present(self, record: SegmentRecord) -> Iterator[None]:
        """A missing file is damage, which heals; a disk that refuses may answer later."""
        try:
            yield
        except LocalIOError as error:
            if self._files.exists(self.path(record)):
                raise
            raise DamageError(
                f"{self.path(record)}: the segment is gone", key=record.key
            ) from error

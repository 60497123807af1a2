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
from collections.abc import Iterator, Sequence
from pathlib import Path

from replicator.cache.records import SegmentRecord
from replicator.errors import DamageError, LocalIOError
from replicator.system.files import Files, InFile, OutFile

log = logging.getLogger(__name__)


class SegmentFiles:
    """The directory of segment files. Safe to share between threads."""

    def __init__(self, directory: Path, files: Files) -> None:
        self.directory = directory
        self._files = files
        self._numbers = itertools.count(1)

    def make_directory(self) -> None:
        self._files.mkdir(self.directory)

    def create(self) -> OutFile:
        """A new file under a temporary name."""
        self.make_directory()  # an operator may have removed it
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

    def names(self) -> list[str]:
        """The names of all files that are there."""
        return self._files.listdir(self.directory)

    def size(self, name: str) -> int:
        return self._files.size(self.directory / name)

    def remove_name(self, name: str) -> bool:
        """Removes a name that no record claims; False when it cannot be removed."""
        try:
            self._files.unlink(self.directory / name)
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

"""The directory of an unfinished restore, which lets the next attempt continue.

Everything is in ``.{name}.restoring/`` next to the output, on the same file system:

    lock       held while a restore runs, so that two never share the directory
    database   the database file being put together
    parts      which parts of the snapshot are in it: one line of JSON each
    segment-…  the compressed bytes of a large segment while it is needed

The directory is held by its descriptor, and so is the one of the output: if another user can write
next to the output, he can remove both, but neither lead the restore to other files nor exchange the
database before it has its name.

Only the parts of the snapshot are kept across attempts, decompressed and at their offsets.
Keeping compressed objects would need up to twice the disk and a second pass over every byte;
segments are at most half a database by the rule that makes snapshots due, must be known before
the snapshot anyway, and are simply fetched again. A kept part is trusted only if every page of
it that still counts has the hash that was written down when the part was verified, so neither a
torn line nor a page lost in a power cut can slip through. For that reason the file ``parts`` is
never synced.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import logging
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from replicator.errors import LocalIOError
from replicator.format.buffers import U64
from replicator.format.page_hashes import pack_hashes, unpack_hashes
from replicator.system.directory import Directory, hold_directory
from replicator.system.files import Files, HeldName, OutFile
from replicator.system.locks import DirLock

_VERSION = 1
_PIECE = 1 << 16  # of that file, which grows by 11 bytes for each page

log = logging.getLogger(__name__)


class Partial:
    """The directory. It belongs to one snapshot (``identity``) and one txid."""

    def __init__(self, output: Path, files: Files) -> None:
        self.directory = output.with_name(f".{output.name}.restoring")
        self._output = output
        self._files = files
        self._draft: OutFile | None = None
        self.place: Directory  # of the output; both are held
        self._lock: DirLock

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock; ``AlreadyRunning`` if another restore to the same output does. A failed
        attempt without a usable part removes the directory."""
        with hold_directory(self._output.parent, self._files) as self.place:
            self._lock = DirLock(self.place.entry(self.directory.name), self._files)
            with self._lock:
                try:
                    yield
                finally:
                    self._close()
                    if not self._has_parts():
                        self.remove()

    @property
    def output(self) -> HeldName:
        """The name of the output, in the directory that it had when the restore began."""
        return self.place.entry(self._output.name)

    @property
    def database(self) -> HeldName:
        return self.entry("database")

    @property
    def _parts(self) -> HeldName:
        return self.entry("parts")

    def entry(self, name: str) -> HeldName:
        """A name in the directory, while it is held."""
        return self._lock.directory.entry(name)

    def _has_parts(self) -> bool:
        """True if a part is listed, and also when that cannot be read."""
        with contextlib.suppress(LocalIOError):
            if not self._files.exists(self._parts):
                return False
            with contextlib.closing(self._files.pieces(self._parts, _PIECE)) as pieces:
                lines = accumulate(piece.count(b"\n") for piece in pieces)
                return any(count > 1 for count in lines)
        return True

    def load(self, identity: dict[str, object], txid: int | None) -> dict[int, U64]:
        """Kept parts by first page number: the hash of each page. Empty when the directory
        belongs to another snapshot or to another txid."""
        if not self._files.exists(self._parts) or not self._files.exists(self.database):
            return {}
        lines = self._files.read(self._parts).splitlines()
        head = _parse(lines[0]) if lines else None
        if head is None or head.pop("target", None) != txid:
            return {}
        return dict(_parts(lines[1:])) if head == _head(identity) else {}

    def begin(self, identity: dict[str, object], txid: int | None) -> None:
        """Start the list of parts afresh."""
        self._close()
        self._draft = self._files.create(self._parts)
        self._write({**_head(identity), "target": txid})

    def note(self, first_pgno: int, hashes: U64) -> None:
        """A part is written at its offset. Called by one thread."""
        text = base64.b64encode(pack_hashes(hashes)).decode()
        self._write({"page": first_pgno, "hashes": text})

    def spool(self, first_txid: int) -> HeldName:
        return self.entry(f"segment-{first_txid:016x}")

    def clear(self) -> None:
        """Remove the database and the list of its parts, but keep the lock."""
        self._close()
        for name in self._lock.directory.names():
            if name != self._lock.path.name:
                self._files.unlink(self.entry(name), missing_ok=True)

    def remove(self) -> None:
        """Remove the directory, if it exists. A failure is only logged, because nothing depends on
        the directory."""
        name = self.place.entry(self.directory.name)
        if not self._files.exists(name):
            return
        try:
            self._close()
            for each in self._lock.directory.names():
                self._files.unlink(self.entry(each))
            self._files.remove_directory(name)
        except LocalIOError as error:
            log.warning(
                "%s; the restore is complete: remove the rest of %s by hand",
                error,
                self.directory,
            )

    def _write(self, line: dict[str, object]) -> None:
        assert self._draft is not None
        self._draft.write(json.dumps(line).encode() + b"\n")

    def _close(self) -> None:
        if self._draft is not None:
            self._draft.close()
            self._draft = None


def _head(identity: dict[str, object]) -> dict[str, object]:
    return {"version": _VERSION, **identity}


def _parse(line: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _parts(lines: list[bytes]) -> Iterator[tuple[int, U64]]:
    for line in lines:
        match _parse(line):
            case {"page": int(page), "hashes": str(text)}:
                with contextlib.suppress(binascii.Error, ValueError):
                    yield page, unpack_hashes(base64.b64decode(text, validate=True))

"""Frames that wait to be captured although their log may be gone: a few in memory, then on disk.

Owns a file without a name in the cache directory, so that a log can be let go however much came
meanwhile, in the memory of a few reads. Refuses: to be durable. What is lost here with the
process lies in the database, and is caught up. What comes back is verified like the log itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..edge.files import Files, InFile, OutFile
from ..format.wal import Frames, scan
from ..model import LogPosition

MEMORY_BYTES = 8 << 20
HURRY_BYTES = 32 << 20  # the same while writers wait, who are not to wait for the disk too


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Consecutive frames: ``data`` starts right after ``base``; the first ``count`` count."""

    base: LogPosition
    data: bytes
    frames: Frames
    count: int

    @property
    def end(self) -> LogPosition:
        return self.frames.position(self.base, self.count)


@dataclass(frozen=True, slots=True, eq=False)
class Spooled:
    """A batch whose bytes lie in the spool."""

    base: LogPosition
    frames: Frames
    count: int
    offset: int
    size: int


class Spool:
    """Used by the capture thread alone."""

    def __init__(self, directory: Path, files: Files) -> None:
        self._path = directory / "spool.tmp"
        self._files = files
        self._memory = 0  # bytes of the batches that were given back as they are
        self._out: OutFile | None = None
        self._in: InFile | None = None

    def keep(self, batch: Batch, *, hurry: bool) -> Batch | Spooled:
        """The batch, or where it is from now on; ``LocalIOError`` when the disk refuses.
        ``hurry``: writers wait."""
        if self._memory + len(batch.data) <= (HURRY_BYTES if hurry else MEMORY_BYTES):
            self._memory += len(batch.data)
            return batch
        out = self._out or self._open()
        offset = out.size
        out.write(batch.data)
        return Spooled(batch.base, batch.frames, batch.count, offset, len(batch.data))

    def _open(self) -> OutFile:
        self._out = self._files.create(self._path)
        self._in = self._files.open_read(self._path)
        self._files.unlink(self._path)
        return self._out

    def fetch(self, kept: Spooled) -> Batch | None:
        """The batch again; None when its bytes are not what they were."""
        data = self._in.pread(kept.size, kept.offset) if self._in is not None else b""
        frames = scan(data, kept.base)
        batch = Batch(kept.base, data, frames, kept.count)
        same = (frames.count == kept.frames.count
                and batch.end == kept.frames.position(kept.base, kept.count))
        return batch if same else None

    def clear(self) -> None:
        """Let go of everything that was kept."""
        for file in (self._out, self._in):
            if file is not None:
                file.close()
        self._out, self._in, self._memory = None, None, 0

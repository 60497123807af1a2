"""Reads the WAL forward from a captured position: committed frames, and nothing else.

Owns: which frames count (salts, checksum chain, a commit at the end), and the verdict on a WAL
that changed since the last look. Refuses: to wait and to lock; its caller drives it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from replicator.capture.limits import CaptureLimits
from replicator.errors import ContinuityLost
from replicator.format.wal import (
    FRAME_HEADER_SIZE,
    Frames,
    WalHeader,
    frame_header,
    frame_size,
    offset_of,
    rewritten,
    scan,
)
from replicator.model import WalPosition
from replicator.sqlite.wal_file import WalFile


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Consecutive frames: ``data`` starts right after ``base``; the first ``count`` count."""

    base: WalPosition
    data: bytes
    frames: Frames
    count: int

    @property
    def end(self) -> WalPosition:
        return self.frames.position(self.base, self.count)


@dataclass(frozen=True, slots=True, eq=False)
class Committed:
    """Committed frames beyond the captured position, up to ``end``, which ends a transaction."""

    start: WalPosition
    end: WalPosition
    complete: bool  # nothing committed followed when the WAL was read, see WalReader.stashed
    ready: tuple[Batch, ...] = ()  # the whole range, if it was read already
    far: bool = False  # the range is long, and many of its pages are in it more than once

    @property
    def raw_bytes(self) -> int:
        return (self.end.frame - self.start.frame) * frame_size(self.end)


def no_wal(page_size: int) -> WalPosition:
    """The position before any WAL was seen: no header matches it, so the next WAL is new."""
    return WalPosition(
        salt1=0, salt2=0, frame=0, checksum=(0, 0), big_endian=False, page_size=page_size
    )


def require_page_size(known: int, found: int) -> None:
    """``ContinuityLost`` if the page size is not the known one: another database was copied over
    the followed one."""
    if found != known:
        raise ContinuityLost(
            f"the page size changed from {known} to {found}", code="page_size_changed"
        )


def frame_holds(wal: WalFile, position: WalPosition) -> bool:
    """Checks whether the WAL still contains the frame that ends at ``position``, unchanged."""
    data = wal.read(FRAME_HEADER_SIZE, offset_of(position) - frame_size(position))
    if len(data) < FRAME_HEADER_SIZE:
        return False
    _, _, salt1, salt2, checksum = frame_header(data)
    return (salt1, salt2, checksum) == (position.salt1, position.salt2, position.checksum)


def same_wal(a: WalPosition, b: WalPosition) -> bool:
    """True if both positions are in one WAL."""
    return (a.salt1, a.salt2) == (b.salt1, b.salt2)


def in_wal(wal: WalFile, position: WalPosition) -> bool:
    """Checks whether ``position`` was taken in the WAL that is open now."""
    header = wal.header()
    return header is not None and same_wal(header.start(), position)


def wal_contains(wal: WalFile, position: WalPosition, limits: CaptureLimits) -> bool:
    """Checks whether the WAL is the one of ``position``, and unchanged up to there.

    Every frame counts: a power cut may lose one in the middle. SQLite then continues from the
    frame before it, while the last captured frame still follows behind.
    """
    header = wal.header() if wal.refresh() is not None else None
    if header is None or header.start() != replace(position, frame=0, checksum=header.checksum):
        return False
    at, step = header.start(), max(1, limits.chunk_bytes // frame_size(position))
    while at.frame < position.frame:
        count = min(step, position.frame - at.frame)
        frames = scan(wal.read(count * frame_size(at), offset_of(at)), at)
        if frames.count < count:
            return False
        at = frames.position(at, count)
    return at == position


class WalReader:
    """Reads a WAL forward from ``position``, the end of the captured frames."""

    def __init__(
        self,
        wal: WalFile,
        position: WalPosition,
        limits: CaptureLimits,
        *,
        anchored: bool = True,
    ) -> None:
        """``anchored`` False: the current hold may be younger than frames that are not captured
        yet, so the WAL may reset before its end was seen; ``ContinuityLost`` then."""
        self._wal = wal
        self._limits = limits
        self._anchored = anchored
        self.position = position
        self.saw_end = False  # nothing committed followed :attr:`read_position` at the last read
        self._stash: Committed | None = None

    def look(self) -> bool:
        """Checks whether a frame seems to follow; enters a new WAL when there is one."""
        if self._stash is not None:
            return True
        found = self._wal.refresh()
        header = self._wal.header() if found is not None else None
        if header is None:
            self._require_anchor()
            return False
        if not same_wal(header.start(), self.position):
            self._enter(header)
        elif self.position.frame == 0:
            # Until the first commit the header may be written again: all connections share the
            # salts, but each counts checkpoints of its own, so the chain differs.
            self.position = header.start()
        elif not frame_holds(self._wal, self.position):
            return self._look_again()
        return self._next_frame_exists()

    def _enter(self, header: WalHeader) -> None:
        require_page_size(self.position.page_size, header.page_size)
        self._require_anchor()
        self.position = header.start()

    def _require_anchor(self) -> None:
        """The WAL was reset, or emptied."""
        if not self._anchored:
            raise ContinuityLost("the WAL was reset before its end was captured", code="wal_reset")

    def _look_again(self) -> bool:
        """The last frame changed: a new WAL may have begun between the two reads."""
        header = self._wal.header()
        if header is None:  # a checkpoint emptied the WAL between the two reads
            self._require_anchor()
            return False
        if same_wal(header.start(), self.position):
            raise ContinuityLost(
                f"frame {self.position.frame} of the WAL changed after capture",
                code="frames_changed",
            )
        self._enter(header)
        return self._next_frame_exists()

    def _next_frame_exists(self) -> bool:
        return self.reaches(1)

    def reaches(self, frames: int) -> bool:
        """Checks whether ``frames`` more frames follow, committed or not. One small read."""
        at = offset_of(self.position) + (frames - 1) * frame_size(self.position)
        data = self._wal.read(FRAME_HEADER_SIZE, at)
        if len(data) < FRAME_HEADER_SIZE:
            return False
        _, _, salt1, salt2, _ = frame_header(data)
        return (salt1, salt2) == (self.position.salt1, self.position.salt2)

    def seen_end(self, ahead: int) -> WalPosition | None:
        """The position ``ahead`` frames further, taken from that frame; the chain is not
        verified. None if the WAL ends before it."""
        position = replace(self.position, frame=self.position.frame + ahead)
        if not position.frame:
            return None  # a checkpoint emptied the WAL since the frames were seen
        data = self._wal.read(FRAME_HEADER_SIZE, offset_of(position) - frame_size(position))
        if len(data) < FRAME_HEADER_SIZE:
            return None
        _, _, salt1, salt2, checksum = frame_header(data)
        seen = replace(position, checksum=checksum)
        return seen if (salt1, salt2) == (seen.salt1, seen.salt2) else None

    def written_ms(self) -> int | None:
        """Time of the last write to the WAL (ms, rounded up); None without a WAL."""
        found = self._wal.refresh()
        return None if found is None else -(-found.st_mtime_ns // 1_000_000)

    def stamp(self) -> int | None:
        """Time of the last write to the WAL (ns); None while a later write could look the
        same."""
        found = self._wal.refresh()
        if found is None or time.time_ns() - found.st_mtime_ns < self._limits.settled_ns:
            return None
        return found.st_mtime_ns

    def frames_ahead(self) -> int:
        """Counts the frames that follow, committed or not. A few small reads."""
        low, high = 0, 1  # the WAL reaches ``low``; doubled until it does not reach ``high``
        while self.reaches(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.reaches(middle) else (low, middle)
        return low

    def last_frame(self) -> int:
        """Number of the last frame, committed or not, in the WAL of :attr:`read_position`."""
        return self.read_position.frame + self._beyond().frames_ahead()

    def _beyond(self) -> WalReader:
        """A second reader, from :attr:`read_position` on. Frames in memory end where the WAL was
        seen to end."""
        anchored = self._anchored or self._stash is not None
        return WalReader(self._wal, self.read_position, self._limits, anchored=anchored)

    @property
    def stashed(self) -> bool:
        """True if frames wait in memory to be captured, see :meth:`stash`. More may be committed
        since they were read."""
        return self._stash is not None

    def find(self, limit: int, *, hold: int | None = None) -> Committed | None:
        """Committed frames from the captured position on, about ``limit`` bytes at most.

        A transaction larger than ``limit`` is still taken whole: a range ends at a commit.
        A range of at most ``hold`` bytes (default ``hold_bytes`` of the limits) stays in memory
        and is not read a second time when it is captured.
        """
        if self._stash is not None:
            return self._stash
        hold = self._limits.hold_bytes if hold is None else hold
        found = self._find(limit, hold) if self.look() else None
        self.saw_end = found is None or found.complete
        if self.saw_end:  # the end of the WAL, if it is still there
            self._anchored = self._anchored or in_wal(self._wal, self.position)
        return found

    def _find(self, limit: int, hold: int) -> Committed | None:
        """Always reads from the captured position on: a rolled-back transaction leaves frames
        that the next one overwrites from there, and only the chain distinguishes them."""
        base, end, complete, held = self.position, None, True, 0
        batches: list[Batch] = []
        runs: list[Frames] = []
        for batch in self._chunks(base):
            runs.append(batch.frames)
            held += len(batch.data)
            if held <= hold:
                batches.append(batch)
            if batch.frames.committed:
                end = batch.frames.position(base)
            base = batch.frames.position(base, batch.frames.count)
            if end and (base.frame - self.position.frame) * frame_size(base) >= limit:
                complete = False
                break
        if end is None:
            return None
        ready = _reusable(batches, end) if len(batches) == len(runs) else ()
        return Committed(self.position, end, complete, ready, self._far(self.position, end, runs))

    def _far(self, start: WalPosition, end: WalPosition, runs: Iterable[Frames]) -> bool:
        size = (end.frame - start.frame) * frame_size(end)
        return size > self._limits.far_bytes and rewritten(runs)

    def _chunks(self, start: WalPosition) -> Iterator[Batch]:
        size = frame_size(start)
        chunk = max(1, self._limits.chunk_bytes // size) * size
        base = start
        while True:
            data = self._wal.read(chunk, offset_of(base))
            frames = scan(data, base)
            if frames.count:
                yield Batch(base, data, frames, frames.count)
            if frames.count * size < chunk:
                return
            base = frames.position(base, frames.count)

    def batches(self, found: Committed) -> Iterator[Batch]:
        """The frames of ``found``, verified again if they have to be read again."""
        if found.ready:
            yield from found.ready
            return
        for batch in self._chunks(found.start):
            count = min(batch.frames.count, found.end.frame - batch.base.frame)
            cut = Batch(batch.base, batch.data, batch.frames, count)
            yield cut
            if cut.end.frame == found.end.frame:
                if cut.end != found.end:
                    raise ContinuityLost(
                        "committed frames of the WAL changed while being read",
                        code="frames_changed",
                    )
                return
        raise ContinuityLost(
            "committed frames vanished from the WAL while being read", code="frames_vanished"
        )

    def advance(self, end: WalPosition) -> None:
        """Moves the captured position to ``end``, and releases the frames in memory."""
        self.position = end
        self.close()

    def close(self) -> None:
        """Releases the frames in memory."""
        self._stash = None

    def keep(self, found: Committed) -> None:
        """Holds ``found`` in memory until it is captured, so that the WAL may reset before."""
        self._stash = replace(found, ready=tuple(self.batches(found)))

    def stash(self, *, hurry: bool = False) -> bool:
        """Reads the committed frames into memory, so that the WAL may reset. ``hurry``: writers
        wait for it.

        False if that is too much, or if a new WAL began: its frames are not joined to frames in
        memory of the old one.
        """
        stashed = self._stash
        most = self._limits.hurry_bytes if hurry else self._limits.stash_bytes
        room = most - (stashed.raw_bytes if stashed else 0)
        beyond = self._beyond()
        much = beyond.reaches(max(1, room // frame_size(beyond.position)))
        found = beyond.find(0 if much else room, hold=room)  # much may be of no commit yet
        if stashed is not None and not same_wal(beyond.position, stashed.end):
            return False
        self.saw_end = found is None or (found.complete and found.raw_bytes <= room)
        self._anchored = self._anchored or (self.saw_end and in_wal(self._wal, beyond.position))
        if found is not None and self.saw_end:
            start, ready = (stashed.start, stashed.ready) if stashed else (found.start, ())
            batches = (*ready, *beyond.batches(found))
            far = self._far(start, found.end, (batch.frames for batch in batches))
            self._stash = Committed(start, found.end, True, batches, far)
        return self.saw_end

    @property
    def read_position(self) -> WalPosition:
        """The end of the frames that are captured or wait in memory."""
        return self._stash.end if self._stash is not None else self.position

    def nothing_follows(self) -> bool:
        """Checks whether the WAL is still the same and ends at :attr:`read_position`."""
        probe = self._beyond()
        return probe.find(0) is None and same_wal(probe.position, self.read_position)


def _reusable(batches: list[Batch], end: WalPosition) -> tuple[Batch, ...]:
    """The part of ``batches`` before ``end``."""
    return tuple(
        Batch(
            batch.base,
            batch.data,
            batch.frames,
            min(batch.frames.count, end.frame - batch.base.frame),
        )
        for batch in batches
        if batch.base.frame < end.frame
    )

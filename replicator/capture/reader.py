"""Reading the log forward from a captured position: committed frames, and nothing else.

Owns the question which frames count (salts, checksum chain, a commit at the end) and what became
of the log since the last look. Driven from outside; never waits, never holds a lock.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from replicator.errors import ContinuityLost
from replicator.format.wal import (
    FRAME_HEADER_SIZE,
    Frames,
    WalHeader,
    frame_header,
    rewritten,
    scan,
)
from replicator.model import WalPosition
from replicator.sqlite.live import WalFile

CHUNK_BYTES = 1 << 20  # one read of the log; bounds memory, large enough to vectorise
FAR_BYTES = 8 << 20  # from here on, versions of a page lie too far apart for a low zstd level
HOLD_BYTES = 4 << 20  # up to this much is not read a second time when it is captured
STASH_BYTES = 8 << 20  # most that waits in memory while the log is let go
HURRY_BYTES = 16 << 20  # the same while writers wait
SETTLED_NS = 100_000_000  # a modification time younger than this may hide a later write


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
    complete: bool  # nothing committed followed when the log was read
    ready: tuple[Batch, ...] = ()  # the whole range when it was read already
    far: bool = False  # whether it is long, and many of its pages are in it more than once

    @property
    def raw_bytes(self) -> int:
        return (self.end.frame - self.start.frame) * frame_size(self.end)


def frame_size(position: WalPosition) -> int:
    return position.page_size + FRAME_HEADER_SIZE


def offset_of(position: WalPosition) -> int:
    return 32 + position.frame * frame_size(position)


def no_wal(page_size: int) -> WalPosition:
    """The position before any log was seen: no header carries it, so the next log is new."""
    return WalPosition(
        salt1=0, salt2=0, frame=0, checksum=(0, 0), big_endian=False, page_size=page_size
    )


def frame_holds(log: WalFile, position: WalPosition) -> bool:
    """Whether the frame that ends at ``position`` is in the log, as it was read."""
    data = log.read(FRAME_HEADER_SIZE, offset_of(position) - frame_size(position))
    if len(data) < FRAME_HEADER_SIZE:
        return False
    _, _, salt1, salt2, checksum = frame_header(data)
    return (salt1, salt2, checksum) == (position.salt1, position.salt2, position.checksum)


def same_wal(a: WalPosition, b: WalPosition) -> bool:
    """Whether both positions are in one log."""
    return (a.salt1, a.salt2) == (b.salt1, b.salt2)


def in_wal(log: WalFile, position: WalPosition) -> bool:
    """Whether the open log file is the one that ``position`` was taken in."""
    header = log.header()
    return header is not None and same_wal(header.start(), position)


def wal_contains(log: WalFile, position: WalPosition) -> bool:
    """Whether the log file is the one ``position`` was taken in, unchanged up to there.

    Every frame counts: after a power cut one in the middle may be missing, and SQLite goes on
    from the one before it, while the last frame that was captured still lies behind.
    """
    header = log.header() if log.refresh() is not None else None
    if header is None or header.start() != replace(position, frame=0, checksum=header.checksum):
        return False
    at, step = header.start(), max(1, CHUNK_BYTES // frame_size(position))
    while at.frame < position.frame:
        count = min(step, position.frame - at.frame)
        frames = scan(log.read(count * frame_size(at), offset_of(at)), at)
        if frames.count < count:
            return False
        at = frames.position(at, count)
    return at == position


class WalReader:
    """Reads a log forward from ``position``, the end of what was captured."""

    def __init__(self, log: WalFile, position: WalPosition, *, anchored: bool = True) -> None:
        """``anchored`` False: the hold that is held may be younger than frames which were not
        captured yet, so the log may go before its end was seen; then ``ContinuityLost``."""
        self._log = log
        self._anchored = anchored
        self.position = position
        self.saw_end = False  # whether nothing committed followed :attr:`read_position` when read
        self._stash: Committed | None = None

    def look(self) -> bool:
        """Whether a frame seems to follow; enters a new log when there is one."""
        if self._stash is not None:
            return True
        found = self._log.refresh()
        header = self._log.header() if found is not None else None
        if header is None:
            return False
        if not same_wal(header.start(), self.position):
            self._enter(header)
        elif self.position.frame == 0:
            # The header may be written anew until its first commit: the salts are shared, but
            # each connection counts checkpoints for itself, so that the chain is another one.
            self.position = header.start()
        elif not frame_holds(self._log, self.position):
            return self._look_again()
        return self._next_frame_exists()

    def _enter(self, header: WalHeader) -> None:
        if header.page_size != self.position.page_size:
            raise ContinuityLost(
                f"the page size changed from {self.position.page_size} to {header.page_size}"
            )
        if not self._anchored:
            raise ContinuityLost("the log was reset before its end was captured")
        self.position = header.start()

    def _look_again(self) -> bool:
        """The last frame changed: a new log may have begun between our two reads."""
        header = self._log.header()
        if header is None or same_wal(header.start(), self.position):
            raise ContinuityLost(f"frame {self.position.frame} of the log changed after capture")
        self._enter(header)
        return self._next_frame_exists()

    def _next_frame_exists(self) -> bool:
        return self.reaches(1)

    def reaches(self, frames: int) -> bool:
        """Whether the log goes on for ``frames`` frames, committed or not. One small read."""
        at = offset_of(self.position) + (frames - 1) * frame_size(self.position)
        data = self._log.read(FRAME_HEADER_SIZE, at)
        if len(data) < FRAME_HEADER_SIZE:
            return False
        _, _, salt1, salt2, _ = frame_header(data)
        return (salt1, salt2) == (self.position.salt1, self.position.salt2)

    def seen_end(self, ahead: int) -> WalPosition | None:
        """The position ``ahead`` frames on, as its frame tells it; the chain is not verified.
        None when the log does not go on that far (any more)."""
        position = replace(self.position, frame=self.position.frame + ahead)
        data = self._log.read(FRAME_HEADER_SIZE, offset_of(position) - frame_size(position))
        if len(data) < FRAME_HEADER_SIZE:
            return None
        _, _, salt1, salt2, checksum = frame_header(data)
        seen = replace(position, checksum=checksum)
        return seen if (salt1, salt2) == (seen.salt1, seen.salt2) else None

    def written_ms(self) -> int | None:
        """When the log was written last (ms, rounded up); None without a log."""
        found = self._log.refresh()
        return None if found is None else -(-found.st_mtime_ns // 1_000_000)

    def stamp(self) -> int | None:
        """When the log was written last (ns); None while a later write could look the same."""
        found = self._log.refresh()
        if found is None or time.time_ns() - found.st_mtime_ns < SETTLED_NS:
            return None
        return found.st_mtime_ns

    def frames_ahead(self) -> int:
        """How many frames the log goes on for, committed or not. A few small reads."""
        low, high = 0, 1  # the log reaches ``low``; doubled until it does not reach ``high``
        while self.reaches(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.reaches(middle) else (low, middle)
        return low

    def last_frame(self) -> int:
        """Number of the last frame, committed or not, in the log of :attr:`read_position`."""
        position = self.read_position
        return position.frame + WalReader(self._log, position).frames_ahead()

    @property
    def stashed(self) -> bool:
        """Whether frames wait to be captured, see :meth:`stash`."""
        return self._stash is not None

    def find(self, limit: int, *, hold: int | None = None) -> Committed | None:
        """Committed frames from the captured position on, about ``limit`` bytes at most.

        A transaction larger than ``limit`` is still taken whole: a range ends at a commit.
        What is not longer than ``hold`` bytes (default ``HOLD_BYTES``) is not read a second
        time when it is captured.
        """
        if self._stash is not None:
            return self._stash
        found = self._find(limit, HOLD_BYTES if hold is None else hold) if self.look() else None
        self.saw_end = found is None or found.complete
        if self.saw_end:  # the end of the log, if it is still there
            self._anchored = self._anchored or self._still_here()
        return found

    def _find(self, limit: int, hold: int) -> Committed | None:
        """Always from the captured position on: a transaction that was rolled back leaves
        frames that the next one overwrites from there, and only the chain tells."""
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
        return Committed(self.position, end, complete, ready, _far(self.position, end, runs))

    def _still_here(self) -> bool:
        return in_wal(self._log, self.position)

    def _chunks(self, start: WalPosition) -> Iterator[Batch]:
        size = frame_size(start)
        chunk = max(1, CHUNK_BYTES // size) * size
        base = start
        while True:
            data = self._log.read(chunk, offset_of(base))
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
                    raise ContinuityLost("committed frames of the log changed while being read")
                return
        raise ContinuityLost("committed frames vanished from the log while being read")

    def advance(self, end: WalPosition) -> None:
        """Everything up to ``end`` was captured."""
        self.position = end
        self.close()

    def close(self) -> None:
        """Let go of what waits."""
        self._stash = None

    def keep(self, found: Committed) -> None:
        """Hold ``found`` until it is captured, so that the log may go before that."""
        self._stash = replace(found, ready=tuple(self.batches(found)))

    def stash(self, *, hurry: bool = False) -> bool:
        """Read what is committed, so that the log may go. False: too much of it, or a new log
        began, which is not joined to what waits of the old one. ``hurry``: writers wait
        meanwhile."""
        stashed = self._stash
        room = (HURRY_BYTES if hurry else STASH_BYTES) - (stashed.raw_bytes if stashed else 0)
        beyond = WalReader(self._log, self.read_position)
        much = beyond.reaches(max(1, room // frame_size(beyond.position)))
        found = beyond.find(0 if much else room, hold=room)  # much may be of no commit yet
        if stashed is not None and not same_wal(beyond.position, stashed.end):
            return False
        self.saw_end = found is None or (found.complete and found.raw_bytes <= room)
        if found is not None and self.saw_end:
            start, ready = (stashed.start, stashed.ready) if stashed else (found.start, ())
            batches = (*ready, *beyond.batches(found))
            self._stash = Committed(
                start,
                found.end,
                True,
                batches,
                _far(start, found.end, (batch.frames for batch in batches)),
            )
        return self.saw_end

    @property
    def read_position(self) -> WalPosition:
        """The end of what is captured, or waits to be."""
        return self._stash.end if self._stash is not None else self.position

    def nothing_follows(self) -> bool:
        """Whether the log is still the same and ends at :attr:`read_position`."""
        probe = WalReader(self._log, self.read_position)
        return probe.find(0) is None and same_wal(probe.position, self.read_position)


def _far(start: WalPosition, end: WalPosition, runs: Iterable[Frames]) -> bool:
    return (end.frame - start.frame) * frame_size(end) > FAR_BYTES and rewritten(runs)


def _reusable(batches: list[Batch], end: WalPosition) -> tuple[Batch, ...]:
    """What of ``batches`` lies before ``end``."""
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

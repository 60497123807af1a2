"""Following the log: which frames are committed, and how the log is let go and picked up.

:class:`LogReader` reads forward from a captured position and yields committed frames only.
:class:`Follower` holds the pins that keep every frame readable until it was captured, and
rolls the log over without writing anything. Both are driven from outside, never wait for
anybody, and take their time from no clock but the one passed in.

Why nothing is lost between two logs
------------------------------------
A log is reset only when it was copied whole into the database and nobody reads from it. The
next pin is opened *before* the one of the moment is released, and only once everything that
the one of the moment can read was captured. A pin on a read mark above zero makes a reset
impossible. One that landed on mark zero was opened while the whole log lay in the database,
and the pin before it let nothing beyond its own mark be copied, so that mark was the log's
end. Either way, a log that vanishes while a pin is held had been captured to its end.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..edge.sqlite import Checkpoint, LiveDatabase, LogFile, Pin
from ..errors import ReplicatorError
from ..format.wal import FRAME_HEADER_SIZE, Frames, WalHeader, frame_header, scan
from ..metrics import Metrics
from ..model import LogPosition

CHUNK_BYTES = 4 << 20  # one read of the log; bounds memory, large enough to vectorise
STASH_BYTES = 64 << 20  # most that waits in memory while the log is let go
ROLL_OVER_FRAMES = 1000  # SQLite's own threshold: beyond it each commit tries a checkpoint
ROLL_OVER_BYTES = 32 << 20  # the same for large pages
ESCALATE_FACTOR = 4  # how many times longer a log may get before writers have to wait
LOCK_PATIENCE = 0.5  # seconds to try for the write lock before leaving it for later
CHECKPOINT_PATIENCE = 0.02  # seconds to wait for a checkpoint of somebody else to end
LONGEST_HOLD = 0.03  # seconds with the write lock after which no further attempt is begun
SETTLED_NS = 100_000_000  # a modification time younger than this may hide a later write


class ContinuityLost(ReplicatorError):
    """The log no longer holds what was captured from it; the message says how."""


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
class Committed:
    """Committed frames beyond the captured position, up to ``end``, which ends a transaction."""

    start: LogPosition
    end: LogPosition
    complete: bool  # nothing committed followed when the log was read
    ready: tuple[Batch, ...] = ()  # the whole range when it was read already

    @property
    def raw_bytes(self) -> int:
        return (self.end.frame - self.start.frame) * frame_size(self.end)


def frame_size(position: LogPosition) -> int:
    return position.page_size + FRAME_HEADER_SIZE


def offset_of(position: LogPosition) -> int:
    return 32 + position.frame * frame_size(position)


def long_log(position: LogPosition, factor: int = 1) -> bool:
    """Whether a log that ends here is ``factor`` times as long as one worth letting go."""
    size = position.frame * frame_size(position)
    return position.frame >= factor * ROLL_OVER_FRAMES or size >= factor * ROLL_OVER_BYTES


def no_log(page_size: int) -> LogPosition:
    """The position before any log was seen: no header carries it, so the next log is new."""
    return LogPosition(salt1=0, salt2=0, frame=0, checksum=(0, 0), big_endian=False,
                       page_size=page_size)


def frame_holds(log: LogFile, position: LogPosition) -> bool:
    """Whether the frame that ends at ``position`` is in the log, as it was read."""
    data = log.read(FRAME_HEADER_SIZE, offset_of(position) - frame_size(position))
    if len(data) < FRAME_HEADER_SIZE:
        return False
    _, _, salt1, salt2, checksum = frame_header(data)
    return (salt1, salt2, checksum) == (position.salt1, position.salt2, position.checksum)


def in_log(log: LogFile, position: LogPosition) -> bool:
    """Whether the open log file is the one that ``position`` was taken in."""
    header = log.header()
    return header is not None and _same(header.start(), position)


def log_holds(log: LogFile, position: LogPosition) -> bool:
    """Whether the log file is the one ``position`` was taken in, unchanged up to there."""
    header = log.header() if log.refresh() is not None else None
    if header is None or header.start() != replace(position, frame=0, checksum=header.checksum):
        return False
    return position.frame == 0 or frame_holds(log, position)


class LogReader:
    """Reads a log forward from ``position``, the end of what was captured."""

    def __init__(self, log: LogFile, position: LogPosition, *, anchored: bool = True) -> None:
        """``anchored`` False: the pin that is held may be younger than frames which were not
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
        if not self._same_log(header):
            self._enter(header)
        elif not self._last_frame_holds():
            return self._look_again()
        return self._next_frame_exists()

    def _same_log(self, header: WalHeader) -> bool:
        return (header.salt1, header.salt2) == (self.position.salt1, self.position.salt2)

    def _enter(self, header: WalHeader) -> None:
        if header.page_size != self.position.page_size:
            raise ContinuityLost(
                f"the page size changed from {self.position.page_size} to {header.page_size}")
        if not self._anchored:
            raise ContinuityLost("the log was reset before its end was captured")
        self.position = header.start()

    def _last_frame_holds(self) -> bool:
        return self.position.frame == 0 or frame_holds(self._log, self.position)

    def _look_again(self) -> bool:
        """The last frame changed: a new log may have begun between our two reads."""
        header = self._log.header()
        if header is None or self._same_log(header):
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
        return position.frame + LogReader(self._log, position).frames_ahead()

    @property
    def stashed(self) -> bool:
        """Whether frames wait in memory, see :meth:`stash`."""
        return self._stash is not None

    def find(self, limit: int) -> Committed | None:
        """Committed frames from the captured position on, about ``limit`` bytes at most.

        A transaction larger than ``limit`` is still taken whole: a range ends at a commit.
        """
        if self._stash is not None:
            return self._stash
        found = self._find(limit) if self.look() else None
        self.saw_end = found is None or found.complete
        if self.saw_end:  # the end of the log, if it is still there
            self._anchored = self._anchored or self._still_here()
        return found

    def _find(self, limit: int) -> Committed | None:
        """Always from the captured position on: a transaction that was rolled back leaves
        frames that the next one overwrites from there, and only the chain tells."""
        base, end, complete = self.position, None, True
        batches: list[Batch] = []
        for batch in self._chunks(base):
            if len(batches) < 2:
                batches.append(batch)
            if batch.frames.committed:
                end = batch.frames.position(base)
            base = batch.frames.position(base, batch.frames.count)
            if end and (base.frame - self.position.frame) * frame_size(base) >= limit:
                complete = False
                break
        if end is None:
            return None
        return Committed(self.position, end, complete, self._reusable(batches, end))

    def _still_here(self) -> bool:
        return in_log(self._log, self.position)

    def _reusable(self, batches: list[Batch], end: LogPosition) -> tuple[Batch, ...]:
        """The batch in hand when one read held the whole range, which is the common case."""
        if len(batches) != 1 or batches[0].base != self.position:
            return ()
        only = batches[0]
        return (Batch(only.base, only.data, only.frames, end.frame - only.base.frame),)

    def _chunks(self, start: LogPosition) -> Iterator[Batch]:
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

    def advance(self, end: LogPosition) -> None:
        """Everything up to ``end`` was captured."""
        self.position, self._stash = end, None

    def stash(self) -> bool:
        """Read what is committed into memory, so that the log may go. False: too much of it,
        or a new log began, which is not joined to what waits of the old one."""
        stashed = self._stash
        beyond = LogReader(self._log, self.read_position)
        found = beyond.find(STASH_BYTES)
        if stashed is not None and not _same(beyond.position, stashed.end):
            return False
        self.saw_end = beyond.saw_end
        if found is None:
            return True
        start, ready = (stashed.start, stashed.ready) if stashed else (found.start, ())
        whole = Committed(start, found.end, found.complete,
                          ready + (found.ready or tuple(beyond.batches(found))))
        self._stash = whole
        return found.complete and whole.raw_bytes <= STASH_BYTES

    @property
    def read_position(self) -> LogPosition:
        """The end of what is captured or at least in memory."""
        return self._stash.end if self._stash is not None else self.position

    def nothing_follows(self) -> bool:
        """Whether the log is still the same and ends at :attr:`read_position`."""
        probe = LogReader(self._log, self.read_position)
        return probe.find(0) is None and _same(probe.position, self.read_position)


class Follower:
    """The pins over one log, and its roll-over. Call :meth:`settle` after each capture."""

    def __init__(self, database: LiveDatabase, reader: LogReader, pin: Pin,
                 metrics: Metrics, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._reader = reader
        self._pin = pin
        self._metrics = metrics
        self._clock = clock
        self._pinned_at: LogPosition | None = None
        self._reach: int | None = None  # the pin sees no frame of its log beyond this one
        self.waiting = False  # the pin is on mark zero; the next writer restarts the log

    def settle(self) -> bool:
        """Move the pin to the end of what was captured, then let the log go if it is long.

        False when so much was committed meanwhile that it should be captured at once.
        """
        position = self._reader.read_position
        if position != self._pinned_at and not self._advance_pin(position):
            return True
        return self.waiting or not long_log(position) or self._roll_over()

    def _advance_pin(self, position: LogPosition) -> bool:
        """Overlap a fresh pin with the old one; False when the old one has to stay a while."""
        if position.frame == 0:
            return True  # nothing of this log is committed; the pin we have still holds it
        settled = self._pinned_at is not None and _same(self._pinned_at, position)
        if (settled or self._pinned_at is None) and not self._captured_what_is_pinned(position):
            return False
        fresh = self._database.pin()
        # A checkpoint that began before the reset may still copy frames of the old log; and of
        # a log that began this instant nothing is known.
        stay = (self._checkpoint().busy if self.waiting or not settled
                else not in_log(self._database.log, position))
        if stay:
            self._database.unpin(fresh)
            return False
        self._swap(fresh)
        self.waiting = False
        return True

    def _captured_what_is_pinned(self, position: LogPosition) -> bool:
        """Whether the pin may go: frames that it can read and we did not capture could be
        copied, and the log then be reset, the moment the next pin lands on mark zero."""
        return (self._reader.saw_end
                or (self._reach is not None and position.frame >= self._reach))

    def _swap(self, fresh: Pin) -> None:
        self._database.unpin(self._pin)
        self._pin, self._pinned_at = fresh, self._reader.read_position
        self._reach = self._reader.last_frame()

    def _roll_over(self) -> bool:
        """Chase the log's end once; if it runs away and the log is long, stop it for a moment.

        Each checkpoint leaves the next only what came during it. False when the memory cannot
        take what came meanwhile.
        """
        if not self._chase():
            return False
        if self._pin_is_behind() or self._try_candidate():
            return True
        if not self._chase():
            return False
        if self._pin_is_behind():
            return True
        if long_log(self._reader.read_position, ESCALATE_FACTOR):
            self._escalate()
        return True

    def _chase(self) -> bool:
        """Take what came meanwhile into memory and move the pin behind it, so that the next
        checkpoint has less to do. False: too much for the memory."""
        before = self._reader.read_position
        if not self._reader.stash():
            return False
        position = self._reader.read_position
        if position != before:
            self._advance_pin(position)
        return True

    def _pin_is_behind(self) -> bool:
        """Whether the pin had to stay because somebody's checkpoint is still running."""
        return self._pinned_at != self._reader.read_position

    def _try_candidate(self) -> bool:
        """Whether a pin on mark zero was had: all copied, and nothing came since."""
        answer = self._checkpoint()
        end = self._reader.read_position
        if answer.busy or not answer.log == answer.copied == end.frame:
            return False
        candidate = self._database.pin()
        if not self._reader.nothing_follows():
            self._database.unpin(candidate)
            return False
        self._swap(candidate)
        self.waiting = True
        self._metrics.add("roll_overs")
        return True

    def _checkpoint(self) -> Checkpoint:
        """A passive checkpoint, tried again while another one runs: beyond its threshold a
        busy writer begins one at every commit, so that the gaps between them are short."""
        until = self._clock() + CHECKPOINT_PATIENCE
        while (answer := self._database.checkpoint()).busy and self._clock() < until:
            time.sleep(0.0002)
        return answer

    def _escalate(self) -> None:
        """Roll over under a writer that never pauses, with the write lock, for milliseconds."""
        self.backfill()
        with self.writers_stopped() as held:
            until = self._clock() + LONGEST_HOLD
            while held and self._chase() and not self._pin_is_behind():
                if self._try_candidate() or self._clock() >= until:
                    break

    def backfill(self) -> None:
        """Have copied what can be copied, before anybody has to wait for it."""
        self._database.checkpoint()

    @contextlib.contextmanager
    def writers_stopped(self) -> Iterator[bool]:
        """Hold the write lock inside the block and account for it; yields False without it."""
        with self._database.write_lock(patience=LOCK_PATIENCE) as held:
            began = self._clock()
            yield held
        if held:
            self._metrics.add("write_lock_holds")
            self._metrics.observe_max("longest_write_lock_ms", (self._clock() - began) * 1000)

    def close(self) -> None:
        self._database.unpin(self._pin)


def _same(a: LogPosition, b: LogPosition) -> bool:
    return (a.salt1, a.salt2) == (b.salt1, b.salt2)

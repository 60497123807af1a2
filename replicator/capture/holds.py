"""Following the log: how it is held until it was captured, then let go and picked up again.

:class:`WalHolds` holds the holds that keep every frame readable until it was captured, and
rolls the log over without writing anything. It is driven from outside.

Why nothing is lost between two logs
------------------------------------
A log is reset only when it was copied whole into the database and nobody reads from it. The
next hold is opened *before* the one of the moment is released, and only once everything that
the one of the moment can read was captured. A hold on a read mark above zero makes a reset
impossible. One that landed on mark zero was opened while the whole log lay in the database,
and the hold before it let nothing beyond its own mark be copied, so that mark was the log's
end. Either way, a log that vanishes while a hold is held had been captured to its end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from replicator.capture.backpressure import WriterBackpressure
from replicator.capture.reader import SETTLED_NS, WalReader, frame_size, in_wal, same_wal
from replicator.errors import ChangedOutside, ContinuityLost
from replicator.metrics import Metrics
from replicator.model import WalPosition
from replicator.sqlite.live import Checkpoint, Hold, LiveDatabase, Stamp

ROLL_OVER_FRAMES = 1000  # SQLite's own threshold: beyond it each commit tries a checkpoint
ROLL_OVER_BYTES = 32 << 20  # the same for large pages
ESCALATE_FACTOR = 4  # how many times longer a log may get before writers have to wait
WARN_FACTOR = 16  # how many times longer until somebody should know
CHECKPOINT_PATIENCE = 0.02  # seconds to wait for a checkpoint of somebody else to end
LONGEST_HOLD = 0.03  # seconds with the write lock after which no further attempt is begun

log = logging.getLogger(__name__)


def long_wal(position: WalPosition, factor: int = 1) -> bool:
    """Whether a log that ends here is ``factor`` times as long as one worth letting go."""
    size = position.frame * frame_size(position)
    return position.frame >= factor * ROLL_OVER_FRAMES or size >= factor * ROLL_OVER_BYTES


class WalHolds:
    """The holds over one log, and its roll-over. Call :meth:`settle` after each capture."""

    def __init__(
        self,
        database: LiveDatabase,
        reader: WalReader,
        hold: Hold,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._reader = reader
        self._hold = hold
        self._metrics = metrics
        self.brake = WriterBackpressure(database, metrics, clock=clock)
        self._clock = clock
        self._held_at: WalPosition | None = None
        self._reach: int | None = None  # the hold sees no frame of its log beyond this one
        self._warn_at = WARN_FACTOR
        self._left_at: WalPosition | None = None  # where the log was removed
        self._still: Stamp | None = None  # of the database file while nothing can be copied
        self.waiting = False  # the hold is on mark zero; the next writer restarts the log

    def check_file(self) -> Stamp:
        """``DatabaseReplaced`` when it is another file; ``ChangedOutside`` when it was written
        although the hold on mark zero lets no checkpoint copy anything into it."""
        stamp = self._database.check_identity()
        if self._database.wal.replaced:
            raise ChangedOutside(f"{self._database.wal.path} was removed while it was in use")
        if self.waiting and stamp != self._still:
            raise ChangedOutside(f"{self._database.path} was overwritten")
        return stamp

    def settle(self) -> bool:
        """Move the hold to the end of what was captured, then let the log go if it is long.

        False when so much was committed meanwhile that it should be captured at once.
        """
        position = self._reader.read_position
        if position != self._held_at and not self._advance_hold(position):
            return True
        return self.waiting or not long_wal(position) or self._roll_over()

    def hold(self) -> None:
        """Put a hold into the log that began while the one on mark zero waited for it, without
        waiting for a capture. As long as nothing but mark zero is pinned, no checkpoint can copy
        anything; yet a busy writer begins one at each commit, which sorts the whole log before
        it gives up: at 20 MB of log that is half of the writer's time."""
        position = self._reader.position
        if (
            self.waiting
            and not self._reader.stashed
            and position.frame == 0
            and (WalReader(self._database.wal, position).find(0) is not None)
        ):
            self._overlap(position, unknown=True)

    def _advance_hold(self, position: WalPosition) -> bool:
        """Overlap a fresh hold with the old one; False when the old one has to stay a while."""
        if position.frame == 0:
            return True  # nothing of this log is committed; the hold we have still holds it
        settled = self._held_at is not None and same_wal(self._held_at, position)
        if (settled or self._held_at is None) and not self._captured_what_is_pinned(position):
            return False
        return self._overlap(position, unknown=self.waiting or not settled)

    def _overlap(self, position: WalPosition, *, unknown: bool) -> bool:
        """Open a fresh hold, then close the old one; False when that has to stay a while.

        ``unknown``: the log at ``position`` began this instant, or while we waited for it. A
        checkpoint that began before that may still copy frames of the log before.
        """
        fresh = self._database.hold()
        if self._checkpoint().busy if unknown else not in_wal(self._database.wal, position):
            self._database.release(fresh)
            return False
        if self.waiting:
            self.check_file()  # the last moment at which it must not have been written
        self._swap(fresh)
        self.waiting = False
        return True

    def _captured_what_is_pinned(self, position: WalPosition) -> bool:
        """Whether the hold may go: frames that it can read and we did not capture could be
        copied, and the log then be reset, the moment the next hold lands on mark zero."""
        return self._reader.saw_end or (self._reach is not None and position.frame >= self._reach)

    def _swap(self, fresh: Hold) -> None:
        self._database.release(self._hold)
        self._hold, self._held_at = fresh, self._reader.read_position
        self._reach = self._reader.last_frame()

    def _roll_over(self) -> bool:
        """Chase the log's end once; if it runs away and the log is long, stop it for a moment.

        Each checkpoint leaves the next only what came during it. False when that was too much.
        """
        if not self._chase():
            self.backfill()  # lest the next commit has to
            return False
        if self._pin_is_behind() or self._try_candidate():
            return True
        if not self._chase():
            return False
        if self._pin_is_behind():
            return True
        if long_wal(self._reader.read_position, ESCALATE_FACTOR):
            self._escalate()
            self._warn()
        return True

    def _warn(self) -> None:
        """Say that the log grows, at 64 MB and at each doubling of it."""
        position = self._reader.read_position
        if self.waiting:
            self._warn_at = WARN_FACTOR
        elif long_wal(position, self._warn_at):
            self._warn_at *= 2
            log.warning(
                "the log is %d MiB long and cannot be let go: most likely a read "
                "transaction of the application stays open",
                position.frame * frame_size(position) >> 20,
            )

    def _chase(self, *, hurry: bool = False) -> bool:
        """Take what came meanwhile out of the log and move the hold behind it, so that the next
        checkpoint has less to do. False: too much of it. ``hurry``: writers wait."""
        before = self._reader.read_position
        if not self._reader.stash(hurry=hurry):
            return False
        position = self._reader.read_position
        if position != before:
            self._advance_hold(position)
        return True

    def _pin_is_behind(self) -> bool:
        """Whether the hold had to stay because somebody's checkpoint is still running."""
        return self._held_at != self._reader.read_position

    def _try_candidate(self) -> bool:
        """Whether a hold on mark zero was had: all copied, and nothing came since."""
        answer = self._checkpoint()
        end = self._reader.read_position
        if answer.busy or not answer.frames == answer.copied == end.frame:
            return False
        candidate = self._database.hold()
        still = self._database.check_identity()
        if not self._reader.nothing_follows():
            self._database.release(candidate)
            return False
        self._swap(candidate)
        self.waiting, self._still = True, still
        self._metrics.add("roll_overs")
        return True

    def truncate_wal_if_idle(self) -> bool:
        """Have SQLite remove the log once nobody else has the database open, as it would without
        us. Call it when nothing waits to be captured. False: not yet, ask again soon."""
        found = self._database.wal.refresh()
        if (
            found is None
            or (not found.st_size and self._left_at == self._reader.position)
            or not self._database.alone()
        ):
            return True
        if (
            found.st_size
            and not self.waiting
            and not (self._chase() and not self._pin_is_behind() and self._try_candidate())
        ):
            return False
        stamp = self.check_file()
        settled = abs(time.time_ns() - stamp[0]) >= SETTLED_NS  # a later write looks different
        if not settled or not self._reader.nothing_follows():
            return False
        self._database.reopen_after_last_close()
        self._hold, self._held_at, self.waiting = self._database.hold(), None, False
        if self.check_file() != stamp:
            raise ContinuityLost("somebody wrote while the log was removed")
        self._left_at = self._reader.position
        return True

    def _checkpoint(self) -> Checkpoint:
        """A passive checkpoint, tried again while another one runs: beyond its threshold a
        busy writer begins one at every commit, so that the gaps between them are short."""
        until = self._clock() + CHECKPOINT_PATIENCE
        while (answer := self._copy()).busy and self._clock() < until:
            time.sleep(0.0002)
        return answer

    def _copy(self) -> Checkpoint:
        """One passive checkpoint, unless somebody removed the log: its pages would be copied
        into whatever file that somebody put in the place of the database."""
        self._check_log()
        answer = self._database.checkpoint()
        try:
            self._check_log()
        except ChangedOutside as error:
            log.error(
                "%s, during a checkpoint; if another file was copied over the database just "
                "then, it may hold pages of the old one: copy it once more",
                error,
            )
            raise
        return answer

    def _check_log(self) -> None:
        """:meth:`check_file`, and the log is where it was. A log that was never looked at cannot
        tell that it was removed; but as long as we have the database open, there is one."""
        found = self._database.wal.refresh()
        self.check_file()
        if found is None and self._reader.read_position.frame:
            raise ChangedOutside(f"{self._database.wal.path} was removed while it was in use")

    def _escalate(self) -> None:
        """Roll over under a writer that never pauses, with the write lock, for milliseconds."""
        self.backfill()
        with self.brake.block() as held:
            until = self._clock() + LONGEST_HOLD
            while held and self._chase(hurry=True) and not self._pin_is_behind():
                if self._try_candidate() or self._clock() >= until:
                    break

    def backfill(self) -> None:
        """Have copied what can be copied, before anybody has to wait for it."""
        self._copy()

    def close(self) -> None:
        self._database.release(self._hold)

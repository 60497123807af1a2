"""The holds on the WAL: every frame stays readable until it was captured, then the WAL may reset.

:class:`WalHolds` holds read transactions, and rolls the WAL over without writing anything. Its
caller drives it.

Owns: the order in which holds are opened and released. Refuses: to capture, and to make a writer
wait while the WAL is short.

Why nothing is lost between two WALs
------------------------------------
A WAL is reset only after all of it was copied into the database, and while no connection reads
from it. The next hold is opened *before* the current one is released, and only after everything
that the current one can read was captured. A hold on a read mark above zero makes a reset
impossible. A hold on mark zero was opened while the database contained the whole WAL, and the
hold before it let no checkpoint copy anything beyond its own mark, so that mark was the end of the
WAL. Either way, a WAL that vanishes while a hold is open had been captured to its end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from replicator.capture.backpressure import WriterBackpressure
from replicator.capture.limits import CaptureLimits
from replicator.capture.reader import WalReader, in_wal, same_wal
from replicator.errors import ChangedOutside, ContinuityLost
from replicator.format.wal import frame_size
from replicator.metrics import Metrics
from replicator.model import WalPosition
from replicator.sqlite.live import Checkpoint, Hold, LiveDatabase, Stamp

log = logging.getLogger(__name__)


class WalHolds:
    """The holds on one WAL, and its roll-over. Call :meth:`settle` after each capture."""

    def __init__(
        self,
        database: LiveDatabase,
        reader: WalReader,
        hold: Hold,
        metrics: Metrics,
        limits: CaptureLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._reader = reader
        self._hold = hold
        self._metrics = metrics
        self._limits = limits
        self.backpressure = WriterBackpressure(database, metrics, limits, clock=clock)
        self._clock = clock
        self._held_at: WalPosition | None = None
        self._reach: int | None = None  # the hold can read no frame of its WAL beyond this one
        self._warn_at = limits.warn_factor
        self._truncated_at: WalPosition | None = None
        self._tries = 0  # to let the WAL reset without the write lock
        self._escalated = float("-inf")  # when the write lock was taken last
        self._still: Stamp | None = None  # of the database file while nothing can be copied
        self.waiting = False  # the hold is on mark zero; the next writer restarts the WAL

    def check_file(self) -> Stamp:
        """``DatabaseReplaced`` if the path names another file; ``ChangedOutside`` if the file was
        written although the hold on mark zero lets no checkpoint copy anything into it."""
        stamp = self._database.check_identity()
        if self._database.wal.replaced:
            raise ChangedOutside(
                f"{self._database.wal.path} was removed while it was in use", code="wal_removed"
            )
        if self.waiting and stamp != self._still:
            raise ChangedOutside(f"{self._database.path} was overwritten", code="overwritten")
        return stamp

    def settle(self) -> bool:
        """Moves the hold to the end of the captured frames, then lets a long WAL reset.

        False if so much was committed since that it should be captured at once.
        """
        position = self._reader.read_position
        if position != self._held_at and not self._advance(position):
            return True
        return self.waiting or not self._limits.long_wal(position) or self._roll_over()

    def hold_new_wal(self) -> None:
        """Opens a hold in the WAL that began during the hold on mark zero, before a capture.

        With a hold on mark zero alone, no checkpoint can copy anything; yet a busy writer begins
        one at each commit, which sorts the whole WAL before it gives up. At 20 MB of WAL that is
        half of the writer's time.
        """
        position = self._reader.position
        if (
            self.waiting
            and not self._reader.stashed
            and position.frame == 0
            and WalReader(self._database.wal, position, self._limits).find(0) is not None
        ):
            self._overlap(position, unknown=True)

    def _advance(self, position: WalPosition) -> bool:
        """Overlaps a new hold with the old one; False if the old one has to stay for now."""
        if position.frame == 0:
            return True  # nothing of this WAL is committed; the current hold still protects it
        settled = self._held_at is not None and same_wal(self._held_at, position)
        if (settled or self._held_at is None) and not self._captured_all_held(position):
            return False
        return self._overlap(position, unknown=self.waiting or not settled)

    def _overlap(self, position: WalPosition, *, unknown: bool) -> bool:
        """Opens a new hold, then releases the old one; False if the old one has to stay.

        ``unknown``: the WAL at ``position`` began this instant, or during a wait for it. A
        checkpoint that began before may still copy frames of the previous WAL.
        """
        if unknown and self._older_checkpoint_runs():
            return False
        fresh = self._database.hold()
        if not unknown and not in_wal(self._database.wal, position):
            self._database.release(fresh)
            return False
        if self.waiting:
            self.check_file()  # the last moment at which the file must be unwritten
        self._swap(fresh)
        self.waiting = False
        return True

    def _older_checkpoint_runs(self) -> bool:
        """False if no checkpoint is left that began before the WAL did.

        One that waits for this hold, with the write lock, began in this WAL: it is the only
        checkpoint, and it read the header after it took the lock. Two looks, because a reader
        that repairs a torn header has that lock for an instant.
        """
        if not self._checkpoint().busy:
            return False
        for _ in range(2):
            if not self._database.index.only_checkpoint_waits():
                return True
            time.sleep(self._limits.way_tick)
        return False

    def _captured_all_held(self, position: WalPosition) -> bool:
        """Checks whether the hold may go. A checkpoint could copy frames that it can read and
        that are not captured, and the WAL could then reset, as soon as the next hold is on mark
        zero."""
        return self._reader.saw_end or (self._reach is not None and position.frame >= self._reach)

    def _swap(self, fresh: Hold) -> None:
        self._database.release(self._hold)
        self._hold, self._held_at = fresh, self._reader.read_position
        self._reach = self._reader.last_frame()

    def _roll_over(self) -> bool:
        """Follows the end of the WAL once; if it runs away and the WAL is long, blocks writers
        for a moment.

        Each checkpoint leaves the next one only the frames that came during it. False if those
        were too many.
        """
        if not self._chase():
            self.backfill()  # otherwise the next commit has to
            return False
        if self._hold_is_behind() or self._try_candidate():
            return True
        if not self._chase():
            return False
        if self._hold_is_behind():
            return True
        if self._writers_must_wait():
            self._escalate()
        self._warn()
        return True

    def _writers_must_wait(self) -> bool:
        """True if the WAL is very long, the tries without the lock failed, and the lock was not
        taken lately. A lone writer without a busy timeout meets an error each time."""
        limits, position = self._limits, self._reader.read_position
        self._tries += 1
        if not limits.long_wal(position, limits.escalate_factor):
            return False
        if limits.long_wal(position, limits.urgent_factor):
            return True
        rested = self._clock() - self._escalated >= limits.escalate_rest
        return rested and self._tries >= limits.escalate_tries

    def _warn(self) -> None:
        """Logs that the WAL grows, at 256 MB and at each doubling of it."""
        position = self._reader.read_position
        if self.waiting:
            self._warn_at = self._limits.warn_factor
        elif self._limits.long_wal(position, self._warn_at):
            self._warn_at *= 2
            log.warning(
                "the WAL is %d MiB long and cannot reset: most likely a read "
                "transaction of the application stays open",
                position.frame * frame_size(position) >> 20,
            )

    def _chase(self, *, hurry: bool = False) -> bool:
        """Reads the frames added since into memory and moves the hold behind them, so
        that the next checkpoint has less to do. False if they are too many. ``hurry``: writers
        wait."""
        before = self._reader.read_position
        if not self._reader.stash(hurry=hurry):
            return False
        position = self._reader.read_position
        if position != before:
            self._advance(position)
        return True

    def _hold_is_behind(self) -> bool:
        """True if the hold had to stay because another connection's checkpoint still runs."""
        return self._held_at != self._reader.read_position

    def _try_candidate(self) -> bool:
        """Tries for a hold on mark zero: everything is copied, and nothing came since."""
        end = self._reader.read_position
        if not self._database.index.all_copied(end):  # by a checkpoint of the application
            answer = self._checkpoint()
            if answer.busy or not answer.frames == answer.copied == end.frame:
                return False
        return self._hold_on_zero()

    def _hold_on_zero(self) -> bool:
        """Moves the hold to mark zero. The database contains the whole WAL; False if more was
        committed since."""
        candidate = self._database.hold()
        still = self._database.check_identity()
        if not self._reader.nothing_follows():
            self._database.release(candidate)
            return False
        self._swap(candidate)
        self.waiting, self._still, self._tries = True, still, 0
        self._metrics.add("roll_overs")
        return True

    def make_way(self) -> bool:
        """Lets a FULL, RESTART or TRUNCATE checkpoint of another connection end, which waits for
        the hold. Meanwhile no writer has the lock.

        False if frames have to be captured first; call it again then.
        """
        until, pause = self._clock() + self._limits.way_patience, self._limits.way_tick
        while self._database.index.checkpoint_waits() and self._clock() < until:
            if not self._knows_all() and not self._chase():
                return False
            position = self._reader.read_position
            moved = position == self._held_at or self._advance(position)
            if moved and (self.waiting or self.rest()):
                break  # a checkpoint needs nothing more
            time.sleep(pause)
            pause = min(2 * pause, self._limits.way_slow_tick)
        return True

    def _knows_all(self) -> bool:
        """True if no commit follows, by the index: a scan of the frames of a transaction that was
        rolled back would find none."""
        state, position = self._database.index.state(), self._reader.read_position
        return self._reader.saw_end and state is not None and state.ends_at(position)

    def rest(self) -> bool:
        """Moves the hold to mark zero if the database contains the whole WAL already.

        There it is in no checkpoint's way until the next commit. False if it stays where it is.
        """
        position = self._reader.read_position
        if (
            self.waiting
            or position != self._held_at
            or not self._database.index.all_copied(position)
        ):
            return self.waiting
        return self._hold_on_zero()

    def truncate_wal_if_idle(self) -> bool:
        """Lets SQLite remove the WAL once no other connection has the database open, as it would
        at the application's last close. Call it when no frame waits to be captured.

        False: not yet, try again soon.
        """
        found = self._database.wal.refresh()
        if (
            found is None
            or (not found.st_size and self._truncated_at == self._reader.position)
            or not self._database.alone()
        ):
            return True
        if (
            found.st_size
            and not self.waiting
            and not (self._chase() and not self._hold_is_behind() and self._try_candidate())
        ):
            return False
        stamp = self.check_file()
        # a later write gets another time
        settled = abs(time.time_ns() - stamp[0]) >= self._limits.settled_ns
        if not settled or not self._reader.nothing_follows():
            return False
        self._database.reopen_after_last_close()
        self._hold, self._held_at, self.waiting = self._database.hold(), None, False
        if self.check_file() != stamp:
            raise ContinuityLost(
                "another program wrote while the WAL was removed", code="wal_reset"
            )
        self._truncated_at = self._reader.position
        return True

    def _checkpoint(self) -> Checkpoint:
        """A passive checkpoint, tried again while another one runs: beyond its threshold a
        busy writer begins one at every commit, so that the gaps between them are short."""
        until = self._clock() + self._limits.checkpoint_patience
        while (answer := self._copy()).busy and self._clock() < until:
            time.sleep(0.0002)
        return answer

    def _copy(self) -> Checkpoint:
        """One passive checkpoint, unless the WAL was removed: SQLite would copy its pages into
        the file that replaced the database."""
        self._check_wal()
        answer = self._database.checkpoint()
        try:
            self._check_wal()
        except ChangedOutside as error:
            log.error(
                "%s, during a checkpoint; if another file was copied over the database just "
                "then, it may contain pages of the old one: copy it once more",
                error,
            )
            raise
        return answer

    def _check_wal(self) -> None:
        """:meth:`check_file`, and the WAL still exists. A WAL that was never read cannot show
        that it was removed; but while the database is open here, there is one."""
        found = self._database.wal.refresh()
        self.check_file()
        if found is None and self._reader.read_position.frame:
            raise ChangedOutside(
                f"{self._database.wal.path} was removed while it was in use", code="wal_removed"
            )

    def _escalate(self) -> None:
        """Rolls over under a writer that never pauses, with the write lock, for milliseconds."""
        self.backfill()
        with self.backpressure.block() as held:
            self._tries, self._escalated = 0, self._clock()
            until = self._clock() + self._limits.longest_hold
            while held and self._chase(hurry=True) and not self._hold_is_behind():
                if self._try_candidate() or self._clock() >= until:
                    break

    def backfill(self) -> None:
        """Copies all pages that can be copied, before any writer has to wait for it."""
        self._copy()

    def close(self) -> None:
        self._database.release(self._hold)

"""The numbers of the capture, each with the reason or the measurement that chose it.

Owns: :class:`CaptureLimits`. Refuses: to read settings; the engine makes the limits from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicator.format.wal import frame_size
from replicator.model import WalPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureLimits:
    """Sizes are bytes and times are seconds, unless a name has another unit."""

    # reading the WAL
    chunk_bytes: int = 1 << 20  # one read of the WAL; bounds memory, large enough to vectorise
    far_bytes: int = 8 << 20  # from here on, versions of a page are too far apart for a low level
    hold_bytes: int = 4 << 20  # up to this much is not read a second time when it is captured
    stash_bytes: int = 8 << 20  # most that waits in memory while the WAL may reset
    hurry_bytes: int = 16 << 20  # the same while writers wait
    settled_ns: int = 100_000_000  # a younger modification time may hide a later write
    observations: int = 4096  # of one capture; beyond it every other one is forgotten

    # rolling the WAL over
    roll_over_frames: int = 1000  # SQLite's own threshold: beyond it each commit checkpoints
    roll_over_bytes: int = 32 << 20  # the same for large pages
    # How many times longer a WAL may get before writers have to wait. A writer that is alone needs
    # no busy timeout, so it meets an error then; in a pause of it, no lock is needed.
    # 9 000 commits in 8 s without a pause and without a busy timeout: 3 to 5 locks at a factor of
    # 4, none or one at 16.
    escalate_factor: int = 32
    escalate_tries: int = 8  # without the lock before …
    escalate_rest: float = 10.0  # … and seconds since the last time, unless …
    urgent_factor: int = 128  # … the WAL is this many times longer
    warn_factor: int = 64  # how many times longer before a warning is logged
    checkpoint_patience: float = 0.02  # for the checkpoint of another connection to end
    longest_hold: float = 0.03  # with the write lock, after which no further attempt begins

    # making way for a checkpoint of the application that waits for the hold
    way_pause: float = 0.02  # between two looks while frames are uncaptured; 0.2 % of a core …
    way_alert: float = 0.002  # … and of an application that calls checkpoints; 2 % of a core
    way_memory: float = 30.0  # after which such an application counts as any other
    way_patience: float = 1.0  # for the checkpoint to copy the WAL
    way_tick: float = 0.001  # between the first two looks meanwhile, doubled each time up to …
    way_slow_tick: float = 0.016  # … this: most likely it waits for another reader

    # making writers wait
    lock_patience: float = 0.5  # to try for the write lock before leaving it for later
    # In turn with the lock and without it. A writer that finds it taken sleeps for 1, 2, 5, 10,
    # 15, 20, 25 … ms, as SQLite's busy handler has it, so it finds the next gap or the one after.
    lock_slice: float = 0.02

    # making segments
    level: int = 3  # of zstd
    # While a writer outruns the capture: 430 to 1500 MB/s whatever the content, and each byte less
    # is one less to hash and to send. Level -7 is a fifth quicker and makes half as much again.
    fast_level: int = 1
    keep_changed: int = 4096  # pages that changed lately, of all segments …
    keep_of_segment: int = 8  # … and of one

    def long_wal(self, position: WalPosition, factor: int = 1) -> bool:
        """True if a WAL that ends here is ``factor`` times as long as one worth a roll-over."""
        size = position.frame * frame_size(position)
        return (
            position.frame >= factor * self.roll_over_frames
            or size >= factor * self.roll_over_bytes
        )

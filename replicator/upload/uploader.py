"""The upload worker: cached segments into the store, strictly one append after another.

Owns the watermark: the newest transaction the store has acknowledged, with every one before
it. Only an answer of the store moves it. Transient failures are retried for ever with full
jitter; a refusal (403, missing bucket) is retried too, slowly, for credentials come back; an
append that finds its key taken by other bytes means that somebody else holds the log, and
nothing is appended any more.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from replicator.archive.keys import Keys
from replicator.cache.cache import Cache
from replicator.cache.records import SegmentRecord
from replicator.errors import (
    DamageError,
    Fenced,
    LedgerDamaged,
    NotDurable,
    ObjectExists,
    ReplicatorError,
    StoreUnavailable,
    UploadMissing,
)
from replicator.metrics import Metrics
from replicator.store.base import Part, Store
from replicator.store.retry import backoff
from replicator.system import clock
from replicator.system.limiter import CapacityLimiter
from replicator.upload.fencing import refuse_later, settle_taken, still_holds
from replicator.upload.limits import UploadLimits
from replicator.upload.staleness import Freshness, Reading, read_clocks

log = logging.getLogger(__name__)


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Uploader:
    """One thread that drains the cache. Safe to ask from any thread."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        cache: Cache,
        metrics: Metrics,
        limits: UploadLimits,
        *,
        on_log_lost: Callable[[], None],
        on_overtaken: Callable[[Fenced], None],
        on_damage: Callable[[int], None],
        limiter: CapacityLimiter | None = None,
        clocks: Callable[[], Reading] = read_clocks,
    ) -> None:
        """``on_log_lost`` is told
        when the store turns out to have forgotten what it once acknowledged, ``on_overtaken``
        when somebody else appended since, ``on_damage`` the first txid of a cached segment that
        is not what was captured. ``limiter`` bounds the appends of this process that are under
        way at once."""
        self._limiter = limiter or CapacityLimiter(1)
        self._store = store
        self._keys = keys
        self._cache = cache
        self._metrics = metrics
        self._limits = limits
        self._on_log_lost = on_log_lost
        self._on_overtaken = on_overtaken
        self._on_damage = on_damage
        self._changed = threading.Condition()
        self._stopping = False
        self._held = False  # the log in the store is not the one that the cache continues
        self._anew = False  # the log is to be joined once more
        self._attempting = threading.Lock()
        self._dead: ReplicatorError | None = None
        self.ledger_lost: LedgerDamaged | None = None  # until the cache was opened again
        self._failing: ReplicatorError | None = None
        self.newest_failure: tuple[int, str] | None = None  # when (ms) and what; kept for ever
        self._thread: threading.Thread | None = None
        self.on_trouble: Callable[[], None] = lambda: None  # told when the capture has to know
        durable = cache.durable()
        self._durable_txid = durable.last_txid if durable else 0
        self.last_began = 0.0  # monotonic; when the newest append was begun
        self.idle = True  # nothing waits
        self._freshness = Freshness(clocks)
        self.numbering = 0  # grows when the log is joined so that txids mean something else

    def start(self, *, held: bool = False) -> None:
        """Begin; ``held``: append nothing before :meth:`reload`, for the log is taken over."""
        self._held = held
        name = f"replicator-upload:{self._keys.prefix}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is pending stays in the cache."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def wake(self) -> None:
        """There is something new to upload."""
        with self._changed:
            self.idle = False
            self._changed.notify_all()

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """No attempt is under way inside the block, so what the store holds of what waits is for
        the store to say. Afterwards it is asked whether the log is as the cache says."""
        with self._changed:
            self._anew = True
            self._changed.notify_all()
        with self._attempting:
            yield

    def begin_anew(self) -> None:
        """The cache was opened again: ask the store once more whether the log is as it says.

        Waits for the attempt under way, for only then the store tells where the log ends.
        """
        with self.resting():
            durable = self._cache.durable()
            with self._changed:
                self._durable_txid = durable.last_txid if durable else 0
                self._held, self.ledger_lost = False, None
                self._changed.notify_all()

    def reload(self) -> None:
        """The cache continues the log as the store holds it, or a new generation of it."""
        durable = self._cache.durable()
        with self._changed:
            self._durable_txid = durable.last_txid if durable else 0
            self._held, self._failing = False, None
            self.numbering += 1
            self._changed.notify_all()

    @property
    def durable_txid(self) -> int:
        return self._durable_txid

    @property
    def failing(self) -> ReplicatorError | None:
        """Why the append under way does not go through, None when it does."""
        return self._dead or self._failing

    @property
    def dead(self) -> ReplicatorError | None:
        """Why nothing will be appended any more."""
        return self._dead

    def die(self, error: ReplicatorError) -> None:
        """Append nothing any more; every waiter gets ``error``."""
        with self._changed:
            self._dead = self._dead or error
            self.newest_failure = clock.now_ms(), str(error)
            self._changed.notify_all()
        self.on_trouble()

    def wait_durable(self, txid: int, timeout: float | None, numbering: int | None = None) -> bool:
        """Return once ``txid`` is durable; ``NotDurable`` when it is not in time (seconds).

        False: :attr:`numbering` is no longer the given one, so ``txid`` was of a log that this
        cache does not continue any more.
        """

        def renumbered() -> bool:
            return numbering not in (None, self.numbering)

        with self._changed:
            done = self._changed.wait_for(
                lambda: renumbered() or self._durable_txid >= txid or self._dead or self._stopping,
                timeout,
            )
            if renumbered() or self._durable_txid >= txid:
                return not renumbered()
            if self._dead:
                raise self._dead
            raise self._not_durable(txid, "in time" if not done else "before the end")

    def _not_durable(self, txid: int, when: str) -> NotDurable:
        missing = txid - self._durable_txid
        reason = f": {self._failing}" if self._failing else ""
        return NotDurable(
            f"{missing} transaction(s) up to txid {txid} did not reach {self._store.url} "
            f"{when}{reason}",
            hint="they are safe in the cache directory and will be sent at the next start",
        )

    def _run(self) -> None:
        try:
            while not self._stopping and not self._dead:
                with self._attempting:  # held until then by whoever begins anew
                    self._anew = False
                if self._held or self._join_log():
                    self._drain()
        except Exception as defect:
            log.exception("the upload thread met a defect")
            self.die(ReplicatorError(f"defect in the upload thread: {defect!r}"))

    def _drain(self) -> None:
        """Upload what waits, oldest first, until stopped."""
        trouble = 0  # attempts in a row that the cache's own disk spoiled
        while not (self._stopping or self._dead or self._anew):
            try:
                self._upload_next()
                trouble = 0
            except ReplicatorError as error:
                trouble += 1
                if isinstance(error, LedgerDamaged):
                    self.ledger_lost = error
                    self.on_trouble()
                self._fail(error, trouble)
                self._rest(error, trouble)

    def _upload_next(self) -> None:
        with self._changed:
            waiting = None if self._held else self._cache.next_pending()
            self.idle = waiting is None
            if waiting is None and not (self._stopping or self._dead or self._anew):
                if not self._held:
                    self._failing = None
                self._changed.wait()
        if waiting is None:
            return
        with self._limiter.slot(self._leaving), self._attempting:
            record = None if self._anew else self._cache.uploading(waiting.first_txid)
            if record is not None:  # else it was dropped meanwhile
                self._attempt(record)

    def _leaving(self) -> bool:
        return self._stopping or self._dead is not None

    def _join_log(self) -> bool:
        """Before anything is appended: is the log as we left it? False: stopped, or begun anew.

        What waits for a log that is lost must not be appended to nothing, nor to what somebody
        else appended: it is held until it was decided how the log goes on.
        """
        attempt = 0
        while not (self._stopping or self._dead or self._anew):
            try:
                with self._limiter.slot(self._leaving):
                    self._look()
            except Fenced as error:
                self._overtaken(error)
                return True
            except ReplicatorError as error:
                attempt += 1
                self._fail(error, attempt)
                self._rest(error, attempt)
            else:
                self._works()
                return True
        return False

    def _look(self) -> bool:
        """Whether the log is as we left it; what is lost is held until it was begun anew."""
        began = self._freshness.now()
        holds = still_holds(self._store, self._keys, self._cache, sha256_hex)
        if not holds:
            log.warning("%s no longer holds the log", self._store.url)
            self._held = True
            self._on_log_lost()
        self._freshness.seen(began)
        return holds

    def _overtaken(self, error: Fenced) -> None:
        log.warning("%s", error)
        with self._changed:
            self._held, self._failing = True, error
            self.newest_failure = clock.now_ms(), str(error)
        self._on_overtaken(error)

    def _attempt(self, record: SegmentRecord) -> None:
        self.last_began = time.monotonic()
        try:
            if self._freshness.stale and not self._look():
                return
            self._append_in_time(record)
            done = self._cache.uploaded(record.first_txid, clock.now_ms())
        except Fenced as error:
            log.error("%s", error)
            self.die(error)
        except ReplicatorError as error:
            if isinstance(error, DamageError):
                self.damaged(record)
            self._later(record, error)
        else:
            if done is not None:
                self._acknowledged(record)

    def damaged(self, record: SegmentRecord) -> None:
        """A cached segment is not what was captured; what is missed will be caught up."""
        self._on_damage(record.first_txid)

    def _works(self) -> None:
        if self._failing is not None:
            log.warning("%s answers again", self._store.url)
        with self._changed:
            self._failing = None

    def _acknowledged(self, record: SegmentRecord) -> None:
        self._works()
        self._metrics.add("uploaded_objects")
        self._metrics.add("uploaded_bytes", record.size)
        self._metrics.set("last_upload_ms", clock.now_ms())
        with self._changed:
            self._durable_txid = record.last_txid
            self._changed.notify_all()
        log.debug("txid %d is durable", record.last_txid)
        self._cache.trim(self._limits.keep_bytes)

    def _later(self, record: SegmentRecord, error: ReplicatorError) -> None:
        """Remember why in the ledger, and wait."""
        try:
            self._cache.failed(record.first_txid, str(error), clock.now_ms())
        except ReplicatorError as trouble:  # the ledger's disk is in trouble too
            log.warning("the failure could not be recorded: %s", trouble)
        self._fail(error, record.delivery.attempts)
        self._metrics.add("failed_uploads")  # only now, for the status has to say why
        self._rest(error, record.delivery.attempts)

    def _fail(self, error: ReplicatorError, attempt: int) -> None:
        """Say so, in the log the first time and at each doubling."""
        if self._failing is None or attempt & (attempt - 1) == 0:
            log.warning("%s: attempt %d failed: %s", self._store.url, attempt, error)
        with self._changed:
            self._failing, self.newest_failure = error, (clock.now_ms(), str(error))

    def _rest(self, error: ReplicatorError, attempt: int) -> None:
        """Wait with full jitter."""
        transient = isinstance(error, StoreUnavailable)
        policy = self._limits.transient if transient else self._limits.refused
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopping or self._dead or self._anew,
                backoff(attempt, policy, random.random),
            )

    def _append_in_time(self, record: SegmentRecord) -> None:
        """Append, and look again if that took so long that the key may have been free by then
        only because the log of somebody else was merged behind it."""
        began = self._freshness.now()
        self._append(record)
        if self._freshness.stale:
            refuse_later(self._store, self._keys, record, self._cache.writer)
        self._freshness.seen(began)

    def _append(self, record: SegmentRecord) -> None:
        try:
            if record.size <= self._limits.single_put_bytes:
                self._store.put(record.key, self._cache.read(record), metadata=record.metadata)
            else:
                self._append_parts(record)
        except ObjectExists:
            settle_taken(self._store, record, sha256_hex, self._cache.writer)

    def _append_parts(self, record: SegmentRecord) -> None:
        if not self._cache.intact(record):  # what read() sees to for a single request
            raise DamageError(
                f"the cached segment of txid {record.first_txid} is damaged",
                key=record.key,
                hint="restart: what was damaged is caught up from the database",
            )
        upload_id, part_size, present = self._resume(record)
        count = -(-record.size // part_size)
        source = self._cache.open_segment(record)
        try:
            with ThreadPoolExecutor(self._limits.parallel_parts, "replicator-part") as pool:

                def send(number: int) -> Part:
                    known = present.get(number)
                    size = min(part_size, record.size - (number - 1) * part_size)
                    if known is not None and known.size == size:
                        return known
                    body = source.pread(size, (number - 1) * part_size)
                    return self._store.put_part(record.key, upload_id, number, body)

                parts = list(pool.map(send, range(1, count + 1)))
        finally:
            source.close()
        self._store.complete_upload(record.key, upload_id, parts)
        # Not every store decides a race of completions for one winner (SeaweedFS 4.48 let two of
        # six win), so the key is asked whose object it holds now.
        settle_taken(self._store, record, sha256_hex, self._cache.writer)

    def _resume(self, record: SegmentRecord) -> tuple[str, int, dict[int, Part]]:
        """The upload to go on with: an earlier one as the store confirms it, or a new one."""
        if record.delivery.upload_id is not None:
            try:
                parts = self._store.list_parts(record.key, record.delivery.upload_id)
            except UploadMissing:
                log.info(
                    "the multipart upload of txid %d is gone; starting over", record.first_txid
                )
            else:
                return (
                    record.delivery.upload_id,
                    record.delivery.part_size,
                    {p.number: p for p in parts},
                )
        part_size = self._limits.part_size(record.size)
        upload_id = self._store.begin_upload(record.key, metadata=record.metadata)
        self._cache.progress(record.first_txid, upload_id, part_size)
        return upload_id, part_size, {}

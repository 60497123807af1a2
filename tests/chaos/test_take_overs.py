"""Hosts take an archive over from each other at random moments; a restore is never a mixture.

Each host writes its name and a running number, and records its database, byte for byte, after
each commit. So every restore is a recorded state of one host, or a mixture. Hosts are paused
inside a call of the store, as a stopped process is, and resume when others hold the archive;
clocks jump by an hour.
"""

import contextlib
import hashlib
import random
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from replicator.cache.records import Fact
from replicator.errors import Fenced, ReplicatorError, StoreUnavailable
from replicator.store.memory import MemoryStore
from replicator.system.mailbox import Wanted
from replicator.testing import RecordingStore
from replicator.verify.verify import verify
from tests.helpers.replication import (
    LONG,
    App,
    HookedStore,
    image_of,
    replicator_for,
    restored,
    wait_for,
)
from tests.helpers.retention import AgedArchive
from tests.plugins.scoreboard import effort

TAKE_OVERS = effort(10, 200)
HOUR = 3_600_000
UPLOADS = [("put", "snapshots/"), ("begin_upload", "snapshots/")]
BIG = 300_000  # bytes of a transaction that goes in parts here
LIMITS = {
    "upload": {"single_put_bytes": BIG // 2, "part_bytes": 1 << 16},
    "snapshot": {"part_bytes": 1 << 16, "copy_part_bytes": 1 << 16},
}
# The call before or after which a holder is paused during a take-over; None: the holder is idle;
# "writing": it commits all the time.
PAUSES = [
    ("before", "put", "wal/"),
    ("after", "put", "wal/"),
    ("before", "put_part", "wal/"),
    ("before", "complete_upload", "wal/"),
    ("after", "complete_upload", "wal/"),
    ("before", "put_part", "snapshots/"),
    ("before", "complete_upload", "snapshots/"),
    ("after", "complete_upload", "snapshots/"),
    None,
    "writing",
    "writing",
]


class PausableStore(HookedStore):
    """The shared store as one host sees it; one selected call blocks until it is released."""

    def __init__(self, inner, rng):
        super().__init__(inner)
        self._rng = rng
        self._place = None
        self.entered, self.released = threading.Event(), threading.Event()
        self.refused = ()  # calls that fail

    def pause_at(self, place):
        self.entered.clear()
        self.released.clear()
        self._place = place

    def release(self):
        self._place = None
        self.released.set()

    def _meet(self, when, method, key):
        if any(call == method and part in key for call, part in self.refused):
            raise StoreUnavailable("the host is cut off")
        place = self._place
        if place is not None and place[:2] == (when, method) and place[2] in key:
            self._place = None
            self.entered.set()
            assert self.released.wait(LONG)
        elif self._rng.random() < 0.05:
            time.sleep(self._rng.uniform(0, 0.01))  # a short random pause

    def _call(self, method, key, *args, **options):
        self._meet("before", method, key)
        result = getattr(self.inner, method)(key, *args, **options)
        self._meet("after", method, key)
        return result


class Host:
    """A machine with its own database and, at times, a replicator."""

    def __init__(self, cluster, number):
        self.cluster, self.name = cluster, f"host-{number}"
        self.directory = cluster.directory / self.name
        self.directory.mkdir()
        self.path = self.directory / "app.db"
        self.app = self.replicator = None
        self.seq = 0

    def open(self):
        self.app = App(self.path)
        self.app.run("CREATE TABLE IF NOT EXISTS said(host, seq, body)")
        self._record()

    def commit(self, size=200):
        self.seq += 1
        self.app.db.execute(
            "INSERT INTO said VALUES (?, ?, randomblob(?))", (self.name, self.seq, size)
        )
        self._record()
        if size >= BIG:
            self.app.db.execute(
                "DELETE FROM said WHERE length(body) >= ? AND rowid NOT IN "
                "(SELECT max(rowid) FROM said)",
                (BIG,),
            )
            self._record()

    def _record(self):
        self.now = hashlib.sha256(image_of(self.path)).hexdigest()
        self.cluster.states.setdefault(self.now, f"{self.name}, {self.seq}")

    def start(self, *, refused=(), **settings):
        if self.app is None:
            self.open()
        self.store = PausableStore(self.cluster.store, self.cluster.rng)
        self.store.refused = refused
        self.replicator = replicator_for(
            self.path, self.store, limits=LIMITS, snapshot_interval=1800, **settings
        )
        self.replicator.start()

    def flush(self):
        """Flushes and records the state that this txid must restore from now on."""
        txid = self.replicator.flush(LONG).txid
        self.cluster.promised[txid] = self.now
        return txid

    def stop(self):
        self.store.release()
        self.replicator.stop()
        self.replicator = None

    @contextlib.contextmanager
    def writing(self):
        """Commits continuously in a thread."""
        done = threading.Event()

        def write():
            while not done.is_set():
                self.commit()
                done.wait(0.002)

        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(write)
            try:
                yield
            finally:
                done.set()
                writer.result(LONG)

    def check_fenced(self):
        """Checks that the host is fenced at its next append at the latest."""
        self.store.release()
        self.commit()
        with pytest.raises(Fenced, match="owns the archive at"):
            self.flush()
        wait_for(lambda: self.replicator.failed is not None)
        assert isinstance(self.replicator.failed, Fenced)
        assert not self.replicator.status().healthy
        self.stop()

    def become(self, other):
        """Becomes a copy of another stopped machine: database, cache, writer id."""
        self._clear()
        shutil.copytree(other.directory, self.directory)
        self.seq += 1000  # the host name distinguishes its commits from those of its twin
        self.open()

    def restore(self):
        """Replaces the database by a restore; the cache stays."""
        if self.app is not None:
            self.app.close()
            self.app = None
        for file in self.directory.glob("app.db*"):
            file.unlink()
        _, data = restored(self.cluster.store, self.cluster.out)
        self.path.write_bytes(data)
        self.open()

    def lose_cache(self):
        shutil.rmtree(self.directory / ".app.db-replicator", ignore_errors=True)

    def _clear(self):
        if self.app is not None:
            self.app.close()
        shutil.rmtree(self.directory)


class Cluster:
    def __init__(self, directory, rng):
        self.directory, self.rng = directory, rng
        self.out = directory / "out"
        self.out.mkdir()
        self.store = RecordingStore(MemoryStore())
        self.states = {}  # digest of a database: the host that first had this state
        self.promised = {}  # txid: digest of the database when a flush reported it durable
        self.zombies = []
        self.died = 0
        self.hosts = [Host(self, number) for number in range(4)]

    def free(self):
        return [host for host in self.hosts if host.replicator is None]

    def check(self):
        """Checks that the newest and some older states are recorded states of one host."""
        newest, digest = self._restored(None)
        assert newest >= max(self.promised)
        assert digest in self.states, f"txid {newest} is a mixture"
        for txid in {self.rng.randint(1, newest), self.rng.choice(sorted(self.promised))}:
            _, digest = self._restored(txid)
            assert digest in self.states, f"txid {txid} is a mixture"
            assert digest == self.promised.get(txid, digest), f"txid {txid} is another state"
        self.store.check()

    def _restored(self, txid):
        report, data = restored(self.store, self.out, **{} if txid is None else {"txid": txid})
        shutil.rmtree(self.out)
        self.out.mkdir()
        assert txid in (None, report.txid)
        return report.txid, hashlib.sha256(data).hexdigest()

    def pause(self, holder):
        """Brings the holder to a random moment of its work."""
        pause = self.rng.choice(PAUSES)
        if pause in (None, "writing"):
            return pause
        holder.store.pause_at(pause)
        if pause[1] == "put":
            holder.commit()
        else:
            holder.commit(BIG)
        if pause[2] == "snapshots/":
            holder.replicator._engine.mailbox.ask(Wanted.SNAPSHOT)
        wait_for(holder.store.entered.is_set)
        return pause

    def prepare(self, taker):
        """Prepares the taker: its old files, a restored database, or no cache."""
        if self.promised and self.rng.random() < 0.5:
            taker.restore()
        if self.rng.random() < 0.3:
            taker.lose_cache()

    def take_over(self, holder, taker):
        pause = self.pause(holder)
        self.prepare(taker)
        with holder.writing() if pause == "writing" else contextlib.nullcontext():
            self._take(taker)
            for _ in range(self.rng.randint(1, 4)):
                taker.commit(self.rng.choice((100, 1000, BIG)))
            taker.flush()
        self.zombies.append(holder)
        if self.rng.random() < 0.6:  # else it stays paused during later take-overs
            self.wake_up()
        return taker

    def _take(self, taker):
        """Takes over at once, or stops between the two steps; then a plain start continues."""
        if self.rng.random() < 0.2:
            claims = len(self.claims())
            taker.start(take_over=True, refused=UPLOADS)
            wait_for(
                lambda: (
                    len(self.claims()) > claims
                    and self.claims()[-1].metadata["first-txid"]
                    == taker.replicator._engine.cache.get(Fact.CLAIM)
                )
            )
            taker.stop()
            self.died += 1
            return taker.start()
        return taker.start(take_over=True)

    def claims(self):
        return [
            write
            for write in self.store.writes
            if write.metadata.get("reason", "").startswith("the archive is taken over")
        ]

    def wake_up(self):
        for zombie in self.zombies:
            zombie.check_fenced()
        self.zombies = []

    def race(self, holder, takers):
        """Several hosts take over concurrently; exactly one of them holds the archive then."""
        with ThreadPoolExecutor(len(takers)) as pool:
            list(pool.map(lambda host: host.start(take_over=True), takers))
        self.zombies.append(holder)
        return self.survivor(takers)

    def clone(self, holder, twin):
        """A volume is copied, and both copies run with the same cache and writer id."""
        if self.rng.random() < 0.5:  # then the copy has pending segments
            holder.store.refused = [("put", "wal/")]
        holder.commit()
        with contextlib.suppress(ReplicatorError):
            holder.replicator.flush(0.05)
        holder.stop()
        twin.become(holder)
        for host in (holder, twin):
            host.start()
        return self.survivor([holder, twin])

    def grow_old(self):
        """Merges and prunes as if hours had passed; returns the number of merges."""
        kept = Kept(self.store)
        kept.now_ms = time.time_ns() // 1_000_000
        steps = kept.retention_steps()
        for _ in range(4):
            kept.now_ms += 3 * HOUR
            steps.begin(kept.now_ms)
            kept.keep(steps)
        return len(kept.keys("merged/"))

    def survivor(self, hosts):
        alive = list(hosts)
        for _ in range(3):
            for host in list(alive):
                try:
                    host.commit()
                    host.flush()
                except Fenced:
                    host.stop()
                    alive.remove(host)
        assert len(alive) == 1
        return alive[0]


class Kept(AgedArchive):
    """The input of a retention worker for an existing bucket."""

    now_ms = 0

    def __init__(self, store):
        self.store = store


class JumpingClock:
    """A clock that is sometimes up to an hour ahead or behind."""

    def __init__(self, rng):
        self._rng, self._offset = rng, 0

    def __call__(self):
        if self._rng.random() < 0.1:
            self._offset = self._rng.choice((0, HOUR, -HOUR, self._rng.randint(-HOUR, HOUR)))
        return time.time_ns() // 1_000_000 + self._offset


@pytest.fixture
def cluster(tmp_path, seed, set_clock):
    """Hosts that share one store, with a jumping clock and small parts."""
    rng = random.Random(seed)
    set_clock(JumpingClock(random.Random(seed + 1)))
    cluster = Cluster(tmp_path, rng)
    yield cluster
    for host in cluster.hosts:
        if host.replicator is not None:
            host.stop()


@pytest.mark.timeout(120 + 10 * TAKE_OVERS)
def test_take_overs_at_random_moments(cluster, scoreboard):
    """After each take-over exactly one host continues the archive, the others are fenced at their
    next append and name the holder, and every txid restores the same state as before."""
    taken = {"alone": 0, "at once": 0, "copies": 0}
    holder = cluster.hosts[0]
    holder.start()
    holder.flush()
    while taken["alone"] + taken["at once"] < TAKE_OVERS or not taken["copies"]:
        kind = cluster.rng.choice(["alone"] * 6 + ["at once", "copies"])
        if len(cluster.free()) < 2:
            cluster.wake_up()
        takers = cluster.rng.sample(cluster.free(), 2)
        if kind == "alone":
            holder = cluster.take_over(holder, takers[0])
        elif kind == "at once":
            holder = cluster.race(holder, takers)
        else:
            holder = cluster.clone(holder, takers[0])
        taken[kind] += 1
        holder.commit()
        holder.flush()
        cluster.check()
    cluster.wake_up()
    cluster.check()
    holder.stop()
    merges = cluster.grow_old()
    assert verify(cluster.store, "app.db", data=True).exit_code == 0
    for txid in cluster.rng.sample(sorted(cluster.promised), min(20, len(cluster.promised))):
        assert cluster._restored(txid)[1] == cluster.promised[txid]
    scoreboard(
        "two writers on one prefix with random pauses and clock jumps",
        f"{taken['alone'] + taken['at once']} takeovers ({taken['at once']} by two hosts "
        f"at once, {cluster.died} by one that died half-way), {taken['copies']} copied "
        f"volumes, {len(cluster.promised)} flushes, {len(cluster.states)} states, {merges} "
        "merges, 0 mixtures",
    )

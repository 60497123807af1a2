"""SIGKILL of the sidecar at any moment: transactions that it reported durable are in the store.

A failed test prints its seed, so that it can be repeated as far as processes allow.
"""

import contextlib
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from replicator.errors import ReplicatorError
from replicator.sidecar.control_client import ask
from tests.helpers.command_line import cache_of
from tests.plugins.scoreboard import effort
from tests.programs import workload

KILLS = effort(10, 700)


def test_flush_then_kill_twenty_times(deployment):
    """After a commit, a flush and SIGKILL the commit is restored from the store, 20 times."""
    connection = workload.open_database(deployment.path)
    connection.executescript(workload.SCHEMA)
    rng = random.Random(1)
    for seq in range(1, 21):
        sidecar = deployment.sidecar()
        sidecar.until_following()
        workload.transaction(connection, 1, seq, rng, 3)
        txid = ask(cache_of(deployment.path), {"command": "flush"})["txid"]
        sidecar.kill()
        copy, report = deployment.restore()
        assert report.txid == txid
        deployment.check_commits(copy, at_least={1: seq})
    connection.close()
    deployment.check_exact()


class KilledSidecars:
    """Writers that continue, sidecars that are killed, and the reports of durability so far."""

    def __init__(self, deployment, rng):
        self.deployment, self.rng = deployment, rng
        self.writers = {}
        self.durable = 0  # the newest txid that any sidecar reported
        self.promised = {}  # commits of each writer that a flush covered
        self.generations = set()

    def keep_writing(self):
        for number in (1, 2, 3):
            writer = self.writers.get(number)
            if writer is None or not writer.running:
                if writer is not None:
                    writer.finish()
                self.writers[number] = self.deployment.start(
                    number,
                    commits=self.rng.randint(40, 160),
                    seed=self.rng.randrange(1 << 30),
                    rate=self.rng.choice((200, 500, 0)),
                    truncate_every=self.rng.choice((0, 30)),
                    autocheckpoint=self.rng.choice((0, 10, 1000)),
                    reopen_every=self.rng.choice((0, 20)),
                )

    def sidecar(self):
        return self.deployment.sidecar(
            "--snapshot-interval",
            "1s",
            "--sync-interval",
            self.rng.choice(("1ms", "20ms", "1s")),
            roll_over=self.rng.choice((20, 100, 1000)),
        )

    def note(self, status):
        if status is not None:
            self.durable = max(self.durable, status["durable_txid"])

    def flush(self):
        """Flushes; its answer promises all commits before it."""
        before = self.deployment.committed()
        answer = ask(cache_of(self.deployment.path), {"command": "flush"})
        self.durable = max(self.durable, answer["txid"])
        self.promised |= before

    def run_until_its_end(self, sidecar):
        """Lets the sidecar run until a random moment, then kills it."""
        moment = self.rng.choice(("start", "follow", "follow", "flush", "flushed"))
        if moment == "start":
            time.sleep(self.rng.uniform(0, 0.8))
        else:
            sidecar.until_following()
            self.keep_writing()
            if moment == "flushed":
                self.flush()
            else:
                self.interrupt(sidecar, flushing=moment == "flush")
        with contextlib.suppress(ReplicatorError):
            self.note(sidecar.status())
        sidecar.kill()

    def interrupt(self, sidecar, *, flushing):
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.flush) if flushing else None
            time.sleep(self.rng.uniform(0, 0.05 if flushing else 0.5))
            self.note(sidecar.status())
            sidecar.kill()
            if waiting is not None:
                with contextlib.suppress(ReplicatorError):
                    waiting.result()

    def check(self):
        """Checks that a restore gives all transactions that were reported durable."""
        copy, report = self.deployment.restore()
        if report is None:
            assert self.durable == 0
            return
        assert report.txid >= self.durable
        self.generations.add(report.generation)
        self.deployment.check_commits(copy, at_least=self.promised)
        copy.unlink()

    def end(self):
        """The writers end without an error, and a last sidecar makes all commits durable."""
        for writer in self.writers.values():
            writer.finish()
        sidecar = self.deployment.sidecar()
        sidecar.until_following()
        self.flush()
        assert self.promised == self.deployment.committed()
        assert sidecar.stop() == 0
        for _ in range(5):
            txid = self.rng.randint(1, self.durable)
            copy, report = self.deployment.restore(txid=txid)
            assert report.txid == txid
            self.deployment.check_commits(copy, at_least={})
            copy.unlink()


@pytest.mark.timeout(120 + 20 * KILLS)
def test_kill_9_at_random_moments(deployments, seed, scoreboard):
    """Sidecars are killed while they start, follow, flush and take snapshots, under concurrent
    writers. After each kill a restore gives at least the transactions reported durable; in the
    end the store holds the source page by page, and every transaction before."""
    rng = random.Random(seed)
    commits = transactions = generations = 0
    for deployment, kills in deployments(KILLS):
        run = KilledSidecars(deployment, rng)
        deployment.create()
        for _ in range(kills):
            run.keep_writing()
            run.run_until_its_end(run.sidecar())
            run.check()
        run.end()
        deployment.check_exact()
        commits += sum(run.promised.values())
        transactions += run.durable
        generations += len(run.generations)
    scoreboard(
        "kill -9 of the sidecar under load",
        f"{KILLS} kills, {commits} commits acknowledged in {transactions} transactions, "
        f"0 lost, 0 failed restores, {generations} generation(s) of "
        f"{-(-KILLS // 100)} database(s)",
    )

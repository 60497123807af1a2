"""Overlapping deploys: the next sidecar with its application starts before the previous one ends.

A failed test prints its seed, so that it can be repeated as far as processes allow.
"""

import contextlib
import os
import random
import re
import signal
import sys
import time

import pytest

from replicator.errors import ReplicatorError
from replicator.sidecar.control_client import ask
from tests.helpers.command_line import cache_of
from tests.helpers.deployment import WORKLOAD, Deployment
from tests.helpers.proxy import FaultProxy, delay
from tests.helpers.replication import LONG, wait_for
from tests.plugins.scoreboard import effort

DEPLOYS = effort(3, 100)  # with each store
SECONDS = effort(2, 60)  # of the same load without a deploy
FLUSHING = "not everything is uploaded yet"
GAPLESS = "continue: the WAL still contains the captured position"


class DirectoryAway:
    """The directory of a store, which can be away."""

    def __init__(self, directory):
        self.directory = directory

    def down(self):
        self.directory.rename(self.directory.with_name("away"))

    def up(self):
        self.directory.with_name("away").rename(self.directory)


class Deploys:
    """A worker that never pauses, and applications in sidecars that replace each other."""

    def __init__(self, deployment, store, rng):
        """``store`` goes ``down`` and comes ``up``."""
        self.deployment, self.store, self.rng = deployment, store, rng
        self.writers = 0
        self.current = None
        self.generations = set()
        self.promised = {}  # commits that a flush covered
        self.longest = 0.0  # seconds that a transaction took
        self.gaps = []  # seconds from the end of a sidecar until the next one answers

    def worker(self):
        self.writers += 1
        worker = self.deployment.start(self.writers, rate=30, service=True)
        worker.commits = self.deployment.log(self.writers)
        return worker

    def end_worker(self, worker):
        worker.process.terminate()
        worker.finish()
        return longest(worker.commits)

    def next(self):
        """The next sidecar, once its application commits. It must not wait for the previous one."""
        self.writers += 1
        log = self.deployment.log(self.writers)
        options = ("--rate=30", "--service", f"--writer={self.writers}", f"--seed={self.writers}")
        command = (sys.executable, WORKLOAD, self.deployment.path, log, *options)
        sidecar = self.deployment.sidecar(command=command)
        sidecar.commits = log

        def commits():
            assert sidecar.process.poll() is None, sidecar.output
            return log.exists() and log.read_text().count("\n") > 3

        wait_for(commits)
        return sidecar

    def finished(self, sidecar):
        """A sidecar that was asked to end made everything durable, as its application did."""
        assert sidecar.wait() == 0, sidecar.output
        self.longest = max(self.longest, longest(sidecar.commits))

    def check(self):
        """The newest sidecar follows, in the same generation, and its flush covers everything."""
        self.current.until_following()
        before = self.deployment.committed()
        answer = ask(cache_of(self.deployment.path), {"command": "flush", "timeout": LONG})
        self.generations.add(answer["generation"])
        self.promised |= before

    def deploy(self):
        kinds = [self.end, self.kill, self.away, self.killed_away, self.back, self.two]
        if isinstance(self.store, FaultProxy):
            kinds.append(self.slow)
        (self.rng.choice(kinds) if self.gaps else self.end)()
        self.check()

    def replace(self, sidecar, *, ended):
        """``sidecar`` is the next one; ``ended`` ends the previous one."""
        previous, self.current = self.current, sidecar
        ended(previous)
        at = time.monotonic()
        wait_for(lambda: self.answers(sidecar), interval=0.01)
        self.gaps.append(time.monotonic() - at)

    def answers(self, sidecar):
        assert sidecar.process.poll() is None, sidecar.output
        with contextlib.suppress(ReplicatorError):
            return sidecar.status() is not None and "following" in sidecar.output
        return False

    # the kinds of a deploy

    def end(self):
        def ended(previous):
            previous.signal()
            self.finished(previous)

        self.replace(self.next(), ended=ended)

    def kill(self):
        self.replace(self.next(), ended=kill_all)

    def slow(self):
        """The store answers late."""
        self.store.fault(delay(0.3), times=None)
        self.end()
        self.store.heal()

    def away(self):
        """The store is away when the previous one ends, and comes back."""

        def ended(previous):
            self.store.down()
            previous.signal()
            wait_for(lambda: FLUSHING in previous.output)
            self.store.up()
            self.finished(previous)

        self.replace(self.next(), ended=ended)

    def killed_away(self):
        """As before, but the previous one is killed in its last flush."""

        def ended(previous):
            self.store.down()
            previous.signal()
            wait_for(lambda: FLUSHING in previous.output)
            previous.kill()

        self.replace(self.next(), ended=ended)
        self.store.up()

    def back(self):
        """The next one is withdrawn: it ends first, and the previous one stays."""
        sidecar = self.next()
        before = self.deployment.committed()
        sidecar.signal()
        self.finished(sidecar)
        self.promised |= before

    def two(self):
        """Two at once; one of them continues, and later the other one."""
        first, second = self.next(), self.next()
        previous, self.current = self.current, None
        previous.signal()
        self.finished(previous)

        def which():
            return [each for each in (first, second) if "following" in each.output]

        (holder,) = wait_for(which)
        self.current = second if holder is first else first
        holder.signal()
        self.finished(holder)


def longest(commits):
    """Seconds that the longest transaction of an application took."""
    return float(commits.with_suffix(".longest").read_text())


def kill_all(sidecar):
    """SIGKILL of the sidecar and of its application, as at the end of a container."""
    application = int(re.search(r"as process (\d+)", sidecar.output)[1])
    sidecar.kill()
    with contextlib.suppress(ProcessLookupError):
        os.kill(application, signal.SIGKILL)


@pytest.fixture(params=["directory", "server"])
def deployment_and_store(request, tmp_path, prefix):
    """(deployment, what makes its store go away)."""
    if request.param == "directory":
        deployment = Deployment(tmp_path)
        yield deployment, DirectoryAway(tmp_path / "store")
    else:
        server = request.getfixturevalue("seaweed_credentials")
        proxy = request.getfixturevalue("fault_proxy")
        deployment = Deployment(
            tmp_path, url=f"s3://{server.bucket}", endpoint_url=proxy.url, prefix=prefix
        )
        yield deployment, proxy
    deployment.close()


@pytest.mark.timeout(240 + 60 * DEPLOYS)
def test_overlapping_deploys(deployment_and_store, seed, scoreboard):
    """No start is refused, no commit is lost, no application sees an error, and the generation
    stays the same, whichever way the previous sidecar ends."""
    deployment, store = deployment_and_store
    run = Deploys(deployment, store, random.Random(seed))
    worker = run.worker()
    run.current = run.next()
    run.check()
    time.sleep(SECONDS)
    alone = run.end_worker(worker)
    worker = run.worker()
    run.longest = 0.0
    for _ in range(DEPLOYS):
        run.deploy()
    run.longest = max(run.longest, run.end_worker(worker))
    run.current.signal()
    run.finished(run.current)
    assert len(run.generations) == 1
    copy, _ = deployment.restore()
    deployment.check_commits(copy, at_least=run.promised | deployment.committed())
    deployment.check_exact()
    commits = deployment.total()
    gapless = sum(GAPLESS in each.output for each in deployment.sidecars)
    gaps = sorted(each * 1000 for each in run.gaps)
    scoreboard(
        f"overlapping deploys under load, {type(store).__name__}",
        f"{DEPLOYS} deploys, {commits} commits, 0 lost, 0 refused starts, 1 generation; {gapless} "
        f"continued with the WAL, the rest caught up; longest transaction "
        f"{run.longest * 1000:.0f} ms, without deploys {alone * 1000:.0f} ms; the next sidecar "
        f"answers after {gaps[len(gaps) // 2]:.0f} ms, at most {gaps[-1]:.0f} ms",
    )

"""A long run under mixed load with a random fault every few seconds and live restores.

A proxy with faults is in front of the real server; writers are killed and restarted; sidecars are
killed, stopped, paused, and lose files. Every restore holds the transactions that a flush
promised before, and neither memory nor files nor descriptors grow.
"""

import contextlib
import os
import random
import signal
import time

import pytest

from replicator.errors import ReplicatorError
from replicator.recovery.api import restore
from replicator.sidecar.control_client import ask
from tests.helpers.command_line import cache_of
from tests.helpers.deployment import Deployment, assert_same_pages
from tests.helpers.proxy import corrupt_request, delay, drop_answer, hang, reset, status
from tests.helpers.replication import LONG
from tests.plugins.scoreboard import effort

SECONDS = effort(20, 1800)
CACHE = 16 << 20
NETWORK = {
    "503": status(503, "SlowDown"),
    "500": status(500),
    "403": status(403, "AccessDenied"),
    "reset": reset,
    "hang": hang,
    "answer lost": drop_answer,
    "slow": delay(0.2),
    "corrupted request": corrupt_request,
}


class Soak:
    """The load, the current sidecar, and the promises of flushes so far."""

    def __init__(self, deployment, server, proxy, rng):
        self.deployment, self.server, self.proxy, self.rng = deployment, server, proxy, rng
        self.writers, self.promised, self.durable = {}, {}, 0
        self.faults, self.restores, self.footprints = 0, 0, []
        self.sidecar = None
        self.start()

    # the application and the sidecar

    def keep_writing(self):
        for number in (1, 2, 3):
            writer = self.writers.get(number)
            if writer is None or not writer.running:
                self.writers[number] = self.deployment.start(
                    number,
                    commits=self.rng.randint(50, 400),
                    seed=self.rng.randrange(1 << 30),
                    rate=self.rng.choice((20, 40)),
                    autocheckpoint=self.rng.choice((50, 1000)),
                    truncate_every=self.rng.choice((0, 60)),
                    vacuum_every=self.rng.choice((0, 0, 90)),
                    reopen_every=self.rng.choice((0, 40)),
                )

    def start(self):
        self.sidecar = self.deployment.sidecar(
            "--max-cache-bytes",
            str(CACHE),
            "--snapshot-interval",
            "5s",
            "--sync-interval",
            "200ms",
            roll_over=self.rng.choice((100, 1000)),
        )

    # faults

    def strike(self):
        """Applies one fault for a while and removes it."""
        kind = self.rng.choice(
            (
                *NETWORK,
                *NETWORK,
                "down",
                "kill",
                "stop",
                "pause",
                "kill writer",
                "segments lost",
                "hashes damaged",
            )
        )
        self.faults += 1
        if kind in NETWORK:
            self.proxy.fault(NETWORK[kind], times=None)
            self.pause_test(3)
            self.proxy.heal()
        elif kind == "down":
            self.proxy.down()
            self.pause_test(3)
            self.proxy.up()
        else:
            {
                "kill": self.kill,
                "stop": self.stop,
                "pause": self.pause,
                "kill writer": self.kill_writer,
                "segments lost": self.lose_segments,
                "hashes damaged": self.damage_hashes,
            }[kind]()

    def pause_test(self, most):
        time.sleep(self.rng.uniform(0, most))

    def kill(self):
        self.sidecar.kill()
        self.start()

    def stop(self):
        """SIGTERM: exit code 0, or 5 with missing transactions, or before the handler was set."""
        assert self.sidecar.stop() in (0, 5, -signal.SIGTERM)
        self.start()

    def pause(self):
        self.sidecar.signal(signal.SIGSTOP)
        self.pause_test(2)
        self.sidecar.signal(signal.SIGCONT)

    def kill_writer(self):
        self.rng.choice(list(self.writers.values())).kill()

    def lose_segments(self):
        for entry in self.cache_files():
            if entry.name.endswith(".wal.zst") and self.rng.random() < 0.5:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)

    def damage_hashes(self):
        with contextlib.suppress(FileNotFoundError):
            os.truncate(cache_of(self.deployment.path) / "pages.xxh", 100)

    # invariants

    def check(self):
        """Flushes if the sidecar answers, then restores directly from the server."""
        with contextlib.suppress(ReplicatorError):
            before = self.deployment.committed()
            self.durable = ask(cache_of(self.deployment.path), {"command": "flush"})["txid"]
            self.promised |= before
        self.restores += 1
        copy = self.deployment.directory / "live.db"
        report = restore(
            output=copy,
            url=self.deployment.url,
            prefix=self.deployment.prefix,
            endpoint_url=self.server.endpoint_url,
        )
        if report is None:
            assert not self.durable
            return
        assert report.txid >= self.durable
        self.deployment.check_commits(copy, at_least=self.promised)
        copy.unlink()
        self.footprint()

    def footprint(self):
        """Records memory (MiB), descriptors and cache files."""
        with contextlib.suppress(FileNotFoundError, AssertionError):
            descriptors = len(os.listdir(f"/proc/{self.sidecar.pid}/fd"))
            self.footprints.append((self.sidecar.rss() >> 20, descriptors, len(self.cache_files())))

    def cache_files(self):
        directory = cache_of(self.deployment.path) / "segments"
        return list(os.scandir(directory)) if directory.exists() else []

    def end(self):
        """Without faults everything becomes durable, page by page."""
        for writer in self.writers.values():
            writer.process.wait(LONG)
        self.proxy.heal()
        self.sidecar.until_following()
        self.deployment.flush()
        assert self.sidecar.stop() == 0
        copy, _ = self.deployment.restore()
        assert_same_pages(copy.read_bytes(), self.deployment.source())
        self.deployment.check_commits(copy, at_least=self.deployment.committed())

    def peaks(self, part):
        return [max(values) for values in zip(*part, strict=True)]


@pytest.mark.timeout(SECONDS * 2 + 240)
def test_soak(seaweed_credentials, fault_proxy, tmp_path, prefix, seed, scoreboard):
    """Alternates faults and checks; at the end a restore equals the source page by page."""
    rng = random.Random(seed)
    server = seaweed_credentials
    deployment = Deployment(
        tmp_path, url=f"s3://{server.bucket}", endpoint_url=fault_proxy.url, prefix=prefix
    )
    try:
        deployment.create()
        soak = Soak(deployment, server, fault_proxy, rng)
        soak.sidecar.until_following()
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            soak.keep_writing()
            soak.strike()
            assert soak.sidecar.process.poll() is None, soak.sidecar.output
            soak.check()
        soak.end()
        third = len(soak.footprints) // 3 or 1
        early, late = soak.peaks(soak.footprints[:third]), soak.peaks(soak.footprints[-third:])
        assert late[0] <= 1.5 * early[0] + 32
        assert late[1] <= early[1] + 16
        assert late[2] <= early[2] + 100
    finally:
        deployment.close()
    scoreboard(
        "soak: mixed load, a random fault every few seconds, live restores",
        f"{SECONDS} s, {soak.faults} faults, {soak.restores} live restores, "
        f"{deployment.total()} commits, 0 violations; memory {early[0]} → {late[0]} MiB, "
        f"descriptors {early[1]} → {late[1]}, cache files {early[2]} → {late[2]}",
    )

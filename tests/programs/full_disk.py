"""A replicator whose cache is on a small file system that is really full.

    unshare -rm python full_disk.py DIRECTORY SEED ROUNDS

Mounts 16 megabytes at the cache directory, fills them to the last pages repeatedly, and prints
its figures as one line of JSON.
"""

import contextlib
import json
import logging
import os
import random
import subprocess
import sys
from pathlib import Path

from replicator import restore
from replicator.engine.in_process import InProcessReplicator
from replicator.errors import LocalIOError, NotDurable
from replicator.store.retry import RetryPolicy
from tests.helpers.limits import limits_for
from tests.helpers.replication import LONG, App, HookedStore, config_for, image_of

SIZE = 16 << 20
PAGE = 4096
SOON = 0.3


QUICK = RetryPolicy(first=0.01, cap=0.01)
LIMITS = {
    "loop": {"retries": RetryPolicy(first=0.02, cap=0.02)},
    "upload": {"transient": QUICK, "refused": QUICK},
}


class FullDisk:
    """A database on a disk with room, its cache on one of 16 megabytes."""

    def __init__(self, directory):
        self.directory, self.cache = directory, directory / "cache"
        self.cache.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", self.cache], check=True
        )
        self.app = App(directory / "app.db")
        self.store = HookedStore()
        config = config_for(directory / "app.db", cache_dir=self.cache, max_cache_bytes=1 << 30)
        self.replicator = InProcessReplicator(
            config, store=self.store, limits=limits_for(config, LIMITS)
        )
        self.reported = self.silent = 0

    def fill(self, spare):
        """To the last byte, but for ``spare`` pages."""
        ballast = os.open(self.cache / "ballast", os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(ballast, bytes(PAGE))
        os.ftruncate(ballast, max(0, os.fstat(ballast).st_size // PAGE - spare) * PAGE)
        os.close(ballast)

    def empty(self):
        (self.cache / "ballast").unlink()

    def flush(self, timeout=LONG):
        return self.replicator.flush(timeout)

    def is_stuck(self):
        """True if a flush fails; counts whether the status names the full disk at the same time."""
        try:
            self.flush(SOON)
        except (NotDurable, LocalIOError):
            status = self.replicator.status()
            words = str(status.last_error)
            known = "no space left" in words or "disk is full" in words or "i/o error" in words
            self.reported += known and not status.healthy
            self.silent += not (known and not status.healthy)
            return True
        return False

    def check(self):
        output = self.directory / "restored.db"
        restore(store=self.store.inner, prefix="app.db", output=output, overwrite=True)
        assert output.read_bytes() == image_of(self.app.path)


def rounds(full_disk, rng, count):
    """The disk fills up a few pages before a commit; once it has space, replication recovers."""
    stuck = 0
    for _ in range(count):
        full_disk.fill(rng.randrange(24))
        full_disk.app.insert(rng.randrange(1, 60), 1000)
        stuck += full_disk.is_stuck()
        full_disk.empty()
        full_disk.flush()
        full_disk.check()
    return stuck


def outage(full_disk):
    """The store is away until the segments alone have filled the disk; it comes back, and the
    replicator must recover although no other file is removed."""
    full_disk.store.go_away("wal/")
    full_disk.app.insert(600, 1000)
    for _ in range(16):
        full_disk.app.run("UPDATE t SET body = randomblob(1000)")
        with contextlib.suppress(NotDurable):
            full_disk.flush(0.1)
    free = os.statvfs(full_disk.cache).f_bavail * PAGE
    full_disk.store.come_back()
    full_disk.flush()
    full_disk.check()
    return free


def starts(full_disk, rng, count):
    """On a full disk a start is refused, with its reason; with room it works."""
    refused = 0
    for _ in range(count):
        full_disk.replicator.stop()
        full_disk.fill(rng.randrange(24))
        full_disk.app.insert()
        try:
            full_disk.replicator.start()
        except LocalIOError:
            refused += 1
            full_disk.empty()
            full_disk.replicator.start()
        else:
            full_disk.empty()
        full_disk.flush()
        full_disk.check()
    return refused


def main(directory, seed, count):
    logging.disable(logging.CRITICAL)
    rng = random.Random(seed)
    full_disk = FullDisk(Path(directory))
    full_disk.replicator.start()
    full_disk.app.insert()
    generation = full_disk.flush().generation
    stuck = rounds(full_disk, rng, count)
    refused = starts(full_disk, rng, count // 4)
    free = outage(full_disk)
    same = full_disk.flush().generation == generation
    full_disk.replicator.stop()
    sys.stdout.write(
        json.dumps(
            {
                "stuck": stuck,
                "reported": full_disk.reported,
                "silent": full_disk.silent,
                "refused": refused,
                "free": free,
                "same": same,
            }
        )
        + "\n"
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""engine/wakeups.py: the time of the next look."""

import os
import subprocess
import sys
import time

import pytest

from replicator.engine.limits import LoopLimits
from replicator.engine.wakeups import Wakeups
from replicator.system.paths import wal_path
from replicator.system.watch import LONG_REST, FileWatcher
from replicator.upload.watermark import UploadState
from tests.helpers.replication import LONG, App, replicating, wait_for


class RestingSession:
    """Of an idle database."""

    busy, at_rest, poll_interval = False, True, 1.0

    def look(self, *, hinted):
        return False


class SilentMailbox:
    """Nothing comes; the waits are recorded."""

    def __init__(self):
        self.waits = []

    def wait(self, timeout):
        self.waits.append(timeout)
        return False


def test_an_event_without_a_commit_is_followed_by_further_looks(tmp_path):
    """Soon, and then less and less often, before the long rest; each such event begins anew."""
    path, mailbox = tmp_path / "app.db", SilentMailbox()
    path.write_bytes(b"x")
    path.with_name("app.db-wal").write_bytes(b"x")
    files = FileWatcher(settled=0.0)
    wakeups = Wakeups(path, files, mailbox, LoopLimits(again=(0.1, 0.4, 1.6)))
    with wakeups.watching():
        for in_vain in [False] * 5 + [True, False, True] + [False] * 4:
            wakeups.sleep(RestingSession(), UploadState(durable_txid=1), in_vain=in_vain)
    files.stop()
    sequence = [0.1, 0.4, 1.0, pytest.approx(0.6)]  # the poll interval bounds each wait
    after = [*sequence, LONG_REST, 0.02, 0.1, 0.4, 0.02, *sequence, LONG_REST]
    assert mailbox.waits == after


# It holds the lock of a connection to a WAL database (struct flock of fcntl(2) on 64-bit Linux).
COMMITS = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("INSERT INTO t(body) VALUES (1)")
connection.commit()
os._exit(0)
"""
CLOSES_SLOWLY = """
import fcntl, os, struct, sys, time
database, wal = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
fcntl.fcntl(database, fcntl.F_SETLK,
    struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0x40000002, 510, 0))
print("ready", flush=True)
sys.stdin.readline()
os.close(wal)
time.sleep(0.3)
"""


def wal_bytes(path):
    """Size of the WAL; 0 also while it is removed and made anew."""
    try:
        return os.stat(wal_path(path)).st_size
    except FileNotFoundError:
        return 0


def test_a_lock_that_outlasts_the_close_delays_the_removal_of_the_wal_a_little(tmp_path, store):
    """The last look at an event finds the database in use. No other event follows."""
    path = tmp_path / "app.db"
    with App(path) as app:
        app.insert(5)
    with replicating(path, store) as replicator:
        replicator.flush(LONG)
        subprocess.run([sys.executable, "-c", COMMITS, path], check=True)
        other = subprocess.Popen(
            [sys.executable, "-c", CLOSES_SLOWLY, path, wal_path(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert other.stdout.readline() == b"ready\n"
        if not wal_bytes(path):  # it was removed before the lock was taken
            subprocess.run([sys.executable, "-c", COMMITS, path], check=True)
        wakeups = replicator._engine.capture.wakeups
        wait_for(lambda: wakeups._watch and wakeups._watch._resting)
        began = time.monotonic()
        other.communicate(b"\n")
        wait_for(lambda: not wal_bytes(path))
        assert time.monotonic() - began < LONG_REST / 2

"""More than memory: a database and a transaction of 1 GiB, and pages beyond the lock page.

Minutes and gigabytes, so these run in ``make soak``. Each test has a server of its own, and
nothing of it stays on the disk. The figures are printed.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from urllib.parse import parse_qs, urlsplit

import pytest

from replicator.testing import SeaweedServer
from tests.helpers.command import Desk
from tests.helpers.proxy import FaultProxy
from tests.helpers.replication import App

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MIB = 1 << 20
GIB = 1 << 30
ROW = 4000  # bytes, of which half are random
HALF_RANDOM = f"randomblob({ROW // 2}) || zeroblob({ROW // 2})"
LOCK_BYTE = 0x40000000


@pytest.fixture
def desk(clean_environment, tmp_path):
    """A user with a server of their own; everything on disk goes with them."""
    with SeaweedServer() as server:
        desk = Desk(tmp_path, server)
        yield desk
        desk.leave()
    shutil.rmtree(tmp_path)


@pytest.fixture
def tell(capsys, request):
    """Print figures, captured output or not."""

    def tell(**figures):
        with capsys.disabled():
            text = ", ".join(f"{name} {value}" for name, value in figures.items())
            print(f"\n{request.node.name}: {text}")  # noqa: T201

    return tell


def mib(size):
    return f"{size / MIB:,.0f} MiB"


def fill(app, size):
    """Rows worth ``size`` bytes in one transaction."""
    app.run(
        f"INSERT INTO t(body) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n "
        f"WHERE i < {size // ROW}) SELECT {HALF_RANDOM} FROM n"
    )


@contextlib.contextmanager
def writing(path, rate=100):
    """A writer beside the test, some transactions a second; yields how many it committed."""
    done, stop = [0], threading.Event()

    def write():
        with App(path, autocheckpoint=1000) as app:
            while not stop.wait(1 / rate):
                app.run("UPDATE t SET body = randomblob(1000) WHERE id = abs(random()) % 1000")
                done[0] += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def flushed(desk, path):
    done = desk.call("flush", path, "--json", timeout=900)
    assert done.code == 0, done.err
    return done.json["txid"]


def apart(*command):
    """In a process of its own: closing a database file here would drop the locks on it."""
    return subprocess.run(command, check=False).returncode == 0


def same(source, copy):
    return apart("cmp", "-s", source, copy)


def folded(app):
    """The database with its whole log in the one file."""
    assert app.checkpoint("TRUNCATE")[0] == 0
    return app.path


def restored(desk, name, *options):
    """(path, seconds, peak RSS in bytes) of a restore by a process of its own."""
    path = desk.home / name
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "replicator", "restore", *desk.place, "-o", str(path), *options],
        stdout=subprocess.DEVNULL,
        env=desk.environment,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return path, time.monotonic() - began, usage.ru_maxrss * 1024


def test_a_gigabyte_under_writes(desk, tell):
    """The first snapshot of 1 GiB, taken while transactions go on, is uploaded once, in less
    than 200 MB of memory, and the restored file is the source to the byte."""
    with App(desk.home / "app.db", mode="OFF") as app:
        fill(app, GIB)
        app.run("PRAGMA journal_mode=WAL")
    size = (desk.home / "app.db").stat().st_size
    assert size >= GIB
    proxy = FaultProxy(desk.server.endpoint_url)
    try:
        began = time.monotonic()
        with writing(desk.home / "app.db") as committed:
            sidecar = desk.sidecar(
                desk.home / "app.db", place=("--bucket", desk.bucket, "--endpoint-url", proxy.url)
            )
            sidecar.until(lambda status: status["durable_txid"] > 0)
            took = time.monotonic() - began
            flushed(desk, desk.home / "app.db")
        flushed(desk, desk.home / "app.db")
        peak = sidecar.peak_rss()
        status = sidecar.status()
        assert sidecar.stop() == 0
        sent = [
            (method, path)
            for method, path, _ in proxy.requests
            if method in {"PUT", "POST"} and "/snapshots/" in path
        ]
    finally:
        proxy.stop()
    stored = list(desk.store().list("app.db/snapshots/"))
    assert len(stored) == 1
    parts = Counter(
        parse_qs(urlsplit(path).query)["partNumber"][0] for method, path in sent if method == "PUT"
    )
    assert set(parts.values()) == {1}
    assert sum(method == "POST" for method, _ in sent) == 2  # begin and complete
    with App(desk.home / "app.db") as app:
        source = folded(app)
    copy, seconds, memory = restored(desk, "copy.db")
    assert same(source, copy)
    tell(
        database=mib(size),
        snapshot=mib(stored[0].size),
        parts=len(parts),
        snapshot_seconds=f"{took:.1f}",
        commits=committed[0],
        sidecar_peak=mib(peak),
        roll_overs=status["roll_overs"],
        write_lock_holds=status["write_lock_holds"],
        restore_seconds=f"{seconds:.1f}",
        restore_peak=mib(memory),
    )
    assert peak < 200e6


def test_one_transaction_of_a_gigabyte(desk, tell):
    """It is replicated and restored, in less than 250 MB of memory."""
    with App(desk.home / "app.db") as app:
        app.insert(10)
        sidecar = desk.sidecar(app.path)
        sidecar.until_following()
        before = flushed(desk, app.path)
        began = time.monotonic()
        fill(app, GIB)
        committed = time.monotonic()
        txid = flushed(desk, app.path)
        took = time.monotonic() - committed
        assert txid == before + 1
        peak = sidecar.peak_rss()
        app.insert(1)
        flushed(desk, app.path)
        assert sidecar.stop() == 0
        source = folded(app)
    segments = [item.size for item in desk.store().list("app.db/wal/")]
    copy, seconds, memory = restored(desk, "copy.db")
    assert same(source, copy)
    tell(
        transaction=mib(source.stat().st_size),
        segment=mib(max(segments)),
        commit_seconds=f"{committed - began:.1f}",
        flush_seconds=f"{took:.1f}",
        sidecar_peak=mib(peak),
        restore_seconds=f"{seconds:.1f}",
        restore_peak=mib(memory),
    )
    assert peak < 250e6


@pytest.mark.parametrize("page_size", [4096, 65536])
def test_beyond_the_lock_page(desk, tell, page_size):
    """A database grows over the page at 1 GiB that SQLite never uses: as log, as a catch-up
    after an absence, and as a snapshot, every page is what it was."""
    with App(desk.home / "app.db", mode="OFF", page_size=page_size) as app:
        app.run(
            *2 * [f"INSERT INTO t(body) VALUES (zeroblob({LOCK_BYTE // 2 - 20 * MIB}))"],
            "PRAGMA journal_mode=WAL",
        )
        assert app.path.stat().st_size < LOCK_BYTE
        sidecar = desk.sidecar(app.path)
        sidecar.until_following()
        app.run(f"INSERT INTO t(body) VALUES (zeroblob({80 * MIB}))")
        app.insert(200, 2000)
        flushed(desk, app.path)
        assert sidecar.stop() == 0
        assert folded(app).stat().st_size > LOCK_BYTE
        copy, seconds, memory = restored(desk, "log.db")
        assert same(app.path, copy)
        copy.unlink()
        app.insert(200, 2000)
        folded(app)
        app.insert(1)
        sidecar = desk.sidecar(app.path)
        sidecar.until_following()
        flushed(desk, app.path)
        assert "caught up" in sidecar.said
        for suffix in ("", "-wal"):
            apart("cp", f"{app.path}{suffix}", desk.home / f"then.db{suffix}")
        with App(desk.home / "then.db") as then:
            copy, _, _ = restored(desk, "caught-up.db")
            assert same(folded(then), copy)
        copy.unlink()
        app.insert(1)
        assert desk.call("snapshot", app.path, timeout=900).code == 0
        peak = sidecar.peak_rss()
        assert sidecar.stop() == 0
        whole, _, _ = restored(desk, "snapshot.db")
        assert same(folded(app), whole)
    tell(
        page_size=page_size,
        database=mib(whole.stat().st_size),
        stored=mib(sum(item.size for item in desk.store().list("app.db/"))),
        sidecar_peak=mib(peak),
        restore_seconds=f"{seconds:.1f}",
        restore_peak=mib(memory),
    )

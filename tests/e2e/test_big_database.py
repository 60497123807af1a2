"""Databases larger than memory: a snapshot and a transaction of 1 GiB, pages beyond the lock page.

The tests take minutes and gigabytes, so ``make soak`` runs them. Each test has its own server,
leaves nothing on the disk, and prints its figures.
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
from tests.helpers.command_line import CommandLine
from tests.helpers.proxy import FaultProxy
from tests.helpers.replication import App

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MIB = 1 << 20
GIB = 1 << 30
ROW = 4000  # bytes, of which half are random
HALF_RANDOM = f"randomblob({ROW // 2}) || zeroblob({ROW // 2})"
LOCK_BYTE = 0x40000000


@pytest.fixture
def own_cli(clean_environment, tmp_path):
    """A user with a server of their own; all its files are removed at the end."""
    with SeaweedServer() as server:
        own_cli = CommandLine(tmp_path, server)
        yield own_cli
        own_cli.close()
    shutil.rmtree(tmp_path)


@pytest.fixture
def print_figures(capsys, request):
    """Prints figures past the capture of output."""

    def print_figures(**figures):
        with capsys.disabled():
            text = ", ".join(f"{name} {value}" for name, value in figures.items())
            print(f"\n{request.node.name}: {text}")  # noqa: T201

    return print_figures


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
    """A concurrent writer with ``rate`` transactions a second; yields [number of commits]."""
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


def flushed(own_cli, path):
    done = own_cli.call("flush", path, "--json", timeout=900)
    assert done.code == 0, done.err
    return done.json["txid"]


def run_apart(*command):
    """Runs a command in its own process: closing a database file here would drop its locks."""
    return subprocess.run(command, check=False).returncode == 0


def same(source, copy):
    return run_apart("cmp", "-s", source, copy)


def checkpointed(app):
    """The path of the database after a full checkpoint."""
    assert app.checkpoint("TRUNCATE")[0] == 0
    return app.path


def restored(own_cli, name, *options):
    """(path, seconds, peak RSS in bytes) of a restore by a process of its own."""
    path = own_cli.home / name
    began = time.monotonic()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "replicator",
            "restore",
            *own_cli.bucket_options,
            "-o",
            str(path),
            *options,
        ],
        stdout=subprocess.DEVNULL,
        env=own_cli.environment,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return path, time.monotonic() - began, usage.ru_maxrss * 1024


def test_a_gigabyte_under_writes(own_cli, print_figures):
    """The first snapshot of 1 GiB, taken under writes, is uploaded once, in less than 200 MB of
    memory, and the restored file equals the source byte by byte."""
    with App(own_cli.home / "app.db", mode="OFF") as app:
        fill(app, GIB)
        app.run("PRAGMA journal_mode=WAL")
    size = (own_cli.home / "app.db").stat().st_size
    assert size >= GIB
    proxy = FaultProxy(own_cli.server.endpoint_url)
    try:
        began = time.monotonic()
        with writing(own_cli.home / "app.db") as committed:
            sidecar = own_cli.sidecar(
                own_cli.home / "app.db",
                bucket_options=own_cli.options_through(proxy.url),
            )
            sidecar.until(lambda status: status["durable_txid"] > 0)
            took = time.monotonic() - began
            flushed(own_cli, own_cli.home / "app.db")
        flushed(own_cli, own_cli.home / "app.db")
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
    stored = list(own_cli.store().list("app.db/snapshots/"))
    assert len(stored) == 1
    parts = Counter(
        parse_qs(urlsplit(path).query)["partNumber"][0] for method, path in sent if method == "PUT"
    )
    assert set(parts.values()) == {1}
    assert sum(method == "POST" for method, _ in sent) == 2  # begin and complete
    with App(own_cli.home / "app.db") as app:
        source = checkpointed(app)
    copy, seconds, memory = restored(own_cli, "copy.db")
    assert same(source, copy)
    print_figures(
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


def test_one_transaction_of_a_gigabyte(own_cli, print_figures):
    """A transaction of 1 GiB is replicated and restored in less than 250 MB of memory."""
    with App(own_cli.home / "app.db") as app:
        app.insert(10)
        sidecar = own_cli.sidecar(app.path)
        sidecar.until_following()
        before = flushed(own_cli, app.path)
        began = time.monotonic()
        fill(app, GIB)
        committed = time.monotonic()
        txid = flushed(own_cli, app.path)
        took = time.monotonic() - committed
        assert txid == before + 1
        peak = sidecar.peak_rss()
        app.insert(1)
        flushed(own_cli, app.path)
        assert sidecar.stop() == 0
        source = checkpointed(app)
    segments = [item.size for item in own_cli.store().list("app.db/wal/")]
    copy, seconds, memory = restored(own_cli, "copy.db")
    assert same(source, copy)
    print_figures(
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
def test_beyond_the_lock_page(own_cli, print_figures, page_size):
    """A database grows beyond the page at 1 GiB that SQLite never uses. Every page is exact
    when it comes from the WAL, from a catch-up after an absence, and from a snapshot."""
    with App(own_cli.home / "app.db", mode="OFF", page_size=page_size) as app:
        app.run(
            *2 * [f"INSERT INTO t(body) VALUES (zeroblob({LOCK_BYTE // 2 - 20 * MIB}))"],
            "PRAGMA journal_mode=WAL",
        )
        assert app.path.stat().st_size < LOCK_BYTE
        sidecar = own_cli.sidecar(app.path)
        sidecar.until_following()
        app.run(f"INSERT INTO t(body) VALUES (zeroblob({80 * MIB}))")
        app.insert(200, 2000)
        flushed(own_cli, app.path)
        assert sidecar.stop() == 0
        assert checkpointed(app).stat().st_size > LOCK_BYTE
        copy, seconds, memory = restored(own_cli, "log.db")
        assert same(app.path, copy)
        copy.unlink()
        app.insert(200, 2000)
        checkpointed(app)
        app.insert(1)
        sidecar = own_cli.sidecar(app.path)
        sidecar.until_following()
        flushed(own_cli, app.path)
        sidecar.until_written("caught up")
        for suffix in ("", "-wal"):
            run_apart("cp", f"{app.path}{suffix}", own_cli.home / f"then.db{suffix}")
        with App(own_cli.home / "then.db") as then:
            copy, _, _ = restored(own_cli, "caught-up.db")
            assert same(checkpointed(then), copy)
        copy.unlink()
        app.insert(1)
        assert own_cli.call("snapshot", app.path, timeout=900).code == 0
        peak = sidecar.peak_rss()
        assert sidecar.stop() == 0
        whole, _, _ = restored(own_cli, "snapshot.db")
        assert same(checkpointed(app), whole)
    print_figures(
        page_size=page_size,
        database=mib(whole.stat().st_size),
        stored=mib(sum(item.size for item in own_cli.store().list("app.db/"))),
        sidecar_peak=mib(peak),
        restore_seconds=f"{seconds:.1f}",
        restore_peak=mib(memory),
    )

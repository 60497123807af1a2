"""Two sidecar processes on one archive: one continues, the other is fenced and names the holder.

A host is a directory with a database, its cache and its sidecar. Hosts share a prefix, in a
directory or on a real S3 server. At the end of each test a restore from the store equals, page by
page, the database of the host that holds the archive.
"""

import asyncio
import contextlib
import random
import secrets
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from replicator.errors import ReplicatorError
from replicator.sidecar.control_client import ask
from tests.helpers.command_line import cache_of
from tests.helpers.deployment import Deployment, assert_same_pages
from tests.helpers.replication import LONG, wait_for
from tests.plugins.scoreboard import effort

pytestmark = pytest.mark.timeout(300)

FENCED, RUNNING_ALREADY = 6, 8
TURNS = effort(2, 40)


class SidecarHost(Deployment):
    """A deployment with its own writer number, so that its transactions are distinguishable."""

    def __init__(self, directory, writer, **store):
        directory.mkdir()
        super().__init__(directory, **store)
        self.writer = writer
        self.sidecar_now = None

    def commit(self, count=3):
        self.start(self.writer, commits=count).finish()

    def run(self, *options):
        self.sidecar_now = self.sidecar(*options)
        return self.sidecar_now

    def follow(self, *options):
        self.run(*options).until_following()
        return self

    def durable(self):
        """Flushes; returns the durable txid."""
        return ask(cache_of(self.path), {"command": "flush", "timeout": LONG})["txid"]

    def end(self):
        assert self.sidecar_now.stop() == 0, self.sidecar_now.output

    def check_fenced(self, *by):
        """Checks that the sidecar ended with the exit code of fencing and named the holder."""
        assert self.sidecar_now.wait() == FENCED, self.sidecar_now.output
        output = self.sidecar_now.output
        here = socket.gethostname()
        assert any(f"process {host.sidecar_now.pid} on {here}" in output for host in by)
        assert "owns the archive at" in output
        assert "hint: find out which database is the right one" in output
        assert "--take-over" in output

    def check_archive(self):
        """Checks that a restore gives this host's database, and nothing of another host."""
        self.durable()
        self.end()
        return self.check_exact()

    def at(self, txid):
        """The path of a restore of ``txid``."""
        copy, report = self.restore(txid=txid)
        assert report.txid == txid
        return copy

    def copy_to(self, other):
        """Copies the whole volume; no process may write to it."""
        shutil.copytree(
            self.directory,
            other.directory,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("control.sock"),
        )


class Hosts:
    def __init__(self, directory, **store):
        self._directory, self._store = directory, store
        self.all = []

    def new(self):
        host = SidecarHost(
            self._directory / f"host-{len(self.all) + 1}", len(self.all) + 1, **self._store
        )
        self.all.append(host)
        return host


@pytest.fixture
def hosts(request, tmp_path):
    """Hosts with a prefix of their own."""
    store = {"prefix": f"app-{secrets.token_hex(4)}"}
    if request.param == "directory":
        (tmp_path / "bucket").mkdir()
        store |= {"url": f"file://{tmp_path / 'bucket'}"}
    else:
        server = request.getfixturevalue("seaweed_credentials")
        store |= {"url": f"s3://{server.bucket}", "endpoint_url": server.endpoint_url}
    hosts = Hosts(tmp_path, **store)
    yield hosts
    for host in hosts.all:
        host.close()


def on(*stores):
    return pytest.mark.parametrize("hosts", stores, indirect=True)


on_a_directory, on_a_server = on("directory"), on("seaweed")
first_on_a_directory = on(*effort(["directory"], ["directory", "seaweed"]))
first_on_a_server = on(*effort(["seaweed"], ["directory", "seaweed"]))


# ---------------------------------------------------------------------- one database, one host


@on_a_directory
@pytest.mark.parametrize(
    "caches",
    [((), ()), ((), ("--cache-dir", "other")), (("--cache-dir", "one"), ("--cache-dir", "other"))],
)
def test_two_sidecars_on_one_database(hosts, tmp_path, caches, monkeypatch):
    """A second sidecar is refused at once, with any cache directory."""
    monkeypatch.chdir(tmp_path)
    host = hosts.new()
    host.commit()
    first = host.run(*caches[0])
    wait_for(lambda: "following" in first.output)
    refused = host.sidecar(*caches[1])
    assert refused.wait() == RUNNING_ALREADY
    assert f"process {first.pid} already works with" in refused.output
    host.commit()
    assert first.stop() == 0
    host.check_exact()


# ------------------------------------------------------------------------ two hosts, one prefix


@on_a_directory
def test_two_hosts_on_one_prefix(hosts):
    """A host with another database is refused, and the first host continues. With the order to
    take over, the first host stops at its next append."""
    one, two = hosts.new(), hosts.new()
    one.commit()
    one.follow().durable()
    two.commit()
    two.run()
    two.check_fenced(one)
    two.sidecar_now.until_written("(different_database)")
    one.commit()
    one.durable()
    two.follow("--take-over").durable()
    one.commit()
    one.check_fenced(two)
    two.commit()
    two.check_archive()


@first_on_a_server
def test_a_zombie_wakes_up(hosts):
    """A host is paused, another host restores its backup and continues; the first is fenced."""
    one, two = hosts.new(), hosts.new()
    one.commit()
    txid = one.follow().durable()
    one.sidecar_now.signal(signal.SIGSTOP)
    one.commit()
    two.restore(output=two.path)
    two.commit()
    two.follow()
    assert two.durable() > txid
    one.sidecar_now.signal(signal.SIGCONT)
    one.check_fenced(two)
    two.commit()
    two.check_archive()
    one.check_commits(two.at(txid), at_least={1: 3})


@on_a_server
def test_a_zombie_whose_upload_was_half_sent(hosts, fault_proxy):
    """A take-over happens while the server has half of an append; the other half arrives later
    and changes nothing."""
    one, two = hosts.new(), hosts.new()
    half, rest = threading.Event(), threading.Event()

    async def half_sent(exchange):
        reader, writer = await asyncio.open_connection(*exchange.proxy.upstream)
        body = exchange.body
        writer.write(exchange.head + body[: len(body) // 2])
        await writer.drain()
        half.set()
        await asyncio.to_thread(rest.wait, LONG)
        writer.write(body[len(body) // 2 :])
        answer = await reader.read(-1)
        writer.close()
        exchange.status = int(answer.split(b" ", 2)[1])
        return answer

    direct, one.endpoint_url = one.endpoint_url, fault_proxy.url
    one.commit()
    one.follow().durable()
    fault_proxy.fault(half_sent, method="PUT", path="wal/")
    one.start(1, large=4 << 20).finish()
    assert half.wait(LONG)
    two.endpoint_url = direct
    two.commit()
    two.follow("--take-over").durable()
    rest.set()
    one.check_fenced(two)
    two.commit()
    two.check_archive()


@first_on_a_directory
@pytest.mark.parametrize("way", ["restore", "take over"])
def test_a_stale_disk(hosts, way):
    """A host with an older copy of a volume is refused; restore and take-over both work then."""
    one, old = hosts.new(), hosts.new()
    one.commit()
    one.follow().durable()
    one.end()
    one.copy_to(old)
    one.commit()
    txid = one.follow().durable()
    assert old.run().wait() == FENCED
    old.sidecar_now.until_written(f"process {one.sidecar_now.pid} on ")
    one.end()
    if way == "restore":
        copy, _ = old.restore()
        for file in old.directory.glob("app.db*"):
            file.unlink()
        shutil.move(copy, old.path)
        old.follow()
        assert old.durable() == txid
        old.sidecar_now.until_written("continue: the database equals the head of the archive")
    else:
        old.commit()
        old.follow("--take-over")
        assert old.durable() > txid
    old.commit()
    old.check_archive()
    one.check_commits(old.at(txid), at_least={1: 6})


@on_a_directory
def test_a_stale_cache_beside_a_current_database(hosts):
    """With an older cache and a current database, the same generation continues."""
    host = hosts.new()
    host.commit()
    host.follow().durable()
    host.end()
    shutil.copytree(cache_of(host.path), host.directory / "older")
    host.commit()
    host.follow().durable()
    host.end()
    before = host.restore()[1]
    shutil.rmtree(cache_of(host.path))
    shutil.move(host.directory / "older", cache_of(host.path))
    host.follow()
    host.commit()
    report = host.check_archive()
    assert report.generation == before.generation
    assert report.snapshot_txid == before.snapshot_txid


@first_on_a_directory
@pytest.mark.parametrize("waiting", effort([True], [True, False]))
def test_a_copied_volume(hosts, waiting):
    """Two copies share cache, writer id and pending segments: the shared segments are appended
    once, then one of the copies is fenced."""
    one, two = hosts.new(), hosts.new()
    one.commit()
    one.follow().durable()
    if waiting:
        one.sidecar_now.signal(signal.SIGSTOP)
        one.commit()
        one.sidecar_now.kill()
    else:
        one.end()
    one.copy_to(two)
    one.follow().durable()
    two.follow()
    with contextlib.suppress(ReplicatorError):
        two.durable()
    two.commit()
    one.commit()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_flush_or_fail, (one, two)))
    wait_for(lambda: [host for host in (one, two) if not _alive(host)])
    loser, winner = (one, two) if _alive(two) else (two, one)
    loser.check_fenced(winner)
    loser.sidecar_now.until_written("with a copy of this cache")
    winner.commit()
    winner.check_archive()


def _flush_or_fail(host):
    with contextlib.suppress(ReplicatorError):
        host.durable()


def _alive(host):
    return host.sidecar_now.process.poll() is None


# ---------------------------------------------------------------------------------- take-overs


@first_on_a_server
def test_a_take_over_from_a_host_that_goes_on_writing(hosts):
    """A take-over succeeds although the holder appends all the time. The holder is fenced, and
    every transaction that was reported durable stays restorable by its txid."""
    one, two = hosts.new(), hosts.new()
    one.commit()
    one.follow()
    two.commit()
    writer = one.start(1, rate=300)
    wait_for(lambda: one.total() > 50)
    before = one.committed()
    txid = one.durable()
    two.run("--take-over")
    one.check_fenced(two)
    writer.kill()
    two.sidecar_now.until_following()
    two.commit()
    two.check_archive()
    one.check_commits(two.at(txid), at_least=before)


@on_a_directory
def test_two_take_overs_at_once(hosts):
    """After two concurrent take-overs one host holds the archive; the others are fenced."""
    one, two, three = (hosts.new() for _ in range(3))
    for host in (one, two, three):
        host.commit()
    one.follow().durable()
    for host in (two, three):
        host.run("--take-over")
    for host in (two, three):
        wait_for(lambda host=host: not _alive(host) or host.sidecar_now.status())
    for host in 2 * (two, three):
        host.commit()
        _flush_or_fail(host)
    wait_for(lambda: sum(map(_alive, (two, three))) == 1)
    winner, loser = (two, three) if _alive(two) else (three, two)
    loser.check_fenced(winner)
    one.commit()
    one.check_fenced(two, three)
    winner.check_archive()


@on_a_directory
@pytest.mark.timeout(120 + 20 * TURNS)
def test_hosts_that_sleep_take_turns(hosts, seed, scoreboard):
    """A holder is paused at a random moment under load, another host takes over, and the holder
    resumes: it is fenced every time, and its durable transactions stay restorable by txid."""
    rng = random.Random(seed)
    holder, other = hosts.new(), hosts.new()
    holder.commit()
    other.commit()
    holder.follow()
    for _ in range(TURNS):
        writer = holder.start(holder.writer, rate=rng.choice((30, 300)))
        some = holder.total() + rng.randint(3, 60)
        wait_for(lambda: holder.total() >= some)  # noqa: B023 - waited for here
        promised, txid = holder.committed(), holder.durable()
        time.sleep(rng.uniform(0, 0.05))
        holder.sidecar_now.signal(signal.SIGSTOP)
        other.follow("--take-over")
        other.commit()
        other.durable()
        holder.sidecar_now.signal(signal.SIGCONT)
        holder.check_fenced(other)
        writer.kill()
        holder.check_commits(other.at(txid), at_least=promised)
        holder, other = other, holder
    total = sum(host.total() for host in hosts.all)
    holder.check_archive()
    scoreboard(
        "hosts stopped by SIGSTOP, taken over from and woken up",
        f"{TURNS} takeovers, {total} commits, 0 mixtures",
    )


@on_a_directory
def test_a_take_over_with_the_cache_lost(hosts):
    """A take-over works after the cache was lost and the other host is gone."""
    one, two = hosts.new(), hosts.new()
    one.commit()
    txid = one.follow().durable()
    one.end()
    old = one.source()
    two.commit()
    two.follow("--take-over").durable()
    two.end()
    shutil.rmtree(cache_of(two.path))
    two.commit()
    two.follow("--take-over")
    two.check_archive()
    assert_same_pages(two.at(txid).read_bytes(), old)

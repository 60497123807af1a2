"""Two writers and one log, as real processes: one history goes on, the other stops and says why.

A host is a directory with a database, its cache and its sidecar. Hosts share a prefix, on a
directory or on a real S3 server. After every story the store alone gives back, page by page,
the database of the host that holds the log.
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


class Host(Deployment):
    """A deployment whose name is that of a writer, so that its transactions tell it apart."""

    def __init__(self, directory, writer, **place):
        directory.mkdir()
        super().__init__(directory, **place)
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
        """Its txid."""
        return ask(cache_of(self.path), {"command": "flush", "timeout": LONG})["txid"]

    def end(self):
        assert self.sidecar_now.stop() == 0, self.sidecar_now.output

    def is_fenced(self, *by):
        """It ends by itself, with its own exit code, and names who holds the log."""
        assert self.sidecar_now.wait() == FENCED, self.sidecar_now.output
        said = self.sidecar_now.output
        here = socket.gethostname()
        assert any(f"process {host.sidecar_now.pid} on {here}" in said for host in by)
        assert "holds the log at" in said
        assert "hint: find out which database is the right one" in said
        assert "--take-over" in said

    def is_the_log(self):
        """The store alone gives back this host's database, and nothing of any other."""
        self.durable()
        self.end()
        return self.check_exact()

    def at(self, txid):
        """What the log was after ``txid``, restored."""
        copy, report = self.restore(txid=txid)
        assert report.txid == txid
        return copy

    def copy_to(self, other):
        """The whole volume, while nobody writes to it."""
        shutil.copytree(
            self.directory,
            other.directory,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("control.sock"),
        )


class Hosts:
    def __init__(self, directory, **place):
        self._directory, self._place = directory, place
        self.all = []

    def new(self):
        host = Host(self._directory / f"host-{len(self.all) + 1}", len(self.all) + 1, **self._place)
        self.all.append(host)
        return host


@pytest.fixture
def hosts(request, tmp_path):
    """Hosts with a prefix of their own."""
    place = {"prefix": f"app-{secrets.token_hex(4)}"}
    if request.param == "directory":
        (tmp_path / "bucket").mkdir()
        place |= {"url": f"file://{tmp_path / 'bucket'}"}
    else:
        server = request.getfixturevalue("seaweed_credentials")
        place |= {"url": f"s3://{server.bucket}", "endpoint_url": server.endpoint_url}
    hosts = Hosts(tmp_path, **place)
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
    """The second one is refused at once, whatever cache directory it was given."""
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
    """A host with another database and no record: whoever appends second stops."""
    one, two = hosts.new(), hosts.new()
    one.commit()
    one.follow().durable()
    two.commit()
    two.follow().durable()
    assert "goes on from here with another database" in two.sidecar_now.output
    one.commit()
    one.is_fenced(two)
    two.commit()
    two.is_the_log()


@first_on_a_server
def test_a_zombie_wakes_up(hosts):
    """Stopped for a while, replaced by another host from its backup; then it goes on."""
    one, two = hosts.new(), hosts.new()
    one.commit()
    txid = one.follow().durable()
    one.sidecar_now.signal(signal.SIGSTOP)
    one.commit()
    shutil.move(two.restore()[0], two.path)
    two.commit()
    two.follow()
    assert two.durable() > txid
    one.sidecar_now.signal(signal.SIGCONT)
    one.is_fenced(two)
    two.commit()
    two.is_the_log()
    one.check_commits(two.at(txid), at_least={1: 3})


@on_a_server
def test_a_zombie_whose_upload_was_half_sent(hosts, fault_proxy):
    """Half of an append is with the server when the log is taken over; the other half comes
    later, and changes nothing."""
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
    one.is_fenced(two)
    two.commit()
    two.is_the_log()


@first_on_a_directory
@pytest.mark.parametrize("way", ["restore", "take over"])
def test_a_stale_disk(hosts, way):
    """An older copy of a volume comes back: it is refused, and both ways out work."""
    one, old = hosts.new(), hosts.new()
    one.commit()
    one.follow().durable()
    one.end()
    one.copy_to(old)
    one.commit()
    txid = one.follow().durable()
    assert old.run().wait() == FENCED
    assert f"process {one.sidecar_now.pid} on " in old.sidecar_now.output
    one.end()
    if way == "restore":
        copy, _ = old.restore()
        for file in old.directory.glob("app.db*"):
            file.unlink()
        shutil.move(copy, old.path)
        old.follow()
        assert old.durable() == txid
        assert "continue: the database equals the log's head" in old.sidecar_now.output
    else:
        old.commit()
        old.follow("--take-over")
        assert old.durable() > txid
    old.commit()
    old.is_the_log()
    one.check_commits(old.at(txid), at_least={1: 6})


@on_a_directory
def test_a_stale_cache_beside_a_current_database(hosts):
    """The cache directory alone is older: the database proves itself, and its log goes on."""
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
    report = host.is_the_log()
    assert report.generation == before.generation
    assert report.snapshot_txid == before.snapshot_txid


@first_on_a_directory
@pytest.mark.parametrize("waiting", effort([True], [True, False]))
def test_a_copied_volume(hosts, waiting):
    """Cache and writer id are the same in both copies, and even the segments that wait: what
    they share is appended once, then one of them stops."""
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
    loser.is_fenced(winner)
    assert "with a copy of this cache" in loser.sidecar_now.output
    winner.commit()
    winner.is_the_log()


def _flush_or_fail(host):
    with contextlib.suppress(ReplicatorError):
        host.durable()


def _alive(host):
    return host.sidecar_now.process.poll() is None


# ---------------------------------------------------------------------------------- take-overs


@first_on_a_server
def test_a_take_over_from_a_host_that_goes_on_writing(hosts):
    """It wins although the other appends all the time, the other stops, and what it had been
    told to be durable is restored by its txid for ever."""
    one, two = hosts.new(), hosts.new()
    one.commit()
    one.follow()
    two.commit()
    writer = one.start(1, rate=300)
    wait_for(lambda: one.total() > 50)
    before = one.committed()
    txid = one.durable()
    two.run("--take-over")
    one.is_fenced(two)
    writer.kill()
    two.sidecar_now.until_following()
    two.commit()
    two.is_the_log()
    one.check_commits(two.at(txid), at_least=before)


@on_a_directory
def test_two_take_overs_at_once(hosts):
    """One of them holds the log in the end, and the other and the first holder stop."""
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
    loser.is_fenced(winner)
    one.commit()
    one.is_fenced(two, three)
    winner.is_the_log()


@on_a_directory
@pytest.mark.timeout(120 + 20 * TURNS)
def test_hosts_that_sleep_take_turns(hosts, seed, scoreboard):
    """Stopped at a random moment under load, taken over from, woken up: it ends, every time, and
    what it had been told to be durable is restored by its txid."""
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
        holder.is_fenced(other)
        writer.kill()
        holder.check_commits(other.at(txid), at_least=promised)
        holder, other = other, holder
    total = sum(host.total() for host in hosts.all)
    holder.is_the_log()
    scoreboard(
        "hosts stopped by SIGSTOP, taken over from and woken up",
        f"{TURNS} takeovers, {total} commits, 0 mixtures",
    )


@on_a_directory
def test_a_take_over_with_the_cache_lost(hosts):
    """Nothing is known here, and the other host is gone: the order is enough."""
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
    two.is_the_log()
    assert_same_pages(two.at(txid).read_bytes(), old)

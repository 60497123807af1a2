"""The budget of a fixed piece of work: requests, objects and bytes, which no machine changes.

``make bench`` measures seconds. Here the transactions, their contents and the moments of capture
are fixed, so that only a change of the code can move a figure above its budget.
"""

import contextlib
import random
import threading

import pytest

from replicator import restore
from replicator.sqlite.live import LiveDatabase
from tests.helpers.replication import LONG, App, HookedStore, replicating

ROWS = 8000
LINE = "the quick brown fox jumps over the lazy dog; "
HOUR = 3600.0  # an interval that never ends in a test: only a flush cuts a segment


class CountedStore(HookedStore):
    """Counts requests by method, and bytes sent and received."""

    def __init__(self):
        super().__init__()
        self._sums = threading.Lock()
        self.up = self.down = 0

    def put(self, key, body, *, metadata=None, if_absent=True):
        super().put(key, body, metadata=metadata, if_absent=if_absent)
        self._add(up=len(body))

    def put_part(self, key, upload_id, number, body):
        part = super().put_part(key, upload_id, number, body)
        self._add(up=len(body))
        return part

    def get(self, key, start=0, length=None):
        data = super().get(key, start, length)
        self._add(down=len(data))
        return data

    def _add(self, up=0, down=0):
        with self._sums:
            self.up += up
            self.down += down

    def spent(self):
        """Requests by method, and bytes, since the last call of this method."""
        with self._sums:
            methods = [method for method, _ in self.calls]
            found = {method: methods.count(method) for method in sorted(set(methods))}
            found |= {"up": self.up, "down": self.down}
            self.calls.clear()
            self.up = self.down = 0
            return found


class Bank(App):
    """An application in which every byte is fixed."""

    def __init__(self, path):
        super().__init__(path, autocheckpoint=1000)
        self.chance = random.Random(7)
        self.run(
            "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, body BLOB)",
            "CREATE TABLE teller(id INTEGER PRIMARY KEY, balance INTEGER)",
            "CREATE TABLE history(account INTEGER, amount INTEGER, note TEXT)",
            "BEGIN",
        )
        self.db.executemany(
            "INSERT INTO account VALUES (?, 0, ?)", ((n, self.body()) for n in range(ROWS))
        )
        self.db.executemany("INSERT INTO teller VALUES (?, 0)", ((n,) for n in range(10)))
        self.run("COMMIT")

    def body(self):
        """400 bytes: half random, half text."""
        return self.chance.randbytes(200) + (LINE * 5).encode()[:200]

    def transactions(self, count):
        """Transactions in the manner of pgbench."""
        for _ in range(count):
            account, amount = self.chance.randrange(ROWS), self.chance.randrange(1000)
            self.run("BEGIN")
            self.db.execute(
                "UPDATE account SET balance = balance + ? WHERE id = ?", (amount, account)
            )
            self.db.execute(
                "UPDATE teller SET balance = balance + ? WHERE id = ?", (amount, account % 10)
            )
            self.db.execute("INSERT INTO history VALUES (?, ?, ?)", (account, amount, LINE))
            self.run("COMMIT")


@pytest.fixture
def bank(path):
    """A `Bank` with an empty WAL."""
    with Bank(path) as bank:
        bank.checkpoint("TRUNCATE")
        yield bank


@pytest.fixture
def counted():
    """A `CountedStore`."""
    return CountedStore()


@contextlib.contextmanager
def begun(bank, counted):
    """A replicator that has uploaded everything so far."""
    with replicating(bank.path, counted, sync_interval=HOUR, upload_burst=1) as replicator:
        replicator.flush(LONG)
        yield replicator


def in_steps(bank, replicator, steps, each):
    """``steps`` captures of ``each`` transactions. The first capture is due at once."""
    for _ in range(steps):
        bank.transactions(each)
        replicator.flush(LONG)


def test_the_first_snapshot(bank, counted):
    """A start sends the database once, compressed, with a handful of small requests around it;
    zstd makes 0.45 of these rows."""
    with begun(bank, counted):
        spent = counted.spent()
    assert spent.pop("up") <= 0.46 * bank.path.stat().st_size
    assert spent.pop("down") <= 100
    assert spent == {"delete": 1, "get": 1, "head": 1, "list": 6, "list_uploads": 1, "put": 7}


def test_a_lone_commit(bank, counted):
    """One commit of four pages: one request, and less than one page."""
    with begun(bank, counted) as replicator:
        in_steps(bank, replicator, 1, 1)
        counted.spent()
        in_steps(bank, replicator, 1, 1)
        spent = counted.spent()
    assert spent.pop("up") <= 3500
    assert spent == {"put": 1, "down": 0}


def test_transactions(bank, counted):
    """A thousand transactions in twenty captures, with roll-overs: one request each, 0.155 of the
    bytes of the WAL, and as many objects as captures."""
    with begun(bank, counted) as replicator:
        in_steps(bank, replicator, 1, 1)
        counted.spent()
        objects, log = len(list(counted.inner.list(""))), replicator.metrics.get("captured_bytes")
        in_steps(bank, replicator, 20, 50)
        spent = counted.spent()
        log = replicator.metrics.get("captured_bytes") - log
        assert replicator.metrics.get("roll_overs") >= 2
    assert spent.pop("up") <= 0.158 * log
    assert spent == {"put": 20, "down": 0}
    assert len(list(counted.inner.list(""))) == objects + 20


def test_commits_during_a_roll_over_cost_no_request(bank, counted, monkeypatch):
    """A commit during each checkpoint of a roll-over, as under steady writes, still makes one
    segment and one request."""
    checkpoint, meanwhile = LiveDatabase.checkpoint, iter(range(3))

    def slow(database):
        for _ in meanwhile:
            bank.transactions(1)
            break
        return checkpoint(database)

    with begun(bank, counted) as replicator:
        in_steps(bank, replicator, 1, 300)
        counted.spent()
        monkeypatch.setattr(LiveDatabase, "checkpoint", slow)
        in_steps(bank, replicator, 1, 300)
        assert replicator.metrics.get("roll_overs") > 0
        assert replicator.status().txid == replicator.status().durable_txid
        assert next(meanwhile, None) is None
        assert counted.spent()["put"] == 1


def test_the_sample_that_is_read_back(bank, counted):
    """Of 65 appends after the first, one is read back, by a HEAD."""
    with begun(bank, counted) as replicator:
        in_steps(bank, replicator, 1, 1)
        counted.spent()
        in_steps(bank, replicator, 65, 1)
        spent = counted.spent()
    assert (spent["put"], spent["head"], spent["down"]) == (65, 1, 0)
    assert "list" not in spent


def test_empty_flushes(bank, counted):
    """Fifty flushes with nothing to capture make no request."""
    with begun(bank, counted) as replicator:
        in_steps(bank, replicator, 1, 1)
        counted.spent()
        for _ in range(50):
            replicator.flush(LONG)
        assert counted.spent() == {"up": 0, "down": 0}


def test_a_restart_after_changes(bank, counted):
    """After changes to one page in a hundred and a truncated WAL, a restart sends at most a 40th of
    the database in one request, and reads only the end of the archive."""
    with begun(bank, counted) as replicator:
        in_steps(bank, replicator, 1, 1)
    bank.db.execute("UPDATE account SET body = ? WHERE id % 900 = 1", (bank.body(),))
    bank.checkpoint("TRUNCATE")
    counted.spent()
    with begun(bank, counted) as replicator:
        assert replicator.metrics.get("catch_ups") == 1
    spent = counted.spent()
    assert spent.pop("up") <= bank.path.stat().st_size / 40
    assert spent == {"head": 1, "list": 2, "put": 1, "down": 0}


def test_a_restore(bank, counted, tmp_path):
    """Each object is read once: one request for each segment, two for the snapshot, and not
    more bytes than are stored."""
    with begun(bank, counted) as replicator:
        in_steps(bank, replicator, 1, 1)
        in_steps(bank, replicator, 19, 50)
    stored = sum(info.size for info in counted.inner.list(""))
    counted.spent()
    restore(store=counted, prefix="app.db", output=tmp_path / "copy.db")
    spent = counted.spent()
    assert (tmp_path / "copy.db").read_bytes() == bank.image()
    assert spent.pop("down") <= stored + (64 << 10)
    assert spent == {"get": 22, "head": 1, "list": 3, "up": 0}

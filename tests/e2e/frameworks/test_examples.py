"""The examples on a real S3 server: a 200 means that the order survives the loss of the machine."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import sqlite3
import subprocess

import pytest

from replicator import durable
from tests.helpers.framework_sites import DURABLE, ORDERS
from tests.helpers.frameworks import BIN, EXAMPLES, free_port
from tests.helpers.handles import sidecar_of
from tests.helpers.replication import LONG, wait_for


def got(port, path):
    """(status, document) of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
    connection.request("GET", path)
    answer = connection.getresponse()
    document = json.loads(answer.read())
    connection.close()
    return answer.status, document


@pytest.mark.frameworks
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", DURABLE)
def test_an_acknowledged_order_survives_the_loss_of_the_machine(
    machine_with, scoreboard, real_bucket, name
):
    """SIGKILL of every worker and of the sidecar under load, then the disk is lost: the bucket
    alone has every acknowledged order, and so has the application on a new machine."""
    machine = machine_with(
        DURABLE[name], "around" if DURABLE[name].plain else "inside", real_bucket
    )
    machine.start()
    machine.load(ORDERS)
    wait_for(lambda: got(machine.port, "/health/replication")[0] == http.client.OK)
    machine.kill_all()
    machine.ended()
    machine.check_bucket()
    machine.lose()
    machine.start()
    machine.check_site()
    machine.load(ORDERS)
    machine.send(signal.SIGTERM)
    machine.ended()
    machine.check_bucket()
    figure = f"{len(machine.acknowledged):,} acknowledged, 0 lost"
    scoreboard(f"example {name}: everything killed, the disk lost", figure)


@pytest.fixture
def orders_site(tmp_path, real_bucket):
    """The example of Datasette around a database with one order: (its path, its port). Its
    processes are killed at the end."""
    place = shutil.copytree(EXAMPLES / "datasette", tmp_path / "machine")
    path, port = place / "shop.db", free_port()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE orders AS SELECT 'book' AS item")
    command = "run shop.db -- datasette serve shop.db --metadata metadata.json --port"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [BIN / "replicator", *command.split(), str(port)],
            cwd=place,
            env={**os.environ, **real_bucket, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    yield path, port
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(LONG)


@pytest.mark.frameworks
@pytest.mark.timeout(300)
def test_datasette_shows_the_state_and_its_database_survives(orders_site, real_bucket, tmp_path):
    """The page follows the durable transaction; after SIGKILL of everything the bucket has it."""
    path, port = orders_site

    def shown():
        return got(port, "/-/replication.json")[1]["databases"]["shop"]

    def healthy():
        with contextlib.suppress(OSError, http.client.HTTPException):
            return shown()["healthy"]

    wait_for(healthy)
    with (
        contextlib.closing(sqlite3.connect(path)) as connection,
        durable(connection, timeout=LONG) as commit,
    ):
        connection.execute("INSERT INTO orders VALUES ('pen')")
    wait_for(lambda: shown()["durable_txid"] == commit.position.txid)
    assert got(port, "/shop.json?sql=SELECT+item+FROM+orders&_shape=arrayfirst")[1] == [
        "book",
        "pen",
    ]
    os.killpg(os.getpgid(sidecar_of(path)), signal.SIGKILL)
    copy = tmp_path / "copy.db"
    subprocess.run(
        [BIN / "replicator", "restore", "--output", copy], env={**os.environ, **real_bucket},
        check=True, capture_output=True, timeout=LONG,
    )  # fmt: skip
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT item FROM orders").fetchall() == [("book",), ("pen",)]

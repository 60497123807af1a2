"""One sidecar for twenty databases on a real S3 server, killed under writes."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys

import pytest

from replicator import restore
from replicator.archive.keys import Keys
from replicator.errors import NotRunning
from replicator.sidecar.control_client import ask
from tests.helpers.replication import LONG, App, image_of, wait_for

COUNT = 20


@pytest.fixture
def home(tmp_path):
    """The directory with the configuration file and a directory of databases."""
    (tmp_path / "tenants").mkdir()
    return tmp_path


@pytest.fixture
def start_fleet(home, seaweed_credentials):
    """Starts a sidecar with the configuration file; the fixture ends what still runs."""
    running, weed = [], seaweed_credentials
    (home / "replicator.toml").write_text(f"""
        bucket = "{weed.bucket}"
        prefix = "{home.name}"
        endpoint_url = "{weed.endpoint_url}"
        [[database]]
        path = "tenants/*.db"
        """)

    def start_fleet():
        process = subprocess.Popen(
            [sys.executable, "-m", "replicator", "run", "--config", str(home / "replicator.toml")],
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start_fleet
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ask_sidecar(path, command="status"):
    """The answer of the sidecar of ``path``, {} if none runs."""
    try:
        return ask(
            path.with_name(f".{path.name}-replicator"), {"command": command, "timeout": LONG}
        )
    except NotRunning:
        return {}


def write(path, rows):
    with sqlite3.connect(path) as connection:
        connection.executemany(
            "INSERT INTO t(body) VALUES (?)", [(os.urandom(500),) for _ in range(rows)]
        )
    connection.close()


def test_twenty_databases_survive_a_kill_each_to_the_page(home, start_fleet, seaweed):
    """After kill -9 under writes and a restart, every database is page-exact in the bucket: the
    sidecar picks up a new database, and a fenced one does not affect the others."""
    paths = [home / "tenants" / f"{n:02}.db" for n in range(COUNT)]
    for path in paths:
        with App(path) as app:
            app.insert(20)
    process = start_fleet()
    wait_for(lambda: all(ask_sidecar(path).get("durable_txid") for path in paths))
    for _ in range(3):
        for path in random.Random(7).sample(paths, 5):
            write(path, 10)
    process.send_signal(signal.SIGKILL)
    process.wait(LONG)
    write(paths[3], 10)

    fenced = paths[-1]
    process = start_fleet()
    wait_for(lambda: all(ask_sidecar(path).get("state") == "following" for path in paths))
    ask_sidecar(fenced, "flush")
    next_txid = ask_sidecar(fenced)["durable_txid"] + 1
    with contextlib.closing(seaweed.store()) as store:
        store.put(Keys(f"{home.name}/{fenced.name}").wal(next_txid), b"another writer's")
    write(fenced, 1)
    wait_for(lambda: ask_sidecar(fenced).get("state") == "failed")

    new = home / "tenants" / "new.db"
    with App(new) as app:
        app.insert(20)
    wait_for(lambda: ask_sidecar(new).get("durable_txid"))
    write(paths[4], 10)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=LONG)
    assert process.returncode == 6, errors
    assert f"{COUNT} of {COUNT + 1} databases are fully uploaded" in errors
    for path in [*paths[:-1], new]:
        output = home / f"restored-{path.name}"
        restore(
            bucket=seaweed.bucket,
            prefix=f"{home.name}/{path.name}",
            endpoint_url=seaweed.endpoint_url,
            output=output,
        )
        assert output.read_bytes() == image_of(path)


def test_a_broken_entry_ends_the_start_with_a_clear_word(home, start_fleet):
    """The sidecar ends with exit code 2 and names file, entry and key; it starts nothing."""
    file = home / "replicator.toml"
    file.write_text(file.read_text() + '[[database]]\npath = "b.db"\nsync_interval = "soon"\n')
    process = start_fleet()
    _, errors = process.communicate(timeout=LONG)
    assert process.returncode == 2
    assert f"error: {file}: database 2 (b.db): sync_interval: 'soon' is not a duration" in " ".join(
        errors.split()
    )

"""Machines with a real application on them, and the bucket that they replicate to."""

import os
import secrets
import shutil
import subprocess

import pytest

from tests.helpers.frameworks import Machine


@pytest.fixture
def machine_with(tmp_path):
    """``machine_with(site, form, bucket=None)``: a `Machine`; its processes end with the test. The
    default bucket is a directory."""
    machines = []

    def make(site, form, bucket=None):
        if bucket is None:
            store = tmp_path / "store"
            store.mkdir()
            bucket = {"REPLICATOR_URL": f"file://{store}"}
        machines.append(Machine(tmp_path, site, form, bucket))
        return machines[-1]

    yield make
    for machine in machines:
        machine.close()


@pytest.fixture
def real_bucket(seaweed):
    """The variables of a prefix of its own on a real S3 server."""
    return seaweed.environment() | {
        "REPLICATOR_BUCKET": seaweed.bucket,
        "REPLICATOR_ENDPOINT_URL": seaweed.endpoint_url,
        "REPLICATOR_PREFIX": f"{secrets.token_hex(4)}/shop.db",
    }


@pytest.fixture
def node():
    """Fails unless node finds better-sqlite3, which `make frameworks` installs."""
    assert shutil.which("node"), "node is missing; install Node.js 20 or newer"
    done = subprocess.run(
        ["node", "-e", "require('better-sqlite3')"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, f"better-sqlite3 is missing; run `make frameworks`\n{done.stderr}"

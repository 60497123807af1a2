"""A cache on its own file system that is really full."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.scoreboard import effort

SCRIPT = Path(__file__).parents[1] / "programs" / "full_disk.py"
ROUNDS = effort(4, 80)
INSIDE = ["unshare", "-rm"]


@pytest.fixture
def requires_own_mounts():
    """Skips where a process may not mount a file system in its own namespace."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    done = subprocess.run(
        [*INSIDE, "mount", "-t", "tmpfs", "none", "/mnt"],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"nothing may be mounted here: {done.stderr.strip()}")


@pytest.mark.timeout(effort(240, 3600))
@pytest.mark.usefixtures("requires_own_mounts")
def test_a_cache_that_is_full(tmp_path, seed, scoreboard):
    """The cache fills up before a commit, before a start, and by its own segments during an outage
    of the store. The status reports it all the time and the application meets no error. Once the
    disk has space, or the store is back, all data reaches the bucket without a restart and in the
    same generation."""
    done = subprocess.run(
        [*INSIDE, sys.executable, SCRIPT, tmp_path, str(seed), str(ROUNDS)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    saw = json.loads(done.stdout)
    assert saw["silent"] == 0
    assert saw["stuck"] == saw["reported"] > 0
    assert saw["same"]
    scoreboard(
        "a cache on a disk of 16 MB that is full",
        f"{ROUNDS} times filled to the last pages, {saw['stuck']} times a flush failed and "
        f"reported why, {saw['refused']} of {ROUNDS // 4} starts refused; the store away until "
        f"its segments left {saw['free'] >> 10} KiB; all recovered without a restart",
    )

"""The demo is the product in one command: it must work for whoever tries it first."""

import json
import subprocess
import sys


def demo(*options):
    return subprocess.run(
        [sys.executable, "-m", "replicator", "demo", "--seconds", "1", *options],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_the_demo_gets_back_what_it_lost():
    """Real server, real sidecar, SIGKILL, restore: byte-equal, and no commit is missing."""
    done = demo("--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["identical"] is True
    assert figures["restored_txid"] == figures["durable_txid"] > 1
    assert figures["orders"] >= 50_000 + figures["commits"] > 50_000


def test_the_demo_tells_its_story():
    """Six acts, and both verdicts good."""
    done = demo()
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("✓") == 2
    assert "✗" not in done.stdout
    for words in (
        "$ replicator run",
        "$ replicator status",
        "$ replicator flush",
        "$ replicator restore",
        "SIGKILL",
    ):
        assert words in done.stdout

"""`replicator demo` loses a database and restores it from a real server."""

import json
import re
import subprocess
import sys

from tests.helpers import docs


def demo(*options):
    return subprocess.run(
        [sys.executable, "-m", "replicator", "demo", "--seconds", "1", *options],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_the_demo_restores_the_database():
    """With a real server, a sidecar and SIGKILL, the restore is byte-equal and lacks no commit."""
    done = demo("--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["identical"] is True
    assert figures["restored_txid"] == figures["durable_txid"] > 1
    assert figures["orders"] >= 50_000 + figures["commits"] > 50_000


def test_the_demo_prints_its_steps():
    """The demo prints its commands and two successful checks."""
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
    for line in told_in_the_docs():
        assert line in without_figures(done.stdout), line


def without_figures(text):
    """The text, with 0 for each figure and unit, for they differ from run to run."""
    return re.sub(r"[\d,.]*\d(?: (?:ms|s|B|KiB|MiB)\b)?", "0", text)


def told_in_the_docs():
    """The labels, titles and commands that docs/demo.md and README show of the demo."""
    for page in ("docs/demo.md", "README.md"):
        for block in docs.blocks(docs.TOP / page, "console"):
            for line in without_figures(block.text).splitlines():
                indented = re.match(r"  ([A-Za-z]+(?: [a-z]+)?)  ", line)
                if indented:
                    yield indented[0]
                elif line and not re.match(r"[ ●]|\$ make|restored", line):
                    yield line
                elif line.startswith(("  $ replicator", "  ✓")):
                    yield line[:40]

"""The documentation, tried literally: a newcomer's commands and examples, on a real S3 server."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from replicator.testing import SeaweedServer
from tests.helpers import docs

BIN = Path(sys.executable).parent
LONG = 100  # seconds after which a script is stuck
FOLLOWING = "until replicator status app.db >/dev/null 2>&1; do sleep 0.5; done"

pytestmark = pytest.mark.skipif(not shutil.which("sqlite3"), reason="needs the tool sqlite3")


@pytest.fixture
def reader_environment(tmp_path):
    """An environment with the program in its PATH, and a server with the bucket `backups`."""
    with SeaweedServer(bucket="backups") as server:
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        yield (
            os.environ
            | server.environment()
            | {
                "PATH": path,
                "AWS_ENDPOINT_URL": server.endpoint_url,
                "PYTHONUNBUFFERED": "1",
            }
        )


def bash(script, directory, environment):
    """Run a script that ends at the first failure; its output. Its directory is ``directory``."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("/tmp/quick-start", str(directory))],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def steps(page):
    """(heading, lines) for each part of a page that has commands to type."""
    parts = re.split(r"^## (.+)$", (docs.TOP / page).read_text(), flags=re.MULTILINE)
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        found = docs.FENCE.findall(text)
        yield (
            heading,
            [
                line
                for _, language, body in found
                if language == "sh"
                for line in docs.typed(docs.Block(language, body))
            ],
        )


def test_the_quick_start_works_as_it_is_written(reader_environment, tmp_path):
    """Every `sh` line from the database to the drill, in order. The server is this test's own,
    so its address and keys replace those of the page; installing is left to the reader."""
    lines = []
    for heading, typed in steps("docs/quick-start.md"):
        if heading[:2] not in ("1.", "2."):
            lines += typed
    assert sum(line.startswith("replicator ") for line in lines) >= 10
    out = bash("\n".join(lines), tmp_path, reader_environment | {"REPLICATOR_BUCKET": "backups"})
    assert "healthy" in out
    assert "Ada\nGrace" in out  # before.db
    assert out.count("Grace\n") >= 2  # and app.db, restored
    assert "s3://backups/app.db can be listed" in out


def test_the_quick_start_names_the_server_it_starts():
    """The address and the keys of the second terminal are those of the first."""
    (local,) = [typed for heading, typed in steps("docs/quick-start.md") if heading[:2] == "2."]
    keys = [line for line in local if "AWS_ACCESS_KEY_ID" in line]
    assert len(keys) == 2
    assert len(set(keys)) == 1
    (started,) = [line for line in local if line.startswith("weed mini")]
    assert "-bucket=backups" in started
    assert "REPLICATOR_BUCKET=backups" in local[-1]
    assert "REPLICATOR_ENDPOINT_URL=http://127.0.0.1:8333" in local[-1]  # the server's default


def test_the_quick_start_works_with_a_directory(tmp_path):
    """The `file://` way of the page, without any server, from the database to its restore."""
    (tmp_path / "store").mkdir()
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "REPLICATOR_URL": f"file://{tmp_path / 'store'}",
    }
    lines = [
        line
        for heading, typed in steps("docs/quick-start.md")
        for line in typed
        if heading[:2] in ("3.", "4.", "6.")
    ]
    assert bash("\n".join(lines), tmp_path, environment).endswith("Ada\nGrace\n")


def test_the_commands_of_the_readme_work(reader_environment, tmp_path):
    """Usage, as it is written, but for the credentials; `run` in the background."""
    (typed,) = [typed for heading, typed in steps("README.md") if heading == "Usage"]
    assert typed[0].startswith("export AWS_ACCESS_KEY_ID=")
    (run,) = [line for line in typed if line.startswith("replicator run ")]
    flush = "replicator flush app.db >/dev/null"
    lines = [
        "sqlite3 app.db 'CREATE TABLE t (x)'",
        *(line for line in typed[1:] if line != run and not line.startswith("replicator restore")),
        flush,
        *(line for line in typed if line.startswith("replicator restore")),
        "kill %1 && wait",
        "sqlite3 copy.db 'SELECT count(*) FROM t'",
    ]
    at = next(at for at, line in enumerate(lines) if line.startswith("replicator status"))
    lines[at:at] = [f"{docs.shlex.join(docs.command(run))} &", FOLLOWING]
    out = bash("\n".join(lines), tmp_path, reader_environment)
    assert "healthy" in out
    assert out.endswith("0\n")


@pytest.mark.parametrize("page", ["README.md", "docs/library.md"])
def test_the_python_of_a_page_works(page, reader_environment, tmp_path):
    """All blocks of the page, one after another, in one directory with the database."""
    subprocess.run(["sqlite3", "app.db", "CREATE TABLE t (x)"], cwd=tmp_path, check=True)
    found = list(docs.blocks(docs.TOP / page, "python"))
    assert found
    for block in found:
        done = subprocess.run(
            [sys.executable, "-W", "error::SyntaxWarning", "-c", block.text],
            cwd=tmp_path,
            env=reader_environment,
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy.db").exists()

"""The pytest plugin: its fixtures work, and a run that does not use them pays nothing."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tomllib

import pytest

from replicator.contrib import pytest_plugin
from tests.helpers.docs import TOP
from tests.helpers.frameworks import EXAMPLES
from tests.helpers.replication import LONG

PLUGIN = "replicator.contrib.pytest_plugin"
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def run(*arguments, directory):
    """A test run of a user, with no plugin but ours."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", PLUGIN, *arguments],
        cwd=directory,
        env=os.environ | ALONE,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )


def test_the_example_passes(tmp_path):
    """A restore by content, an outage, a restore to a transaction; nothing is left running."""
    place = shutil.copytree(EXAMPLES / "pytest", tmp_path / "shop")
    done = run(f"--basetemp={tmp_path / 'base'}", directory=place)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def database(path, *statements):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("INSERT INTO t VALUES (2)", "VALUES(2)"),
        ("UPDATE t SET x = 3", "VALUES(3)"),
        ("DELETE FROM t", "VALUES(1)"),
        ("CREATE INDEX i ON t (x)", "CREATE INDEX i"),
    ],
)
def test_a_copy_that_differs_is_found(tmp_path, statement, named):
    """A row more, another row, a row less, another schema."""
    first = database(tmp_path / "a", "CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
    other = database(shutil.copy(first, tmp_path / "b"))
    assert pytest_plugin.difference(first, other) is None
    database(other, statement)
    assert named in pytest_plugin.difference(first, other)


def test_the_plugin_is_an_entry_point_without_hooks():
    """pytest loads it for every run on a machine that has the package."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"replicator": PLUGIN}
    assert [name for name in vars(pytest_plugin) if name.startswith("pytest_")] == []


def test_a_run_without_the_fixtures_imports_nothing():
    """Of our package only itself, and of others only what pytest imports anyhow."""
    code = (
        f"import sys, pytest, _pytest.pytester; before = {{*sys.modules}}; import {PLUGIN}\n"
        "print(sorted({*sys.modules} - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TOP
    )
    assert done.stdout.strip() == str(
        ["replicator", "replicator._version", "replicator.contrib", PLUGIN]
    )

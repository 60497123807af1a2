"""The command line with the settings of a config: nothing is lost on the way, errors come back."""

import json
import sys

import pytest

from replicator import SqliteReplicatorConfig
from replicator.app.command_line import CommandLine, command_line, variables
from replicator.errors import NoBackup, ReplicatorError
from tests.helpers.errors import raises


@pytest.mark.parametrize(
    "given",
    [
        {"url": "file:///bucket"},
        {"url": "file:///bucket", "prefix": "a/b"},
        {"bucket": "b", "prefix": "a b", "endpoint_url": "http://localhost:1", "region": "x"},
        {"url": "s3://b/a/c", "keep_daily": float("inf"), "sync_interval": 1e-05, "keep": False},
        {"bucket": "b", "standby": True, "max_cache_bytes": 2**40, "checksums": "when_supported"},
        {"bucket": "b", "cache_dir": "/cache", "drill_scratch": "scratch", "expect": "new"},
    ],
)
def test_the_variables_are_the_settings(given, tmp_path):
    """A config that is read from them has each value; those of the environment do not shine
    through."""
    config = SqliteReplicatorConfig(db_path=tmp_path / "app.db", **given)
    other = dict.fromkeys(variables(config), "nonsense")
    read = SqliteReplicatorConfig.from_env(other | variables(config))
    for name in ("source", "cache", "address", "retention", "keep", "sync_interval", "standby"):
        assert getattr(read, name) == getattr(config, name), name
    assert (read.max_cache_bytes, read.expect) == (config.max_cache_bytes, config.expect)


def test_the_answer_is_the_document_of_the_command(tmp_path):
    """And the error that the command reports, with its class and hint."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    config = SqliteReplicatorConfig(db_path=tmp_path / "app.db", url=f"file://{bucket}")
    with raises(NoBackup) as caught:
        command_line(config, "history").answer()
    assert caught.value.hint


def program(text):
    return CommandLine([sys.executable, "-c", text], {})


def test_a_command_that_ends_without_a_reason_is_an_error():
    """Whatever it printed."""
    for printed in ("", "words", json.dumps(["error"])):
        with raises(ReplicatorError, code="command_failed"):
            program(f"print({printed!r}); raise SystemExit(3)").answer()


def test_a_command_that_does_not_end_is_an_error():
    """A bucket that never answers does not hold a request for ever."""
    with raises(ReplicatorError, code="command_late"):
        program("import time; time.sleep(60)").answer(0.2)

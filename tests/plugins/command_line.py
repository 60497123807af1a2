"""The command line: in this process, and as a user runs it in processes on a real server."""

import pytest

from replicator.cli import call
from tests.helpers.command_line import CommandLine


@pytest.fixture
def run(capfd):
    """``run(*arguments)`` runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        code = call([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def cli(seaweed, tmp_path):
    """A user with an empty bucket of their own on the real server."""
    cli = CommandLine(tmp_path, seaweed)
    yield cli
    cli.close()


@pytest.fixture
def proxied_cli(seaweed, fault_proxy, tmp_path):
    """A user whose requests all pass through `fault_proxy`."""
    cli = CommandLine(tmp_path, seaweed, endpoint_url=fault_proxy.url)
    yield cli
    cli.close()

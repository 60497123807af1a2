"""Runs the command line in a process of its own, with the settings of a config.

Commands that read a whole archive load boto3 and numpy: a worker of a server does not need them.

Owns: the variables that carry the settings, and the error on the way back. Refuses: settings as
arguments, which other users of the machine see.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from replicator.config.settings import SETTINGS, SqliteReplicatorConfig
from replicator.errors import ReplicatorError, from_dict
from replicator.handle.interpreter import interpreter

LONGEST = 60.0  # seconds for a command whose answer is waited for


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command of ``replicator``, ready for :func:`os.execve` or :func:`subprocess.run`."""

    arguments: list[str]
    environment: Mapping[str, str] = field(repr=False)

    def answer(self, timeout: float = LONGEST) -> Any:
        """The document that the command prints with ``--json``. Raises the error that it reports;
        ``ReplicatorError`` with the code ``command_late`` after ``timeout`` seconds."""
        try:
            done = subprocess.run(
                [*self.arguments, "--json"],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ReplicatorError(
                f"no answer of the bucket within {timeout:.0f} s",
                code="command_late",
                hint="check the way to the store with `replicator doctor`",
            ) from error
        if done.returncode:
            raise _reported(done.stdout, done.stderr)
        return json.loads(done.stdout)


def _reported(out: str, errors: str) -> ReplicatorError:
    """The error that a command printed as JSON, to either of its outputs."""
    for line in reversed([*errors.splitlines(), *out.splitlines()]):
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict) and "error" in document:
            return from_dict(document)
    return ReplicatorError("the command failed without a reason", code="command_failed")


def command_line(config: SqliteReplicatorConfig, *words: str) -> CommandLine:
    """``replicator WORDS`` for the database, the bucket and the settings of ``config``.

    The environment is that of this process, but for its settings.
    """
    return CommandLine(
        [interpreter(), "-P", "-m", "replicator", *words], {**os.environ, **variables(config)}
    )


def variables(config: SqliteReplicatorConfig) -> dict[str, str]:
    """Every setting as its variable; empty, which counts as not set, for a default."""
    values = {each.name: getattr(config, each.name) for each in SETTINGS.values()}
    values |= {
        "db_path": str(config.source),
        "cache_dir": str(config.cache),
        "bucket": config.address.bucket,
        "url": "" if config.address.bucket else config.url,
        "prefix": config.address.prefix,
    }
    return {
        each.variable: "" if values[each.name] == each.default else _text(values[each.name])
        for each in SETTINGS.values()
    }


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return "forever" if math.isinf(value) else f"{value:f}"
        case int() | str():
            return str(value)
        case _:
            return os.path.abspath(os.fspath(value))  # type: ignore[call-overload,no-any-return]

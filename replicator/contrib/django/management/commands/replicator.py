"""``manage.py replicator``: the command line, with the database and the bucket of the settings.

    python manage.py replicator status
    python manage.py replicator restore --if-missing --if-backup-exists
    python manage.py replicator run -- gunicorn shop.wsgi

Owns: the words that the settings know: the database, and the output of a restore. The process
becomes the command, so signals and exit codes are those of the command. Those that ask a sidecar to
work start one if no server runs. Refuses: options of its own but ``--database``; the others are
those of the command line.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS

from replicator import SqliteReplicatorConfig
from replicator.app.command_line import command_line
from replicator.contrib.django.replicated import replicated, start
from replicator.errors import ReplicatorError

BY_SIDECAR = ("mark", "flush", "snapshot")
WITH_DATABASE = ("run", "status", "doctor", *BY_SIDECAR)
OTHERS = ("restore", "drill", "history", "verify", "pin", "unpin", "diff", "open", "prune")


class DatabaseCommand(BaseCommand):
    """``replicator`` of the command line, for one alias of ``DATABASES``."""

    help = "Replicate, restore and check the database: run, status, restore, drill, mark, …"
    requires_system_checks: ClassVar[list[str]] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The alias, the command, and the rest for the command."""
        parser.add_argument(
            "--database", default=DEFAULT_DB_ALIAS, help="alias in DATABASES and REPLICATOR"
        )
        parser.add_argument("command", choices=[*WITH_DATABASE, *OTHERS])
        parser.add_argument("words", nargs=argparse.REMAINDER, metavar="…")

    def handle(self, *, database: str, command: str, words: list[str], **_: Any) -> None:
        """Become the command. ``CommandError`` if the settings cannot work."""
        if database not in replicated():
            raise CommandError(f"REPLICATOR has no entry for the database {database!r}")
        try:
            config = replicated()[database].config()
            wanted = command_line(config, *words_of(config, command, words))
            if command in BY_SIDECAR:
                start(database)
        except ReplicatorError as error:
            raise CommandError(f"{error}\n{error.hint}".strip()) from error
        self.stdout.flush()
        if command in BY_SIDECAR:  # this process has the handle that it needs
            sys.exit(subprocess.call(wanted.arguments, env=dict(wanted.environment)))
        os.execve(  # noqa: S606 - the process becomes the command
            wanted.arguments[0], wanted.arguments, dict(wanted.environment)
        )


Command = DatabaseCommand  # the name by which Django finds it


def words_of(config: SqliteReplicatorConfig, command: str, words: list[str]) -> list[str]:
    """The words of the command line: the database first for a command that needs it, and the
    database as the output of a restore that names none."""
    words = words[1:] if words[:1] == ["--"] and command != "run" else words
    if command in WITH_DATABASE:
        return [command, str(config.source), *words]
    names_output = any(word.startswith(("-o", "--output", "--all")) for word in words)
    if command == "restore" and not names_output:
        return [command, "--output", str(config.source), *words]
    return [command, *words]

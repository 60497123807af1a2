"""Writes docs/cli.md from the command line itself; a test compares the two.

python docs/generate_cli.py
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from replicator.cli import app

PAGE = Path(__file__).with_name("cli.md")

HEAD = """\
# The command line

Written by `docs/generate_cli.py` from the program itself. Every option can be set by the
environment variable beside it; the command line wins. With `--json` a command prints one JSON
document on stdout; errors are one JSON document on stderr. Sizes read like `512MiB`, times like
`30s` or `1h30m`.

{exit_codes}
"""


def render() -> str:
    """The whole page."""
    root: Any = typer.main.get_command(app)
    parts = [HEAD.format(exit_codes=root.epilog)]
    parts += [_section(name, command) for name, command in root.commands.items()]
    return "\n".join(parts)


def _section(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    usage = " ".join(
        [
            "replicator",
            name,
            *(each.metavar for each in arguments[:1]),
            "[OPTIONS]",
            *(each.metavar for each in arguments[1:]),
        ]
    )
    return "\n".join(
        [
            f"## replicator {name}",
            "",
            inspect.cleandoc(command.help),
            "",
            f"    {usage}",
            "",
            "| option | environment | meaning |",
            "|---|---|---|",
            *_rows([*arguments[:1], *options]),
            "",
        ]
    )


def _rows(parameters: list[Any]) -> Iterator[str]:
    for each in parameters:
        flag = each.metavar if each.param_type_name == "argument" else _flag(each)
        default = f" (default: {each.default})" if _tells(each.default) else ""
        yield f"| `{flag}` | {f'`{each.envvar}`' if each.envvar else ''} | {each.help}{default} |"


def _flag(option: Any) -> str:
    names = ", ".join(sorted(option.opts, key=len, reverse=True))
    return names if option.is_flag else f"{names} {option.metavar or 'TEXT'}"


def _tells(default: object) -> bool:
    return default not in (None, "", False) and not callable(default)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")

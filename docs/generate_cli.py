"""Writes what the documentation takes from the program; a test compares each file with it.

python docs/generate_cli.py

Writes cli.md, the tables of settings in configuration.md, and replicator.schema.json.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from replicator.cli import application
from replicator.config import schema
from replicator.config.settings import SETTINGS
from replicator.config.table import Section, Setting, Where

DOCS = Path(__file__).parent

HEAD = """\
# The command line

Written by `docs/generate_cli.py` from the program itself. The environment variable next to an
option sets it too; the command line takes precedence. With `--json` a command prints one JSON
document on stdout; an error is one JSON document on stderr. A size is written like `512MiB`, a time
like `30s` or `1h30m`.

{exit_codes}
"""

SETTINGS_HEAD = """\
| setting | option of `run` | environment | default | meaning |
|---|---|---|---|---|
"""
TABLE = re.compile(r"(<!-- settings: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def pages() -> dict[Path, str]:
    """Each generated file, with its text."""
    configuration = DOCS / "configuration.md"
    return {
        DOCS / "cli.md": render(),
        configuration: with_settings(configuration.read_text(encoding="utf-8")),
        DOCS / "replicator.schema.json": schema.text(),
    }


def with_settings(page: str) -> str:
    """The page with a new table after each ``<!-- settings: SECTION -->``."""
    return TABLE.sub(lambda match: match[1] + _settings(Section(match[2])) + match[3], page)


def _settings(section: Section) -> str:
    rows = [_setting(each) for each in SETTINGS.values() if each.section is section]
    return SETTINGS_HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _setting(setting: Setting) -> tuple[str, ...]:
    bounded = setting.least > 0 or setting.most < float("inf")
    return (
        f"`{setting.name}`",
        f"`{setting.option}`" if Where.RUN in setting.where else "",
        f"`{setting.variable}`",
        setting.default_text,
        setting.help + (f"; {setting.bounds_text}" if bounded else ""),
    )


def render() -> str:
    """The page of the command line."""
    root: Any = typer.main.get_command(application())
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
        default = f"; default: {each.default}" if _is_shown(each.default) else ""
        variable = f"`{each.envvar}`" if each.envvar else ""
        cells = (f"`{flag}`", variable, f"{each.help}{default}")
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _flag(option: Any) -> str:
    names = ", ".join(sorted(option.opts, key=len, reverse=True) + option.secondary_opts)
    return names if option.is_flag else f"{names} {option.metavar or 'TEXT'}"


def _is_shown(default: object) -> bool:
    return default not in (None, "", False) and not callable(default)


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")

"""The options of the commands, each declared once.

The option of a setting comes from its row in the table of settings. A group of options is a class;
a command with a parameter of that class receives one frozen value, see :func:`expanded`. Every
option has an environment variable ``REPLICATOR_…``, except those by which ``prune``, ``pin``
and ``mark`` change the bucket; the command line takes precedence.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Self

import typer

from replicator.archive.point import RestorePoint, read_txid
from replicator.config.integrity_key import read_keys
from replicator.config.settings import SETTINGS
from replicator.config.table import ENVIRONMENT_PREFIX, Section, Setting, Where
from replicator.config.units import SWITCH, parse_duration, parse_switch
from replicator.errors import ConfigError
from replicator.model import Retention
from replicator.store.address import StoreAddress


def option(*names: str, **details: Any) -> Any:
    """An option with the environment variable of its first name."""
    variable = ENVIRONMENT_PREFIX + names[0].lstrip("-").replace("-", "_").upper()
    return typer.Option(*names, **{"envvar": variable} | details)


def setting_option(name: str, **details: Any) -> Any:
    """The option of a setting; ``details`` replace what the table gives."""
    setting = SETTINGS[name]
    names = [setting.option, setting.short] if setting.short else [setting.option]
    details = {
        "envvar": setting.variable,
        "help": setting.described,
        "rich_help_panel": setting.section.value,
    } | details
    if setting.unit is SWITCH:
        negated = "" if setting.default is False else f"/--no-{setting.option[2:]}"
        return typer.Option(setting.option + negated, **details)
    metavar = setting.metavar or setting.unit.metavar
    return typer.Option(*names, metavar=metavar, parser=reported(setting.read), **details)


def reported(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """``parse`` for typer, which adds the option and its variable to the message."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ConfigError as error:
            raise typer.BadParameter(str(error)) from error

    return parsed


Database = Annotated[
    str,
    typer.Argument(
        metavar="DB", envvar=SETTINGS["db_path"].variable, help=SETTINGS["db_path"].help
    ),
]
DatabaseOrNone = Annotated[
    str | None,
    typer.Argument(
        metavar="[DB]",
        envvar=SETTINGS["db_path"].variable,
        help="the database file; omit it with --config",
    ),
]
Config = Annotated[
    Path | None,
    option("--config", "-c", metavar="FILE", help="TOML file that lists several databases"),
]
CacheDir = Annotated[str | None, setting_option("cache_dir")]
Scratch = Annotated[
    Path | None,
    option(
        "--scratch",
        metavar="DIR",
        help="directory with free space for the whole database; default: the temporary directory",
    ),
]
LoadExtension = Annotated[
    list[Path] | None,
    option(
        "--load-extension",
        metavar="PATH",
        help="load an extension that the schema needs before SQLite checks or compares; its code "
        "runs in this process; may be repeated",
    ),
]
AsJson = Annotated[bool, option("--json", help="print JSON for programs")]
Timeout = Annotated[
    float | None,
    option(
        "--timeout",
        metavar="TIME",
        parser=reported(parse_duration),
        help="give up after this time, for example 30s; default: no limit",
    ),
]


class Options:
    """A group of options: the class of one parameter of a command.

    A subclass is a frozen dataclass. Each field is annotated as a parameter of a command is, or
    has the name of a setting.
    """

    __slots__ = ()

    @classmethod
    def annotations(cls) -> Mapping[str, Any]:
        """Each option by its name, as typer reads it."""
        return {
            name: hint if hasattr(hint, "__metadata__") else _of_setting(name)
            for name, hint in inspect.get_annotations(cls, eval_str=True).items()
        }

    @classmethod
    def collected(cls, values: Mapping[str, Any]) -> Self:
        """The group, with its own default for each option that is not set."""
        return cls(**{name: value for name, value in values.items() if value is not None})


def _of_setting(name: str) -> Any:
    kind = bool if SETTINGS[name].unit is SWITCH else str
    return Annotated[kind | None, setting_option(name)]


@dataclass(frozen=True, slots=True)
class Location(Options):
    """The location of an archive, for a command that names no local database."""

    bucket: str = ""
    prefix: Annotated[
        str,
        setting_option(
            "prefix",
            help="prefix of the object keys; default: that of the only database in the bucket",
        ),
    ] = ""
    url: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    integrity_key: str | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The settings that are set, by name."""
        every = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in every.items() if value}

    @property
    def address(self) -> StoreAddress:
        """The store and the prefix; ``ConfigError`` if there is none, or two."""
        if bool(self.bucket) == bool(self.url):
            raise ConfigError(
                "set either a bucket or a url",
                hint="set --bucket NAME (and --prefix), or --url s3://bucket/prefix",
            )
        address = StoreAddress.parse(
            self.url or f"s3://{self.bucket}",
            prefix=self.prefix,
            endpoint_url=self.endpoint_url,
            region=self.region,
            profile=self.profile,
        )
        keys = None if self.integrity_key is None else read_keys(self.integrity_key)
        return replace(address, integrity=keys)


@dataclass(frozen=True, slots=True)
class Point(Options):
    """A restore point; default: the newest."""

    txid: Annotated[
        int | None,
        option(
            "--txid",
            metavar="N",
            parser=reported(read_txid),
            help="the state after transaction N",
        ),
    ] = None
    timestamp: Annotated[
        str | None,
        option(
            "--timestamp",
            metavar="T",
            help="the state at time T, for example 2026-01-31T14:05:00.123Z or '2 hours ago'",
        ),
    ] = None
    at: Annotated[
        str | None,
        option(
            "--at",
            metavar="WHEN",
            help="the state that has this name, see replicator mark; or a txid or a time",
        ),
    ] = None

    @property
    def restore_point(self) -> RestorePoint:
        """``ConfigError`` if more than one is set."""
        return RestorePoint.of(self.txid, self.timestamp, self.at)


@dataclass(frozen=True, slots=True)
class RunSettings(Options):
    """Settings of the table: the values of those that an option or a variable sets."""

    given: dict[str, Any]

    @classmethod
    def annotations(cls) -> Mapping[str, Any]:
        return {name: _of_setting(name) for name, each in SETTINGS.items() if cls.includes(each)}

    @classmethod
    def collected(cls, values: Mapping[str, Any]) -> Self:
        return cls({name: each for name, each in values.items() if each not in (None, "")})

    @classmethod
    def includes(cls, setting: Setting) -> bool:
        """True for a setting that has an option of ``run``."""
        return Where.RUN in setting.where


class StoreSettings(RunSettings):
    """The settings that lead to the store and the cache of a local database."""

    __slots__ = ()

    @classmethod
    def includes(cls, setting: Setting) -> bool:
        """True for a setting of the bucket that ``run`` has, and for the cache."""
        bucket = setting.section is Section.BUCKET
        return (bucket and Where.RUN in setting.where) or setting.name == "cache_dir"


class RetentionRules(RunSettings):
    """The rules of retention; the default of each is that of its setting."""

    __slots__ = ()

    @classmethod
    def includes(cls, setting: Setting) -> bool:
        """True for a rule."""
        return setting.name.startswith("keep_")

    @property
    def rules(self) -> Retention:
        return Retention(
            **{name.removeprefix("keep_"): value for name, value in self.given.items()}
        )


def expanded(command: Callable[..., Any]) -> Callable[..., Any]:
    """``command`` for typer, with the options of each group in place of the group."""
    signature = inspect.signature(command, eval_str=True)
    parameters: dict[str, Any] = {}
    groups: dict[str, tuple[type[Options], list[str]]] = {}
    for name, each in signature.parameters.items():
        if isinstance(each.annotation, type) and issubclass(each.annotation, Options):
            hints = each.annotation.annotations()
            parameters |= {option: _parameter(option, hint) for option, hint in hints.items()}
            groups[name] = each.annotation, list(hints)
        else:
            parameters[name] = each.replace(kind=inspect.Parameter.KEYWORD_ONLY)

    def called(**values: Any) -> Any:
        for name, (group, options) in groups.items():
            values[name] = group.collected({each: values.pop(each) for each in options})
        return command(**values)

    called.__doc__ = command.__doc__
    called.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=list(parameters.values())
    )
    return called


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def file_of(context: typer.Context, db: str | None, config: Path | None) -> Path | None:
    """The file of databases; None if the command line or a variable names a database.

    ``ConfigError`` for ``--config`` on the command line and a database in a variable.
    """
    if db is None or config is None:
        return config
    if from_variable(context, "db") and not from_variable(context, "config"):
        raise _conflict()
    return None


def refuse_file(context: typer.Context, config: Path | None) -> None:
    """``ConfigError`` for ``--config`` on the command line, where only ``--all`` has it."""
    if config is not None and not from_variable(context, "config"):
        raise ConfigError("--config is for --all", setting="config", hint="add --all --into DIR")


def from_variable(context: typer.Context, name: str) -> bool:
    """True if a parameter has the value of its variable."""
    return str(context.get_parameter_source(name)).endswith("ENVIRONMENT")


def _conflict() -> ConfigError:
    variable = SETTINGS["db_path"].variable
    return ConfigError(
        f"both {variable} and --config are set",
        setting="db_path",
        hint=f"unset {variable}, or omit --config",
    )


def is_on(text: str) -> bool:
    """True for the text of a switch that is on; False for any other text."""
    try:
        return parse_switch(text)
    except ConfigError:
        return False


def named(db: str | None) -> str:
    """The database; ``ConfigError`` if neither it nor a file of databases is named."""
    if db is None:
        raise ConfigError("no database is named", hint="name it, or a file with --config")
    return db


def command_with_config(
    db: str | None, cmd: list[str] | None, context: typer.Context
) -> list[str] | None:
    """The command after ``--config FILE``, where DB takes its first word."""
    if db is None:
        return None
    if from_variable(context, "db"):
        raise _conflict()
    if shutil.which(db) is None:
        raise ConfigError(
            f"{db} is not found in PATH, and --config allows no database here",
            hint="name the database in the file, or write -- before a command",
        )
    return [db, *(cmd or ())]

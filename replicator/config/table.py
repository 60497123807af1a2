"""The rows of the table of settings.

A row is a field of a dataclass, written with :func:`setting`: its default, its unit, its help, its
bounds, and the places where users may set it. Owns everything that follows from a row: the name of
the variable and of the option, the reading of text, the checks, the default as text, JSON Schema.
Refuses: to know any single setting; see :mod:`replicator.config.settings`.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar, Unpack

from replicator.config.units import Unit
from replicator.errors import ConfigError

T = TypeVar("T")

ENVIRONMENT_PREFIX = "REPLICATOR_"
_KEY = "setting"  # in the metadata of a field


class Where(enum.Flag):
    """The places of a setting, besides its environment variable, which each setting has."""

    NOWHERE = 0
    RUN = enum.auto()  # an option of ``replicator run``
    DEFAULTS = enum.auto()  # a key at the top of the TOML file, for all its databases
    DATABASE = enum.auto()  # a key of one ``[[database]]`` in that file
    FILE = DEFAULTS | DATABASE
    ALL = RUN | FILE


class Section(enum.Enum):
    """The sections of the documentation."""

    DATABASE = "Database and cache"
    BUCKET = "Bucket"
    TIMING = "Timing"
    SEGMENTS = "Segments"
    RETENTION = "Retention"
    DRILLS = "Restore drills"


class Details(TypedDict, total=False):
    """The parts of a row that most settings leave at their defaults; see :class:`Setting`."""

    where: Where
    least: float
    most: float
    shown: str
    short: str
    metavar: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    unit: Unit[Any]
    section: Section
    help: str  # one phrase, for the option, the documentation and the schema
    where: Where = Where.ALL
    least: float = 0  # of a number, inclusive
    most: float = math.inf  # inclusive
    shown: str = ""  # the default in words, where the value itself explains nothing
    short: str = ""  # a second name of the option, such as -b
    metavar: str = ""  # in place of the unit's
    name: str = ""  # of the field
    default: Any = None

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def option(self) -> str:
        """The option of the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def default_text(self) -> str:
        """The default for people; "" if there is none."""
        if self.shown or self.default in (None, "", dataclasses.MISSING):
            return self.shown
        return self.unit.show(self.default)

    @property
    def described(self) -> str:
        """The help with the default; a switch that is off by default explains itself."""
        default = "" if self.default is False else self.default_text
        return f"{self.help}; default: {default}" if default else self.help

    @property
    def bounds_text(self) -> str:
        """The bounds of a number for people, as the setting is written."""
        least, most = (self.unit.show(each) if each else "0" for each in (self.least, self.most))
        return f"at least {least}" if self.most == math.inf else f"from {least} to {most}"

    def read(self, text: str) -> Any:
        """The value of a text; ``ConfigError``, which does not name the setting."""
        value = self.unit.parse(text)
        self.check(value)
        return value

    def check(self, value: object) -> None:
        """``ConfigError``, which does not name the setting, for a value that cannot work."""
        if value is None and self.default is None:
            return
        self.unit.check(value)
        if isinstance(value, int | float) and not self.least <= value <= self.most:
            raise ConfigError(
                f"{value!r} is out of bounds; it must be {self.bounds_text}", code="out_of_bounds"
            )

    def named(self, error: ConfigError, origin: str) -> ConfigError:
        """An error of :meth:`read` or :meth:`check`, with the setting and where it was set."""
        return ConfigError(f"{origin}: {error}", setting=self.name, code=error.code)

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the value in TOML."""
        limits = {"minimum": self.least, "maximum": self.most}
        bounds = {key: limit for key, limit in limits.items() if math.isfinite(limit)}
        default = {} if self.default in (None, "") else {"default": self.default}
        return {"description": self.described, **default, **self.unit.schema(bounds)}


def row(
    unit: Unit[Any],
    section: Section,
    help: str,  # noqa: A002 - the word of every command line
    **details: Unpack[Details],
) -> Mapping[str, Setting]:
    """The metadata of a field that is a setting, for one that has no default."""
    return {_KEY: Setting(unit, section, help, **details)}


def setting(
    default: T,
    unit: Unit[T],
    section: Section,
    help: str,  # noqa: A002 - as in row()
    **details: Unpack[Details],
) -> T:
    """A field of a dataclass that is a setting; the type checker sees the type of its value."""
    return dataclasses.field(default=default, metadata=row(unit, section, help, **details))


def table_of(config: type) -> dict[str, Setting]:
    """The settings of a dataclass by name, in the order of its fields."""
    return {
        field.name: dataclasses.replace(
            field.metadata[_KEY], name=field.name, default=field.default
        )
        for field in dataclasses.fields(config)
        if _KEY in field.metadata
    }

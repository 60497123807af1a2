"""The units of settings: a size, a duration, a span, a switch, a number, a path, text.

Owns the text of a value (an environment variable, an option, a string in TOML), the same value
as text again, the types of Python that hold it, and its description in JSON Schema. One pattern
serves the parser and the schema. Refuses: any other way to fail than ``ConfigError``.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from replicator.errors import ConfigError

T_co = TypeVar("T_co", covariant=True)

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

_BINARY = {"KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": GIB << 10}
_SIZES = (
    {"b": 1}
    | {unit[0].lower(): size for unit, size in _BINARY.items()}
    | {unit.lower(): size for unit, size in _BINARY.items()}
    | {"kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4}
)
_TIMES = {"ms": 0.001, "s": 1.0, "m": MINUTE, "h": HOUR, "d": DAY}
_SPANS = {"off": 0.0, "forever": math.inf}
_SWITCHES = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(
    ("0", "false", "no", "off"), False
)


def _words(words: Iterable[str]) -> str:
    """A pattern that matches each of ``words`` in any case; JSON Schema has no flag for that."""
    return "|".join(
        "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in word) for word in words
    )


_FIGURE = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)"
_TIME = rf"({_FIGURE}\s*({_words(_TIMES)})\s*)+|{_FIGURE}\s*"
_PARTS = re.compile(r"([0-9.]+)\s*([a-z]*)")

_COUNT_TEXT = r"\s*[0-9]+\s*"
_NUMBER_TEXT = rf"\s*{_FIGURE}\s*"
_SIZE_TEXT = rf"\s*{_FIGURE}\s*({_words(_SIZES)})?\s*"
_DURATION_TEXT = rf"\s*({_TIME})"
_SPAN_TEXT = rf"\s*({_TIME}|({_words(_SPANS)})\s*)"
_SWITCH_TEXT = rf"\s*({_words(_SWITCHES)})\s*"


def parse_size(text: str) -> int:
    """Bytes, from "1GiB", "64 MB", "1024". A unit of one letter is a power of 1024."""
    figure, unit = _matched(_SIZE_TEXT, text, "a size, for example 512MiB")[0]
    return round(float(figure) * _SIZES.get(unit, 1))


def parse_duration(text: str) -> float:
    """Seconds, from "1h", "1h30m", "500ms", "2.5". A number without a unit takes no second part."""
    parts = _matched(_DURATION_TEXT, text, "a duration, for example 30s or 1h30m")
    return sum(float(figure) * _TIMES.get(unit, 1.0) for figure, unit in parts)


def parse_span(text: str) -> float:
    """A duration, or "off" (0), or "forever" (infinite)."""
    word = text.strip().lower()
    return _SPANS[word] if word in _SPANS else parse_duration(text)


def parse_switch(text: str) -> bool:
    """True or False, from "yes", "on", "1", "true" and their opposites, in any case."""
    try:
        return _SWITCHES[text.strip().lower()]
    except KeyError:
        raise _invalid(text, "true or false") from None


def parse_count(text: str) -> int:
    """A whole number, in digits."""
    return int(_matched(_COUNT_TEXT, text, "a whole number")[0][0])


def parse_number(text: str) -> float:
    """A number, in digits with at most one point."""
    return float(_matched(_NUMBER_TEXT, text, "a number")[0][0])


def _matched(pattern: str, text: str, wanted: str) -> list[tuple[str, str]]:
    """Each (figure, unit in lower case) of a text that matches as a whole."""
    if re.fullmatch(pattern, text, re.ASCII) is None:
        raise _invalid(text, wanted)
    return _PARTS.findall(text.lower())


def _invalid(value: object, wanted: str) -> ConfigError:
    return ConfigError(f"{value!r} is not {wanted}", code="invalid_value")


def show_size(value: int) -> str:
    """Bytes as :func:`parse_size` reads them: the largest unit that divides them."""
    units = [unit for unit, size in _BINARY.items() if value and value % size == 0]
    return f"{value // _BINARY[units[-1]]}{units[-1]}" if units else str(value)


def show_duration(value: float) -> str:
    """Seconds as :func:`parse_duration` reads them: the largest unit that divides them."""
    for unit, seconds in reversed(_TIMES.items()):
        if value >= seconds and (value / seconds).is_integer():
            return f"{value / seconds:.0f}{unit}"
    return f"{value:f}s"


def show_span(value: float) -> str:
    """Seconds as :func:`parse_span` reads them."""
    return {0.0: "off", math.inf: "forever"}.get(value) or show_duration(value)


def show_switch(value: bool) -> str:
    """As :func:`parse_switch` reads it."""
    return "on" if value else "off"


@dataclass(frozen=True, slots=True)
class Unit(Generic[T_co]):
    """One unit: ``parse`` and ``show`` convert text, ``types`` and ``noun`` check a value."""

    parse: Callable[[str], T_co]
    show: Callable[[Any], str]
    types: tuple[type, ...]  # of a value in Python; bool counts as a number nowhere
    noun: str  # completes the message "7 is not …"
    metavar: str
    json_type: str  # of a value in TOML that is not text; "": text only
    pattern: str = ""  # of a value in TOML that is text; "": any
    choices: tuple[str, ...] = ()

    def check(self, value: object) -> None:
        """``ConfigError`` if ``value`` is of another type, or no choice."""
        boolean = isinstance(value, bool)
        typed = isinstance(value, self.types) and boolean is (bool in self.types)
        if not typed or (self.choices and value not in self.choices):
            raise _invalid(value, self.noun)

    def schema(self, bounds: Mapping[str, float]) -> dict[str, Any]:
        """JSON Schema of a value in TOML: text, or a number within ``bounds``."""
        if self.choices:
            return {"enum": list(self.choices)}
        text = {"type": "string"} | ({"pattern": f"^({self.pattern})$"} if self.pattern else {})
        if not self.json_type:
            return text
        limits = {} if self.json_type == "boolean" else bounds
        return {"anyOf": [{"type": self.json_type, **limits}, text]}


TEXT = Unit(str, str, (str,), "text", "TEXT", "")
PATH: Unit[str | os.PathLike[str]] = Unit(str, os.fspath, (str, os.PathLike), "a path", "DIR", "")
SIZE = Unit(parse_size, show_size, (int,), "a whole number", "SIZE", "integer", _SIZE_TEXT)
COUNT = Unit(parse_count, str, (int,), "a whole number", "N", "integer", _COUNT_TEXT)
NUMBER = Unit(parse_number, "{:g}".format, (int, float), "a number", "N", "number", _NUMBER_TEXT)
SWITCH = Unit(parse_switch, show_switch, (bool,), "true or false", "", "boolean", _SWITCH_TEXT)
DURATION = Unit(
    parse_duration, show_duration, (int, float), "a number", "TIME", "number", _DURATION_TEXT
)
SPAN = Unit(parse_span, show_span, (int, float), "a number", "TIME", "number", _SPAN_TEXT)


def choice(*choices: str) -> Unit[Any]:
    """A unit of a few words."""
    return Unit(str, str, (str,), " or ".join(choices), "WORD", "", choices=choices)

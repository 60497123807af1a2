"""A restore point as people ask for it: a transaction, a time, or the name of a pin.

Owns the words for it, in every command and in the library: ``120`` or ``1,234`` is a transaction,
``newest`` the newest one, a word that begins with a letter the name of a pin, and everything else
a time. No name can be mistaken for a transaction or a time. Pure; see :mod:`.pins` for the request
that finds a name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from replicator.errors import ConfigError

MOST_CHARACTERS = 64
NEWEST = "newest"
RESERVED = frozenset({"now", NEWEST, "latest", "oldest", "today", "yesterday", "tomorrow"})
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_TXID = re.compile(r"\d{1,19}|\d{1,3}(,\d{3}){1,6}")  # the latter as tables print it


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """A txid, a time, a name, or none of them: the newest transaction."""

    txid: int | None = None
    timestamp: datetime | str | None = None
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> RestorePoint:
        """Any of them in one text; a time is not read yet."""
        plain = text.strip()
        if _TXID.fullmatch(plain):
            return cls(txid=read_txid(plain))
        if plain == NEWEST:
            return cls()
        return cls(name=plain) if is_name(plain) else cls(timestamp=plain)

    @classmethod
    def of(cls, txid: int | None, timestamp: datetime | str | None, at: str | None) -> RestorePoint:
        """From three arguments of which one is given at most; ``ConfigError`` for more."""
        given = [
            name
            for name, value in (("txid", txid), ("timestamp", timestamp), ("at", at))
            if value is not None
        ]
        if len(given) > 1:
            raise ConfigError(
                f"both a {given[0]} and {'at' if given[1] == 'at' else f'a {given[1]}'} are given",
                hint="choose one",
                setting=given[1],
            )
        point = cls(txid, timestamp) if at is None else cls.parse(at)
        if point.txid is not None and point.txid < 1:
            raise ConfigError(
                f"there is no transaction {point.txid}",
                hint="txids begin at 1",
                setting=given[0],
                code="out_of_bounds",
            )
        return point


NEWEST_POINT = RestorePoint()


def read_txid(text: str) -> int:
    """A txid as a person writes it, or as a table prints it; ``ConfigError``."""
    if not _TXID.fullmatch(text.strip()):
        raise ConfigError(f"{text!r} is no transaction", hint="txids are numbers from 1 on")
    return int(text.replace(",", ""))


def is_name(text: str) -> bool:
    """True if a pin can have the name."""
    return (
        len(text) <= MOST_CHARACTERS
        and _NAME.fullmatch(text) is not None
        and text.lower() not in RESERVED
    )


def require_name(name: str) -> str:
    """The name; ``ConfigError`` if no pin can have it."""
    if not is_name(name):
        raise ConfigError(
            f"{name!r} cannot be a name",
            setting="name",
            code="invalid_name",
            hint=f"a letter, then up to {MOST_CHARACTERS - 1} of A-Z a-z 0-9 . _ -, for example "
            f"before-migration; none of {', '.join(sorted(RESERVED))}",
        )
    return name

"""The JSON Schema of the TOML file of several databases, made from the table of settings.

Editors complete and check a file by it: ``docs/replicator.schema.json`` is its copy for the
address in a first line ``#:schema …``, and ``python -m replicator.config.schema`` prints the one
of the installed version. Owns the shape of the file for programs; :mod:`.file` remains the judge.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from replicator.config.settings import SETTINGS
from replicator.config.table import Setting, Where

DATABASE_PATH = {"type": "string", "minLength": 1, "description": "the database file, or a pattern"}


def schema(table: Mapping[str, Setting] = SETTINGS) -> dict[str, Any]:
    """The schema (draft 7, which the TOML editors read)."""
    entry = {"path": DATABASE_PATH} | _properties(table, Where.DATABASE)
    databases = {"type": "array", "minItems": 1, "items": _table(entry, "path")}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "replicator.toml",
        **_table(_properties(table, Where.DEFAULTS) | {"database": databases}, "database"),
    }


def _properties(table: Mapping[str, Setting], where: Where) -> dict[str, Any]:
    return {name: each.schema() for name, each in table.items() if where in each.where}


def _table(properties: dict[str, Any], required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [required],
        "additionalProperties": False,
    }


def text() -> str:
    """The schema as the text of a file."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    print(text(), end="")  # noqa: T201

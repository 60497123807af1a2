"""JSON from a bucket or a socket, within limits.

Owns the limits of size and depth, and the refusal of text that no terminal or log can hold. Refuses
to know the meaning of a document. Source: RFC 8259.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

# A string without an end matches up to the end of the text, so that the search stays linear.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """``size`` in bytes; ``depth`` counts lists and objects within one another."""

    size: int = 64 * 1024
    depth: int = 16


DEFAULT_JSON_LIMITS = JsonLimits()


def parse_json(data: bytes, limits: JsonLimits = DEFAULT_JSON_LIMITS) -> object:
    """The document; ``ValueError`` if it is none, too large, too deep, or contains NaN, an
    infinite number, or half of a surrogate pair."""
    if len(data) > limits.size:
        raise ValueError(f"it has more than {limits.size} bytes")
    text = data.decode("utf-8")  # json would read UTF-16 and UTF-32, too
    _require_flat(text, limits.depth)
    value: object = json.loads(text, parse_constant=_refuse)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return value


def _require_flat(text: str, most: int) -> None:
    depth = 0
    for sign in _STRING.sub("", text):
        depth += _STEPS.get(sign, 0)
        if depth > most:
            raise ValueError(f"it is nested more than {most} times")


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def text_fields(value: object) -> dict[str, str]:
    """The fields of a JSON object whose values are text; none of anything else."""
    if not isinstance(value, dict):
        return {}
    return {name: text for name, text in value.items() if isinstance(text, str)}

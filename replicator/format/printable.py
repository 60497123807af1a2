"""Text from a bucket, a database or another process, as a terminal and a log may show it.

Owns the one rule: a character that is not printable becomes its escape sequence in text. So such
text cannot begin a line, move the cursor, change a colour or the direction of writing. JSON output
needs no such rule: JSON has its own. Refuses to shorten or to judge text.
"""

from __future__ import annotations


def printable(text: str) -> str:
    r"""``text`` with each line break, control character, invisible character and lone surrogate as
    ``\n``, ``\x1b``, ``\u202e`` and ``\ud800``. Everything else stays."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")

"""The documentation as tests read it: pages, fenced blocks, command lines, headings, prose."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
GENERATED = (
    "docs/cli.md",
    "docs/reference-api.md",
    "benchmarks/results/month.md",
    "benchmarks/results/full/results.md",
)


def pages():
    """Every page of the project."""
    found = [TOP / "README.md", TOP / "CHANGELOG.md"]
    return found + sorted((TOP / "docs").rglob("*.md")) + sorted((TOP / "benchmarks").rglob("*.md"))


def name(page):
    return str(page.relative_to(TOP))


@dataclass(frozen=True)
class Block:
    """A fenced block; ``language`` is the word after the fence."""

    language: str
    text: str


def blocks(page, *languages):
    """The fenced blocks of a page, without the indentation of a list they are part of."""
    for indent, language, text in FENCE.findall(page.read_text()):
        if not languages or language in languages:
            lines = [line.removeprefix(indent) for line in text.splitlines()]
            yield Block(language, "\n".join(lines) + "\n")


def typed(block):
    """The lines of a shell block that a reader types; in a capture only those after a prompt."""
    lines = [line.strip() for line in block.text.replace("\\\n", " ").splitlines()]
    if any(line.startswith("$ ") for line in lines):
        return [line[2:] for line in lines if line.startswith("$ ")]
    return [line for line in lines if line and not line.startswith("#")]


def command(line):
    """The words of a line, without comment, leading variables and a trailing ``&``."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        del words[0]
    return words[:-1] if words[-1:] == ["&"] else words


def commands(page):
    """(line, words) of every command in the shell blocks of a page."""
    for block in blocks(page, "sh", "console"):
        for line in typed(block):
            yield line, command(line)


def without_blocks(page):
    """The text of a page, without fenced blocks."""
    return FENCE.sub("", page.read_text())


def inline_code(page):
    """The code spans in the text of a page."""
    return re.findall(r"`([^`\n]+)`", without_blocks(page))


def headings(page):
    """The text of each heading, in order."""
    found = re.findall(r"^#+ (.+)$", without_blocks(page), re.MULTILINE)
    return [heading.strip() for heading in found]


def anchors(page):
    """The anchors of a page's headings, by the rules of GitHub."""
    seen = {}
    for heading in headings(page):
        text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        count = seen[anchor] = seen.get(anchor, -1) + 1
        yield f"{anchor}-{count}" if count else anchor


def links(page):
    """(path, anchor) of each link that stays in the project; the path of a page's own is empty."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


def sentences(page):
    """The sentences of a page's text: no blocks, tables, code spans or links' addresses."""
    text = re.sub(r"^(\||    |<!--).*$", "", without_blocks(page), flags=re.MULTILINE)
    text = re.sub(r"`[^`]*`", "it", re.sub(r"\]\([^)]*\)", "]", text))
    for part in re.split(r"(?<=[.!?:])\s+|\n\s*\n|^(?:[-*]|\d+\.|#+) ", text, flags=re.MULTILINE):
        if sentence := part.strip(" *_[\n"):
            yield sentence

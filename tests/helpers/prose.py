"""Counts the words of docstrings and comments: ``python -m tests.helpers.prose [PATH …]``.

Plain technical English has a subject that acts. Each pattern below marks a sentence that hides it;
the counts are per 10 000 words, so that they compare across projects.
"""

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from pathlib import Path

PATTERNS = {
    "nobody, somebody, whoever, anybody": r"\b(?:nobody|somebody|whoever|anybody)\b",
    "tell(s), told, says, said": r"\b(?:tells?|told|says?|said)\b",
    "what is / was / the": r"\bwhat (?:is|was|are|were|the)\b",
    "beside, stands, lies, meanwhile": r"\b(?:beside|stands?|lies?|meanwhile)\b",
    "go(es) on, let go, by itself, any more": (
        r"\b(?:go(?:es)? on|went on|lets? go|let\b.{1,20}\bgo\b|by (?:it|him)self|any ?more)\b"
    ),
    "place": r"\bplaces?\b",
}
INDIRECT = re.compile(r"(?:What|Whether|Whoever|How|Where|When)\b")
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")


def docstrings(tree):
    """(line, text) of each docstring, and of each string that documents an attribute."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield statement.lineno, text


def comments(source):
    """(line, text) of each run of comment lines."""
    start, lines, before = 0, [], -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not re.match(
            r"#\s*(?:noqa|type:|ruff:|-{4,}|!)", token.string
        ):
            if token.start[0] != before + 1:
                if lines:
                    yield start, " ".join(lines)
                start, lines = token.start[0], []
            lines.append(token.string.lstrip("# ").split("  # noqa")[0])
            before = token.start[0]
    if lines:
        yield start, " ".join(lines)


def passages(path):
    """(line, text) of all prose in a file, without code in double back-quotes."""
    source = path.read_text()
    for line, text in [*docstrings(ast.parse(source)), *comments(source)]:
        yield line, re.sub(r"``.*?``|:\w+:`.*?`", "it", text, flags=re.DOTALL)


def sentences(text):
    """The sentences of a passage; a blank line ends one too."""
    for part in re.split(r"(?<=[.!?])\s+|\n\s*\n", text):
        if WORD.search(part):
            yield part.strip()


def files(paths):
    for path in map(Path, paths):
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def measure(paths, found=lambda where, kind, text: None):
    """Figures by pattern per 10 000 words, and the share of indirect sentences in percent."""
    words = indirect = total = 0
    counts = Counter()
    for path in files(paths):
        for line, text in passages(path):
            words += len(WORD.findall(text))
            flat = " ".join(text.split())
            for kind, pattern in PATTERNS.items():
                for match in re.finditer(pattern, flat, re.IGNORECASE):
                    counts[kind] += 1
                    context = flat[max(0, match.start() - 40) : match.end() + 40]
                    found(f"{path}:{line}", kind, context)
            for sentence in sentences(text):
                total += 1
                if INDIRECT.match(sentence):
                    indirect += 1
                    found(f"{path}:{line}", "indirect", " ".join(sentence.split())[:100])
    figures = {kind: 10_000 * counts[kind] / max(1, words) for kind in PATTERNS}
    return figures | {"indirect sentences, %": 100 * indirect / max(1, total), "words": words}


if __name__ == "__main__":
    show = "-v" in sys.argv

    def printed(where, kind, text):
        if show:
            print(f"{where}: [{kind}] {text}")  # noqa: T201

    wanted = [argument for argument in sys.argv[1:] if argument != "-v"] or ["replicator"]
    for name, figure in measure(wanted, printed).items():
        print(f"{figure:10.1f}  {name}")  # noqa: T201

"""Writes the table of metrics in docs/metrics.md from the code; a test compares the two.

python docs/generate_metrics.py
"""

from __future__ import annotations

from pathlib import Path

from replicator.metrics import FIGURES

PAGE = Path(__file__).with_name("metrics.md")
BEGIN, END = "<!-- metrics: begin -->\n", "<!-- metrics: end -->"


def render(page: str) -> str:
    """The page with the table as the code has it."""
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    rows = [f"| `{figure.name}` | {figure.kind} | {figure.doc} |" for figure in FIGURES]
    table = "\n".join(["| metric | kind | meaning |", "|---|---|---|", *rows])
    return f"{head}{BEGIN}{table}\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))

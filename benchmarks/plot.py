"""Small plots as SVG text: bars around 1 on a logarithmic scale, and curves. No library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

OPENING = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" '
    'viewBox="0 0 {w} {h}" font-family="sans-serif" font-size="12">'
    '<rect width="{w}" height="{h}" fill="white"/>'
    '<text x="12" y="20" font-size="14">{title}</text>'
)
COLOURS = ("#1b6ca8", "#d1495b", "#66a182", "#edae49")
Points = list[tuple[float, float]]
LEAST = 0.01  # on a logarithmic scale, which has no zero
FEW = 20  # points that are marked one by one


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str = "#ccc") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def bars(title: str, ratios: list[tuple[str, float]]) -> str:
    """One bar for each ratio: to the left of 1 when less, to the right when more."""
    left, width, step = 300, 480, 18
    height = 50 + step * len(ratios)
    reach = max([0.31, *(abs(math.log10(ratio)) for _, ratio in ratios)])
    middle = left + width / 2
    parts = [
        OPENING.format(w=left + width + 70, h=height, title=escape(title)),
        line(middle, 30, middle, height - 10, "#555"),
    ]
    for n, (name, ratio) in enumerate(ratios):
        y = 36 + n * step
        end = middle + math.log10(ratio) / reach * width / 2
        parts += [
            text(left - 8, y + 11, name, "end"),
            f'<rect x="{min(middle, end):.1f}" y="{y}" width="{abs(end - middle):.1f}" '
            f'height="{step - 5}" fill="{COLOURS[ratio > 1]}"/>',
            text(left + width + 8, y + 11, f"{ratio:.2f}"),
        ]
    return "".join([*parts, "</svg>\n"])


def curves(title: str, series: dict[str, Points], *, log_y: bool = False) -> str:
    """Lines over a logarithmic x axis; y begins at 0, or is logarithmic too."""
    width, height, left, bottom = 640, 320, 60, 280
    across = _logarithmic([x for points in series.values() for x, _ in points])
    ys = [y for points in series.values() for _, y in points]
    up = _logarithmic(ys) if log_y else _Scale(0, max(ys) or 1, log=False)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + across.share(x) * (width - left - 20), bottom - up.share(y) * (bottom - 50)

    parts = [
        OPENING.format(w=width, h=height, title=escape(title)),
        line(left, bottom, width - 20, bottom, "#555"),
        line(left, 50, left, bottom, "#555"),
    ]
    for mark in across.marks():
        x, _ = at(mark, 1)
        parts += [line(x, 50, x, bottom), text(x, bottom + 18, f"{mark:g}", "middle")]
    for mark in up.marks():
        parts.append(text(left - 6, at(1, mark)[1] + 4, f"{mark:g}", "end"))
    for colour, (name, points) in zip(COLOURS, series.items(), strict=False):
        places = [at(*point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts += [
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
            *(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>'
                for x, y in places
                if len(places) < FEW
            ),
            f'<text x="{width - 130}" y="{44 + 16 * COLOURS.index(colour)}" '
            f'fill="{colour}">{escape(name)}</text>',
        ]
    return "".join([*parts, "</svg>\n"])


@dataclass(frozen=True)
class _Scale:
    """From ``low`` to ``high`` (powers of ten with ``log``) onto 0 … 1."""

    low: float
    high: float
    log: bool

    def share(self, value: float) -> float:
        at = math.log10(max(value, LEAST)) if self.log else value
        return (at - self.low) / (self.high - self.low)

    def marks(self) -> list[float]:
        if not self.log:
            return [self.high / 2, self.high]
        steps = (1,) if self.high - self.low > 2 else (1, 2, 5)
        found = [
            step * 10.0**power
            for power in range(math.floor(self.low), math.ceil(self.high))
            for step in steps
        ]
        return [
            mark
            for mark in [*found, 10.0 ** math.ceil(self.high)]
            if self.low <= math.log10(mark) <= self.high
        ]


def _logarithmic(values: list[float]) -> _Scale:
    """Wide enough to have at least two marks."""
    powers = [math.log10(max(value, LEAST)) for value in values]
    low, high = min(powers), max(powers)
    return (
        _Scale(low, high, log=True)
        if high - low > 1
        else _Scale(low - (1 - high + low) / 2, high + (1 - high + low) / 2, log=True)
    )

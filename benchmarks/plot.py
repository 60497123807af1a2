"""Small plots as SVG text: bars around 1 on a logarithmic scale, and curves. No library."""

from __future__ import annotations

import math
from html import escape

OPENING = ('<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" '
           'viewBox="0 0 {w} {h}" font-family="sans-serif" font-size="12">'
           '<rect width="{w}" height="{h}" fill="white"/>'
           '<text x="12" y="20" font-size="14">{title}</text>')
COLOURS = ("#1b6ca8", "#d1495b", "#66a182", "#edae49")
Points = list[tuple[float, float]]


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str = "#ccc") -> str:
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="{colour}"/>')


def bars(title: str, ratios: list[tuple[str, float]]) -> str:
    """One bar for each ratio: to the left of 1 when less, to the right when more."""
    left, width, step = 300, 480, 18
    height = 50 + step * len(ratios)
    reach = max([0.31, *(abs(math.log10(ratio)) for _, ratio in ratios)])
    middle = left + width / 2
    parts = [OPENING.format(w=left + width + 70, h=height, title=escape(title)),
             line(middle, 30, middle, height - 10, "#555")]
    for n, (name, ratio) in enumerate(ratios):
        y = 36 + n * step
        end = middle + math.log10(ratio) / reach * width / 2
        parts += [text(left - 8, y + 11, name, "end"),
                  f'<rect x="{min(middle, end):.1f}" y="{y}" width="{abs(end - middle):.1f}" '
                  f'height="{step - 5}" fill="{COLOURS[ratio > 1]}"/>',
                  text(left + width + 8, y + 11, f"{ratio:.2f}")]
    return "".join([*parts, "</svg>\n"])


def curves(title: str, series: dict[str, Points]) -> str:
    """Lines over a logarithmic x axis."""
    width, height, left, bottom = 640, 320, 60, 280
    xs = [math.log10(max(x, 0.1)) for points in series.values() for x, _ in points]
    low, high = min(xs), max(*xs, min(xs) + 0.3)
    top = max(y for points in series.values() for _, y in points) or 1

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(max(x, 0.1)) - low) / (high - low)
        return left + across * (width - left - 20), bottom - y / top * (bottom - 50)

    parts = [OPENING.format(w=width, h=height, title=escape(title)),
             line(left, bottom, width - 20, bottom, "#555"), line(left, 50, left, bottom, "#555")]
    for power in range(math.ceil(low), math.floor(high) + 1):
        x, _ = at(10**power, 0)
        parts += [line(x, 50, x, bottom), text(x, bottom + 18, f"{10.0**power:g}", "middle")]
    for share in (0.5, 1):
        parts.append(text(left - 6, at(1, top * share)[1] + 4, f"{top * share:.3g}", "end"))
    for colour, (name, points) in zip(COLOURS, series.items(), strict=False):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        parts += [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
                  f'<text x="{width - 130}" y="{70 + 16 * COLOURS.index(colour)}" '
                  f'fill="{colour}">{escape(name)}</text>']
    return "".join([*parts, "</svg>\n"])

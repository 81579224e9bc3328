"""Charts as inline SVG: no script, no font file, readable in light and dark and on paper."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from saccade.report.page import columns, scroll

WIDTH, HEIGHT = 400, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 16, 36
INKS = ("#1f6feb", "#d1495b", "#2a9d5c", "#b8860b", "#7b4fc9", "#c45a00", "#3a8a99", "#a06a52")
DASHES = ("", "6 3", "2 3", "10 3 2 3")


def line_chart(
    title: str, series: dict[str, list[tuple[float, float]]], *, x: str = "epoch", y: str = "", y_range: tuple[float, float] | None = None
) -> str:
    """A line a series of (x, y) points; points that are no numbers are left out."""
    series = {name: [(a, b) for a, b in points if math.isfinite(a) and math.isfinite(b)] for name, points in series.items()}
    series = {name: points for name, points in series.items() if points}
    if not series:
        return ""
    xs = [a for points in series.values() for a, _ in points]
    ys = [b for points in series.values() for _, b in points]
    low_x, high_x = min(xs), max(xs)
    low_y, high_y = y_range or (min(0.0, *ys), max(ys))
    ticks_y = nice_ticks(low_y, high_y)
    low_y, high_y = min(low_y, ticks_y[0]), max(high_y, ticks_y[-1])

    def place(a: float, b: float) -> tuple[float, float]:
        return (
            LEFT + (a - low_x) / ((high_x - low_x) or 1) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (b - low_y) / ((high_y - low_y) or 1) * (HEIGHT - TOP - BOTTOM),
        )

    described = "; ".join(f"{name} ends at {points[-1][1]:.4g}" for name, points in series.items())
    out = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}: {html.escape(described)}">']
    for tick in ticks_y:
        _, py = place(low_x, tick)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}" class="grid"/>')
        out.append(f'<text x="{LEFT - 6}" y="{py + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in nice_ticks(low_x, high_x):
        if low_x <= tick <= high_x:
            px, _ = place(tick, low_y)
            out.append(f'<text x="{px:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:.4g}</text>')
    out.append(f'<text x="{(WIDTH + LEFT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{html.escape(x)}</text>')
    for number, points in enumerate(series.values()):
        ink = INKS[number % len(INKS)]
        path = " ".join("{:.1f},{:.1f}".format(*place(a, b)) for a, b in points)
        if len(points) == 1:
            px, py = place(*points[0])
            out.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4" fill="{ink}"/>')
        else:
            out.append(f'<polyline points="{path}" fill="none" {stroke(number)}/>')
    out.append("</svg>")
    keys = legend([(name, stroke(i)) for i, name in enumerate(series)])
    return f"<figure><figcaption>{html.escape(title)}{f' ({html.escape(y)})' if y else ''}</figcaption>{''.join(out)}{keys}</figure>"


def stroke(number: int) -> str:
    """How the line of a series is drawn: 32 that differ in colour or dashes, neighbours in both."""
    dash = DASHES[(number + number // len(INKS)) % len(DASHES)]
    return f'stroke="{INKS[number % len(INKS)]}" stroke-width="2"' + (f' stroke-dasharray="{dash}"' if dash else "")


def legend(series: Sequence[tuple[str, str]]) -> str:
    """What is what: names and how their lines are drawn."""
    keys = "".join(
        f'<span><svg viewBox="0 0 26 10" aria-hidden="true"><line x1="0" x2="26" y1="5" y2="5" {drawn}/></svg>{html.escape(name)}</span>'
        for name, drawn in series
    )
    return f'<div class="keys">{keys}</div>'


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``.

    >>> nice_ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        return [low, low + 1.0]
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def matrix(title: str, values: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    """A confusion matrix as an HTML table: rows are truth, columns predictions, shaded by the row's share."""
    rows = []
    for name, row in zip(names, values, strict=True):
        total = sum(row) or 1
        cells = "".join(f'<td style="--share:{v / total:.3f}" class="cell">{v:g}</td>' for v in row)
        rows.append(f'<tr><th scope="row">{html.escape(str(name))}</th>{cells}</tr>')
    caption = f"<caption>{html.escape(title)}: rows truth, columns prediction</caption>"
    return scroll(f'<table class="numbers">{caption}{columns(["", *map(str, names)])}{"".join(rows)}</table>', title)


def bars(title: str, counts: Sequence[float], span: tuple[float, float], *, x: str = "") -> str:
    """A histogram: ``counts`` of equal bins over ``span``."""
    if not counts or not any(counts):
        return ""
    ticks_y = nice_ticks(0, max(counts))
    top, plot_w, plot_h = ticks_y[-1], WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    step = plot_w / len(counts)
    out = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}: {sum(counts):g} in {len(counts)} bins">']
    for tick in ticks_y:
        y = HEIGHT - BOTTOM - tick / top * plot_h
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for k, count in enumerate(counts):
        height = count / top * plot_h
        out.append(
            f'<rect x="{LEFT + k * step + 0.5:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" width="{max(step - 1, 0.5):.1f}" height="{height:.1f}" '
            f'fill="{INKS[0]}"/>'
        )
    for tick in nice_ticks(*span):
        if span[0] <= tick <= span[1]:
            px = LEFT + (tick - span[0]) / (span[1] - span[0]) * plot_w
            out.append(f'<text x="{px:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:.4g}</text>')
    out.append(f'<text x="{(WIDTH + LEFT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{html.escape(x)}</text></svg>')
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{''.join(out)}</figure>"

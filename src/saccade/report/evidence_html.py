"""How far a report's numbers can be trusted, as HTML: intervals, calibration, thresholds, mistakes; and the numbers as files.

Each function gives a section without its heading, or "" where there is nothing to show. Styles are :mod:`saccade.report.html`'s.
"""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saccade.engine.files import write_json, write_text
from saccade.metrics.thresholds import one_against_rest, threshold_table
from saccade.report import svg
from saccade.report.page import columns, scroll
from saccade.types.prediction import Classification, Prediction
from saccade.types.sample import Target

Intervals = Mapping[str, Sequence[float]]


def interval_text(name: str, intervals: Intervals) -> str:
    """``"0.841 to 0.890"``, or "" where there is none."""
    low, high = intervals.get(name, (math.nan, math.nan))
    return f"{low:.3f} to {high:.3f}" if math.isfinite(low) and math.isfinite(high) else ""


def interval_tables(metrics: Mapping[str, float], intervals: Intervals, main: str, classes: Sequence[str]) -> str:
    """The numbers that have intervals, as text and as a bar on 0..1: those of the whole set, then the main kind by class."""
    whole = [(name, name) for name in metrics if "/" not in name and interval_text(name, intervals)]
    kind = next((k for k in (main, main.removeprefix("mean_"), "recall") if any(f"{k}/{name}" in intervals for name in classes)), "")
    by_class = [(name, f"{kind}/{name}") for name in classes if interval_text(f"{kind}/{name}", intervals)]
    if not whole:
        return ""
    parts = []
    note = (
        '<p class="soft">95 % intervals: where the number would lie, nineteen times in twenty, had other images of the same kind been '
        "drawn (bootstrap over the images). Another training run moves it besides.</p>"
    )
    for caption, rows in (("Of the whole set", whole), (f"By class: {kind}", by_class)):
        if rows:
            cells = "".join(_interval_row(label, metrics[name], intervals[name]) for label, name in rows)
            head = columns(("", "value", "95 % interval", "0 to 1"))
            parts.append(scroll(f"<table><caption>{html.escape(caption)}</caption>{head}{cells}</table>", caption))
    return f'<div class="row">{"".join(parts)}</div>{note}'


def _interval_row(label: str, value: float, ends: Sequence[float]) -> str:
    low, high = ends
    x = [6 + 148 * min(max(v, 0.0), 1.0) for v in (low, value, high)]
    bar = (
        f'<svg viewBox="0 0 160 16" style="width:10rem" aria-hidden="true"><line x1="6" x2="154" y1="8" y2="8" class="grid"/>'
        f'<line x1="{x[0]:.1f}" x2="{x[2]:.1f}" y1="8" y2="8" stroke="{svg.INKS[0]}" stroke-width="4" stroke-linecap="round"/>'
        f'<circle cx="{x[1]:.1f}" cy="8" r="5" fill="{svg.INKS[0]}"/></svg>'
    )
    cells = f'<td class="num">{value:.4f}</td><td style="white-space:nowrap">{low:.3f} to {high:.3f}</td><td>{bar}</td>'
    return f'<tr><th scope="row">{html.escape(label)}</th>{cells}</tr>'


def calibration(table: Mapping[str, Any], kind: str = "classify") -> str:
    """The reliability diagram of :func:`saccade.metrics.calibration.calibration_table` and its numbers."""
    bins = [b for b in table.get("bins", ()) if b["count"]]
    if not bins:
        return ""
    what, rate = ("detections", "precision") if kind == "detect" else ("images", "accuracy")
    numbers = f"expected calibration error {table['ece']:.3f} (bins of equal count: {table['adaptive_ece']:.3f}), worst {table['mce']:.3f}"
    if "brier" in table:
        numbers += f", Brier score {table['brier']:.3f}"
    total = sum(b["count"] for b in bins)
    gap = sum(b["count"] * (b["accuracy"] - b["confidence"]) for b in bins) / total
    verdict = "too sure of itself" if gap < -0.02 else "less sure than it could be" if gap > 0.02 else "about as sure as it is right"
    rows = "".join(
        f'<tr><th scope="row">{b["low"]:.2f} to {b["high"]:.2f}</th>'
        + "".join(f'<td class="num">{value}</td>' for value in (b["count"], f"{b['confidence']:.3f}", f"{b['accuracy']:.3f}"))
        + "</tr>"
        for b in bins
    )
    bin_table = scroll(f'<table class="numbers">{columns(("confidence", what, "mean confidence", rate))}{rows}</table>', "The bins")
    return (
        f'<p>On the whole the model is {verdict}: {numbers}.</p><div class="row">{reliability_diagram(bins, rate)}'
        + svg.bars(f"How many {what} by confidence", [b["count"] for b in table["bins"]], (0.0, 1.0), x="confidence")
        + f"</div><details><summary>The bins</summary>{bin_table}</details>"
    )


def reliability_diagram(bins: Sequence[Mapping[str, float]], rate: str = "accuracy") -> str:
    """Bars of the share that was right, by confidence, against the diagonal of a calibrated model."""
    left, top, wide, high = svg.LEFT, svg.TOP, svg.WIDTH - svg.LEFT - svg.RIGHT, svg.HEIGHT - svg.TOP - svg.BOTTOM
    bottom = top + high
    told = "; ".join(f"confidence {b['confidence']:.2f}: {b['accuracy']:.2f}" for b in bins)
    out = [f'<svg viewBox="0 0 {svg.WIDTH} {svg.HEIGHT}" role="img" aria-label="{html.escape(f"{rate} by confidence: {told}")}">']
    for tick in svg.nice_ticks(0, 1):
        x, y = left + tick * wide, bottom - tick * high
        out.append(f'<line x1="{left}" x2="{left + wide}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        out.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for b in bins:
        x, width = left + b["low"] * wide + 0.5, max((b["high"] - b["low"]) * wide - 1, 1.0)
        y = bottom - b["accuracy"] * high
        out.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{b["accuracy"] * high:.1f}" fill="{svg.INKS[0]}"/>')
    out.append(f'<line x1="{left}" y1="{bottom}" x2="{left + wide}" y2="{top}" {svg.stroke(1)}/>')
    out.append(f'<text x="{(svg.WIDTH + left) / 2}" y="{svg.HEIGHT - 4}" text-anchor="middle">confidence</text></svg>')
    keys = svg.legend([(rate, f'stroke="{svg.INKS[0]}" stroke-width="10"'), ("as it should be", svg.stroke(1))])
    return f"<figure><figcaption>{rate.capitalize()} by confidence</figcaption>{''.join(out)}{keys}</figure>"


def thresholds(table: Mapping[str, Any], most: int = 12) -> str:
    """Precision, recall and F1 against the score for all classes together (else for the first ones), and the thresholds to take.

    Args:
        table: of :func:`saccade.metrics.thresholds.threshold_table`.
        most: classes with a chart.
    """
    if not table:
        return ""
    charted = [""] if "" in table else list(table)[:most]
    charts = "".join(_threshold_chart(name, table[name]) for name in charted)
    wanted = next(iter(table.values()))["wanted"]
    kinds = (("best_f1", "best F1"), ("precision", f"precision {wanted:g}"), ("recall", f"recall {wanted:g}"))
    head = "".join(f'<th scope="colgroup" colspan="2">{text}</th>' for _, text in kinds)
    rows = []
    for name, one in table.items():
        cells = []
        for key, _ in kinds:
            choice = one["choices"][key]
            if choice is None:
                cells.append('<td class="num">none</td><td class="soft">never reached</td>')
                continue
            told = f"precision {choice['precision']:.3f}, recall {choice['recall']:.3f}"
            cells.append(f'<td class="num">{choice["threshold"]:.3f}</td><td class="soft">{told}</td>')
        rows.append(f'<tr><th scope="row">{html.escape(name or "all")}</th>{"".join(cells)}</tr>')
    best = table[charted[0]]["choices"]["best_f1"]
    lead = (
        f"<p>Best F1 of all classes together: {best['f1']:.3f} at a score of <b>{best['threshold']:.3f}</b> "
        f"(precision {best['precision']:.3f}, recall {best['recall']:.3f}).</p>"
        if charted == [""]
        else ""
    )
    caption = f"Least score to take for the best F1, for a precision of {wanted:g} (with the most recall), for a recall of {wanted:g}"
    body = f"<table><caption>{caption}</caption><tr><td></td>{head}</tr>{''.join(rows)}</table>"
    return f'{lead}<div class="row">{charts}</div>{scroll(body, "Which score to cut at")}'


def _threshold_chart(name: str, one: Mapping[str, Any]) -> str:
    best = one["choices"]["best_f1"]["threshold"]
    series = {key: list(zip(one["threshold"], one[key], strict=True)) for key in ("precision", "recall", "f1")}
    series[f"best F1 at {best:.3f}"] = [(best, 0.0), (best, 1.0)]
    return svg.line_chart(f"{name}: by the least score" if name else "By the least score", series, x="score", y_range=(0.0, 1.0))


def classifier_thresholds(scored: Sequence[tuple[Prediction, Target]], classes: Sequence[str]) -> dict[str, Any]:
    """The threshold table of each class against the rest (of two classes: of the second only); {} where it is no classifier."""
    found = [(p.scores, int(t["label"])) for p, t in scored if isinstance(p, Classification)]
    if not found:
        return {}
    curves = one_against_rest(np.stack([scores for scores, _ in found]), np.array([label for _, label in found]), classes)
    return threshold_table({classes[1]: curves[classes[1]]} if len(classes) == 2 else curves)


def mistakes(scored: Sequence[tuple[Prediction, Target]], draw: Callable[[Prediction, Target], str], most: int = 12) -> str:
    """Misclassified images, the most confident first; ``draw`` gives the figure of one."""
    wrong = [(p, t) for p, t in scored if isinstance(p, Classification) and p.label != int(t["label"])]
    if not wrong:
        return ""
    wrong.sort(key=lambda pair: -pair[0].score)  # type: ignore[attr-defined]
    figures = "".join(draw(p, t) for p, t in wrong[:most])
    return (
        f'<p class="soft">{len(wrong)} of {len(scored)} images are taken for another class; the most confident first.</p>'
        f'<div class="shots">{figures}</div>'
    )


def write_numbers(
    folder: Path, metrics: Mapping[str, float], intervals: Intervals, tables: Mapping[str, Any], main: str, images: int
) -> None:
    """``metrics.json`` (numbers, intervals, tables without rows of single images) and ``scores.csv`` (name, class, value, low, high)."""
    rest = {key: value for key, value in tables.items() if key != "images"}
    write_json(folder / "metrics.json", {"main": main, "images": images, "metrics": metrics, "intervals": intervals, "tables": rest})
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(("name", "class", "value", "low", "high"))
    for name, value in metrics.items():
        kind, _, label = name.partition("/")
        numbers = (value, *intervals.get(name, (math.nan, math.nan)))
        rows.writerow((kind, label, *(repr(float(v)) if math.isfinite(v) else "" for v in numbers)))
    write_text(folder / "scores.csv", out.getvalue())

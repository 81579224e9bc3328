"""compare's index.html: one file without network or script: the table, accuracy against latency, curves, the same images by every model.

Rows are plain dicts as ``table.json`` holds them (:mod:`saccade.workflows.compare`): a missing number is NaN or None and shown as "-".
"""

from __future__ import annotations

import html
import itertools
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from saccade.engine.files import write_text
from saccade.models.base import Model
from saccade.report import svg
from saccade.report.html import data_uri, enlarged, goodness, true_points
from saccade.report.page import columns as heading_row
from saccade.report.page import document, scroll, table
from saccade.types import drawing
from saccade.types.prediction import Classification, Detection, Landmarks, Prediction, Segmentation
from saccade.types.recipe import PREDICTION
from saccade.types.sample import Sample, Target

_MORE = """
.compare{font-size:.85rem}.compare td,.compare th{padding:.3rem .45rem}.compare td.num{white-space:normal}
.compare th[scope=row]{min-width:9rem}.compare th[scope=row] .soft{display:block;font-weight:400}
.best th,.best td{font-weight:650}.front{fill:none;stroke:var(--ink);stroke-width:1.5;stroke-dasharray:5 3}.whisker{stroke-width:1.5}
.chart{max-width:820px}.chart svg{min-width:560px}.shots{grid-template-columns:repeat(auto-fill,minmax(min(205px,45%),1fr))}
@page{size:A4 landscape}@media print{.compare{font-size:9px}.compare th[scope=col]{max-width:none}
.compare td,.compare th{padding:.1rem .2rem}.chart svg{min-width:0}}
"""


@dataclass(frozen=True)
class Shot:
    """One image through all models: its name, and (caption, picture) of the truth and of each model."""

    name: str
    pictures: list[tuple[str, Image.Image]]


def write_comparison(
    path: Path,
    facts: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    learning: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    curves: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    shots: Sequence[tuple[str, str, Sequence[Shot]]] = (),
) -> None:
    """Write the page.

    Args:
        path: file to write, atomically.
        facts: ``title metric lower_is_better notes`` and ``shown``, a mapping of what was compared, where and how.
        rows: of the table, best first.
        learning: (training images, metric) by model.
        curves: (epoch, validation metric) by model.
        shots: (heading, explanation, images) by section.
    """
    metric = str(facts["metric"])
    done = [row for row in rows if _known(row["value"])]
    parts = [f"<h1>{html.escape(str(facts['title']))}</h1>"]
    if done:
        best = done[0]
        parts.append(f'<p><span class="big">{best["value"]:.4f}</span> {html.escape(metric)}: {html.escape(best["model"])}</p>')
    parts += [f'<p class="warn">{html.escape(note)}</p>' for note in facts["notes"]]
    parts.append("<h2>Table</h2>" + html_table(rows, metric))
    points = [
        (row["model"], row["latency_ms"], row["value"], row["low"], row["high"]) for row in done if _known(row["latency_ms"])
    ]  # fmt: skip
    if points:
        chart = scatter(f"{metric} against latency", points, x="milliseconds an image, batch 1", lower=bool(facts["lower_is_better"]))
        parts.append(f"<h2>Accuracy against latency</h2>{chart}")
    lines = svg.line_chart(f"Validation, first seed: {metric}", {k: list(v) for k, v in (curves or {}).items()})
    lines += svg.line_chart(f"{metric} by training images", {k: list(v) for k, v in (learning or {}).items()}, x="training images")
    if lines:
        parts.append(f'<h2>Curves</h2><div class="row">{lines}</div>')
    for heading, explanation, images in shots:
        if images:
            parts.append(f'<h2>{html.escape(heading)}</h2><p class="soft">{html.escape(explanation)}</p>' + "".join(map(_shot, images)))
    parts.append(
        "<h2>How it was measured</h2>"
        + table([(str(k), html.escape(str(v))) for k, v in facts["shown"].items()], name="How it was measured")
    )
    write_text(path, document(f"{facts['title']}: saccade compare", "".join(parts), _MORE))


# ------------------------------------------------------------------------------------------------------------- table


def columns(metric: str) -> list[str]:
    """Headings of the table, as the cells of :func:`cells` stand."""
    return [
        "model", metric, "95% interval", "against the best", "runs", "epochs", "training", "latency", "images/s", "parameters", "MACs",
        "peak memory", "bundle", "note",
    ]  # fmt: skip


def cells(row: Mapping[str, Any]) -> list[str]:
    """One row of the table as text."""
    difference = "best" if row["best"] else _number(row["difference"], "{:+.4f}")
    if _known(row["difference_low"]):
        difference += f" [{row['difference_low']:+.4f}, {row['difference_high']:+.4f}]"
    return [
        row["model"],
        _number(row["value"], "{:.4f}"),
        f"[{row['low']:.4f}, {row['high']:.4f}]" if _known(row["low"]) else "-",
        difference,
        f"{row['runs']} of {row['wanted']}",
        _number(row["epochs"], "{:.0f}"),
        duration(row["training_seconds"]),
        _number(row["latency_ms"], "{:.2f} ms"),
        _number(row["images_per_second"], "{:.1f}"),
        _scaled(row["parameters"], 1000, ("", " k", " M", " G")),
        _scaled(row["macs"], 1000, ("", " k", " M", " G", " T")),
        _scaled(row["memory_bytes"], 1024, (" B", " KB", " MB", " GB")),
        _scaled(row["bundle_bytes"], 1024, (" B", " KB", " MB", " GB")),
        _note(row),
    ]


def _note(row: Mapping[str, Any]) -> str:
    if row["error"]:
        return f"failed: {row['error']}"
    if row["runs"] < row["wanted"]:
        return "waiting"
    return f"{row['resumed']} resumed: the time may lack what was before" if row.get("resumed") else ""


def markdown_table(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The table in Markdown."""
    lines = [columns(metric), ["---", *["---:"] * (len(columns(metric)) - 2), "---"], *map(cells, rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def html_table(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The table in HTML; the best row is bold, a model's name leads to the report of its first run, what is to be noted stands below it."""
    names = columns(metric)[:-1]
    body = []
    for row in rows:
        name, *texts, note = (html.escape(text) for text in cells(row))
        if row.get("report"):
            name = f'<a href="{html.escape(row["report"])}">{name}</a>'
        if row["error"] and not _known(row["value"]):
            numbers, note = f'<td class="text" colspan="{len(texts)}">{note}</td>', ""
        else:
            numbers = "".join(f'<td class="num">{_breakable(text)}</td>' for text in texts)
        below = f'<span class="soft">{note}</span>' if note else ""
        style = ' class="best"' if row["best"] else ""
        body.append(f'<tr{style}><th scope="row">{name}{below}</th>{numbers}</tr>')
    caption = "<caption>Best first. Training time, latency and memory as measured on the machine below</caption>"
    return scroll(f'<table class="compare numbers">{caption}{heading_row(names)}{"".join(body)}</table>', "Comparison")


def _breakable(text: str) -> str:
    """Lines break before and within an interval, not before a unit."""
    return text.replace(" ", "&nbsp;").replace("&nbsp;[", " [").replace(",&nbsp;", ", ")


def duration(seconds: float | None) -> str:
    """12.3 s, 4.5 min, 2.1 h."""
    if not _known(seconds):
        return "-"
    assert seconds is not None
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _known(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _number(value: Any, form: str) -> str:
    return form.format(value) if _known(value) else "-"


def _scaled(value: Any, base: int, units: Sequence[str]) -> str:
    """Three digits and a unit."""
    if not _known(value):
        return "-"
    power = 0
    while value >= 999.5 and power + 1 < len(units):
        value, power = value / base, power + 1
    digits = 0 if power == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}{units[power]}"


# ------------------------------------------------------------------------------------------------------------- chart


def pareto_front(points: Sequence[tuple[float, float]], *, lower: bool = False) -> list[int]:
    """Positions of the points that no other beats: none is at most as slow (first) and at least as good (second), and better in one.

    ``lower``: a smaller second number is better. Ordered by the first number; of equal points the first counts.
    """
    sign = -1 if lower else 1
    front: list[int] = []
    best = -math.inf
    for i in sorted(range(len(points)), key=lambda k: (points[k][0], -sign * points[k][1], k)):
        if sign * points[i][1] > best:
            best = sign * points[i][1]
            front.append(i)
    return front


def scatter(title: str, points: Sequence[tuple[str, float, float, float, float]], *, x: str, lower: bool = False) -> str:
    """(name, x, y, low, high) as dots with names and whiskers, and the Pareto front; x is logarithmic when it spans a factor of 8."""
    width, height, left, right, top, bottom = 700, 360, 56, 24, 18, 40
    xs = [p[1] for p in points]
    ys = [v for p in points for v in p[2:] if _known(v)]
    logarithmic = min(xs) > 0 and max(xs) > 8 * min(xs)
    scale = math.log10 if logarithmic else float
    low_x, high_x = scale(min(xs)), scale(max(xs))
    margin = 0.08 * (high_x - low_x) or 0.1 * abs(high_x) or 1.0
    low_x, high_x = low_x - margin, high_x + margin
    spread = (max(ys) - min(ys)) or 0.1 * abs(max(ys)) or 1.0
    start, end = min(ys) - 0.05 * spread, max(ys) + 0.05 * spread
    if min(ys) >= 0 and max(ys) <= 1:  # a share: nothing lies outside
        start, end = max(start, 0.0), min(end, 1.0)
    ticks_y = svg.nice_ticks(start, end)
    low_y, high_y = ticks_y[0], ticks_y[-1]

    def px(value: float) -> float:
        return left + (scale(value) - low_x) / (high_x - low_x) * (width - left - right)

    def py(value: float) -> float:
        return height - bottom - (value - low_y) / (high_y - low_y) * (height - top - bottom)

    front = pareto_front([(p[1], p[2]) for p in points], lower=lower)
    told = "; ".join(f"{name} {y:.4g} at {a:.3g}" for name, a, y, *_ in points)
    best = ", ".join(points[i][0] for i in front)
    out = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(f"{title}: {told}. On the Pareto front: {best}")}">'
    ]  # fmt: skip
    for tick in ticks_y:
        out.append(f'<line x1="{left}" x2="{width - right}" y1="{py(tick):.1f}" y2="{py(tick):.1f}" class="grid"/>')
        out.append(f'<text x="{left - 6}" y="{py(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    ends = (10**low_x, 10**high_x) if logarithmic else (low_x, high_x)
    for tick in _decades(*ends) if logarithmic else svg.nice_ticks(*ends):
        if ends[0] <= tick <= ends[1] and (tick > 0 or not logarithmic):
            out.append(f'<line x1="{px(tick):.1f}" x2="{px(tick):.1f}" y1="{top}" y2="{height - bottom}" class="grid"/>')
            out.append(f'<text x="{px(tick):.1f}" y="{height - bottom + 16}" text-anchor="middle">{tick:.4g}</text>')
    named = x + (", logarithmic" if logarithmic else "")
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 6}" text-anchor="middle">{html.escape(named)}</text>')
    if len(front) > 1:
        steps = [f"{px(points[front[0]][1]):.1f},{py(points[front[0]][2]):.1f}"]
        for before, after in itertools.pairwise(front):  # until the next model is affordable, the last one is the best
            steps.append(f"{px(points[after][1]):.1f},{py(points[before][2]):.1f}")
            steps.append(f"{px(points[after][1]):.1f},{py(points[after][2]):.1f}")
        out.append(f'<polyline points="{" ".join(steps)}" class="front"/>')
    taken: list[tuple[float, float, float]] = []  # left, right, base of the names so far
    for i, (name, a, b, low, high) in enumerate(points):
        ink, cx, cy = svg.INKS[i % len(svg.INKS)], px(a), py(b)
        if _known(low) and _known(high):
            out.append(f'<line x1="{cx:.1f}" x2="{cx:.1f}" y1="{py(low):.1f}" y2="{py(high):.1f}" stroke="{ink}" class="whisker"/>')
        ring = ' stroke="currentColor" stroke-width="1.5"' if i in front else ""
        out.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="5" fill="{ink}"{ring}><title>{html.escape(name)}</title></circle>')
        short = name if len(name) <= 32 else name[:31] + "…"
        long = 6.6 * sum(1 + (unicodedata.east_asian_width(letter) in "FW") for letter in short)
        start = cx + 9 if cx + 9 + long < width - 2 else max(cx - 9 - long, left)
        for base in (cy - 6 + 13 * step for step in (0, 1, -1, 2, -2, 3)):  # a name without room is in the table and on the dot
            if top < base < height - bottom - 4 and not any(start < r and start + long > o and abs(base - y) < 13 for o, r, y in taken):
                taken.append((start, start + long, base))
                out.append(f'<text x="{start:.1f}" y="{base:.1f}">{html.escape(short)}</text>')
                break
    out.append("</svg>")
    note = "the dashed line is the Pareto front: no model is both faster and better than one on it"
    return f'<figure class="chart"><figcaption>{html.escape(title)}; {note}</figcaption>{scroll("".join(out), title)}</figure>'


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten."""
    return [m * 10.0**p for p in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for m in (1, 2, 5)]


# ---------------------------------------------------------------------------------------------------------- pictures


def draw_shots(predicted: Mapping[str, Sequence[Prediction]], samples: Sequence[Sample], classes: Sequence[str], task: str) -> list[Shot]:
    """Images with their truth and every model's prediction (one a sample, by model)."""
    shots = []
    for k, sample in enumerate(samples):
        image = drawing.to_pil(sample.image)
        name = Path(str(sample.target.get("path", ""))).name or str(sample.target.get("image_id", k))
        true = true_prediction(sample, classes, task)
        named = f"truth: {true.name(true.label)}" if isinstance(true, Classification) else "truth"
        pictures = [(named, draw(true, image))]
        for model, predictions in predicted.items():
            note = f"{model}: {told(predictions[k], sample.target)}"
            pictures.append((note, draw(predictions[k], image)))
        shots.append(Shot(name, pictures))
    return shots


def predict_samples(model: Model, samples: Sequence[Sample]) -> list[Prediction]:
    """The model's predictions at the drawing score, one a sample."""
    return model.predict([sample.image for sample in samples])


def true_prediction(sample: Sample, classes: Sequence[str], task: str) -> Prediction:
    """The truth as if it had been predicted, so that both are drawn alike."""
    target = sample.target
    size = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
    if task == "detect":
        labels = np.asarray(target["labels"])
        boxes = np.asarray(target["boxes"], dtype=np.float32)
        return Detection(classes=list(classes), size=size, boxes=boxes, labels=labels, scores=np.ones(len(labels), np.float32))
    if task == "segment":
        return Segmentation(classes=list(classes), size=size, mask=np.asarray(target["mask"]))
    if task == "landmarks":
        return Landmarks(classes=list(classes), size=size, points=true_points(target, len(classes)))
    return Classification(classes=list(classes), size=size, scores=np.eye(len(classes), dtype=np.float32)[int(target["label"])])


def draw(prediction: Prediction, image: Image.Image) -> Image.Image:
    """Drawn, and large enough to be read."""
    large, factor = enlarged(image)
    if isinstance(prediction, Detection):
        return Detection(
            classes=prediction.classes, size=prediction.size, boxes=prediction.boxes, labels=prediction.labels, scores=prediction.scores
        ).above(PREDICTION.score).draw(large)  # fmt: skip
    if isinstance(prediction, Segmentation):
        return drawing.mask(large, np.asarray(prediction.mask).repeat(factor, 0).repeat(factor, 1))
    if isinstance(prediction, Landmarks):
        return drawing.keypoints(large, prediction.on(large))
    return prediction.draw(image)


def told(prediction: Prediction, truth: Target) -> str:
    """How good one prediction is, in a few words."""
    value = goodness(prediction, truth)
    if isinstance(prediction, Detection):
        return f"F1 {value:.2f}, {len(prediction.above(PREDICTION.score))} found of {len(truth['labels'])}"
    if isinstance(prediction, Segmentation):
        return f"mean IoU {value:.3f}"
    if isinstance(prediction, Landmarks):
        return f"mean error {1 - value:.4f} of the diagonal"
    assert isinstance(prediction, Classification)
    right = "right" if prediction.label == int(truth["label"]) else "wrong"
    return f"{prediction.name(prediction.label)} {prediction.score:.2f}, {right}"


def _shot(shot: Shot) -> str:
    figures = "".join(
        f'<figure><img alt="{html.escape(f"{shot.name}, {caption}")}" src="{data_uri(picture, longest=480)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, picture in shot.pictures
    )
    return f'<h3>{html.escape(shot.name)}</h3><div class="shots">{figures}</div>'

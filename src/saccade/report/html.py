"""report.html: one file without network or script: what was run, how it went, the best and the worst predictions."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, features

from saccade.engine.config import RunConfig
from saccade.engine.files import write_text
from saccade.metrics.landmarks import image_error
from saccade.models.base import AdversarialModel, Model
from saccade.report import evidence_html as evidence
from saccade.report import svg
from saccade.report.errors_html import error_sections
from saccade.report.page import columns, document, scroll, table
from saccade.types import drawing
from saccade.types.prediction import Classification, Detection, Landmarks, Prediction, Segmentation
from saccade.types.recipe import PREDICTION
from saccade.types.sample import Target

SMALLEST = 220
"""Pictures whose longer side is shorter are enlarged before anything is drawn on them."""


def write_report(
    path: Path,
    facts: Mapping[str, Any],
    settings: RunConfig,
    history: Sequence[Mapping[str, float]],
    tables: Mapping[str, Any],
    scored: Sequence[tuple[Prediction, Target]],
    model: Model,
    data: Any = None,
    shots: int = 8,
) -> None:
    """Write the report of a run.

    Args:
        path: file to write, atomically.
        facts: of the run (:func:`saccade.engine.run.facts` and its metrics).
        settings: resolved configuration.
        history: rows of metrics.csv.
        tables: of the metric.
        scored: predictions with their truths, validation images.
        model: for class names and, of generators, samples.
        data: the validation data, to decode the pictures that are shown.
        shots: how many best and how many worst predictions.
    """
    metrics, main, intervals = facts["metrics"], facts["main"], facts["intervals"]
    parts = [f"<h1>{html.escape(settings.model)} on {html.escape(settings.data)}</h1>"]
    if main:
        ends = evidence.interval_text(main, intervals)
        within = f" (95 % interval {ends})" if ends else ""
        parts.append(
            f'<p><span class="big">{number(metrics[main])}</span> {html.escape(main)}{within} on {facts["images"]["val"]} validation images</p>'
        )
    parts.append(warnings(facts))
    parts.append("<h2>Run</h2>" + run_table(facts, settings))
    if history:
        parts.append("<h2>Curves</h2>" + curves(history, main))
    if metrics:
        parts.append("<h2>Metrics</h2>" + metric_tables(metrics, tables, model.classes))
        parts.append(evidence_sections(facts, tables, scored, model, data))
    if isinstance(model, AdversarialModel):
        parts.append("<h2>Samples</h2>" + samples(model))
    elif scored:
        ranked = sorted(((goodness(p, t), i) for i, (p, t) in enumerate(scored)), key=lambda pair: (pair[0], pair[1]))
        count = min(shots, max(1, len(ranked) // 2))
        style = "shots" if model.task in ("classify", "landmarks") else "shots wide"
        for title, chosen in (("Worst predictions", ranked[:count]), ("Best predictions", ranked[::-1][:count])):
            figures = "".join(figure(*scored[i], value, data) for value, i in chosen)
            parts.append(f'<h2>{title}</h2><p class="soft">{explain(scored[0][0])}</p><div class="{style}">{figures}</div>')
    shown = html.escape(yaml.safe_dump(settings.to_dict(), sort_keys=False, allow_unicode=True))
    parts.append("<h2>Settings</h2>" + scroll(f"<pre>{shown}</pre>", "Settings"))
    write_text(path, document(f"{settings.model}: saccade report", "".join(parts)))


def evidence_sections(
    facts: Mapping[str, Any], tables: Mapping[str, Any], scored: Sequence[tuple[Prediction, Target]], model: Model, data: Any
) -> str:
    """How sure the numbers are, calibration, thresholds, and a classifier's mistakes."""

    def draw(prediction: Prediction, truth: Target) -> str:
        return figure(prediction, truth, goodness(prediction, truth), data)

    cuts = tables.get("thresholds") or evidence.classifier_thresholds(scored, model.classes)
    part = f" (of the first {len(scored)} images)" if model.task == "classify" and len(scored) < len(tables["images"]) else ""
    sections = {
        "How sure these numbers are": evidence.interval_tables(facts["metrics"], facts["intervals"], facts["main"], model.classes),
        "Calibration": evidence.calibration(tables.get("calibration", {}), model.task),
        "Which score to cut at" + part: evidence.thresholds(cuts),
        "Misclassified images" + part: evidence.mistakes(scored, draw),
    }
    return "".join(f"<h2>{title}</h2>{body}" for title, body in sections.items() if body)


def warnings(facts: Mapping[str, Any]) -> str:
    """What was skipped or repaired in the data."""
    lines = list(facts["skipped"].values()) + list(facts["problems"])
    if not lines:
        return ""
    shown = "<br>".join(html.escape(str(line)) for line in lines[:10])
    more = f"<br>and {len(lines) - 10} more" if len(lines) > 10 else ""
    return f'<p class="warn"><b>Data: {len(lines)} skipped or repaired.</b><br>{shown}{more}</p>'


def run_table(facts: Mapping[str, Any], settings: RunConfig) -> str:
    """Who, what, where, how long."""
    machine = facts["machine"]
    rows = {
        "command": facts["command"],
        "date": facts["date"],
        "training time": f"{facts['training_seconds']:.0f} s",
        "images": f"{facts['images']['train']} training, {facts['images']['val']} validation",
        "seed": facts["seed"],
        "saccade": f"{facts['saccade']} {facts['commit']}".strip(),
        "machine": f"{machine.get('gpu') or machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}",
        "data fingerprint": facts["fingerprint"],
    }
    return table([(k, html.escape(str(v))) for k, v in rows.items()], name="Run")


def curves(history: Sequence[Mapping[str, float]], main: str) -> str:
    """Losses, the main metric, the rate."""

    def points(name: str) -> list[tuple[float, float]]:
        return [(row["epoch"] + 1, row[name]) for row in history if name in row]

    names = list(dict.fromkeys(name for row in history for name in row))
    parts = [name for name in names if name.startswith("train_") and name != "train_loss"]
    charts = [svg.line_chart("Loss", {"train": points("train_loss"), "validation": points("val_loss")})]
    if main:
        charts.append(svg.line_chart(main, {main: points(main)}))
    if len(parts) > 1:
        charts.append(svg.line_chart("Training loss, its parts", {n.removeprefix("train_"): points(n) for n in parts}))
        charts.append(
            svg.line_chart(
                "Validation loss, its parts", {n.removeprefix("train_"): points("val_" + n.removeprefix("train_")) for n in parts}
            )
        )
    charts.append(svg.line_chart("Learning rate", {"lr": points("lr")}))
    if not any(charts):
        return table([(f"{row['epoch']:.0f} {k}", f"{v:.4g}") for row in history for k, v in row.items() if k != "epoch"], True, "Curves")
    return f'<div class="row">{"".join(charts)}</div>'


def metric_tables(metrics: Mapping[str, float], tables: Mapping[str, Any], classes: Sequence[str]) -> str:
    """All numbers: those of the whole set, then by class; the confusion matrix where there is one; the errors."""
    whole = [(k, number(v)) for k, v in metrics.items() if "/" not in k]
    kinds = list(dict.fromkeys(k.partition("/")[0] for k in metrics if "/" in k))
    out = [table(whole, True, "Of the whole set")]
    if kinds:
        rows = "".join(
            f'<tr><th scope="row">{html.escape(name)}</th>'
            + "".join(f'<td class="num">{number(metrics.get(f"{k}/{name}", math.nan))}</td>' for k in kinds)
            + "</tr>"
            for name in classes
        )
        caption = '<caption>By class; "absent" where the data have none</caption>'
        out.append(scroll(f'<table class="numbers">{caption}{columns(["", *kinds])}{rows}</table>', "By class"))
    confusion = tables.get("confusion")
    if confusion is not None and len(confusion) == len(classes) <= 40:
        out.append(svg.matrix("Confusion", confusion, classes))
    out = [f'<div class="row">{"".join(out)}</div>']
    curve = tables.get("curves")
    if isinstance(curve, dict) and curve:
        series = {name: list(zip(c["recall"], c["precision"], strict=True)) for name, c in list(curve.items())[:8] if c}
        out.append(
            '<div class="row">' + svg.line_chart("Precision by recall at IoU 0.5", series, x="recall", y_range=(0.0, 1.0)) + "</div>"
        )
    if errors := tables.get("error_curve"):
        series = {"images": list(zip(errors["error"], errors["share"], strict=False))}
        title = "Share of the images within an error"
        out.append('<div class="row">' + svg.line_chart(title, series, x="mean error / diagonal", y_range=(0.0, 1.0)) + "</div>")
    return "".join(out) + error_sections(tables)


def number(value: float) -> str:
    """Four digits, or "absent"."""
    return f"{value:.4f}" if math.isfinite(value) else "absent"


def samples(model: AdversarialModel, count: int = 36) -> str:
    """A sheet of generated images from fixed noise."""
    images = [drawing.to_pil(image) for image in model.sample(count, seed=0).cpu()]
    return f'<img alt="{count} generated images" style="max-width:100%" src="{data_uri(drawing.sheet(images, cell=96))}">'


def goodness(prediction: Prediction, truth: Target) -> float:
    """A score of one image, 1 best: the true class's probability; the F1 of the boxes; the mean IoU; 1 less the points' mean error."""
    if isinstance(prediction, Classification):
        return float(prediction.scores[int(truth["label"])])
    if isinstance(prediction, Detection):
        return box_f1(prediction.above(PREDICTION.score), truth)
    if isinstance(prediction, Landmarks):
        error = image_error(prediction, truth)
        return max(1 - error, 0.0) if math.isfinite(error) else 1.0
    if isinstance(prediction, Segmentation):
        mask = np.asarray(truth["mask"])
        valid = mask >= 0
        ious = [
            (valid & (mask == k) & (prediction.mask == k)).sum() / max((valid & ((mask == k) | (prediction.mask == k))).sum(), 1)
            for k in np.unique(mask[valid])
        ]
        return float(np.mean(ious)) if ious else 1.0
    return 0.0


def box_f1(prediction: Detection, truth: Target, iou: float = 0.5) -> float:
    """F1 of the boxes above the drawing score: greedy, best score first, same class, IoU >= 0.5."""
    import torch
    from torchvision.ops import box_iou

    keep = ~np.asarray(truth["iscrowd"])
    boxes, labels = np.asarray(truth["boxes"])[keep], np.asarray(truth["labels"])[keep]
    if not len(boxes) or not len(prediction.boxes):
        return 1.0 if len(boxes) == len(prediction.boxes) else 0.0
    overlap = box_iou(torch.as_tensor(prediction.boxes), torch.as_tensor(boxes)).numpy() * (prediction.labels[:, None] == labels[None])
    taken, hits = np.zeros(len(boxes), dtype=bool), 0
    for row in overlap:
        row = np.where(taken, 0.0, row)
        if row.max() >= iou:
            taken[row.argmax()] = True
            hits += 1
    return 2 * hits / (len(boxes) + len(prediction.boxes))


def explain(prediction: Prediction) -> str:
    """What orders the pictures."""
    return {
        "classify": "By the probability of the true class.",
        "detect": f"By the F1 of the boxes at score {PREDICTION.score} and IoU 0.5; left the prediction, right the truth.",
        "segment": "By the image's mean IoU; left the prediction, right the truth.",
        "landmarks": "By the points' mean error, a share of the image's diagonal; green the truth, red the prediction.",
    }.get(prediction.task, "")


def figure(prediction: Prediction, truth: Target, value: float, data: Any) -> str:
    """A drawn prediction beside its truth."""
    picture = source_picture(prediction, data)
    if picture is None:
        return ""
    picture, factor = enlarged(picture)
    if isinstance(prediction, Detection):
        shown = prediction.above(PREDICTION.score)
        texts = [""] * len(truth["labels"])
        right = drawing.boxes(picture, np.asarray(truth["boxes"]) * factor, [int(k) for k in truth["labels"]], texts)
        image = side_by_side(shown.draw(picture), right)
        note = f"F1 {value:.2f}, {len(shown)} found, {len(truth['labels'])} true"
    elif isinstance(prediction, Segmentation):
        masks = [np.asarray(mask).repeat(factor, 0).repeat(factor, 1) for mask in (prediction.mask, truth["mask"])]
        image = side_by_side(*(Segmentation(mask=mask, classes=prediction.classes).draw(picture) for mask in masks))
        note = f"mean IoU {value:.3f}"
    elif isinstance(prediction, Landmarks):
        true = true_points(truth, len(prediction.points))
        image = drawing.shifts(picture, prediction.on(picture), true * factor)
        labelled = int(np.isfinite(true).all(1).sum())
        note = f"mean error {1 - value:.4f} of the diagonal, {labelled} points" if labelled else "no point is labelled"
    else:
        assert isinstance(prediction, Classification)
        label = int(truth["label"])
        image = prediction.draw(picture)
        note = f"true {prediction.name(label)} {value:.3f}, predicted {prediction.name(prediction.label)} {prediction.score:.3f}"
    name = html.escape(Path(prediction.path).name or str(prediction.image_id))
    alt = html.escape(f"{Path(prediction.path).name}: {note}")
    return f'<figure><img alt="{alt}" src="{data_uri(image)}"><figcaption>{name}: {html.escape(note)}</figcaption></figure>'


def true_points(truth: Target, count: int) -> np.ndarray:
    """(K, 2) labelled points of an image; NaN for the others."""
    points = np.full((count, 2), np.nan)
    if len(truth["keypoints"]):
        seen = np.asarray(truth["visibility"])[0] > 0
        points[seen] = np.asarray(truth["keypoints"])[0][seen]
    return points


def enlarged(picture: Image.Image) -> tuple[Image.Image, int]:
    """A small picture in whole steps to at least :data:`SMALLEST` pixels, so that what is drawn on it can be read; and the factor."""
    factor = max(1, -(-SMALLEST // max(picture.size)))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST), factor


def source_picture(prediction: Prediction, data: Any) -> Image.Image | None:
    """The image of a prediction: from the data set by id (idx, synthetic), or its file."""
    if prediction.image is not None:
        return prediction.picture()
    if data is not None:
        if not hasattr(data, "_positions"):
            data._positions = {record.image_id: i for i, record in enumerate(data.map_records(lambda r: r))}
        position = data._positions.get(prediction.image_id)
        if position is not None:
            return drawing.to_pil(data.image(data.record(position)))
    return prediction.picture() if Path(prediction.path).is_file() else None


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two pictures of one size with a gap."""
    out = Image.new("RGB", (left.width + right.width + 4, left.height), (255, 255, 255))
    out.paste(left, (0, 0))
    out.paste(right, (left.width + 4, 0))
    return out


def data_uri(image: Image.Image, longest: int = 900) -> str:
    """The picture inside the page: WebP, which is half the size of JPEG, where Pillow has it."""
    if max(image.size) > longest:
        factor = longest / max(image.size)
        image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    kind = "WEBP" if features.check("webp") else "JPEG"
    image.save(out, kind, quality=80)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(out.getvalue()).decode()

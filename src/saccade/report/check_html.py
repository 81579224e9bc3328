"""check.html and batch.png: what a network would see and learn from, what it would cost, and what speaks against it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from saccade.data.inspect import Finding, Inspection
from saccade.engine.files import write_text
from saccade.models.detect.base import BACKGROUND, Assignment
from saccade.report import svg
from saccade.report.html import data_uri, true_points
from saccade.report.page import columns, document, scroll, table
from saccade.types import drawing
from saccade.types.prediction import Landmarks, Segmentation
from saccade.types.sample import Target

GREY = (128, 128, 128)
MOST_BACKGROUND = 24
"""Background boxes that are drawn of a stage: more would hide the picture."""

NAMES_UP_TO = 12
"""Objects up to which drawn boxes carry names."""

_MORE = """
.error,.note{border-left:4px solid #cf222e;padding:.4rem .8rem;background:var(--wash);margin:.6rem 0;overflow-wrap:anywhere}
.note{border-color:var(--line)}.verdict{font-size:1.4rem;font-weight:650;line-height:1.3}
details>ul{max-height:20rem;overflow:auto;margin:.3rem 0}li{overflow-wrap:anywhere}
"""


@dataclass(frozen=True)
class Shot:
    """One image of a batch as the network gets it.

    Attributes:
        task: of the model: which part of the target is drawn.
        pixels: (C, H, W) on the scale 0..255; what lies outside is cut off in the drawing.
        target: in network pixels.
        assigned: what a detector's boxes learn, a stage each.
    """

    task: str
    pixels: Tensor
    target: Target
    assigned: tuple[Assignment, ...] = ()


def draw_shot(shot: Shot, classes: Sequence[str], cell: int = 340) -> list[Image.Image]:
    """The image with its truth, once for each stage of a detector (once where there is none), about ``cell`` pixels wide or high.

    Truth is thick and named; boxes that learn it are thin, in a lighter tone of its colour; those that learn background are grey.
    """
    array = shot.pixels.nan_to_num(0).clamp(0, 255).round().byte()
    image, name = drawing.to_pil(array), Path(str(shot.target.get("path", ""))).name[-28:]
    factor = cell / max(image.size)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    image = image.resize(size, Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST)
    if shot.task == "detect":
        return [_caption(_boxes(image, shot, stage, classes, factor), name, shot, stage) for stage in shot.assigned or (None,)]
    if shot.task == "segment":
        mask = np.asarray(Image.fromarray(np.asarray(shot.target["mask"]).astype(np.int32)).resize(size, Image.Resampling.NEAREST))
        image = Image.fromarray(np.where((mask < 0)[..., None], (np.asarray(image) // 3 + 85).astype(np.uint8), np.asarray(image)))
        ignored = f", {100 * (mask < 0).mean():.0f} % without a class (greyed)" if (mask < 0).any() else ""
        drawn = Segmentation(mask=mask.clip(0), classes=list(classes)).draw(image)
        return [drawing.caption(drawn, f"{name or 'image'}{ignored}")]
    if shot.task == "landmarks":
        points, count = true_points(shot.target, len(classes)) * factor, len(classes)
        drawn = drawing.keypoints(image, points, names=classes if count <= Landmarks.MOST_NAMES else None)
        return [drawing.caption(drawn, f"{int(np.isfinite(points).all(1).sum())} of {count} points  {name}")]
    if shot.task == "classify":
        return [drawing.caption(image, f"{_label(shot.target, classes)}  {name}")]
    return [drawing.caption(image, name or "image")]


def _label(target: Target, classes: Sequence[str]) -> str:
    """Class name; of mixed images all that have a share."""

    def named(k: int) -> str:
        return classes[k] if 0 <= k < len(classes) else str(k)

    if "label_probs" in target:
        return ", ".join(f"{named(k)} {p:.2f}" for k, p in enumerate(target["label_probs"].tolist()) if p >= 0.005)
    return named(int(target["label"]))


def _boxes(image: Image.Image, shot: Shot, stage: Assignment | None, classes: Sequence[str], factor: float) -> Image.Image:
    """Truth, and what one stage learns it with."""
    objects, labels = (stage.objects, stage.labels) if stage is not None else (shot.target["boxes"], shot.target["labels"])
    truth, names = np.asarray(objects.cpu()) * factor, [int(k) for k in labels]
    if stage is not None:
        taken, boxes = np.asarray(stage.truth.cpu()), np.asarray(stage.boxes.cpu()) * factor
        nothing = np.flatnonzero(taken == BACKGROUND)
        nothing = nothing[np.linspace(0, len(nothing) - 1, min(MOST_BACKGROUND, len(nothing))).astype(int)]
        image = _thin(image, boxes[nothing], [GREY] * len(nothing))
        some = taken != BACKGROUND
        image = _thin(image, boxes[some], [_lighter(drawing.color(names[t])) for t in taken[some]])
    texts = [(classes[k] if 0 <= k < len(classes) else str(k)) if len(names) <= NAMES_UP_TO else "" for k in names]
    return drawing.boxes(image, truth, names, texts, width=3)


def _thin(image: Image.Image, boxes: np.ndarray, colors: list[drawing.Color]) -> Image.Image:
    return drawing.boxes(image, boxes, [0] * len(boxes), [""] * len(boxes), colors=colors, width=1)


def _lighter(color: drawing.Color) -> drawing.Color:
    red, green, blue = ((c + 255) // 2 for c in color)
    return red, green, blue


def _caption(image: Image.Image, name: str, shot: Shot, stage: Assignment | None) -> Image.Image:
    if stage is None:
        return drawing.caption(image, f"{len(shot.target['boxes'])} objects  {name}")
    positive = int((stage.truth != BACKGROUND).sum())
    rest = len(stage.boxes) - positive
    return drawing.caption(
        image, f"{len(stage.objects)} objects, {positive} {stage.name}" + (f", {rest} background" if rest else f"  {name}")
    )


def sheet(drawn: Sequence[Sequence[Image.Image]], cell: int = 340) -> Image.Image:
    """All images of a batch on a sheet; an image of a detector with several stages is a column of them."""
    columns, stages = min(4, len(drawn)), max(len(pictures) for pictures in drawn)
    cells: list[Image.Image] = []
    for start in range(0, len(drawn), columns):
        row = drawn[start : start + columns]
        for stage in range(stages):
            cells += [pictures[stage] for pictures in row] + [Image.new("RGB", (1, 1), (245, 245, 245))] * (columns - len(row))
    return drawing.sheet(cells, columns=columns, cell=cell)


# -- the page -------------------------------------------------------------------------------------


def write_check(path: Path, found: Inspection, drawn: Sequence[Sequence[Image.Image]]) -> None:
    """Write the page.

    Args:
        path: file to write, atomically.
        found: what :func:`saccade.check` found.
        drawn: the batch: of each image the pictures of :func:`draw_shot`.
    """
    facts = found.facts
    title = f"{facts['model']} on {facts['data']}"
    counts = {level: sum(f.level == level for f in found.findings) for level in ("error", "warning", "note")}
    told = ", ".join(f"{n} {level}{'s' * (n != 1)}" for level, n in counts.items() if n) or "nothing wrong found"
    parts = [
        f"<h1>Check before training: {html.escape(title)}</h1>",
        f'<p class="verdict">{html.escape(facts["verdict"])}</p><p class="soft">{html.escape(told)}</p>',
        "<h2>Findings</h2>" + "".join(map(_finding, found.findings)) if found.findings else "",
        "<h2>A batch as the network sees it</h2>" + _batch(facts, drawn) if drawn else "",
        "<h2>Can it learn?</h2>" + _learning(facts),
        "<h2>What training would cost</h2>" + table(list(cost_rows(facts).items()), name="Cost") if facts.get("cost") else "",
        "<h2>Objects, input size and priors</h2>" + _fit(facts["fit"]) if facts.get("fit") else "",
        "<h2>Data</h2>" + _data(facts),
    ]
    write_text(path, document(f"{title}: saccade check", "".join(parts), _MORE))


def _finding(finding: Finding) -> str:
    style = {"error": "error", "warning": "warn", "note": "note"}[finding.level]
    places = "".join(f"<li>{html.escape(place)}</li>" for place in finding.examples[:20])
    more = f"<li>and {finding.count - len(finding.examples)} more</li>" if finding.count > len(finding.examples) else ""
    listed = f"<details><summary>where</summary><ul>{places}{more}</ul></details>" if places else ""
    kind = f"{finding.level}: {html.escape(finding.kind)} ({finding.count})."
    return f'<div class="{style}"><b>{kind}</b> {html.escape(finding.text)}{listed}</div>'


def _batch(facts: dict[str, Any], drawn: Sequence[Sequence[Image.Image]]) -> str:
    seen, stages = facts["input"], facts.get("assigned") or {}
    rows = [
        ("input", f"{'x'.join(map(str, seen['shape']))}; mean {_list(seen['mean'])}, standard deviation {_list(seen['std'])} by channel"),
        ("back in pixels", f"from {seen['pixel_range'][0]:.0f} to {seen['pixel_range'][1]:.0f}"),
        ("channels", html.escape(seen["order"] or "not to be told (grey images)")),
    ]
    rows += [
        (name, f"{one['median']:g} an object (median), at most {one['most']}; {one['without']} of {one['objects']} objects have none")
        for name, one in stages.items()
    ]
    legend = (
        "Thick and named: truth. Thin, in a lighter tone: boxes of the untrained detector that learn it. Grey: some that learn background. "
        if stages
        else ""
    )
    figures = "".join(
        f'<figure><img alt="training image {i} with its targets, picture {k} of {len(pictures)}" src="{data_uri(picture)}"></figure>'
        for i, pictures in enumerate(drawn, start=1)
        for k, picture in enumerate(pictures, start=1)
    )
    return (
        f'<p class="soft">{legend}After augmentation and preprocessing, brought back to pixels: are the colours right, do targets fit, '
        f'are names and things together?</p><div class="shots">{figures}</div>{table(rows, name="The batch")}'
    )


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{v:.2f}" for v in values)


def _learning(facts: dict[str, Any]) -> str:
    test = facts.get("overfit")
    if not test:
        return f"<p>{html.escape(facts['not_applied'].get('overfit', 'not asked'))}</p>"
    text = f"<p>{html.escape(test['text'])}</p>"
    if not test["losses"]:
        return text
    rows = [("images", str(test["images"])), ("steps", str(len(test["losses"]))), ("time", f"{test['seconds']:.0f} s")]
    if test["metric"]:
        rows.append((f"{test['metric']} on them", f"{_number(test['before'])} before, {_number(test['after'])} after"))
    rows.append(("parameters", f"{test['parameters']:,}, {test['frozen']:,} of them frozen"))
    chart = svg.line_chart("Loss on a few images, without augmentation", {"loss": list(enumerate(test["losses"], start=1))}, x="step")
    return text + f'<div class="row">{chart}</div>' + table(rows, name="By heart")


def _number(value: float | None) -> str:
    return "none" if value is None or value != value else f"{value:.3f}"


def _fit(fit: dict[str, Any]) -> str:
    side = fit["side"]
    rows = [
        ("objects looked at", str(fit["objects"])),
        ("side in the input", f"{side['1']:.0f} to {side['99']:.0f} pixels, median {side['50']:.0f} (root of the area, 1 to 99 %)"),
        ("below 8 pixels", f"{100 * fit['below_8_pixels']:.1f} %"),
    ]
    charts = svg.bars("Objects by their side in network pixels", fit["side_histogram"], (0.0, side["99"]), x="pixels")
    if "taken" in fit:
        taken = "centre of a prior inside" if fit["threshold"] is None else f"a prior of IoU {fit['threshold']:g} or more"
        rows += [
            (taken, f"{100 * fit['taken']:.1f} %"),
            ("IoU with the best prior", f"median {fit['median_best_iou']:.2f}"),
            ("smaller than the finest stride", f"{100 * fit['below_stride']:.1f} % (stride {fit['stride']:g})"),
            ("beyond the largest prior", f"{100 * fit['above_largest']:.1f} % (prior of {fit['largest_prior']:.0f} pixels)"),
        ]
        charts += svg.bars("Objects by the IoU with their best prior", fit["iou_histogram"], (0.0, 1.0), x="IoU")
    return table(rows, name="Sizes") + f'<div class="row">{charts}</div>'


MEMORY = {"optimizer": "optimiser", "kept": "results kept for the way back"}


def cost_rows(facts: dict[str, Any]) -> dict[str, str]:
    """What training would cost, in words."""
    cost = facts["cost"]
    parts = {
        "weights": "weights",
        "gradients": "gradients",
        "optimizer": "optimiser",
        "kept": "results kept for the way back",
        "images": "images",
    }
    memory = f"at least {_size(cost['memory'])}: " + ", ".join(f"{text} {_size(cost[name])}" for name, text in parts.items())
    scaled = f" (measured on {cost['measured']})" if cost["measured"] != cost["batch"] else ""
    rows = {
        "parameters": f"{cost['parameters']:,}",
        "memory of a step" if cost["peak"] is None else "predicted memory": memory,
        "a step": f"{cost['seconds']:.2f} s of {cost['batch']} images{scaled}, their loading {cost['load_seconds']:.2f} s in one process",
        "an epoch": f"{_time(cost['epoch_seconds'])}: {cost['steps']} steps, {cost['workers']} loader processes",
        "the recipe": f"{_time(cost['total_seconds'])} for {cost['epochs']} epochs, validation included, on {cost['device']}",
        "disk of a run": f"{_size(cost['disk'])}: checkpoints, the best and the last, and the bundle",
    }
    if cost["peak"] is not None:
        rows["memory measured"] = f"{_size(cost['peak'])} on the GPU with {cost['measured']} images"
    return rows


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _data(facts: dict[str, Any]) -> str:
    rows = [("images", ", ".join(f"{html.escape(k)} {v}" for k, v in facts["images"].items()))]
    counts = facts["classes"]
    most = max(counts.values(), default=0) or 1
    cells = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td class="cell" style="--share:{n / most:.3f}">{n}</td></tr>'
        for name, n in list(counts.items())[:200]
    )
    shown = scroll(f'<table class="numbers">{columns(["class", facts["counted"]])}{cells}</table>', "Classes")
    lacking = "".join(f"<li>{html.escape(f'{k}: {v}')}</li>" for k, v in facts["not_applied"].items())
    return table(rows, name="Data") + (shown if counts else "") + (f"<p>What does not apply here:</p><ul>{lacking}</ul>" if lacking else "")

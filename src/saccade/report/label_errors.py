"""Likely label errors as people see them: a table, a picture each, a sheet, and one HTML file without network or script."""

from __future__ import annotations

import csv
import html
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.engine.files import atomic, write_text
from saccade.report.html import data_uri
from saccade.report.page import document, table
from saccade.types import drawing
from saccade.types.errors import DataError

GIVEN, PREDICTED, OTHER = (235, 60, 60), (40, 200, 80), (90, 140, 255)
"""Colours of the pictures: the label in question, what is predicted, the other labels."""

_LEGEND = {
    "detect": "Red is the label in question, green the prediction, blue are the other labels.",
    "segment": "Left the given mask, right the predicted one.",
}


@dataclass
class LabelIssue:
    """One likely error.

    Attributes:
        path, image_id, number: of the image; ``number`` is its place in the index.
        kind: "class"; "overlooked", "badly located", "swapped", "spurious" (boxes); "region" (masks).
        given, suggested: names of classes, "" where there is none.
        quality: 0 is the most suspicious, 1 fine (:mod:`saccade.metrics.label_errors`).
        score: of the prediction.
        object: number of the labelled box in its image, from 1; None where no box is meant.
        box: the labelled box, or the region's; suggested_box: the predicted one. XYXY in pixels.
        area: pixels of a region.
    """

    path: str
    image_id: str
    number: int
    kind: str
    given: str
    suggested: str
    quality: float
    score: float
    object: int | None = None
    box: list[float] | None = None
    suggested_box: list[float] | None = None
    area: int | None = None


def words(issue: LabelIssue) -> str:
    """An issue in a few words."""
    if issue.kind == "overlooked":
        return f"overlooked {issue.suggested} {issue.score:.2f}"
    if issue.kind == "spurious":
        return f"spurious {issue.given}?"
    if issue.kind == "badly located":
        return f"{issue.given} badly located, IoU {issue.quality:.2f}"
    return f"given {issue.given}, predicted {issue.suggested} {issue.score:.2f}"


def write_issues(
    folder: Path, data: Dataset, issues: Sequence[LabelIssue], *, task: str, images: int, facts: Mapping[str, object], notes: Sequence[str],
    top: int, masks: Mapping[int, np.ndarray] | None = None,
) -> None:  # fmt: skip
    """Write issues.csv (all), sheet.jpg and report.html (the first ``top``) into a folder.

    Args:
        folder: exists.
        data: decodes the pictures.
        issues: worst first.
        task: "classify", "detect" or "segment"; images: how many were judged.
        facts: of the search, for the page; notes: what was skipped or not judged.
        top: how many are drawn.
        masks: predicted class maps by the image's number.
    """
    _write_table(folder / "issues.csv", issues)
    side = 190 if task == "classify" else 260
    shots = []
    for rank, issue in enumerate(issues[:top], 1):
        with suppress(DataError):  # an image that was readable when it was judged
            shots.append((rank, issue, draw_issue(data, issue, masks, side=side)))
    (folder / "sheet.jpg").unlink(missing_ok=True)
    if shots:
        cells = [drawing.caption(picture, f"{rank}. {words(issue)}") for rank, issue, picture in shots]
        with atomic(folder / "sheet.jpg") as temporary:
            drawing.sheet(cells, columns=min(8 if task == "classify" else 5, len(cells)), cell=side).save(temporary, quality=88)
    kinds: dict[str, int] = {}
    for issue in issues:
        name = f"{issue.given} → {issue.suggested}" if issue.kind in ("class", "region") else issue.kind
        kinds[name] = kinds.get(name, 0) + 1
    common = sorted(kinds.items(), key=lambda item: -item[1])[:20]
    figures = "".join(
        f'<figure><img alt="{html.escape(words(issue))}" src="{data_uri(picture)}"><figcaption>{rank}. {html.escape(words(issue))}<br>'
        f"{html.escape(issue.path)}{f', object {issue.object}' if issue.object else ''}; quality {issue.quality:.3f}</figcaption></figure>"
        for rank, issue, picture in shots
    )
    warn = '<p class="warn">' + "<br>".join(html.escape(note) for note in notes[:20]) + "</p>" if notes else ""
    legend = _LEGEND.get(task, "")
    parts = [
        "<h1>Likely label errors</h1>",
        f'<p><span class="big">{len(issues)}</span> in {len({issue.number for issue in issues})} of {images} images</p>',
        warn,
        "<h2>Search</h2>" + table([(key, html.escape(str(value))) for key, value in facts.items() if value is not None], name="Search"),
        "<h2>Kinds</h2>" + table([(name, str(count)) for name, count in common], True, "Kinds") if common else "",
        f'<h2>The worst {len(shots)}</h2><p class="soft">{legend} issues.csv lists all.</p><div class="shots">{figures}</div>'
        if shots
        else "",
    ]
    write_text(folder / "report.html", document("saccade: likely label errors", "".join(parts)))


def _write_table(path: Path, issues: Sequence[LabelIssue]) -> None:
    corners = [f"{name}{k}" for name in ("", "suggested_") for k in ("x1", "y1", "x2", "y2")]
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["rank", "path", "image_id", "kind", "given", "suggested", "quality", "score", "object", "area", *corners])
        for k, i in enumerate(issues, 1):
            boxes = [*(i.box or [""] * 4), *(i.suggested_box or [""] * 4)]
            writer.writerow([k, i.path, i.image_id, i.kind, i.given, i.suggested, i.quality, i.score, i.object, i.area, *boxes])


def draw_issue(data: Dataset, issue: LabelIssue, masks: Mapping[int, np.ndarray] | None = None, side: int = 260) -> Image.Image:
    """The picture of an issue, about ``side`` pixels large: the label in question red, the prediction green, other labels blue.

    Masks stand side by side, the given one left.
    """
    record = data.index.records[issue.number]
    picture = drawing.to_pil(data.image(record))
    if issue.kind == "class":
        return _enlarged(picture, side)[0]
    place = _surroundings(issue, picture.size)
    if issue.kind == "region":
        size = (picture.height, picture.width)
        given = data.mask(record, size)
        predicted = (masks or {})[issue.number]
        views = [drawing.mask(picture, mask.astype(np.int64), background=None).crop(place) for mask in (given, predicted)]
        out = Image.new("RGB", (2 * views[0].width + 2, views[0].height), (255, 255, 255))
        out.paste(views[0], (0, 0))
        out.paste(views[1], (views[0].width + 2, 0))
        return _enlarged(out, 2 * side)[0]
    cut, factor = _enlarged(picture.crop(place), side)
    chosen = [(box, OTHER, 1) for k, box in enumerate(np.asarray(record.boxes).reshape(-1, 4), 1) if k != issue.object]
    chosen += [(box, color, 2) for box, color in ((issue.box, GIVEN), (issue.suggested_box, PREDICTED)) if box is not None]
    for box, color, width in chosen:
        moved = (np.asarray(box, dtype=float) - [place[0], place[1]] * 2) * factor
        if (moved[2:] > 0).all() and (moved[:2] < cut.size).all():
            cut = drawing.boxes(cut, moved[None], [0], [""], colors=[color], width=width)
    return cut


def _surroundings(issue: LabelIssue, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of the picture that shows the issue: its boxes and half as much again on each side, at least 64 pixels."""
    boxes = np.array([box for box in (issue.box, issue.suggested_box) if box is not None], dtype=float)
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    half = max(float((high - low).max()), 32.0)
    centre = (low + high) / 2
    low, high = np.floor(centre - half).clip(0), np.ceil(centre + half).clip(max=size)
    low, high = np.minimum(low, np.array(size) - 1), np.maximum(high, low + 1)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _enlarged(picture: Image.Image, side: int) -> tuple[Image.Image, float]:
    factor = side / max(picture.size)
    how = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST if max(picture.size) <= 64 else Image.Resampling.BICUBIC
    width, height = (max(1, round(v * factor)) for v in picture.size)
    return picture.resize((width, height), how), factor

"""Score predictions made elsewhere: COCO results, folders of YOLO or VOC files or mask PNGs, or saccade's own ``predictions.json``.

Against a COCO file the images are not needed, and the numbers are pycocotools'. Against other data the predictions are matched to images
by file name: ``a/b/001.txt`` belongs to the one image whose path without suffix ends in ``a/b/001``, ``b/001`` or ``001``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats.files import image_hw
from saccade.data.images import read_mask
from saccade.data.polygons import mask_to_rle, rasterize
from saccade.metrics.classification import ClassificationMetric
from saccade.metrics.detection import DetectionImage, DetectionMetric
from saccade.metrics.segmentation import SegmentationMetric
from saccade.types.errors import DataError, UsageError, suggest
from saccade.types.prediction import Classification, Segmentation
from saccade.types.recipe import EVALUATION, PREDICTION
from saccade.workflows.foreign import (
    Frame,
    Objects,
    Truth,
    coco_results,
    coco_truth,
    column,
    dataset_truth,
    is_json,
    list_files,
    own_detections,
    own_frame,
    own_label,
    own_rows,
    read_any,
    read_folder,
    read_voc,
    recognise,
    renumbering,
    yolo_reader,
)

FORMATS = ("coco", "yolo", "voc", "masks", "saccade")
"""Formats of predictions."""


class Scored(NamedTuple):
    """A metric that holds all predictions, counts of what was scored and settings, and the number of images."""

    metric: ClassificationMetric | DetectionMetric | SegmentationMetric
    extra: dict[str, float]
    images: int

    def numbers(self) -> dict[str, float]:
        """What :func:`score_predictions` gives."""
        return self.metric.compute() | self.extra


def score_predictions(
    predictions: str | Path,
    truth: str | Path | Dataset,
    *,
    format: str | None = None,
    classes: Sequence[str] | None = None,
    iou_type: Literal["boxes", "masks"] | None = None,
    max_detections: int = EVALUATION.max_detections,
    score: float = PREDICTION.score,
) -> dict[str, float]:
    """Metrics of predictions, by the same code that scores saccade's models.

    Args:
        predictions: a COCO results JSON; a folder of YOLO files (``class cx cy w h score``, fractions of the image), of VOC XML files
            whose objects have a ``<score>``, or of masks (PNG; values as in the data or labels 0..K-1); or a JSON list of
            :meth:`Prediction.to_dict`, as ``saccade predict`` writes.
        truth: a COCO JSON file (its images are not opened), a Dataset, or what :func:`saccade.load_data` takes.
        format: of the predictions, one of :data:`FORMATS`; None finds it.
        classes: names of the classes by the predictions' own numbers (YOLO, masks of labels), when they are in another order than
            the data's.
        iou_type: compare boxes or instance masks; None takes masks when COCO results have segmentations and no boxes.
        max_detections: cap of detections an image and class; AP and the last recall have it, beside 1 and 10.
        score: threshold of precision, recall and F1.

    Returns:
        Named floats of the task's metric; NaN where a class is absent. Beside them what was scored: ``images``,
        ``images_without_predictions`` (detection: they count as nothing found) and ``unused_predictions`` (images of another split
        of the data); for detection ``detections``, ``objects`` (crowds not counted), ``skipped_objects`` (of an image or category
        that the COCO file does not list) and the settings in effect, ``settings/max_detections`` and
        ``settings/score``. No detection is dropped for its score and no suppression is applied, whatever it costs.

    Raises:
        DataError: a file is broken, names an image or class that the truth lacks, or holds a score that is no number.
        UsageError: an unknown format, or one that does not fit the truth.
    """
    return collect_predictions(
        predictions, truth, format=format, classes=classes, iou_type=iou_type, max_detections=max_detections, score=score
    ).numbers()


def collect_predictions(
    predictions: str | Path,
    truth: str | Path | Dataset,
    *,
    format: str | None = None,
    classes: Sequence[str] | None = None,
    iou_type: Literal["boxes", "masks"] | None = None,
    max_detections: int = EVALUATION.max_detections,
    score: float = PREDICTION.score,
) -> Scored:
    """As :func:`score_predictions`, with the metric itself, which has tables and intervals too."""
    source = Path(predictions)
    data = read_any(source)
    kind = format or recognise(source, data)
    if kind not in FORMATS:
        raise UsageError(f"no format of predictions {kind!r}{suggest(kind, FORMATS)}")
    answers = coco_truth(Path(truth)) if not isinstance(truth, Dataset) and is_json(truth) else dataset_truth(truth)
    names = list(classes) if classes is not None else None
    if kind == "masks":
        return Scored(*_score_masks(source, answers, names), len(answers.frames))
    if kind == "saccade":
        rows = own_rows(source, data)
        tasks = {str(row.get("task")) for row in rows}
        if tasks == {"classify"}:
            return Scored(*_score_labels(source, rows, answers), len(answers.frames))
        if tasks != {"detect"}:
            kinds = ", ".join(sorted(tasks)) or "no task"
            raise DataError(source, f"holds predictions of {kinds}", hint="masks are scored as a folder of PNGs")
        found = own_detections(source, rows, answers)
    elif kind == "coco":
        found, has_boxes = coco_results(source, data, answers)
        iou_type = iou_type or ("boxes" if has_boxes else "masks")
    else:
        suffix, read = (".txt", yolo_reader(names, answers)) if kind == "yolo" else (".xml", read_voc)
        found = read_folder(source, answers, suffix, read)
    numbers = _score_detections(source, found, answers, iou_type or "boxes", max_detections, score)
    return Scored(*numbers, len(answers.frames))


def _score_detections(
    source: Path, found: dict[int, Objects], truth: Truth, iou_type: Literal["boxes", "masks"], cap: int, score: float
) -> tuple[DetectionMetric, dict[str, float]]:
    if all(frame.objects is None for frame in truth.frames):
        raise UsageError(f"{source} holds boxes, but {truth.source} has none")
    if iou_type == "masks":
        from faster_coco_eval.core import mask as coco_mask
    if cap < 1:
        raise UsageError(f"max_detections must be at least 1, not {cap}")
    metric = DetectionMetric(truth.classes, iou_type, [*(c for c in (1, 10) if c < cap), cap], score)
    nothing = Objects(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), *np.zeros((4, 0)))
    counts = {"detections": 0.0, "objects": 0.0, "skipped_objects": float(truth.skipped)}
    for i, frame in enumerate(truth.frames):
        ours, theirs = found.get(i, nothing), frame.objects or nothing
        codes: list[list[dict[str, Any]] | None] = [None, None]
        areas = ours.areas
        if iou_type == "masks":
            codes = [_codes(frame, objects, path) for objects, path in ((ours, source), (theirs, truth.source))]
            areas = np.array([coco_mask.area(code) for code in codes[0] or []], dtype=np.float64)
        crowd, difficult = theirs.crowd.astype(bool), theirs.difficult.astype(bool)
        metric.add(
            DetectionImage(
                frame.image_id, frame.path, frame.size or (0, 0), ours.boxes, ours.labels, ours.scores, areas,
                theirs.boxes, theirs.labels, theirs.areas, crowd, difficult, codes[0], codes[1],
            )
        )  # fmt: skip
        counts["detections"] += len(ours.boxes)
        counts["objects"] += int((~crowd).sum())
    settings = {"settings/max_detections": float(cap), "settings/score": float(score)}
    return metric, counts | _coverage(found, truth) | settings


def _codes(frame: Frame, objects: Objects, source: Path) -> list[dict[str, Any]]:
    if not len(objects.boxes):
        return []
    if objects.segments is None or any(segment is None for segment in objects.segments):
        raise DataError(source, "has objects without a segmentation", where=f"image {frame.image_id}", hint="score boxes instead")
    if frame.size is None:
        raise DataError(source, "states no height and width, which masks need", where=f"image {frame.image_id}")
    try:
        return [mask_to_rle(rasterize(segment, frame.size)) for segment in objects.segments]
    except ValueError as error:
        raise DataError(source, str(error), where=f"image {frame.image_id}") from None


def _score_labels(source: Path, rows: list[dict[str, Any]], truth: Truth) -> tuple[ClassificationMetric, dict[str, float]]:
    metric = ClassificationMetric(truth.classes)
    taken: set[int] = set()
    for n, row in enumerate(rows):
        i = own_frame(source, n, row, truth, taken)
        if i < 0:
            continue
        record = truth.frames[i].record
        if record is None or record.label is None:
            raise UsageError(f"{source} holds classes of images, but {truth.source} has none")
        scores = np.zeros(len(truth.classes))
        top = row.get("top") or [row]
        if not isinstance(top, list) or not all(isinstance(item, dict) for item in top):
            raise DataError(source, "has no list of classes in 'top'", where=f"entry {n}")
        values = column(source, f"entry {n} class", top, "score")
        scores[[own_label(source, f"entry {n} class {k}", item, truth) for k, item in enumerate(top)]] = values
        metric.update([Classification(scores=scores)], [{"label": record.label, "image_id": record.image_id, "path": record.path}])
    _require_all(source, taken, truth)
    return metric, _coverage(taken, truth)


def _score_masks(source: Path, truth: Truth, names: list[str] | None) -> tuple[SegmentationMetric, dict[str, float]]:
    data = truth.dataset
    if data is None or all(frame.record is None or frame.record.mask is None for frame in truth.frames):
        raise UsageError(f"{source} holds masks, but {truth.source} has none")
    found: dict[int, Path] = {}
    for path in list_files(source, None):
        i = truth.find(path.relative_to(source).as_posix(), path)
        if i in found:
            raise DataError(path, f"is a second file for the image {truth.frames[i].path!r}")
        if i >= 0:
            found[i] = path
    _require_all(source, set(found), truth)
    table = _mask_table(source, found.values(), truth, names)
    metric = SegmentationMetric(truth.classes)
    for i, path in sorted(found.items()):
        frame, values = truth.frames[i], read_mask(path)
        assert frame.record is not None
        there = data.mask(frame.record, image_hw(data, frame.record))
        if values.shape != there.shape:
            raise DataError(
                path, f"is {values.shape[1]}x{values.shape[0]}, its image {there.shape[1]}x{there.shape[0]}", hint="sizes must agree"
            )
        metric.update([Segmentation(mask=table[values])], [{"mask": there, "image_id": frame.image_id, "path": frame.path}])
    return metric, _coverage(found, truth)


def _mask_table(source: Path, paths: Iterable[Path], truth: Truth, names: list[str] | None) -> np.ndarray:
    """(65536,) label of each value. Values are labels 0..K-1 or the data's own; which of both, all files together tell."""
    assert truth.dataset is not None
    own = truth.dataset.index.mask_values or {k: k for k in range(len(truth.classes))}
    first: dict[int, Path] = {}
    for path in paths:
        for value in np.unique(read_mask(path)).tolist():
            first.setdefault(value, path)
    labels = dict(enumerate(renumbering(names, truth)))
    meaning = labels if names is not None or len(first.keys() - labels) <= len(first.keys() - own) else own
    for stray in sorted(first.keys() - meaning)[:1]:
        known = f"labels 0..{len(labels) - 1}, or the data's values {', '.join(map(str, sorted(own)[:12]))}"
        raise DataError(first[stray], f"mask value {stray} is no class", hint=known)
    out = np.zeros(65536, dtype=np.int64)
    out[list(meaning)] = list(meaning.values())
    return out


def _coverage(found: Iterable[int], truth: Truth) -> dict[str, float]:
    missing = len(truth.frames) - len(set(found) - {-1})
    counts = {"images": len(truth.frames), "images_without_predictions": missing, "unused_predictions": truth.unused}
    return {name: float(count) for name, count in counts.items()}


def _require_all(source: Path, found: set[int], truth: Truth) -> None:
    missing = [frame.path for i, frame in enumerate(truth.frames) if i not in found]
    if missing:
        raise DataError(source, f"has no prediction for {len(missing)} of {len(truth.frames)} images, {missing[0]!r} the first")

"""Score predictions made elsewhere: COCO results, folders of YOLO or VOC files or mask PNGs, or saccade's own ``predictions.json``.

Against a COCO file the images are not needed, and the numbers are pycocotools'. Against other data the predictions are matched to images
by file name: ``a/b/001.txt`` belongs to the one image whose path without suffix ends in ``a/b/001``, ``b/001`` or ``001``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats.files import image_hw, read_json, read_text
from saccade.data.images import is_image_name, read_mask
from saccade.data.polygons import mask_to_rle, polygon_area, rasterize
from saccade.data.records import Record
from saccade.metrics.classification import ClassificationMetric
from saccade.metrics.detection import DetectionImage, DetectionMetric
from saccade.metrics.segmentation import SegmentationMetric
from saccade.types.errors import DataError, UsageError, suggest
from saccade.types.prediction import Classification, Segmentation
from saccade.types.recipe import EVALUATION, PREDICTION

FORMATS = ("coco", "yolo", "voc", "masks", "saccade")
"""Formats of predictions."""


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
        of the data); for detection ``detections``, ``objects`` and the settings in effect, ``settings/max_detections`` and
        ``settings/score``. No detection is dropped for its score and no suppression is applied, whatever it costs.

    Raises:
        DataError: a file is broken, names an image or class that the truth lacks, or holds a score that is no number.
        UsageError: an unknown format, or one that does not fit the truth.
    """
    source = Path(predictions)
    kind = format or _recognise(source)
    if kind not in FORMATS:
        raise UsageError(f"no format of predictions {kind!r}{suggest(kind, FORMATS)}")
    answers = _coco_truth(Path(truth)) if not isinstance(truth, Dataset) and _is_json(truth) else _dataset_truth(truth)
    names = list(classes) if classes is not None else None
    if kind == "masks":
        return _score_masks(source, answers, names)
    if kind == "saccade":
        rows = _own_rows(source)
        tasks = {str(row.get("task")) for row in rows}
        if tasks == {"classify"}:
            return _score_labels(source, rows, answers)
        if tasks != {"detect"}:
            raise DataError(
                source, f"holds predictions of {', '.join(sorted(tasks)) or 'no task'}", hint="masks are scored as a folder of PNGs"
            )
        found = _own_detections(source, rows, answers)
    elif kind == "coco":
        found, has_boxes = _coco_results(source, answers)
        iou_type = iou_type or ("boxes" if has_boxes else "masks")
    else:
        found = _folder(
            source, answers, ".txt" if kind == "yolo" else ".xml", _yolo_reader(names, answers) if kind == "yolo" else _read_voc
        )
    return _score_detections(source, found, answers, iou_type or "boxes", max_detections, score)


# ----------------------------------------------------------------------------------------------------------------- truth


class _Objects(NamedTuple):
    """Objects of one image: (N, 4) float64 x, y, width, height; labels; more of the truth or the score of detections."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    segments: list[Any] | None = None


class _Frame(NamedTuple):
    """One image of the truth. ``objects`` is None where the data hold no boxes; ``record`` where they are a Dataset."""

    image_id: Any
    path: str
    size: tuple[int, int] | None
    objects: _Objects | None
    record: Record | None = None


@dataclass
class _Truth:
    source: Path
    classes: list[str]
    frames: list[_Frame]
    category_ids: list[int] | None = None
    dataset: Dataset | None = None
    elsewhere: list[tuple[str, str]] = field(default_factory=list)  # image id and path of images in other splits
    unused: int = 0  # predictions for those

    def __post_init__(self) -> None:
        self.by_id = {_key(frame.image_id): i for i, frame in enumerate(self.frames)}
        self.by_name: dict[str, list[int]] = {}
        paths = [frame.path for frame in self.frames]
        for i, path in enumerate([*paths, *(path for _, path in self.elsewhere)]):
            parts = _parts(path)
            for k in range(len(parts)):
                self.by_name.setdefault("/".join(parts[k:]), []).append(i if i < len(paths) else -1)
        self.ids_elsewhere = {_key(image_id) for image_id, _ in self.elsewhere}

    def find(self, path: str, source: Path, where: str = "") -> int:
        """Number of the frame that a file name means; -1 when it is in another split."""
        parts = _parts(path)
        for k in range(len(parts)):
            found = self.by_name.get("/".join(parts[k:]))
            if found is not None:
                if len(found) > 1:
                    raise DataError(source, f"{path!r} fits {len(found)} images of the data", where=where, hint="keep their folders")
                self.unused += found[0] < 0
                return found[0]
        raise DataError(source, f"{path!r} is no image of {self.source}", where=where, hint="predictions need their image's file name")


def _dataset_truth(data: str | Path | Dataset) -> _Truth:
    if not isinstance(data, Dataset):
        from saccade.data.load import load_data

        data = load_data(data)
    chosen = set(data.indices.tolist())
    frames = []
    for i in range(len(data)):
        record = data.record(i)
        frames.append(_Frame(record.image_id, record.path, record.size, _record_objects(record), record))
    others = [r for i, r in enumerate(data.index.records) if i not in chosen] if len(chosen) < len(data.index) else []
    elsewhere = [(record.image_id, record.path) for record in others]
    return _Truth(data.index.root, list(data.classes), frames, data.index.category_ids, data, elsewhere)


def _record_objects(record: Record) -> _Objects | None:
    if record.boxes is None:
        return None
    boxes = np.asarray(record.boxes, dtype=np.float64).reshape(-1, 4)
    boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    count, extra = len(boxes), record.extra or {}
    areas = boxes[:, 2] * boxes[:, 3]
    if extra.get("area") is not None:
        areas = np.asarray(extra["area"], dtype=np.float64)
    elif record.segments is not None:
        areas = np.array([_area(s, box) for s, box in zip(record.segments, areas, strict=True)])
    crowd = np.zeros(count, dtype=bool) if record.iscrowd is None else np.asarray(record.iscrowd, dtype=bool)
    difficult = np.asarray(extra.get("difficult", np.zeros(count)), dtype=bool)
    labels = np.asarray(record.labels, dtype=np.int64).reshape(-1)
    return _Objects(boxes, labels, np.ones(count), areas, crowd, difficult, record.segments)


def _area(segment: Any, box: float) -> float:
    if segment is None or isinstance(segment, dict) or not len(segment):
        return box
    return polygon_area(segment)


def _coco_truth(path: Path) -> _Truth:
    """COCO's truth with float64 boxes as they are written: to 1e-6 the numbers hang on that."""
    data = read_json(path)
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("images", "annotations", "categories")):
        raise DataError(path, "is no COCO truth", hint='expected {"images": [...], "annotations": [...], "categories": [...]}')
    categories = {}
    for k, item in enumerate(data["categories"]):
        if not isinstance(item, dict) or not _whole(item.get("id")):
            raise DataError(path, "a category needs a whole number as id", where=f"categories[{k}]")
        categories[int(item["id"])] = str(item.get("name") or item["id"])
    ids = sorted(categories)
    plain = [categories[i] for i in ids]
    names = [name if plain.count(name) == 1 else f"{name} ({i})" for i, name in zip(ids, plain, strict=True)]
    images: dict[str, dict[str, Any]] = {}
    for k, item in enumerate(data["images"]):
        if not isinstance(item, dict) or not isinstance(item.get("id"), (int, str)):
            raise DataError(path, "an image needs an id", where=f"images[{k}]")
        images.setdefault(_key(item["id"]), item)
    objects = [
        (k, item) for k, item in enumerate(data["annotations"])
        if isinstance(item, dict) and "caption" not in item and _key(item.get("image_id")) in images and _whole(item.get("category_id"))
        and int(item["category_id"]) in categories
    ]  # fmt: skip
    boxes = _column(path, "annotations", objects, "bbox", 4)
    sized = [(k, {"area": box[2] * box[3]} | item) for (k, item), box in zip(objects, boxes.tolist(), strict=True)]
    found = _Objects(
        boxes,
        np.array([ids.index(int(item["category_id"])) for _, item in objects], dtype=np.int64),
        np.ones(len(objects)),
        _column(path, "annotations", sized, "area"),
        np.array([bool(item.get("iscrowd", 0)) for _, item in objects], dtype=bool),
        np.zeros(len(objects), dtype=bool),
        [item.get("segmentation") for _, item in objects],
    )
    rows = _grouped([_key(item["image_id"]) for _, item in objects])
    frames = []
    for key, item in images.items():
        sides = (item.get("height"), item.get("width"))
        size = (int(sides[0]), int(sides[1])) if all(_whole(side) for side in sides) else None
        frames.append(_Frame(item["id"], str(item.get("file_name", key)), size, _rows(found, rows.get(key, np.zeros(0, dtype=np.int64)))))
    return _Truth(path, names, frames, ids)


# ----------------------------------------------------------------------------------------------------------- detections


def _score_detections(
    source: Path, found: dict[int, _Objects], truth: _Truth, iou_type: Literal["boxes", "masks"], cap: int, score: float
) -> dict[str, float]:
    if all(frame.objects is None for frame in truth.frames):
        raise UsageError(f"{source} holds boxes, but {truth.source} has none")
    if cap < 1:
        raise UsageError(f"max_detections must be at least 1, not {cap}")
    metric = DetectionMetric(truth.classes, iou_type, [*(c for c in (1, 10) if c < cap), cap], score)
    nothing = _Objects(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), *np.zeros((4, 0)))
    counts = {"detections": 0.0, "objects": 0.0}
    for i, frame in enumerate(truth.frames):
        ours, theirs = found.get(i, nothing), frame.objects or nothing
        codes: list[list[dict[str, Any]] | None] = [None, None]
        areas = ours.areas
        if iou_type == "masks":
            codes = [_codes(frame, objects, path) for objects, path in ((ours, source), (theirs, truth.source))]
            areas = np.array(_mask_areas(codes[0] or []), dtype=np.float64)
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
    return metric.compute() | counts | _coverage(found, truth) | settings


def _coverage(found: Iterable[int], truth: _Truth) -> dict[str, float]:
    missing = len(truth.frames) - len(set(found) - {-1})
    counts = {"images": len(truth.frames), "images_without_predictions": missing, "unused_predictions": truth.unused}
    return {name: float(count) for name, count in counts.items()}


def _codes(frame: _Frame, objects: _Objects, source: Path) -> list[dict[str, Any]]:
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


def _mask_areas(codes: list[dict[str, Any]]) -> list[float]:
    from faster_coco_eval.core import mask as coco_mask

    return [float(coco_mask.area(code)) for code in codes]


def _coco_results(path: Path, truth: _Truth) -> tuple[dict[int, _Objects], bool]:
    entries = read_json(path)
    if not isinstance(entries, list):
        raise DataError(
            path, "is no list of COCO results", hint='expected [{"image_id": 1, "category_id": 1, "bbox": [x, y, w, h], "score": 0.9}]'
        )
    if truth.category_ids is None:
        raise UsageError(f"COCO results name categories by number, which {truth.source} does not state: score against a COCO file")
    labels = {i: k for k, i in enumerate(truth.category_ids)}
    for k, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(path, "is no COCO result but " + type(entry).__name__, where=f"entry {k}")
    items = list(enumerate(entries))
    keys = [_key(entry.get("image_id")) for entry in entries]
    known = truth.by_id.keys() | truth.ids_elsewhere
    for k, key in enumerate(keys):
        if key not in known:
            count = sum(other not in known for other in keys)
            raise DataError(
                path, f"image_id {entries[k].get('image_id')!r} is not in {truth.source}", where=f"entry {k}", hint=f"{count} entries"
            )
    for k, entry in items:
        if not _whole(entry.get("category_id")) or int(entry["category_id"]) not in labels:
            hint = f"known: {', '.join(map(str, truth.category_ids[:12]))}"
            raise DataError(path, f"category_id {entry.get('category_id')!r} is not in {truth.source}", where=f"entry {k}", hint=hint)
    has_boxes = all("bbox" in entry for entry in entries)
    if has_boxes:
        boxes = _column(path, "entry", items, "bbox", 4)
    else:
        boxes = np.zeros((len(entries), 4))
        for k, entry in items:
            if "segmentation" not in entry:
                raise DataError(path, "has neither bbox nor segmentation", where=f"entry {k}")
    found = _Objects(
        boxes, np.array([labels[int(entry["category_id"])] for entry in entries], dtype=np.int64), _column(path, "entry", items, "score"),
        boxes[:, 2] * boxes[:, 3], *np.zeros((2, len(entries)), dtype=bool), [entry.get("segmentation") for entry in entries],
    )  # fmt: skip
    truth.unused = sum(key in truth.ids_elsewhere for key in keys)
    return {truth.by_id[key]: _rows(found, rows) for key, rows in _grouped(keys).items() if key in truth.by_id}, has_boxes


def _own_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix.lower() == ".jsonl":
        import json

        try:
            data = [json.loads(line) for line in read_text(path, limit=1 << 34).splitlines() if line.strip()]
        except ValueError as error:
            raise DataError(path, f"is not JSON lines: {error}") from None
    else:
        data = read_json(path)
        data = [data] if isinstance(data, dict) else data
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise DataError(path, "is no list of predictions", hint="expected what saccade predict writes, or COCO results")
    return data


def _own_frame(source: Path, number: int, row: dict[str, Any], truth: _Truth, taken: set[int]) -> int:
    where = f"entry {number}"
    key = _key(row.get("image_id")) if row.get("image_id") is not None else None
    if key in truth.by_id:
        i = truth.by_id[key]
    elif key is not None and key in truth.ids_elsewhere:
        truth.unused += 1
        return -1
    elif isinstance(row.get("path"), str) and row["path"]:
        i = truth.find(row["path"], source, where)
    else:
        raise DataError(source, "names no image of the data", where=where, hint="a prediction needs its image_id or path")
    if i >= 0 and i in taken:
        raise DataError(source, f"predicts the image {truth.frames[i].path!r} twice", where=where)
    taken.add(i)
    return i


def _own_label(source: Path, where: str, item: dict[str, Any], truth: _Truth) -> int:
    """By name, so that another order of classes does no harm; by number where a model never learnt names."""
    name, label = item.get("name"), item.get("label")
    if name in truth.classes:
        return truth.classes.index(str(name))
    if _whole(label) and 0 <= int(label) < len(truth.classes) and name in (None, str(label)):
        return int(label)
    raise DataError(
        source, f"class {name if name is not None else label!r} is not in the data{suggest(str(name), truth.classes)}", where=where
    )


def _own_detections(source: Path, rows: list[dict[str, Any]], truth: _Truth) -> dict[int, _Objects]:
    found: dict[int, _Objects] = {}
    taken: set[int] = set()
    for n, row in enumerate(rows):
        i = _own_frame(source, n, row, truth, taken)
        objects = row.get("objects")
        if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
            raise DataError(source, "has no list of objects", where=f"entry {n}")
        items = list(enumerate(objects))
        corners = _column(source, f"entry {n} object", items, "box", 4, xyxy=True)
        labels = np.array([_own_label(source, f"entry {n} object {k}", item, truth) for k, item in items], dtype=np.int64)
        if i >= 0:
            found[i] = _detections(corners, labels, _column(source, f"entry {n} object", items, "score"))
    return found


def _score_labels(source: Path, rows: list[dict[str, Any]], truth: _Truth) -> dict[str, float]:
    metric = ClassificationMetric(truth.classes)
    taken: set[int] = set()
    for n, row in enumerate(rows):
        i = _own_frame(source, n, row, truth, taken)
        if i < 0:
            continue
        record = truth.frames[i].record
        if record is None or record.label is None:
            raise UsageError(f"{source} holds classes of images, but {truth.source} has none")
        scores = np.zeros(len(truth.classes))
        top = row.get("top") or [row]
        items = list(enumerate(top))
        values = _column(source, f"entry {n} class", items, "score")
        scores[[_own_label(source, f"entry {n} class {k}", item, truth) for k, item in items]] = values
        metric.update([Classification(scores=scores)], [{"label": record.label, "image_id": record.image_id, "path": record.path}])
    _require_all(source, taken, truth)
    return metric.compute() | _coverage(taken, truth)


def _folder(source: Path, truth: _Truth, suffix: str, read: Callable[[Path, tuple[int, int], list[str]], _Objects]) -> dict[int, _Objects]:
    found: dict[int, _Objects] = {}
    for path in _files(source, suffix):
        i = truth.find(path.relative_to(source).as_posix(), path)
        if i < 0:
            continue
        if i in found:
            raise DataError(path, f"is a second file for the image {truth.frames[i].path!r}")
        frame = truth.frames[i]
        size = frame.size
        if size is None and truth.dataset is not None and frame.record is not None:
            size = image_hw(truth.dataset, frame.record)
        if size is None:
            raise DataError(truth.source, "states no height and width, which these predictions need", where=f"image {frame.image_id}")
        found[i] = read(path, size, truth.classes)
    return found


def _yolo_reader(names: list[str] | None, truth: _Truth) -> Callable[[Path, tuple[int, int], list[str]], _Objects]:
    table = _renumbering(names, truth)

    def read(path: Path, size: tuple[int, int], classes: list[str]) -> _Objects:
        rows, labels = [], []
        for n, line in enumerate(read_text(path).splitlines(), 1):
            words = line.split()
            if not words:
                continue
            where = f"line {n}"
            if len(words) != 6:
                raise DataError(path, f"a prediction is 'class cx cy w h score', this line has {len(words)} words", where=where)
            try:
                number, values = float(words[0]), [float(word) for word in words[1:]]
            except ValueError:
                raise DataError(path, "holds a word that is no number", where=where) from None
            if not number.is_integer() or not 0 <= number < len(table):
                raise DataError(path, f"class {words[0]} is outside 0..{len(table) - 1}", where=where)
            if not all(map(math.isfinite, values)) or min(values[2:4]) < 0:
                raise DataError(path, "holds a number that is not finite, or a negative side", where=where)
            labels.append(table[int(number)])
            rows.append(values)
        array = np.array(rows, dtype=np.float64).reshape(-1, 5)
        centre, sides = array[:, :2] * (size[1], size[0]), array[:, 2:4] * (size[1], size[0])
        return _detections(np.concatenate([centre - sides / 2, centre + sides / 2], 1), np.array(labels, dtype=np.int64), array[:, 4])

    return read


def _read_voc(path: Path, size: tuple[int, int], classes: list[str]) -> _Objects:
    import defusedxml.ElementTree as ElementTree
    from defusedxml.common import DefusedXmlException

    try:
        root = ElementTree.fromstring(read_text(path))
    except (ElementTree.ParseError, DefusedXmlException, ValueError, RecursionError) as error:
        raise DataError(path, f"is no usable XML: {error}") from None
    corners, labels, scores = [], [], []
    for k, item in enumerate(root.iter("object"), 1):
        where, name = f"object {k}", (item.findtext("name") or "").strip()
        if name not in classes:
            raise DataError(path, f"class {name!r} is not in the data{suggest(name, classes)}", where=where)
        score = item.findtext("score") or item.findtext("confidence")
        if score is None:
            raise DataError(path, "a predicted object needs a <score>", where=where)
        try:
            values = [float(item.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax")] + [float(score)]
        except ValueError:
            raise DataError(path, "bndbox or score holds no number", where=where) from None
        if not all(map(math.isfinite, values)) or values[2] < values[0] or values[3] < values[1]:
            raise DataError(path, "holds a number that is not finite, or a box turned over", where=where)
        corners.append(values[:4])
        labels.append(classes.index(name))
        scores.append(values[4])
    return _detections(np.array(corners, dtype=np.float64).reshape(-1, 4), np.array(labels, dtype=np.int64), np.array(scores))


def _detections(corners: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> _Objects:
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return _Objects(boxes, labels, scores, boxes[:, 2] * boxes[:, 3], *np.zeros((2, len(boxes)), dtype=bool))


# ----------------------------------------------------------------------------------------------------------------- masks


def _score_masks(source: Path, truth: _Truth, names: list[str] | None) -> dict[str, float]:
    data = truth.dataset
    if data is None or all(frame.record is None or frame.record.mask is None for frame in truth.frames):
        raise UsageError(f"{source} holds masks, but {truth.source} has none")
    found: dict[int, Path] = {}
    for path in _files(source, None):
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
    return metric.compute() | _coverage(found, truth)


def _mask_table(source: Path, paths: Iterable[Path], truth: _Truth, names: list[str] | None) -> np.ndarray:
    """(65536,) label of each value. Values are labels 0..K-1 or the data's own; which of both, all files together tell."""
    assert truth.dataset is not None
    own = truth.dataset.index.mask_values or {k: k for k in range(len(truth.classes))}
    first: dict[int, Path] = {}
    for path in paths:
        for value in np.unique(read_mask(path)).tolist():
            first.setdefault(value, path)
    labels = dict(enumerate(_renumbering(names, truth)))
    meaning = labels if names is not None or len(first.keys() - labels) <= len(first.keys() - own) else own
    for stray in sorted(first.keys() - meaning)[:1]:
        known = f"labels 0..{len(labels) - 1}, or the data's values {', '.join(map(str, sorted(own)[:12]))}"
        raise DataError(first[stray], f"mask value {stray} is no class", hint=known)
    out = np.zeros(65536, dtype=np.int64)
    out[list(meaning)] = list(meaning.values())
    return out


# ---------------------------------------------------------------------------------------------------------------- shared


def _recognise(path: Path) -> str:
    if path.is_file():
        if path.suffix.lower() == ".jsonl":
            return "saccade"
        if path.suffix.lower() != ".json":
            raise DataError(path, "is no file of predictions", hint="expected COCO results or saccade's predictions.json, or a folder")
        data = read_json(path)
        first = data[0] if isinstance(data, list) and data else data
        return "saccade" if isinstance(first, dict) and "task" in first else "coco"
    if not path.is_dir():
        raise DataError(path, "does not exist")
    kinds = {"yolo": ".txt", "voc": ".xml", "masks": None}
    found = [kind for kind, suffix in kinds.items() if next(iter(_walk(path, suffix)), None) is not None]
    if len(found) != 1:
        what = f"holds files of several formats: {', '.join(found)}" if found else "holds no predictions"
        raise DataError(path, what, hint="expected YOLO .txt, VOC .xml, or mask images; choose with format")
    return found[0]


def _walk(folder: Path, suffix: str | None) -> list[Path]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    if suffix is None:
        return [p for p in files if is_image_name(p)]
    return [p for p in files if p.suffix.lower() == suffix and p.name.lower() not in ("classes.txt", "obj.names")]


def _files(folder: Path, suffix: str | None) -> list[Path]:
    found = _walk(folder, suffix) if folder.is_dir() else []
    if not found:
        raise DataError(folder, f"holds no {suffix or 'mask image'} file")
    return found


def _require_all(source: Path, found: set[int], truth: _Truth) -> None:
    missing = [frame.path for i, frame in enumerate(truth.frames) if i not in found]
    if missing:
        raise DataError(source, f"has no prediction for {len(missing)} of {len(truth.frames)} images, {missing[0]!r} the first")


def _renumbering(names: list[str] | None, truth: _Truth) -> list[int]:
    """The data's label of each of the predictions' class numbers."""
    if names is None:
        return list(range(len(truth.classes)))
    for name in names:
        if name not in truth.classes:
            raise UsageError(f"the class {name!r} is not in {truth.source}{suggest(name, truth.classes)}")
    return [truth.classes.index(name) for name in names]


def _column(
    path: Path, place: str, items: Sequence[tuple[int, dict[str, Any]]], key: str, width: int = 0, *, xyxy: bool = False
) -> np.ndarray:
    """(N,) or (N, width) float64 of one field of numbered entries; the first bad one is named."""
    shape = (len(items), width) if width else (len(items),)
    try:
        out = np.array([item[key] for _, item in items], dtype=np.float64).reshape(shape)
        good = np.isfinite(out)
        if width:
            sides = out[:, 2:] - out[:, :2] if xyxy else out[:, 2:]
            good = good.all(1) & (sides >= 0).all(1)
        if good.all():
            return out
        k = int(np.flatnonzero(~good)[0])
    except (KeyError, TypeError, ValueError, OverflowError):
        k = next(n for n, (_, item) in enumerate(items) if not _numbers(item.get(key), width))
    number, item = items[k]
    what = f"{width} finite numbers with sides of at least 0" if width else "a finite number"
    where = f"{place}[{number}]" if place == "annotations" else f"{place} {number}"
    raise DataError(path, f"{key} is {item.get(key)!r}, not {what}", where=where)


def _numbers(value: Any, width: int) -> bool:
    try:
        return np.asarray(value, dtype=np.float64).shape == ((width,) if width else ()) and value is not None
    except (TypeError, ValueError, OverflowError):
        return False


def _grouped(keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Positions of each key, in order."""
    if not keys:
        return {}
    values, inverse = np.unique(np.array(keys, dtype=object), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(inverse, minlength=len(values)))[:-1])
    return dict(zip(values.tolist(), parts, strict=True))


def _rows(objects: _Objects, rows: np.ndarray) -> _Objects:
    segments = None if objects.segments is None else [objects.segments[i] for i in rows.tolist()]
    return _Objects(*(column[rows] for column in objects[:6]), segments)


def _key(image_id: Any) -> str:
    """Ids as text: some tools write 42 as "42" or 42.0."""
    return str(int(image_id)) if isinstance(image_id, float) and image_id.is_integer() else str(image_id)


def _parts(path: str) -> list[str]:
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    return [*parts[:-1], parts[-1].rpartition(".")[0] or parts[-1]] if parts else []


def _whole(value: Any) -> bool:
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _is_json(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ".json" and Path(path).is_file()

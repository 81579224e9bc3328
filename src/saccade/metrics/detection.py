"""Average precision of object detection: COCO's numbers by a compiled matcher, VOC's two, and precision and recall at a score.

* COCO (Lin et al. 2014, arXiv 1405.0312; the numbers of pycocotools): AP is the mean of the interpolated precision at 101 recalls,
  averaged over IoU 0.50:0.05:0.95 and over the classes that the truth has. Matching is faster-coco-eval's.
* PASCAL VOC (Everingham et al. 2010, "The PASCAL Visual Object Classes challenge", section 4.2): AP at IoU 0.5, by 11 points
  (to 2009: ``voc07``) and by all points (since 2010: ``voc``). A detection belongs to the object that it overlaps most; ``difficult``
  objects count neither way. Boxes span edges here: the challenge's own code adds one pixel to each side.
* Precision, recall and F1 at IoU 0.5 and a score threshold, matched as COCO does: best score first, to the best object still free.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from saccade.metrics.bootstrap import Ranking, Resampler, Support, image_sums, mean_of, ratio
from saccade.metrics.calibration import calibration_table
from saccade.metrics.detection_errors import error_tables, find_errors
from saccade.metrics.thresholds import by_class, threshold_table
from saccade.types.prediction import Detection
from saccade.types.recipe import EVALUATION, PREDICTION
from saccade.types.sample import Target

AREAS = ("all", "small", "medium", "large")
"""COCO's sizes by the object's area in pixels: below 32 squared, to 96 squared, above."""


class DetectionImage(NamedTuple):
    """Detections and truth of one image as numbers. Boxes are (N, 4) float64 x, y, width, height in pixels.

    ``*_rles`` are COCO run-length codes, one an object, or None when boxes are compared.
    """

    image_id: int | str | None
    path: str
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    truth_boxes: np.ndarray
    truth_labels: np.ndarray
    truth_areas: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    rles: list[dict[str, Any]] | None = None
    truth_rles: list[dict[str, Any]] | None = None


class DetectionMetric:
    """Collects detections; gives ``map50`` and the rest by name.

    Names: ``map map50 map75 map_small map_medium map_large``, ``mar_1 mar_10 mar_100`` (by the caps), ``mar_small mar_medium
    mar_large``, ``voc07_map50 voc_map50``, ``precision recall f1`` (at ``score``), and per class ``map/NAME map50/NAME
    precision/NAME recall/NAME f1/NAME``. What does not exist is NaN: a class or size without truth, precision without a detection.
    ``invalid_detections`` appears when detections with a box or score that is not finite were dropped.

    Args:
        classes: names by label.
        iou_type: compare boxes, or instance masks.
        max_detections: caps of detections an image and class, any number of them; AP has the largest.
        score: threshold of precision, recall and F1.
    """

    main: ClassVar[str] = "map50"

    def __init__(
        self,
        classes: Sequence[str],
        iou_type: Literal["boxes", "masks"] = "boxes",
        max_detections: Sequence[int] = (1, 10, EVALUATION.max_detections),
        score: float = PREDICTION.score,
    ) -> None:
        if iou_type not in ("boxes", "masks"):
            raise ValueError(f"iou_type must be 'boxes' or 'masks', not {iou_type!r}")
        if not max_detections or min(max_detections) < 1:
            raise ValueError(f"max_detections must be caps of at least 1, not {tuple(max_detections)}")
        self.classes = list(classes)
        self.iou_type = iou_type
        self.max_detections = sorted(set(max_detections))
        self.score = score
        self.images: list[DetectionImage] = []
        self._matched: Matches | None = None

    def update(self, predictions: Sequence[Detection], truths: Sequence[Target]) -> None:
        """Add images.

        A truth has ``boxes`` (N, 4) XYXY and ``labels`` (N,); optionally ``iscrowd``, ``difficult`` (N,) bool, ``area`` (N,) pixels
        (else the masks' area, else the boxes') and, needed when masks are compared, ``masks`` (N, H, W) bool.
        """
        for prediction, truth in zip(predictions, truths, strict=True):
            self.add(self._image(prediction, truth))

    def add(self, image: DetectionImage) -> None:
        """Add one image that is in numbers already."""
        for labels in (image.labels, image.truth_labels):
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.classes):
                raise ValueError(f"image {image.image_id}: labels {labels.min()}..{labels.max()} for {len(self.classes)} classes")
        self.images.append(image)
        self._matched = None

    def compute(self) -> dict[str, float]:
        """Flat named floats; see the class."""
        out = self._coco()
        matches = self._matches()
        voc = [(voc_ap(*curve[:2], eleven_points=True), voc_ap(*curve[:2])) for curve in matches.voc if curve is not None]
        out["voc07_map50"], out["voc_map50"] = (float(np.mean(column)) for column in zip(*voc, strict=True)) if voc else (np.nan, np.nan)
        kept = matches.scores >= self.score
        counts = np.zeros((3, len(self.classes)))  # true positives, detections that count, objects
        counts[0] = np.bincount(matches.labels[kept & (matches.hit >= 0)], minlength=len(self.classes))
        counts[1] = np.bincount(matches.labels[kept & ~matches.ignored], minlength=len(self.classes))
        counts[2] = matches.objects
        for suffix, (tp, found, there) in [("", counts.sum(1)), *zip((f"/{name}" for name in self.classes), counts.T, strict=True)]:
            out["precision" + suffix] = float(tp / found) if found else np.nan
            out["recall" + suffix] = float(tp / there) if there else np.nan
            out["f1" + suffix] = float(2 * tp / (found + there)) if found + there else np.nan
        if matches.invalid:
            out["invalid_detections"] = float(matches.invalid)
        return out

    def resampler(self, names: Sequence[str] | None = None) -> Resampler:
        """For intervals: ``map map50 precision recall f1``, and by class; ``map`` is most of the work: name others to leave it out."""
        m, p, size = self._matches(), _pairs(self._ordered(), len(self.classes)), len(self.classes)
        count = len(m.images)
        objects = image_sums(count, p.truth_image[~p.crowd], p.truth_labels[~p.crowd], size)
        whole = names is None or any(name.partition("/")[0] == "map" for name in names)
        levels = np.linspace(0.5, 0.95, 10) if whole else [0.5]
        rankings = [self._rankings(p, level, count) for level in levels]
        sure, real = m.scores >= self.score, ~(p.crowd | p.difficult)
        right, found = (image_sums(count, m.image[keep], m.labels[keep], size) for keep in (sure & (m.hit >= 0), sure & ~m.ignored))
        there = image_sums(count, p.truth_image[real], p.truth_labels[real], size)

        def values(weights: np.ndarray) -> dict[str, np.ndarray]:
            asked = weights @ objects
            ap = np.full((len(rankings), len(weights), size), np.nan)
            for level, ranked in enumerate(rankings):
                for k, ranking in ranked.items():
                    ap[level, :, k] = ranking.average_precision(weights, asked[:, k])
            averages = {"map50": ap[0]} | ({"map": ap.mean(0)} if len(ap) > 1 else {})
            out = {name: mean_of(value, asked > 0) for name, value in averages.items()}
            tp, positive, true = weights @ right, weights @ found, weights @ there
            rates = {"precision": (tp, positive), "recall": (tp, true), "f1": (2 * tp, positive + true)}
            out |= {name: ratio(part.sum(1), whole.sum(1)) for name, (part, whole) in rates.items()}
            averages |= {name: ratio(*pair) for name, pair in rates.items()}
            return out | {f"{name}/{label}": value[:, k] for k, label in enumerate(self.classes) for name, value in averages.items()}

        support = {}
        for name, table, times in (("map50", objects, 1), ("map", objects, 10), ("recall", there, 1), ("precision", found, 1)):
            held = zip(self.classes, np.diff(table.indptr).tolist(), (times * table.sum(0)).tolist(), strict=True)
            support |= {f"{name}/{label}": Support(images, trials) for label, images, trials in held}
            support[name] = Support(len(np.unique(table.indices)), table.sum())
        for suffix in ("", *(f"/{label}" for label in self.classes)):
            images, trials = support["recall" + suffix]
            support["f1" + suffix] = Support(images, trials + support["precision" + suffix].trials)
        asked = [label for label, there in zip(self.classes, objects.sum(0) > 0, strict=True) if there]
        means = {name: [f"{name}/{label}" for label in asked] for name in ("map50", *(["map"] if whole else []))}
        width = max((len(r.hits) for ranked in rankings for r in ranked.values()), default=0)
        return Resampler(count, values, width, support, means)

    def _rankings(self, p: _Pairs, threshold: float, images: int) -> dict[int, Ranking]:
        """By label with truth: COCO's detections at one IoU (difficult objects count, crowds do not)."""
        hit, ignored = _hits(p, threshold, p.crowd)
        keep = np.flatnonzero(~ignored & (p.rank < self.max_detections[-1]))
        keep = keep[np.argsort(p.labels[keep], kind="stable")]
        bounds = np.searchsorted(p.labels[keep], np.arange(len(self.classes) + 1))
        rows = {int(k): keep[bounds[k] : bounds[k + 1]] for k in np.unique(p.truth_labels[~p.crowd])}
        return {k: Ranking(images, p.image[mine], p.scores[mine], hit[mine] >= 0) for k, mine in rows.items()}

    def tables(self) -> dict[str, Any]:
        """For reports, at IoU 0.5.

        ``curves``: by class, at most 500 points ``recall``, ``precision``, ``score``; ``voc07_ap50``, ``voc_ap50``: by class, None where
        absent; ``images``: by image ``image_id``, ``path`` and, at the score threshold, the indices of its detections that are
        ``true_positives`` and ``false_positives`` and of its objects ``missed``; ``calibration`` of the scores
        (:func:`saccade.metrics.calibration.calibration_table`); ``thresholds`` by class and of all ("")
        (:func:`saccade.metrics.thresholds.threshold_table`); and the errors by kind, size and class
        (:func:`saccade.metrics.detection_errors.error_tables`).
        """
        m = self._matches()
        curves, counts = {}, ~m.ignored
        for k, name in enumerate(self.classes):
            rows = np.flatnonzero(counts & (m.labels == k))
            rows = rows[np.argsort(-m.scores[rows], kind="stable")]
            if not m.objects[k]:
                continue
            tp = np.cumsum(m.hit[rows] >= 0)
            thin = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 500)).astype(int))
            curves[name] = {
                "recall": (tp / m.objects[k])[thin].tolist(),
                "precision": (tp / np.arange(1, len(rows) + 1))[thin].tolist(),
                "score": m.scores[rows][thin].tolist(),
            }
        voc = {
            key: {n: None if c is None else voc_ap(*c[:2], eleven_points=eleven) for n, c in zip(self.classes, m.voc, strict=True)}
            for key, eleven in (("voc07_ap50", True), ("voc_ap50", False))
        }
        kept = m.scores >= self.score
        seen = np.zeros(m.truth_start[-1], dtype=bool)
        seen[m.hit[kept & (m.hit >= 0)]] = True
        images = []
        for i, image in enumerate(m.images):
            rows = slice(*np.searchsorted(m.image, [i, i + 1]))
            found = {"true_positives": m.hit[rows] >= 0, "false_positives": (m.hit[rows] < 0) & ~m.ignored[rows]}
            one = {"image_id": image.image_id, "path": image.path}
            one |= {name: m.position[rows][which & kept[rows]].tolist() for name, which in found.items()}
            missed = ~(seen[slice(*m.truth_start[i : i + 2])] | image.crowd | image.difficult)
            images.append(one | {"missed": np.flatnonzero(missed).tolist()})
        errors = error_tables(find_errors(m, len(self.classes), self.max_detections[-1]), self.classes, self.score)
        right = m.hit[counts] >= 0
        evidence = {
            "calibration": calibration_table(m.scores[counts], right),
            "thresholds": threshold_table(by_class(m.labels[counts], m.scores[counts], right, m.objects, self.classes)),
        }
        return {"classes": self.classes, "score": self.score, "curves": curves, **voc, "images": images, **evidence, **errors}

    def state(self) -> list[DetectionImage]:
        """The images, NumPy only."""
        return self.images

    def merge(self, states: Sequence[list[DetectionImage]]) -> None:
        """Replace the images by the union of several processes'. The order does not matter where image ids differ."""
        self.images = [image for state in states for image in state]
        self._matched = None

    def _image(self, prediction: Detection, truth: Target) -> DetectionImage:
        boxes, truth_boxes = _xywh(prediction.boxes), _xywh(truth["boxes"])
        count = len(truth_boxes)
        masks, truth_masks = prediction.masks, truth.get("masks")
        areas, rles, truth_rles = boxes[:, 2] * boxes[:, 3], None, None
        if "area" in truth:
            truth_areas = np.asarray(truth["area"], dtype=np.float64)
        elif truth_masks is not None:
            truth_areas = np.asarray(truth_masks).reshape(count, -1).sum(1, dtype=np.float64) if count else np.zeros(0)
        else:
            truth_areas = truth_boxes[:, 2] * truth_boxes[:, 3]
        if self.iou_type == "masks":
            if (masks is None and len(boxes)) or (truth_masks is None and count):
                raise ValueError(f"image {prediction.image_id}: iou_type 'masks' needs masks of detections and of truth")
            rles, truth_rles = _rles(masks, len(boxes)), _rles(truth_masks, count)
            areas = np.asarray(masks).reshape(len(boxes), -1).sum(1, dtype=np.float64) if len(boxes) else areas
        flags = [np.asarray(truth.get(key, np.zeros(count)), dtype=bool).reshape(-1) for key in ("iscrowd", "difficult")]
        image_id = truth.get("image_id", prediction.image_id)
        return DetectionImage(
            image_id, str(truth.get("path", prediction.path)), prediction.size,
            boxes, np.asarray(prediction.labels, dtype=np.int64), np.asarray(prediction.scores, dtype=np.float64), areas,
            truth_boxes, np.asarray(truth["labels"], dtype=np.int64), truth_areas, *flags, rles, truth_rles,
        )  # fmt: skip

    def _ordered(self) -> list[DetectionImage]:
        """By image id, so that ties of score break alike whatever the order of arrival (pycocotools sorts ids too)."""
        return sorted(self.images, key=_id_key)

    def _matches(self) -> Matches:
        if self._matched is None:
            self._matched = _match(self._ordered(), len(self.classes))
        return self._matched

    def _coco(self) -> dict[str, float]:
        """The numbers of pycocotools' summary for these caps, and AP by class."""
        caps, classes = self.max_detections, len(self.classes)
        precision = np.full((10, 101, classes, 4, len(caps)), -1.0)  # IoU, recall, class, size, cap; -1 where there is no truth
        recall = np.full((10, classes, 4, len(caps)), -1.0)
        images = self._ordered()
        present = np.unique(np.concatenate([image.truth_labels for image in images])) if images else np.zeros(0, dtype=np.int64)
        if len(present):
            with _collector_paused():
                result = _coco_eval(images, present, self.iou_type, caps)
            precision[:, :, present], recall[:, present] = result
        out = {"map": _mean(precision[..., 0, -1]), "map50": _mean(precision[0, ..., 0, -1]), "map75": _mean(precision[5, ..., 0, -1])}
        out |= {f"map_{size}": _mean(precision[..., a, -1]) for a, size in enumerate(AREAS) if a}
        out |= {f"mar_{cap}": _mean(recall[..., 0, m]) for m, cap in enumerate(caps)}
        out |= {f"mar_{size}": _mean(recall[..., a, -1]) for a, size in enumerate(AREAS) if a}
        for k, name in enumerate(self.classes):
            out[f"map/{name}"] = _mean(precision[:, :, k, 0, -1])
            out[f"map50/{name}"] = _mean(precision[0, :, k, 0, -1])
        return out


def voc_ap(recall: np.ndarray, precision: np.ndarray, *, eleven_points: bool = False) -> float:
    """Area under a precision-recall curve.

    Args:
        recall: (N,) not falling, 0..1.
        precision: (N,).
        eleven_points: the mean of the best precision at recall >= 0, 0.1, ..., 1 (VOC to 2009); else the exact area under the
            curve made falling (VOC since 2010).

    >>> voc_ap(np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3]))
    0.8333333333333333
    """
    recall, precision = np.asarray(recall, dtype=np.float64), np.asarray(precision, dtype=np.float64)
    if not len(recall):
        return 0.0
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # best precision at this recall or above
    if eleven_points:
        # The slack lets a recall of 3/10 reach the point 0.3 whatever the rounding.
        first = np.searchsorted(recall, np.linspace(0, 1, 11) - 1e-12)
        return float(np.append(envelope, 0.0)[first].mean())
    return float((np.diff(recall, prepend=0.0) * envelope).sum())


def _coco_eval(images: list[DetectionImage], present: np.ndarray, iou_type: str, caps: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """COCO's precision (10, 101, P, 4, M) and recall (10, P, 4, M) for the labels ``present``, by faster-coco-eval."""
    from faster_coco_eval import COCO, COCOeval_faster

    sides = []
    for names in (("truth_boxes", "truth_labels", "truth_areas", "crowd", "truth_rles"), ("boxes", "labels", "areas", "scores", "rles")):
        boxes, labels, areas, values = (np.concatenate([getattr(image, name) for image in images]) for name in names[:4])
        number = np.repeat(np.arange(len(images)), [len(getattr(image, names[1])) for image in images])
        rles = [code for image in images for code in getattr(image, names[4]) or ()]
        keep = np.isin(labels, present)
        if names[0] == "boxes":
            keep &= np.concatenate([_valid(image) for image in images])
        rows = np.flatnonzero(keep)
        sides.append((boxes[rows], labels[rows], areas[rows], values[rows], number[rows], [rles[i] for i in rows] if rles else None))

    # The matcher walks over all pairs of an image and a class, most of them empty. Classes do not meet, so each class numbers
    # only the images that it is in: the same numbers from far fewer pairs.
    codes = [labels * len(images) + number for _, labels, _, _, number, _ in sides]
    pairs = np.unique(np.concatenate(codes))
    rank = np.arange(len(pairs)) - np.searchsorted(pairs, pairs // len(images) * len(images))
    frame = {
        "images": [{"id": i, "height": 1, "width": 1} for i in range(int(rank.max()) + 1)],
        "categories": [{"id": k, "name": str(k)} for k in present.tolist()],
    }
    datasets = []
    for (boxes, labels, areas, values, _, rles), code, key in zip(sides, codes, ("iscrowd", "score"), strict=True):
        place = rank[np.searchsorted(pairs, code)]
        columns = zip(place.tolist(), labels.tolist(), boxes.tolist(), areas.tolist(), values.tolist(), strict=True)
        # ids start at 1: the matcher reads 0 as "not matched"
        annotations: list[dict[str, Any]] = [
            {"id": i, "image_id": image, "category_id": label, "bbox": box, "area": area, key: value}
            for i, (image, label, box, area, value) in enumerate(columns, 1)
        ]
        if rles is not None:
            for annotation, one in zip(annotations, rles, strict=True):
                annotation["segmentation"] = one
        datasets.append(COCO(frame | {"annotations": annotations}))
    evaluation = COCOeval_faster(*datasets, "segm" if iou_type == "masks" else "bbox")
    evaluation.params.maxDets = caps
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


class Matches(NamedTuple):
    """Detections of all images in a row, and what each belongs to at IoU 0.5."""

    images: list[DetectionImage]
    image: np.ndarray  # (D,) number of the image
    position: np.ndarray  # (D,) index in its image's prediction
    labels: np.ndarray
    scores: np.ndarray
    rank: np.ndarray  # (D,) place by score among its image's and class's
    hit: np.ndarray  # (D,) number of the object matched, or -1
    ignored: np.ndarray  # (D,) bool: belongs to a crowd or a difficult object
    truth_start: np.ndarray  # (images + 1,) number of the first object of each image
    objects: np.ndarray  # (K,) objects that count
    voc: list[tuple[np.ndarray, np.ndarray] | None]  # by class: recall and precision by VOC's rule
    invalid: int


class _Pairs(NamedTuple):
    """Detections of all images in a row, objects too, and all pairs of the same image and class, in order of score within the group."""

    image: np.ndarray  # (D,) number of the image
    position: np.ndarray  # (D,) index in its image's prediction
    labels: np.ndarray
    scores: np.ndarray
    rank: np.ndarray  # (D,) place by score among its image's and class's
    truth_image: np.ndarray  # (G,) number of the image
    truth_labels: np.ndarray
    truth_start: np.ndarray  # (images + 1,) number of the first object of each image
    crowd: np.ndarray  # (G,) bool
    difficult: np.ndarray  # (G,) bool
    detection: np.ndarray  # (P,)
    truth: np.ndarray  # (P,)
    overlap: np.ndarray  # (P,) IoU
    invalid: int


def _pairs(images: list[DetectionImage], classes: int) -> _Pairs:
    def joined(name: str, like: Any) -> np.ndarray:
        return np.concatenate([getattr(image, name) for image in images]) if images else np.zeros(0, dtype=like)

    def numbers(name: str) -> tuple[np.ndarray, np.ndarray]:
        counts = np.array([len(getattr(image, name)) for image in images], dtype=np.int64)
        return np.repeat(np.arange(len(images)), counts), np.concatenate([[0], np.cumsum(counts)])

    valid = np.concatenate([_valid(image) for image in images]) if images else np.zeros(0, dtype=bool)
    image, start = numbers("labels")
    position = (np.arange(len(image)) - start[image])[valid]
    image = image[valid]
    labels, scores = joined("labels", np.int64)[valid], joined("scores", np.float64)[valid]
    truth_image, truth_start = numbers("truth_labels")
    truth_labels = joined("truth_labels", np.int64)

    group, truth_group = image * classes + labels, truth_image * classes + truth_labels
    order = np.lexsort((-scores, group))
    by_group = np.argsort(truth_group, kind="stable")
    first = np.searchsorted(truth_group[by_group], group[order], "left")
    count = np.searchsorted(truth_group[by_group], group[order], "right") - first
    detection = np.repeat(order, count)
    offset = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
    truth = by_group[np.repeat(first, count) + offset]
    overlap = _overlaps(images, image, position, detection, truth_image, truth_start, truth)

    # A detection's turn is its rank in its group: all groups take their turns together.
    begin = np.searchsorted(group[order], group[order], "left")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - begin
    return _Pairs(
        image, position, labels, scores, rank, truth_image, truth_labels, truth_start, joined("crowd", bool), joined("difficult", bool),
        detection, truth, overlap, int((~valid).sum()),
    )  # fmt: skip


def _match(images: list[DetectionImage], classes: int, threshold: float = 0.5) -> Matches:
    p = _pairs(images, classes)
    ignore = p.crowd | p.difficult
    objects = np.bincount(p.truth_labels[~ignore], minlength=classes)
    hit, ignored = _hits(p, threshold, ignore)
    voc = _voc_curves(p.detection, p.truth, p.overlap, threshold, p.labels, p.scores, ignore, objects)
    return Matches(images, p.image, p.position, p.labels, p.scores, p.rank, hit, ignored, p.truth_start, objects, voc, p.invalid)


def _hits(p: _Pairs, threshold: float, ignore: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D,) number of the object that each detection matched, or -1; (D,) bool: matched an ignored object."""
    near = p.overlap >= threshold
    return _greedy(p.detection[near], p.truth[near], p.overlap[near], p.rank, ignore)


def _greedy(
    detection: np.ndarray, truth: np.ndarray, overlap: np.ndarray, rank: np.ndarray, ignore: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """COCO's rule: best score first, each to the best free object; an ignored object (never used up) only if there is none."""
    hit, ignored = np.full(len(rank), -1, dtype=np.int64), np.zeros(len(rank), dtype=bool)
    taken = np.zeros(len(ignore), dtype=bool)
    order = np.lexsort((overlap, ~ignore[truth], detection, rank[detection]))  # the best pair of a detection is its last
    detection, truth = detection[order], truth[order]
    for turn in np.split(np.arange(len(order)), np.flatnonzero(np.diff(rank[detection])) + 1):
        turn = turn[~taken[truth[turn]]]
        turn = turn[np.append(np.diff(detection[turn]) != 0, True)[: len(turn)]]  # the last pair of each detection
        who, what = detection[turn], truth[turn]
        lost = ignore[what]
        ignored[who[lost]] = True
        hit[who[~lost]] = what[~lost]
        taken[what[~lost]] = True
    return hit, ignored


def _voc_curves(
    detection: np.ndarray,
    truth: np.ndarray,
    overlap: np.ndarray,
    threshold: float,
    labels: np.ndarray,
    scores: np.ndarray,
    ignore: np.ndarray,
    objects: np.ndarray,
) -> list[tuple[np.ndarray, np.ndarray] | None]:
    """VOC's rule: each detection to the object that it overlaps most; the first on an object is right, later ones are wrong."""
    best = np.full(len(labels), -1, dtype=np.int64)
    order = np.lexsort((-np.arange(len(overlap)), overlap, detection))  # of equal overlaps the first object
    top = order[np.append(np.diff(detection[order]) != 0, True)[: len(order)]]
    top = top[overlap[top] >= threshold]
    best[detection[top]] = truth[top]
    curves: list[tuple[np.ndarray, np.ndarray] | None] = []
    for k, there in enumerate(objects):
        if not there:
            curves.append(None)
            continue
        rows = np.flatnonzero(labels == k)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        rows = rows[(best[rows] < 0) | ~ignore[best[rows]]]
        mine = best[rows]
        right = np.zeros(len(rows), dtype=bool)
        claimed, first = np.unique(mine, return_index=True)
        right[first[claimed >= 0]] = True
        tp = np.cumsum(right)
        curves.append((tp / there, tp / np.arange(1, len(rows) + 1)))
    return curves


def _overlaps(
    images: list[DetectionImage],
    image: np.ndarray,
    position: np.ndarray,
    detection: np.ndarray,
    truth_image: np.ndarray,
    truth_start: np.ndarray,
    truth: np.ndarray,
) -> np.ndarray:
    """(P,) IoU of the pairs; over the detection's own area when the object is a crowd."""
    if not len(detection):
        return np.zeros(0)
    if images[0].rles is not None:
        from faster_coco_eval.core import mask as rle

        out, where = np.empty(len(detection)), image[detection]
        turn = np.argsort(where, kind="stable")
        for rows in np.split(turn, np.flatnonzero(np.diff(where[turn])) + 1):
            one = images[where[rows[0]]]
            table = rle.iou(one.rles, one.truth_rles, one.crowd.astype(int).tolist())
            out[rows] = np.asarray(table)[position[detection[rows]], truth[rows] - truth_start[where[rows[0]]]]
        return out
    found = np.concatenate([one.boxes[_valid(one)] for one in images])[detection]
    there = np.concatenate([one.truth_boxes for one in images])[truth]
    crowd = np.concatenate([one.crowd for one in images])[truth]
    sides = np.minimum(found[:, :2] + found[:, 2:], there[:, :2] + there[:, 2:]) - np.maximum(found[:, :2], there[:, :2])
    shared = np.where((sides > 0).all(1), sides[:, 0] * sides[:, 1], 0.0)
    area = found[:, 2] * found[:, 3]
    union = np.where(crowd, area, area + there[:, 2] * there[:, 3] - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _valid(image: DetectionImage) -> np.ndarray:
    return np.isfinite(image.scores) & np.isfinite(image.boxes).all(1)


def _xywh(boxes: Any) -> np.ndarray:
    xyxy = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)


def _rles(masks: Any, count: int) -> list[dict[str, Any]]:
    from faster_coco_eval.core import mask as rle

    if not count:
        return []
    return list(rle.encode(np.asfortranarray(np.moveaxis(np.asarray(masks), 0, -1).astype(np.uint8))))


@contextmanager
def _collector_paused() -> Iterator[None]:
    """The matcher wants a dictionary an object: with 40 000 of them the garbage collector takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")


def _id_key(image: DetectionImage) -> tuple[int, int, str]:
    text = str(image.image_id)
    return (0, int(text), "") if text.isdecimal() and text.isascii() else (1, 0, text)

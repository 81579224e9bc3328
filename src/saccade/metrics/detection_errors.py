"""Detection errors by kind, and the AP that fixing each kind alone would give (TIDE: Bolya et al. 2020, arXiv 2008.08115).

A detection is right when it is matched at IoU >= ``FOREGROUND`` (t_f), as :mod:`saccade.metrics.detection` matches. Any other has one
kind; IoU is its largest with an object of its own class, or of another class:

* location: own class, ``BACKGROUND`` (t_b) <= IoU < t_f;
* class: another class, IoU >= t_f;
* duplicate: own class, IoU >= t_f, but a better score took the object;
* background: IoU < t_b with all objects;
* both: the rest: another class, t_b <= IoU < t_f.

Where several fit, the first of this list holds (the paper leaves it open; the order of its authors' tool). An object is missed when no
detection is matched to it and no class or location error belongs to it (errors belong to the object of that largest IoU).

Fixing one kind, the others as they are: a class or location error becomes right, and of the detections that an object then has only
that of the best score stays; errors of the kinds both, duplicate and background are deleted; missed objects are no longer counted.
The gain is the AP at IoU 0.5 after this minus that before; gains do not add up. (Where an object has a right detection already, the
authors' tool keeps that one even if its score is the lower.)

AP is COCO's: interpolated at 101 recalls, mean over the classes with objects: ``map50``, unless objects are difficult, which COCO does
not know. Crowds, difficult objects and the detections that belong to them count neither way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.metrics.confused import confused_pairs

if TYPE_CHECKING:
    from saccade.metrics.detection import DetectionImage, Matches

KINDS = ("class", "location", "both", "duplicate", "background", "missed")
SIZES = ("small", "medium", "large")
"""COCO's: area below 32 squared pixels, to 96 squared, above."""
FOREGROUND, BACKGROUND = 0.5, 0.1

RIGHT = -1
CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND_KIND, MISSED = range(6)


@dataclass(frozen=True)
class DetectionErrors:
    """The detections of a whole set that AP counts, and its objects.

    Attributes:
        labels, scores, areas: (D,) of the detections.
        kind: (D,) index in ``KINDS``, or -1 when right.
        truth: (D,) number of the object that the detection is matched to, or that its error belongs to; -1 for background.
        truth_labels, truth_areas: (T,) of the objects.
        real: (T,) bool: the object counts.
        classes: how many there are.
    """

    labels: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    kind: np.ndarray
    truth: np.ndarray
    truth_labels: np.ndarray
    truth_areas: np.ndarray
    real: np.ndarray
    classes: int

    def missed(self, keep: np.ndarray | None = None) -> np.ndarray:
        """(T,) bool: objects without a right detection and without a class or location error, among the detections of ``keep``."""
        found = np.isin(self.kind, (RIGHT, CLASS, LOCATION))
        out = self.real.copy()
        out[self.truth[found if keep is None else found & keep]] = False
        return out

    def objects(self) -> np.ndarray:
        """(K,) objects that count."""
        return np.bincount(self.truth_labels[self.real], minlength=self.classes)

    def ap(self, fixed: str = "") -> np.ndarray:
        """(K,) AP at IoU 0.5 by class, after fixing one of ``KINDS``, all "false positives" or all "false negatives"; NaN: no objects."""
        right, objects = self.kind == RIGHT, self.objects()
        there = objects > 0
        rows, labels = np.arange(len(right)), self.labels
        if fixed == "false positives":
            rows = np.flatnonzero(right)
        elif fixed == "false negatives":
            objects = np.bincount(self.truth_labels[self.truth[right]], minlength=self.classes)
        elif fixed == "missed":
            objects = objects - np.bincount(self.truth_labels[self.missed()], minlength=self.classes)
        elif fixed:
            of_kind = self.kind == KINDS.index(fixed)
            rows = np.flatnonzero(~of_kind)
            if fixed in ("class", "location"):
                claims = np.flatnonzero(right | of_kind)
                # The best score of each object first; of equal ones that which was right before.
                claims = claims[np.lexsort((of_kind[claims], -self.scores[claims], self.truth[claims]))]
                first = np.diff(self.truth[claims], prepend=-1) != 0
                right = np.zeros_like(right)
                right[claims[first]] = True
                rows = np.sort(np.concatenate([claims[first], np.flatnonzero(~of_kind & (self.kind != RIGHT))]))
                labels = np.where(right, self.truth_labels[self.truth], labels) if len(self.truth_labels) else labels
        out = average_precisions(labels[rows], self.scores[rows], right[rows], objects)
        return np.where(there, out, np.nan)

    def counts(self, group: np.ndarray, truth_group: np.ndarray, groups: int, keep: np.ndarray) -> np.ndarray:
        """(groups, 8): objects, right detections, and the errors of each of ``KINDS`` among the detections of ``keep``.

        Args:
            group: (D,) where each detection is counted.
            truth_group: (T,) where each object is counted.
            groups: how many groups there are.
            keep: (D,) bool.
        """
        missed = self.missed(keep)
        columns = [truth_group[self.real], *(group[keep & (self.kind == kind)] for kind in range(RIGHT, MISSED)), truth_group[missed]]
        return np.stack([np.bincount(column, minlength=groups) for column in columns], axis=1)


def find_errors(matches: Matches, classes: int, max_detections: int) -> DetectionErrors:
    """The kind of every detection.

    Args:
        matches: at IoU ``FOREGROUND``.
        classes: how many there are.
        max_detections: of an image and class that count, best first.
    """
    rows = np.flatnonzero(~matches.ignored & (matches.rank < max_detections))
    image, position, labels, hit = (column[rows] for column in (matches.image, matches.position, matches.labels, matches.hit))
    size = len(rows)
    own, other = np.full(size, -1.0), np.full(size, -1.0)
    own_truth, other_truth = np.full(size, -1), np.full(size, -1)
    areas = np.zeros(size)
    start = np.searchsorted(image, np.arange(len(matches.images) + 1))
    for i, one in enumerate(matches.images):
        span = slice(start[i], start[i + 1])
        areas[span] = one.areas[position[span]]
        wrong = start[i] + np.flatnonzero(hit[span] < 0)
        there = np.flatnonzero(~(one.crowd | one.difficult))
        if not len(wrong) or not len(there):
            continue
        overlap = _overlap(one, position[wrong], there)
        same = labels[wrong, None] == one.truth_labels[there]
        for best, truth, table in ((own, own_truth, np.where(same, overlap, -1.0)), (other, other_truth, np.where(same, -1.0, overlap))):
            column = table.argmax(1)
            best[wrong] = table[np.arange(len(wrong)), column]
            truth[wrong] = matches.truth_start[i] + there[column]

    duplicate, misplaced = own >= FOREGROUND, (own >= BACKGROUND) & (own < FOREGROUND)
    tests = [hit >= 0, misplaced, other >= FOREGROUND, duplicate, np.maximum(own, other) < BACKGROUND]
    kind = np.select(tests, [RIGHT, LOCATION, CLASS, DUPLICATE, BACKGROUND_KIND], BOTH)
    belongs = [hit, own_truth, other_truth, own_truth, np.full(size, -1)]

    def joined(name: str, kind: Any) -> np.ndarray:
        return np.concatenate([np.zeros(0, kind), *(getattr(one, name) for one in matches.images)])

    return DetectionErrors(
        labels=labels, scores=matches.scores[rows], areas=areas, kind=kind, truth=np.select(tests, belongs, other_truth),
        truth_labels=joined("truth_labels", np.int64), truth_areas=joined("truth_areas", np.float64),
        real=~(joined("crowd", bool) | joined("difficult", bool)), classes=classes,
    )  # fmt: skip


def error_tables(errors: DetectionErrors, classes: Sequence[str], score: float) -> dict[str, Any]:
    """For reports.

    ``errors``: ``ap50``; ``gain`` by kind and of fixing all "false positives" and "false negatives" (None without objects); ``count`` by
    kind of all detections, ``shown`` of those at ``score`` or above. ``errors_by_size`` and ``errors_by_class``: the same counts at
    ``score``, with ``objects`` and ``right`` ones; by class also ``ap50`` and ``gain``. An error has the size of the object that it
    belongs to, a background error that of the detection; and the class that was predicted, a missed object its own.
    ``confused``: class errors at ``score`` (:func:`saccade.metrics.confused.confused_pairs`).
    """
    before = errors.ap()
    gains = {kind: errors.ap(kind) - before for kind in (*KINDS, "false positives", "false negatives")}
    there = ~np.isnan(before)

    def mean(values: np.ndarray) -> float | None:
        return float(values[there].mean()) if there.any() else None

    def named(row: np.ndarray) -> dict[str, int]:
        return dict(zip(("objects", "right", *KINDS), row.tolist(), strict=True))

    keep = errors.scores >= score
    nothing, no_truth = np.zeros(len(keep), dtype=np.int64), np.zeros(len(errors.real), dtype=np.int64)
    count, shown = (named(errors.counts(nothing, no_truth, 1, which)[0]) for which in (np.ones_like(keep), keep))
    sizes = errors.counts(_size(_object_areas(errors)), _size(errors.truth_areas), len(SIZES), keep)
    by_class = errors.counts(errors.labels, errors.truth_labels, errors.classes, keep)
    whole = {"ap50": mean(before), "gain": {kind: mean(v) for kind, v in gains.items()}, "count": count, "shown": shown, "score": score}
    apart = [{"ap50": _number(before[k]), "gain": {kind: _number(v[k]) for kind, v in gains.items()}} for k in range(errors.classes)]
    return {
        "errors": whole,
        "errors_by_size": {size: named(row) for size, row in zip(SIZES, sizes, strict=True)},
        "errors_by_class": {name: named(row) | more for name, row, more in zip(classes, by_class, apart, strict=True)},
        "confused": confused_pairs(_confusion(errors, keep), classes),
    }


def average_precisions(labels: np.ndarray, scores: np.ndarray, right: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """(K,) COCO's AP at one IoU: the mean over recalls 0, 0.01, ..., 1 of the best precision at this recall or above.

    Args:
        labels, scores, right: (D,) of the detections; equal scores keep their order.
        objects: (K,) of each class; where 0, AP is 0.
    """
    order = np.lexsort((-scores, labels))
    bounds = np.searchsorted(labels[order], np.arange(len(objects) + 1))
    out = np.zeros(len(objects))
    for k in np.flatnonzero(objects):
        tp = np.cumsum(right[order[bounds[k] : bounds[k + 1]]])
        if not len(tp):
            continue
        precision = tp / np.arange(1, len(tp) + 1)
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        out[k] = envelope[np.searchsorted(tp / objects[k], np.linspace(0, 1, 101))].mean()
    return out


def _overlap(image: DetectionImage, found: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(len(found), len(there)) IoU of the image's detections and objects of these indices."""
    if image.rles is not None and image.truth_rles is not None:
        from faster_coco_eval.core import mask as rle

        table = rle.iou([image.rles[i] for i in found], [image.truth_rles[i] for i in there], [0] * len(there))
        return np.asarray(table).reshape(len(found), len(there))
    a, b = image.boxes[found][:, None], image.truth_boxes[there][None]
    sides = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.where((sides > 0).all(-1), sides[..., 0] * sides[..., 1], 0.0)
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _object_areas(errors: DetectionErrors) -> np.ndarray:
    """(D,) area of the object that a detection belongs to, else its own."""
    out = errors.areas.copy()
    belongs = errors.truth >= 0
    out[belongs] = errors.truth_areas[errors.truth[belongs]]
    return out


def _size(areas: np.ndarray) -> np.ndarray:
    return (areas >= 32**2).astype(np.int64) + (areas > 96**2)


def _confusion(errors: DetectionErrors, keep: np.ndarray) -> np.ndarray:
    """(K, K) right detections and class errors: rows are the truth."""
    rows = keep & np.isin(errors.kind, (RIGHT, CLASS))
    code = errors.truth_labels[errors.truth[rows]] * errors.classes + errors.labels[rows]
    return np.bincount(code, minlength=errors.classes**2).reshape(errors.classes, errors.classes)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

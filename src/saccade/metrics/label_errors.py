"""Likely label errors, found by confident disagreement between given labels and predictions that never saw them.

Predictions come from cross-validation (:mod:`saccade.workflows.labels`); nothing is trained here. A *quality* is between 0 and 1,
0 the most suspicious.

* **Classes**: confident learning (Northcutt, Jiang, Chuang 2021, arXiv 1911.00068). The threshold of a class j is the mean predicted
  probability of j over the images labelled j (eq. 2); an image labelled i is counted at (i, j) of the confident joint when j is its most
  probable class among those at or above their thresholds (eq. 1); rows are calibrated to the labels' counts (eq. 3). Pruning is the
  paper's section 3.2, and "count", which is ours and the default: as many images as the joint has off its diagonal, the worst of all
  classes, since of small classes the paper's counts a pair round to nothing. An image whose most probable class is its label is never
  pruned (the paper does not say).
* **Boxes**: in the spirit of ObjectLab (Tkachenko, Thyagarajan, Mueller 2023, arXiv 2309.00832), with our own scores. The threshold of a
  class is the mean best score on its labelled boxes that were found; the *confidence* c of a prediction is its score over that
  threshold, at most 1, and it is *confident* from 0.8. Labelled boxes and predictions are paired one to one for the largest sum of
  c IoU, predictions of the box's own class in place first. Four things may be wrong:

  ==============  ====================================================================================================
  overlooked      a confident prediction on no labelled box: 1 - score (1 - largest IoU with a labelled box)
  badly located   a labelled box paired with a confident prediction of its class at an IoU below 0.5: 1 - c (1 - IoU)
  swapped         a labelled box paired in place with a confident prediction of another class: the normalised margin
                  (own score - other score + 1) / 2
  spurious        a labelled box on which hardly any prediction of any class stands: best score there / threshold
  ==============  ====================================================================================================

* **Masks**: Lad and Mueller 2023, arXiv 2307.05080. An image's quality is the softmin over its pixels of the given label's probability
  (temperature 0.1). Regions are connected pixels of one given label where one other class is predicted confidently.

>>> issues = class_issues([0, 0, 1, 1], [[0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9]])
>>> issues.order.tolist(), issues.suggested[issues.order].tolist()
([1], [1])
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from saccade.types.errors import UsageError

Prune = Literal["count", "confusion", "confident joint", "class", "noise rate", "both"]
Rank = Literal["self confidence", "normalised margin"]
PRUNES: tuple[Prune, ...] = ("count", "confusion", "confident joint", "class", "noise rate", "both")
RANKS: tuple[Rank, ...] = ("self confidence", "normalised margin")

_SLACK = 1e-9
"""A mean of equal numbers may exceed each of them by a rounding."""

# ------------------------------------------------------------------------------------------------------------- classes


@dataclass(frozen=True)
class ClassIssues:
    """What :func:`class_issues` finds, of N images and K classes.

    Attributes:
        order: numbers of the flagged images, worst first.
        quality: (N,) of every image, flagged or not.
        suggested: (N,) int64: the most probable class other than the label.
        joint: (K, K) estimated joint distribution of given (rows) and true labels; sums to 1.
    """

    order: np.ndarray
    quality: np.ndarray
    suggested: np.ndarray
    joint: np.ndarray


def class_thresholds(labels: Any, probabilities: Any) -> np.ndarray:
    """(K,) mean probability of each class over the images labelled with it; inf for a class that labels none."""
    labels, probabilities = _checked(labels, probabilities)
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, probabilities[np.arange(len(labels)), labels], minlength=classes)
    return np.divide(sums, counts, out=np.full(classes, np.inf), where=counts > 0)


def confident_joint(labels: Any, probabilities: Any) -> np.ndarray:
    """(K, K) int64 counts by given and confident class; images without a confident class count nowhere."""
    labels, probabilities = _checked(labels, probabilities)
    classes = probabilities.shape[1]
    confident = _confident(labels, probabilities)
    sure = confident >= 0
    return np.bincount(labels[sure] * classes + confident[sure], minlength=classes**2).reshape(classes, classes)


def estimate_joint(labels: Any, joint: np.ndarray) -> np.ndarray:
    """The confident joint, each row scaled to its label's count, all divided by their sum.

    A label without a single confident image says nothing about errors: its row stands on the diagonal.
    """
    joint = np.asarray(joint, dtype=np.float64)
    rows = joint.sum(1)
    joint = np.where((rows == 0)[:, None], np.eye(len(joint)), joint)
    calibrated = joint / joint.sum(1, keepdims=True) * np.bincount(np.asarray(labels, dtype=np.int64), minlength=len(joint))[:, None]
    return calibrated / max(calibrated.sum(), 1)


def class_issues(labels: Any, probabilities: Any, *, prune: Prune = "count", rank: Rank = "normalised margin") -> ClassIssues:
    """Images whose label is likely wrong.

    Args:
        labels: (N,) given labels.
        probabilities: (N, K) predicted out of sample.
        prune: how the flagged are chosen. "count": as many as the joint says, worst quality first; "confusion": the most probable class
            is another; "confident joint": the confident class is another; "class": of each label the share that the joint says, least
            own probability first; "noise rate": of each label and each other class the share that the joint says, largest margin
            first; "both": the last two agree.
        rank: "self confidence" p_label, or "normalised margin" (p_label - max_other p + 1) / 2.

    Raises:
        UsageError: sizes or numbers that do not fit.
    """
    if prune not in PRUNES or rank not in RANKS:
        raise UsageError(f"prune is one of {', '.join(PRUNES)} and rank one of {', '.join(RANKS)}; got {prune!r}, {rank!r}")
    labels, probabilities = _checked(labels, probabilities)
    count = len(labels)
    rows = np.arange(count)
    own = probabilities[rows, labels]
    others = probabilities.copy()
    others[rows, labels] = -1
    suggested = others.argmax(1)
    best_other = np.maximum(others.max(1, initial=-1), 0)
    quality = own if rank == "self confidence" else (own - best_other + 1) / 2
    joint = estimate_joint(labels, confident_joint(labels, probabilities))
    doubted = best_other > own
    if prune == "confusion":
        flagged = doubted
    elif prune == "confident joint":
        confident = _confident(labels, probabilities)
        flagged = (confident >= 0) & (confident != labels)
        suggested = np.where(flagged, confident, suggested)
    elif prune == "count":
        wrong = int(_whole(count * (1 - joint.trace()))) if count else 0
        flagged = np.zeros(count, dtype=bool)
        flagged[np.argsort(quality, kind="stable")[:wrong]] = True
        flagged &= doubted
    else:
        flagged = np.ones(count, dtype=bool)
        if prune in ("class", "both"):
            flagged &= _prune_by_class(labels, own, joint)
        if prune in ("noise rate", "both"):
            flagged &= _prune_by_noise_rate(labels, probabilities, joint)
        flagged &= doubted
    chosen = np.flatnonzero(flagged)
    return ClassIssues(chosen[np.argsort(quality[chosen], kind="stable")], quality, suggested, joint)


def _prune_by_class(labels: np.ndarray, own: np.ndarray, joint: np.ndarray) -> np.ndarray:
    flagged = np.zeros(len(labels), dtype=bool)
    wrong = _whole(len(labels) * (joint.sum(1) - joint.diagonal()))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        flagged[members[np.argsort(own[members], kind="stable")[: wrong[label]]]] = True
    return flagged


def _prune_by_noise_rate(labels: np.ndarray, probabilities: np.ndarray, joint: np.ndarray) -> np.ndarray:
    flagged = np.zeros(len(labels), dtype=bool)
    wrong = _whole(len(labels) * joint)
    np.fill_diagonal(wrong, 0)
    for label, other in np.argwhere(wrong):
        members = np.flatnonzero(labels == label)
        margin = probabilities[members, label] - probabilities[members, other]
        flagged[members[np.argsort(margin, kind="stable")[: wrong[label, other]]]] = True
    return flagged


def _whole(values: np.ndarray) -> np.ndarray:
    """Rounded, halves up; a rounding error below a half does not matter."""
    return np.floor(values + 0.5 + _SLACK).astype(np.int64)


def _confident(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,) the most probable class among those at or above their thresholds; -1 for none."""
    above = np.where(probabilities >= class_thresholds(labels, probabilities) - _SLACK, probabilities, -1.0)
    return np.where(above.max(1, initial=-1) >= 0, above.argmax(1), -1)


def _checked(labels: Any, probabilities: Any) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not probabilities.shape[1]:
        raise UsageError(f"labels (N,) and probabilities (N, K) are needed, not {labels.shape} and {probabilities.shape}")
    labels = labels.astype(np.int64)
    if len(labels) and not 0 <= labels.min() <= labels.max() < probabilities.shape[1]:
        raise UsageError(f"labels are 0 to {probabilities.shape[1] - 1}, not {labels.min()} to {labels.max()}")
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all():
        raise UsageError("probabilities are numbers from 0 to 1")
    return labels, probabilities


# --------------------------------------------------------------------------------------------------------------- boxes

IN_PLACE = 0.5
"""IoU from which a prediction stands on a labelled box."""

NEAR = 0.2
"""Least IoU of a pair: a box that was moved by more than half its size is a spurious and an overlooked one."""

TOUCHES = 0.3
"""IoU from which even an unsure prediction supports a labelled box."""

MODERATE = 0.5
"""A pair below this IoU is badly located."""

UNSUPPORTED = 0.2
"""A labelled box is spurious below this confidence of the best prediction on it."""

CONFIDENT = 0.8
"""Confidence from which a prediction speaks against labels."""


class Boxes(NamedTuple):
    """Objects of one image: ``boxes`` (N, 4) XYXY, ``labels`` (N,), and of predictions ``scores`` (N,), of labels ``crowd`` (N,) bool."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None
    crowd: np.ndarray | None = None


@dataclass(frozen=True)
class BoxQuality:
    """Scores of one image with L labelled boxes and P predictions, 1 where nothing speaks against.

    Attributes:
        overlooked: (P,) of predictions. located, swapped, spurious: (L,) of labelled boxes.
        moderate: (L,) bool: badly located by a confident prediction.
        partner: (L,) int64 the prediction that is paired with a labelled box, or -1.
        confident: (P,) bool.
    """

    overlooked: np.ndarray
    located: np.ndarray
    swapped: np.ndarray
    spurious: np.ndarray
    moderate: np.ndarray
    partner: np.ndarray
    confident: np.ndarray

    def label(self) -> np.ndarray:
        """(L,) quality of each labelled box: its worst score."""
        return np.minimum(np.minimum(self.located, self.swapped), self.spurious)

    def issues(self) -> list[BoxIssue]:
        """What is flagged, worst first."""
        found = [BoxIssue("overlooked", float(q), -1, p) for p, q in enumerate(self.overlooked) if q < 1 and self.confident[p]]
        for i, partner in enumerate(self.partner.tolist()):
            if self.moderate[i]:
                found.append(BoxIssue("badly located", float(self.located[i]), i, partner))
            if self.swapped[i] < 0.5:
                found.append(BoxIssue("swapped", float(self.swapped[i]), i, partner))
            if self.spurious[i] < UNSUPPORTED:
                found.append(BoxIssue("spurious", float(self.spurious[i]), i, -1))
        return sorted(found, key=lambda issue: issue.quality)


class BoxIssue(NamedTuple):
    """``kind`` (see the module), ``quality``, the labelled box's number ``given`` and the prediction's, -1 where there is none."""

    kind: str
    quality: float
    given: int
    predicted: int


def box_thresholds(images: Iterable[tuple[Boxes, Boxes]], num_classes: int) -> np.ndarray:
    """(K,) score by which a class's predictions are called confident, from (labelled, predicted) of all images.

    It is the mean over the labelled boxes of the class of the best score of its predictions in place, boxes that were not found left
    out; inf for a class that was never found.
    """
    sums, counts = np.zeros(num_classes), np.zeros(num_classes)
    for given, predicted in images:
        own = _own_score(given, predicted, pairwise(given.boxes, predicted.boxes))
        np.add.at(sums, given.labels[own > 0], own[own > 0])
        np.add.at(counts, given.labels[own > 0], 1)
    return np.divide(sums, counts, out=np.full(num_classes, np.inf), where=counts > 0)


def box_quality(given: Boxes, predicted: Boxes, thresholds: np.ndarray) -> BoxQuality:
    """Scores of one image; see the module. Crowds (labelled) are never wrong, and what lies in one is not overlooked."""
    from scipy.optimize import linear_sum_assignment

    assert predicted.scores is not None
    count, found = len(given.boxes), len(predicted.boxes)
    crowd = np.zeros(count, dtype=bool) if given.crowd is None else np.asarray(given.crowd, dtype=bool)
    scores = np.asarray(predicted.scores, dtype=np.float64)
    thresholds = np.asarray(thresholds, dtype=np.float64)
    sure = np.minimum(scores / np.maximum(thresholds[predicted.labels], _SLACK), 1)  # 0 for a class that was never found
    confident = sure >= CONFIDENT - _SLACK
    overlap = pairwise(given.boxes, predicted.boxes)
    overlap[crowd] = 0
    same = given.labels[:, None] == predicted.labels[None]

    # A prediction of the box's own class in place goes before any other, however well that one fits.
    worth = np.where(overlap >= np.where(same, NEAR, IN_PLACE), (overlap + (same & (overlap >= IN_PLACE))) * sure, 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    paired = worth[rows, columns] > 0
    rows, columns = rows[paired], columns[paired]
    partner = np.full(count, -1, dtype=np.int64)
    partner[rows] = columns

    located, swapped, spurious = np.ones(count), np.ones(count), np.ones(count)
    moderate = np.zeros(count, dtype=bool)
    own = _own_score(given, predicted, overlap)
    for i, p in zip(rows.tolist(), columns.tolist(), strict=True):
        if same[i, p]:
            located[i] = 1 - sure[p] * (1 - overlap[i, p])
            moderate[i] = confident[p] and overlap[i, p] < MODERATE
        elif confident[p]:
            swapped[i] = (own[i] - scores[p] + 1) / 2
    support = np.where(overlap >= TOUCHES, scores[None], 0.0).max(1, initial=0)
    able = ~crowd & ~moderate & np.isfinite(thresholds[given.labels])
    spurious[able] = np.minimum(support[able] / np.maximum(thresholds[given.labels[able]], _SLACK), 1)

    nearest = overlap.max(0, initial=0)
    overlooked = 1 - scores * (1 - nearest)
    overlooked[nearest >= IN_PLACE] = 1
    overlooked[columns[confident[columns]]] = 1
    overlooked[_share_inside(predicted.boxes, given.boxes[crowd]) >= IN_PLACE] = 1
    _keep_first(overlooked, predicted.boxes, scores)
    assert found == len(overlooked)
    return BoxQuality(overlooked, located, swapped, spurious, moderate, partner, confident)


def pairwise(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, M) float64 IoU; 0 for boxes without area."""
    import torch
    from torchvision.ops import box_iou

    if not len(first) or not len(second):
        return np.zeros((len(first), len(second)))
    a, b = (torch.as_tensor(np.asarray(boxes, dtype=np.float64)) for boxes in (first, second))
    return box_iou(a, b).nan_to_num(nan=0.0).numpy()


def _own_score(given: Boxes, predicted: Boxes, overlap: np.ndarray) -> np.ndarray:
    """(L,) best score of a prediction of the box's own class in place; 0 for none."""
    there = (overlap >= IN_PLACE) & (given.labels[:, None] == predicted.labels[None])
    return np.where(there, np.asarray(predicted.scores, dtype=np.float64)[None], 0.0).max(1, initial=0)


def _share_inside(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) largest share of each box's area inside one of the others."""
    boxes, others = np.asarray(boxes, dtype=np.float64).reshape(-1, 4), np.asarray(others, dtype=np.float64).reshape(-1, 4)
    low, high = np.maximum(boxes[:, None, :2], others[None, :, :2]), np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), _SLACK)
    return ((high - low).clip(0).prod(2) / areas[:, None]).max(1, initial=0)


def _keep_first(overlooked: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> None:
    """Of overlooked predictions on one place (of several classes) only the best scored is left."""
    open_ = np.flatnonzero(overlooked < 1)
    order = open_[np.argsort(-scores[open_], kind="stable")]
    overlap = pairwise(boxes[order], boxes[order])
    kept = np.ones(len(order), dtype=bool)
    for k in range(len(order)):
        if kept[k]:
            kept[k + 1 :] &= overlap[k, k + 1 :] < IN_PLACE
    overlooked[order[~kept]] = 1


# --------------------------------------------------------------------------------------------------------------- masks


class MaskRegion(NamedTuple):
    """Connected pixels of one ``given`` label where the model is confident of ``suggested``.

    ``box`` (x1, y1, x2, y2) edges in pixels; ``area`` in pixels; ``quality``: mean probability of the given label;
    ``weight``: the sum over the pixels of the two probabilities' difference, by which regions are ranked, largest first.
    """

    given: int
    suggested: int
    box: tuple[int, int, int, int]
    area: int
    quality: float
    weight: float


def mask_quality(own: np.ndarray, *, temperature: float = 0.1) -> float:
    """Softmin of the given labels' probabilities, of any shape: their mean weighted by softmax((1 - p) / temperature); 1 for none."""
    values = np.asarray(own, dtype=np.float64).ravel()
    if not len(values):
        return 1.0
    weights = np.exp((values.min() - values) / temperature)
    return float((weights * values).sum() / weights.sum())


def mask_regions(
    labels: np.ndarray, own: np.ndarray, predicted: np.ndarray, score: np.ndarray, thresholds: np.ndarray, *, least: int = 9
) -> list[MaskRegion]:
    """Regions of confident disagreement of one image, largest weight first.

    Args:
        labels: (H, W) given labels; below 0 is ignored.
        own: (H, W) probability of the given label; predicted: (H, W) most probable class; score: (H, W) its probability.
        thresholds: (K,) mean probability of each class over the pixels labelled with it.
        least: pixels of the smallest region. A region must hold a square of 3 x 3: the outlines of two people differ by a pixel or two.
    """
    from scipy.ndimage import find_objects, maximum_filter, minimum_filter
    from skimage.measure import label

    labels, predicted = np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    own, score = np.asarray(own, dtype=np.float64), np.asarray(score, dtype=np.float64)
    thresholds = np.asarray(thresholds, dtype=np.float64)
    classes = len(thresholds)
    doubted = (labels >= 0) & (predicted != labels) & (score >= thresholds[predicted] - _SLACK)
    code = np.where(doubted, 1 + labels * classes + predicted, 0)
    parts = label(code, background=0, connectivity=2)
    count = int(parts.max(initial=0))
    area = np.bincount(parts.ravel(), minlength=count + 1)
    solid = (minimum_filter(code, 3, mode="constant") == maximum_filter(code, 3, mode="constant")) & doubted
    thick = np.bincount(parts[solid], minlength=count + 1) > 0
    own_sum, score_sum = (np.bincount(parts.ravel(), values.ravel(), count + 1) for values in (own, score))
    found = []
    for part, place in enumerate(find_objects(parts), 1):
        if area[part] < least or not thick[part]:
            continue
        rows, columns = place
        pair = int(code[place][parts[place] == part][0]) - 1
        box = (columns.start, rows.start, columns.stop, rows.stop)
        quality, weight = own_sum[part] / area[part], score_sum[part] - own_sum[part]
        found.append(MaskRegion(pair // classes, pair % classes, box, int(area[part]), float(quality), float(weight)))
    return sorted(found, key=lambda region: -region.weight)

"""Calibration: whether what has confidence 0.8 turns out right eight times in ten.

* Expected calibration error: the mean over all predictions of |accuracy - confidence| of their bin, with bins of equal width
  (Guo et al. 2017, arXiv 1706.04599, equation 3; 15 bins there) or of equal mass (adaptive; Nixon et al. 2019, arXiv 1904.01685).
* Maximum calibration error: the largest such gap (Guo et al. 2017, equation 5).
* Brier score (Brier 1950): the mean squared distance of the probabilities from the truth, summed over the classes: 0 best, 2 worst.

For classifiers the confidence is the best class's probability, and right is that this class is true. For detectors the confidence is the
score, and right is that the detection matched an object (IoU 0.5): objects that were never found are not in it (as in Kueppers et al. 2020,
arXiv 2004.13546, without their position).

Bins are open below and closed above, (low, high]; the first holds 0 too. A bin without predictions has NaN confidence and accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Bin:
    """Predictions with low < confidence <= high: how many, their mean confidence, and the share that was right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(confidence: np.ndarray, right: np.ndarray, *, bins: int = 15, adaptive: bool = False) -> list[Bin]:
    """The reliability table.

    Args:
        confidence: (N,) 0..1.
        right: (N,) bool.
        bins: how many.
        adaptive: bins of (nearly) equal count instead of equal width; equal confidences stay together, so there may be fewer bins.

    >>> [(b.count, b.accuracy) for b in reliability(np.array([0.2, 0.9, 0.8]), np.array([False, True, False]), bins=2)]
    [(1, 0.0), (2, 0.5)]
    """
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=bool)
    if bins < 1 or confidence.shape != right.shape or confidence.ndim != 1:
        raise ValueError(f"reliability takes (N,) confidences, (N,) right and bins >= 1, not {confidence.shape}, {right.shape}, {bins}")
    if len(confidence) and not (confidence.min() >= 0 and confidence.max() <= 1):
        raise ValueError("confidences must lie in 0..1")
    if adaptive and len(confidence):
        edges = np.unique(np.quantile(confidence, np.linspace(0, 1, bins + 1)))
        which = np.searchsorted(edges[1:-1], confidence)
        edges = edges if len(edges) > 1 else np.repeat(edges, 2)
    else:
        edges = np.linspace(0, 1, bins + 1)
        which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    size = len(edges) - 1
    count = np.bincount(which, minlength=size)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(which, weights=values, minlength=size) / count for values in (confidence, right)]
    return [Bin(*row) for row in zip(edges[:-1].tolist(), edges[1:].tolist(), count.tolist(), *(m.tolist() for m in means), strict=True)]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error of a reliability table; NaN for no predictions."""
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins if b.count) / total if total else float("nan")


def maximum_calibration_error(bins: Sequence[Bin]) -> float:
    """Largest gap of a bin; NaN for no predictions."""
    return max((abs(b.accuracy - b.confidence) for b in bins if b.count), default=float("nan"))


def brier_score(scores: np.ndarray, labels: np.ndarray) -> float:
    """Of (N, K) probabilities and (N,) true labels; NaN for none."""
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if not len(labels):
        return float("nan")
    return float(((scores - np.eye(scores.shape[1])[labels]) ** 2).sum(1).mean())


def calibration_table(confidence: np.ndarray, right: np.ndarray, *, bins: int = 15) -> dict[str, Any]:
    """For reports, as plain values: ``ece adaptive_ece mce`` and ``bins`` and ``adaptive_bins``, a dict a bin. {} for no predictions.

    Confidences outside 0..1 or not finite (a broken model) give {} too.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    if not len(confidence) or not ((confidence >= 0) & (confidence <= 1)).all():
        return {}
    even, adaptive = (reliability(confidence, right, bins=bins, adaptive=flag) for flag in (False, True))
    return {
        "ece": calibration_error(even),
        "adaptive_ece": calibration_error(adaptive),
        "mce": maximum_calibration_error(even),
        "bins": [asdict(b) for b in even],
        "adaptive_bins": [asdict(b) for b in adaptive],
    }

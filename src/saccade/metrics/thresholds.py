"""Which score to cut at: precision, recall and F1 of everything that scores at least a threshold, and the threshold that one wants.

A prediction counts as positive when its score >= the threshold; thresholds are the distinct scores, rising. Precision TP / (TP + FP),
recall TP / positives, F1 2 TP / (TP + FP + positives). For detectors a positive is an object, a true positive a detection that matched one
at IoU 0.5; for classifiers each class stands against the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Choice(NamedTuple):
    """A threshold and what it gives."""

    threshold: float
    precision: float
    recall: float
    f1: float


class ThresholdCurve(NamedTuple):
    """(T,) each, by rising threshold; empty without predictions. Recall and F1 are NaN where there is nothing to find."""

    threshold: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    def at(self, index: int) -> Choice:
        """One point."""
        return Choice(*(float(column[index]) for column in self))

    def best_f1(self) -> Choice | None:
        """The highest threshold with the largest F1; None where there is no F1."""
        if not len(self.f1) or np.isnan(self.f1).any():
            return None
        return self.at(len(self.f1) - 1 - int(self.f1[::-1].argmax()))

    def for_precision(self, precision: float) -> Choice | None:
        """The lowest threshold (so the most recall) with at least this precision; None where none has it."""
        rows = np.flatnonzero(self.precision >= precision)
        return self.at(int(rows[0])) if len(rows) else None

    def for_recall(self, recall: float) -> Choice | None:
        """The highest threshold with at least this recall; None where none has it."""
        rows = np.flatnonzero(self.recall >= recall)
        return self.at(int(rows[-1])) if len(rows) else None


def threshold_curve(scores: np.ndarray, right: np.ndarray, positives: int | None = None) -> ThresholdCurve:
    """Precision, recall and F1 by threshold.

    Args:
        scores: (N,).
        right: (N,) bool.
        positives: what there is to find; None: the sum of ``right`` (no positive lacks a score).

    >>> threshold_curve(np.array([0.9, 0.5, 0.1]), np.array([True, False, True])).best_f1()
    Choice(threshold=0.1, precision=0.6666666666666666, recall=1.0, f1=0.8)
    """
    scores, right = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=bool)
    if scores.shape != right.shape or scores.ndim != 1:
        raise ValueError(f"threshold_curve takes (N,) scores and (N,) right, not {scores.shape} and {right.shape}")
    scores, right = scores[np.isfinite(scores)], right[np.isfinite(scores)]
    positives = int(right.sum()) if positives is None else positives
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)[: len(order)])[::-1]  # of each distinct score
    tp, found = np.cumsum(right[order])[last], last + 1.0
    nothing = np.full(len(last), np.nan)
    recall = tp / positives if positives else nothing
    f1 = 2 * tp / (found + positives) if positives else nothing
    return ThresholdCurve(scores[order][last], tp / found, recall, f1)


def one_against_rest(scores: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, ThresholdCurve]:
    """A classifier's curve of each class, from (N, K) probabilities and (N,) true labels."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    return {name: threshold_curve(scores[:, k], labels == k) for k, name in enumerate(classes)}


def by_class(
    labels: np.ndarray, scores: np.ndarray, right: np.ndarray, objects: np.ndarray, classes: Sequence[str]
) -> dict[str, ThresholdCurve]:
    """A detector's curve of each class and of all together ("").

    Args:
        labels, scores, right: (D,) of all detections that count.
        objects: (K,) what there is to find.
        classes: names by label.
    """
    out = {"": threshold_curve(scores, right, int(objects.sum()))}
    for k, name in enumerate(classes):
        mine = labels == k
        out[name] = threshold_curve(scores[mine], right[mine], int(objects[k]))
    return out


def threshold_table(curves: dict[str, ThresholdCurve], *, wanted: float = 0.9, points: int = 200) -> dict[str, Any]:
    """For reports, as plain values: by name the thinned columns of the curve, and its ``choices``.

    These are ``best_f1``, ``precision`` and ``recall`` (the threshold for at least ``wanted``), each a dict or None. Names with nothing to
    find or no prediction are left out.
    """
    out: dict[str, Any] = {}
    for name, curve in curves.items():
        best = curve.best_f1()
        if best is None:
            continue
        thin = np.unique(np.linspace(0, len(curve.f1) - 1, min(len(curve.f1), points)).astype(int))
        choices = {"best_f1": best, "precision": curve.for_precision(wanted), "recall": curve.for_recall(wanted)}
        out[name] = {key: column[thin].tolist() for key, column in curve._asdict().items()} | {"wanted": wanted}
        out[name]["choices"] = {key: None if choice is None else choice._asdict() for key, choice in choices.items()}
    return out

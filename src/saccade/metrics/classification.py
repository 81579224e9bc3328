"""Image classification: accuracy, top-k, precision, recall and F1 by class, balanced accuracy, calibration, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from saccade.metrics.bootstrap import Resampler, Support, image_sums, mean_of, ratio
from saccade.metrics.calibration import calibration_table
from saccade.metrics.confused import confused_pairs
from saccade.types.prediction import Classification
from saccade.types.sample import Target

Row = tuple[int, int, int, float, str, str, float, float]
"""Of an image: truth, label, rank of the truth, score, id, path, squared distance of the scores from the truth (Brier), loss."""


LEAST = float(np.finfo(np.float32).smallest_subnormal)
"""Score that a rounded 0 counts as in a loss."""


def top_losses(images: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Of the ``images`` of :meth:`ClassificationMetric.tables` those with the highest losses, highest first."""
    return sorted(images, key=lambda image: -image["loss"])[:count]


class ClassificationMetric:
    """Collects class scores; gives ``accuracy`` and the rest by name.

    Names: ``accuracy``, ``topK`` for each k below the number of classes, ``balanced_accuracy`` (mean recall), ``macro_precision
    macro_recall macro_f1`` (means over the classes that the truth has), ``ece`` (expected calibration error, Guo et al. 2017,
    arXiv 1706.04599, equation 3), and per class ``precision/NAME recall/NAME f1/NAME``. NaN: the recall and F1 of a class without
    truth, the precision of a class that was neither true nor predicted. A class that was there and never predicted has precision 0
    (as in scikit-learn).

    Args:
        classes: names by label.
        top: the k of ``topK``; the best k classes, ties by label.
        bins: of equal width for the calibration error.
    """

    main: ClassVar[str] = "accuracy"

    def __init__(self, classes: Sequence[str], top: Sequence[int] = (5,), bins: int = 15) -> None:
        if min(top, default=1) < 1 or bins < 1:
            raise ValueError(f"top and bins must be at least 1, not {tuple(top)} and {bins}")
        self.classes = list(classes)
        self.top = tuple(k for k in top if k < len(self.classes))
        self.bins = bins
        self._rows: list[Row] = []

    def update(self, predictions: Sequence[Classification], truths: Sequence[Target]) -> None:
        """Add images: ``prediction.scores`` (K,) probabilities, ``truth["label"]`` 0..K-1."""
        for prediction, truth in zip(predictions, truths, strict=True):
            scores, label = np.asarray(prediction.scores), int(truth["label"])
            if scores.shape != (len(self.classes),) or not 0 <= label < len(self.classes):
                raise ValueError(f"image {truth.get('image_id')}: {scores.shape} scores, label {label}, for {len(self.classes)} classes")
            best = int(scores.argmax())
            # How many classes stand before the true one; NaN scores stand before everything: they are never right.
            rank = int((~(scores <= scores[label])).sum() + (scores[:label] == scores[label]).sum())
            image_id, path = truth.get("image_id", prediction.image_id), truth.get("path", prediction.path)
            distance = float((scores.astype(np.float64) ** 2).sum() - 2 * scores[label] + 1)
            loss = -float(np.log(max(float(scores[label]), LEAST)))
            self._rows.append((label, best, rank, float(scores[best]), str(image_id), str(path), distance, loss))

    def confusion(self) -> np.ndarray:
        """(K, K) int64 images: rows are the truth, columns the prediction."""
        k = len(self.classes)
        pairs = np.array([row[:2] for row in self._rows], dtype=np.int64).reshape(-1, 2)
        return np.bincount(pairs[:, 0] * k + pairs[:, 1], minlength=k * k).reshape(k, k)

    def compute(self) -> dict[str, float]:
        """Flat named floats; see the class."""
        matrix = self.confusion()
        ranks = np.array([row[2] for row in self._rows], dtype=np.int64)
        within = np.array([(ranks < k).sum() for k in self.top])
        numbers = self._numbers(*(values[None] for values in (matrix.diagonal(), matrix.sum(1), matrix.sum(0), within)))
        out = {name: float(values[0]) for name, values in numbers.items()}
        whole = {name: value for name, value in out.items() if "/" not in name}
        return whole | {"ece": self._calibration_error()} | out

    def _numbers(self, right: np.ndarray, true: np.ndarray, found: np.ndarray, within: np.ndarray) -> dict[str, np.ndarray]:
        """(B,) by name from images of each class: right, true and found (B, K), and those within each k of ``top`` (B, len(top))."""
        total, there = true.sum(1), true > 0
        precision = np.where(there, 0.0, np.nan)
        np.divide(right, found, out=precision, where=found > 0)
        by_class = {
            "precision": precision,
            "recall": ratio(right, true),
            "f1": np.where(there, ratio(2 * right, true + found), np.nan),
        }
        out = {"accuracy": ratio(right.sum(1), total)}
        out |= {f"top{k}": ratio(within[:, i], total) for i, k in enumerate(self.top)}
        out["balanced_accuracy"] = mean_of(by_class["recall"], there)
        out |= {f"macro_{name}": mean_of(values, there) for name, values in by_class.items()}
        return out | {f"{name}/{label}": by_class[name][:, k] for k, label in enumerate(self.classes) for name in by_class}

    def resampler(self, names: Sequence[str] | None = None) -> Resampler:
        """For intervals: all numbers but ``ece``, a mean of absolute gaps, which every resample widens."""
        label, best, rank = (np.array([row[i] for row in self._rows], dtype=np.int64) for i in range(3))
        every, size = np.arange(len(label)), (len(label), len(self.classes))
        right, true, found = (
            image_sums(size[0], every, column, size[1], amount) for column, amount in ((label, label == best), (label, None), (best, None))
        )
        within = np.stack([rank < k for k in self.top], axis=1).astype(np.float64) if self.top else np.zeros((size[0], 0))
        here, said = (np.bincount(column, minlength=size[1]) for column in (label, best))
        trials = {"precision": (said, said), "recall": (here, here), "f1": (here, here + said)}
        support = {f"{name}/{self.classes[k]}": Support(g[k], n[k]) for name, (g, n) in trials.items() for k in range(size[1])}
        support |= {name: Support(size[0], size[0]) for name in ("accuracy", *(f"top{k}" for k in self.top))}
        means = {f"macro_{name}": [f"{name}/{self.classes[k]}" for k in np.flatnonzero(here)] for name in trials}
        means["balanced_accuracy"] = means["macro_recall"]
        return Resampler(size[0], lambda w: self._numbers(w @ right, w @ true, w @ found, w @ within), size[1], support, means)

    def _calibration_error(self) -> float:
        label, best, score = (np.array([row[i] for row in self._rows]) for i in (0, 1, 3))
        return calibration_table(score, label == best, bins=self.bins).get("ece", float("nan"))

    def tables(self) -> dict[str, Any]:
        """``confusion`` (rows: truth), ``confused``: its largest pairs (:func:`saccade.metrics.confused.confused_pairs`), ``images``: id,
        path, truth, label, score and loss (-log of the truth's score) of each image, and ``calibration``.

        ``calibration``: :func:`saccade.metrics.calibration.calibration_table` and ``brier``, the Brier score.
        """
        label, best, score, brier = (np.array([row[i] for row in self._rows]) for i in (0, 1, 3, 6))
        calibration = calibration_table(score, label == best, bins=self.bins)
        if calibration:
            calibration["brier"] = float(brier.mean())
        images = [
            {"image_id": image_id, "path": path, "truth": label, "label": best, "score": score, "loss": loss}
            for label, best, _, score, image_id, path, _, loss in self._rows
        ]
        matrix = self.confusion()
        out = {"classes": self.classes, "confusion": matrix.tolist(), "confused": confused_pairs(matrix, self.classes)}
        return out | {"images": images, "calibration": calibration}

    def state(self) -> list[Row]:
        """One row an image."""
        return self._rows

    def merge(self, states: Sequence[list[Row]]) -> None:
        """Replace the rows by the union of several processes'."""
        self._rows = [row for state in states for row in state]

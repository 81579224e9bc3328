"""Image classification: accuracy, top-k, precision, recall and F1 by class, balanced accuracy, calibration, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from saccade.types.prediction import Classification
from saccade.types.sample import Target


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
        self._rows: list[tuple[int, int, int, float, str, str]] = []  # truth, label, rank of the truth, score, id, path

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
            self._rows.append((label, best, rank, float(scores[best]), str(image_id), str(path)))

    def confusion(self) -> np.ndarray:
        """(K, K) int64 images: rows are the truth, columns the prediction."""
        k = len(self.classes)
        pairs = np.array([row[:2] for row in self._rows], dtype=np.int64).reshape(-1, 2)
        return np.bincount(pairs[:, 0] * k + pairs[:, 1], minlength=k * k).reshape(k, k)

    def compute(self) -> dict[str, float]:
        """Flat named floats; see the class."""
        matrix = self.confusion()
        right, true, found = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        total = matrix.sum()
        nan = np.full(len(self.classes), np.nan)
        recall = np.divide(right, true, out=nan.copy(), where=true > 0)
        precision = np.where(true > 0, 0.0, np.nan)
        np.divide(right, found, out=precision, where=found > 0)
        f1 = np.divide(2 * right, true + found, out=nan.copy(), where=true > 0)
        ranks = np.array([row[2] for row in self._rows])
        out = {"accuracy": float(right.sum() / total) if total else np.nan}
        out |= {f"top{k}": float((ranks < k).mean()) if total else np.nan for k in self.top}
        there = true > 0
        means = {"balanced_accuracy": recall, "macro_precision": precision, "macro_recall": recall, "macro_f1": f1}
        out |= {name: float(values[there].mean()) if total else np.nan for name, values in means.items()}
        out["ece"] = self._calibration_error()
        for k, name in enumerate(self.classes):
            out |= {f"precision/{name}": float(precision[k]), f"recall/{name}": float(recall[k]), f"f1/{name}": float(f1[k])}
        return out

    def _calibration_error(self) -> float:
        if not self._rows:
            return float("nan")
        label, best, score = (np.array([row[i] for row in self._rows]) for i in (0, 1, 3))
        if not np.isfinite(score).all():
            return float("nan")
        bins = np.clip(np.ceil(score * self.bins).astype(int) - 1, 0, self.bins - 1)  # bins are open below: (i, i + 1] / bins
        gap = np.bincount(bins, weights=(label == best) - score, minlength=self.bins)
        return float(np.abs(gap).sum() / len(score))

    def tables(self) -> dict[str, Any]:
        """``confusion`` (rows: truth) and ``images``: id, path, truth, label and score of each image."""
        images = [
            {"image_id": image_id, "path": path, "truth": label, "label": best, "score": score}
            for label, best, _, score, image_id, path in self._rows
        ]
        return {"classes": self.classes, "confusion": self.confusion().tolist(), "images": images}

    def state(self) -> list[tuple[int, int, int, float, str, str]]:
        """One row an image."""
        return self._rows

    def merge(self, states: Sequence[list[tuple[int, int, int, float, str, str]]]) -> None:
        """Replace the rows by the union of several processes'."""
        self._rows = [row for state in states for row in state]

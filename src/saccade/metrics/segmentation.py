"""Semantic segmentation from one confusion matrix over all pixels of the set: Jaccard (IoU), Dice, accuracy, by class and mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from saccade.metrics.bootstrap import Resampler, Support, mean_of, ratio
from saccade.metrics.confused import confused_pairs
from saccade.metrics.segmentation_errors import BoundaryCounts
from saccade.types.prediction import Segmentation
from saccade.types.sample import IGNORE, Target


class SegmentationMetric:
    """Collects class maps; gives ``mean_iou`` and the rest by name.

    With TP, FP, FN, TN the pixels of a class over the whole set: ``iou`` TP / (TP + FP + FN), ``dice`` (= F1)
    2 TP / (2 TP + FP + FN), ``sensitivity`` (recall) TP / (TP + FN), ``specificity`` TN / (TN + FP), ``precision`` TP / (TP + FP).

    Names: ``iou/NAME dice/NAME sensitivity/NAME specificity/NAME precision/NAME``; ``mean_iou mean_dice mean_sensitivity
    mean_specificity mean_precision`` over the classes that the truth has; ``pixel_accuracy``; ``image_mean_iou``: the mean over images
    of each image's mean IoU over the classes in its truth or prediction, another number than ``mean_iou``. NaN where a class is in
    neither truth nor prediction (sensitivity: not in the truth). A class present and never predicted has precision 0.

    Args:
        classes: names by label, background included.
    """

    main: ClassVar[str] = "mean_iou"

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        size = len(self.classes)
        self.confusion = np.zeros((size, size), dtype=np.int64)
        self.boundary = BoundaryCounts(size)
        self._images: list[tuple[str, str, np.ndarray]] = []  # id, path, (3, K) pixels: right, true, predicted

    def update(self, predictions: Sequence[Segmentation], truths: Sequence[Target]) -> None:
        """Add images: ``prediction.mask`` (H, W) labels, ``truth["mask"]`` (H, W) labels or -100 where nothing is asked."""
        size = len(self.classes)
        for prediction, truth in zip(predictions, truths, strict=True):
            name = truth.get("image_id", prediction.image_id)
            found, there = np.asarray(prediction.mask), np.asarray(truth["mask"])
            if found.shape != there.shape:
                raise ValueError(f"image {name}: the predicted mask is {found.shape}, the true one {there.shape}")
            whole = found, there
            valid = there != IGNORE
            if not valid.all():
                found, there = found[valid], there[valid]
            for kind, values in (("predicted", found), ("true", there)):
                if values.size and not 0 <= values.min() <= values.max() < size:
                    raise ValueError(f"image {name}: {kind} labels {values.min()}..{values.max()} for {size} classes")
            code = there.reshape(-1) * np.int64(size)
            code += found.reshape(-1)
            matrix = np.bincount(code, minlength=size * size).reshape(size, size)
            self.confusion += matrix
            self.boundary.add(*whole)
            counts = np.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)])
            self._images.append((str(name), str(truth.get("path", prediction.path)), counts))

    def compute(self) -> dict[str, float]:
        """Flat named floats; see the class."""
        numbers = self._numbers(*(values[None] for values in (self.confusion.diagonal(), self.confusion.sum(1), self.confusion.sum(0))))
        numbers["image_mean_iou"] = np.array([_mean(np.array([_mean(_iou(counts)) for *_, counts in self._images]))])
        out = {name: float(values[0]) for name, values in numbers.items()}
        return {name: value for name, value in out.items() if "/" not in name} | out

    def _numbers(self, tp: np.ndarray, true: np.ndarray, found: np.ndarray) -> dict[str, np.ndarray]:
        """(B,) by name from the pixels of each class that are right, true and predicted, (B, K) each."""
        total, here = true.sum(1, keepdims=True), true > 0
        precision = np.where(here, 0.0, np.nan)
        np.divide(tp, found, out=precision, where=found > 0)
        by_class = {
            "iou": ratio(tp, true + found - tp),
            "dice": ratio(2 * tp, true + found),
            "sensitivity": ratio(tp, true),
            "specificity": ratio(total - true - found + tp, total - true),
            "precision": precision,
        }
        out = {f"mean_{name}": mean_of(values, here & ~np.isnan(values)) for name, values in by_class.items()}
        out["pixel_accuracy"] = ratio(tp.sum(1), total[:, 0])
        return out | {f"{name}/{label}": values[:, k] for name, values in by_class.items() for k, label in enumerate(self.classes)}

    def resampler(self, names: Sequence[str] | None = None) -> Resampler:
        """For intervals: all numbers."""
        size = len(self.classes)
        pixels = np.array([counts for *_, counts in self._images], dtype=np.float64).reshape(len(self._images), 3 * size)
        own = np.array([_mean(_iou(counts)) for *_, counts in self._images])
        scored, own = (~np.isnan(own)).astype(np.float64), np.nan_to_num(own)

        def values(weights: np.ndarray) -> dict[str, np.ndarray]:
            tp, true, found = np.split(weights @ pixels, 3, axis=1)
            return self._numbers(tp, true, found) | {"image_mean_iou": ratio(weights @ own, weights @ scored)}

        here = (pixels[:, size : 2 * size] > 0).sum(0)  # images that have the class
        kinds = ("iou", "dice", "sensitivity", "precision")
        support = {f"{kind}/{self.classes[k]}": Support(here[k]) for kind in kinds for k in range(size)}
        means = {f"mean_{kind}": [f"{kind}/{self.classes[k]}" for k in np.flatnonzero(here)] for kind in (*kinds, "specificity")}
        return Resampler(len(self._images), values, 3 * size, support, means)

    def tables(self) -> dict[str, Any]:
        """``confusion`` in pixels (rows: truth), its ``confused`` pairs (:func:`saccade.metrics.confused.confused_pairs`), ``boundary``
        (:meth:`saccade.metrics.segmentation_errors.BoundaryCounts.tables`), and ``images``: id, path, mean IoU and IoU by class (None
        where absent).
        """
        images = [
            {
                "image_id": image_id,
                "path": path,
                "mean_iou": None if np.isnan(iou).all() else _mean(iou),
                "iou": [None if np.isnan(v) else float(v) for v in iou],
            }
            for image_id, path, iou in ((image_id, path, _iou(counts)) for image_id, path, counts in self._images)
        ]
        return {
            "classes": self.classes,
            "confusion": self.confusion.tolist(),
            "confused": confused_pairs(self.confusion, self.classes),
            "boundary": self.boundary.tables(self.classes),
            "images": images,
        }

    def state(self) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str, np.ndarray]]]:
        """The confusion matrix, the counts near boundaries and one row an image."""
        return self.confusion, self.boundary.counts, self._images

    def merge(self, states: Sequence[tuple[np.ndarray, np.ndarray, list[tuple[str, str, np.ndarray]]]]) -> None:
        """Replace what was collected by the sum of several processes'."""
        self.confusion = np.sum([matrix for matrix, _, _ in states], axis=0, dtype=np.int64).reshape(self.confusion.shape)
        counts = self.boundary.counts
        self.boundary.counts = np.sum([near for _, near, _ in states], axis=0, dtype=np.int64).reshape(counts.shape)
        self._images = [row for *_, images in states for row in images]


def _iou(counts: np.ndarray) -> np.ndarray:
    tp, true, found = counts
    return ratio(tp, true + found - tp)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")

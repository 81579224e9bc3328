"""Semantic segmentation from one confusion matrix over all pixels of the set: Jaccard (IoU), Dice, accuracy, by class and mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

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
        self._images: list[tuple[str, str, np.ndarray]] = []  # id, path, (K,) IoU

    def update(self, predictions: Sequence[Segmentation], truths: Sequence[Target]) -> None:
        """Add images: ``prediction.mask`` (H, W) labels, ``truth["mask"]`` (H, W) labels or -100 where nothing is asked."""
        size = len(self.classes)
        for prediction, truth in zip(predictions, truths, strict=True):
            name = truth.get("image_id", prediction.image_id)
            found, there = np.asarray(prediction.mask), np.asarray(truth["mask"])
            if found.shape != there.shape:
                raise ValueError(f"image {name}: the predicted mask is {found.shape}, the true one {there.shape}")
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
            right = matrix.diagonal()
            iou = _ratio(right, matrix.sum(0) + matrix.sum(1) - right)
            self._images.append((str(name), str(truth.get("path", prediction.path)), iou))

    def compute(self) -> dict[str, float]:
        """Flat named floats; see the class."""
        tp, total = self.confusion.diagonal(), self.confusion.sum()
        true, found = self.confusion.sum(1), self.confusion.sum(0)
        here = true > 0
        precision = np.where(here, 0.0, np.nan)
        np.divide(tp, found, out=precision, where=found > 0)
        by_class = {
            "iou": _ratio(tp, true + found - tp),
            "dice": _ratio(2 * tp, true + found),
            "sensitivity": _ratio(tp, true),
            "specificity": _ratio(total - true - found + tp, total - true),
            "precision": precision,
        }
        out = {f"mean_{name}": _mean(values[here]) for name, values in by_class.items()}
        out["pixel_accuracy"] = float(tp.sum() / total) if total else np.nan
        out["image_mean_iou"] = _mean(np.array([_mean(iou) for *_, iou in self._images]))
        for name, values in by_class.items():
            out |= {f"{name}/{label}": float(value) for label, value in zip(self.classes, values, strict=True)}
        return out

    def tables(self) -> dict[str, Any]:
        """``confusion`` in pixels (rows: truth) and ``images``: id, path, mean IoU and IoU by class (None where absent)."""
        images = [
            {
                "image_id": image_id,
                "path": path,
                "mean_iou": None if np.isnan(iou).all() else _mean(iou),
                "iou": [None if np.isnan(v) else float(v) for v in iou],
            }
            for image_id, path, iou in self._images
        ]
        return {"classes": self.classes, "confusion": self.confusion.tolist(), "images": images}

    def state(self) -> tuple[np.ndarray, list[tuple[str, str, np.ndarray]]]:
        """The confusion matrix and one row an image."""
        return self.confusion, self._images

    def merge(self, states: Sequence[tuple[np.ndarray, list[tuple[str, str, np.ndarray]]]]) -> None:
        """Replace what was collected by the sum of several processes'."""
        self.confusion = np.sum([matrix for matrix, _ in states], axis=0, dtype=np.int64).reshape(self.confusion.shape)
        self._images = [row for _, images in states for row in images]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")

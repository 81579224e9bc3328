"""Landmarks: normalised mean error, share of correct points, area under the curve of errors; of the set and by point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from saccade.metrics.bootstrap import Resampler, Support, ratio
from saccade.types.prediction import Landmarks
from saccade.types.sample import Target

LARGEST = 0.1
"""Error, as a share of the diagonal, at which the curve of errors ends."""

Row = tuple[str, str, np.ndarray, float, float]
"""Of an image: id, path, (K,) distances in pixels (NaN: not labelled), its diagonal, the distance of the two points (NaN: no two are
named; 0: there is none)."""


def distances(prediction: Landmarks, truth: Target) -> np.ndarray:
    """(K,) float64 distance of each point from its true place in pixels; NaN where none is labelled.

    ``truth`` has ``keypoints`` (N, K, 2) and ``visibility`` (N, K) with N 0 or 1.
    """
    found = np.asarray(prediction.points, dtype=np.float64)
    points, visibility = np.asarray(truth["keypoints"], dtype=np.float64), np.asarray(truth["visibility"])
    if not len(points):
        return np.full(len(found), np.nan)
    if points.shape != (1, *found.shape):
        raise ValueError(f"image {truth.get('image_id')}: {found.shape} points found, the truth has {points.shape}")
    return np.where(visibility[0] > 0, np.hypot(*(found - points[0]).T), np.nan)


def image_error(prediction: Landmarks, truth: Target) -> float:
    """Mean distance of an image's labelled points as a share of its diagonal; NaN where none is labelled."""
    found = distances(prediction, truth)
    return float(np.nanmean(found) / np.hypot(*prediction.size)) if np.isfinite(found).any() else float("nan")


class LandmarkMetric:
    """Collects points; gives ``auc`` and the rest by name.

    The error of a point is its distance from the truth over the image's diagonal; that of an image the mean over its labelled points.
    Points of visibility 0 are not labelled. Names:

    * ``nme``: mean error of the images. ``auc``: area under the curve of the share of images within an error, from 0 to 0.1, over 0.1.
    * ``pck05 pck10``: share of all labelled points within 0.05 and 0.1 (percentage of correct key points, PCK).
    * ``rmse``: root of the mean squared distance of all labelled points, in pixels.
    * ``nme_between``, where the predictions name two points: as ``nme``, over the true distance of these two (of the outer corners of
      the eyes: inter-ocular) instead of the diagonal. Images in which one of them is not labelled, or both are one place, are left out.
    * ``nme/NAME pck05/NAME pck10/NAME``: of one point.

    NaN where nothing is labelled.

    Args:
        classes: names of the points.
    """

    main: ClassVar[str] = "auc"

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self._rows: list[Row] = []

    def update(self, predictions: Sequence[Landmarks], truths: Sequence[Target]) -> None:
        """Add images; see :func:`distances`."""
        for prediction, truth in zip(predictions, truths, strict=True):
            image_id, path = truth.get("image_id", prediction.image_id), truth.get("path", prediction.path)
            if np.shape(prediction.points) != (len(self.classes), 2):
                raise ValueError(f"image {image_id}: points of shape {np.shape(prediction.points)} for {len(self.classes)} names")
            diagonal, between = float(np.hypot(*prediction.size)), float("nan")
            if prediction.between is not None:
                ends = list(prediction.between)
                seen = len(truth["keypoints"]) and (np.asarray(truth["visibility"])[0, ends] > 0).all()
                between = float(np.hypot(*np.diff(np.asarray(truth["keypoints"], dtype=np.float64)[0, ends], axis=0)[0])) if seen else 0.0
            self._rows.append((str(image_id), str(path), distances(prediction, truth), diagonal, between))

    def compute(self) -> dict[str, float]:
        """Flat named floats; see the class."""
        pixels, _, between = self._columns()
        out = {name: float(values[0]) for name, values in self._values(np.ones((1, len(pixels)))).items()}
        known = pixels[~np.isnan(pixels)]
        out["rmse"] = float(np.sqrt((known**2).mean())) if known.size else float("nan")
        if (~np.isnan(between)).any():
            means = ratio(_row_means(pixels), np.nan_to_num(between))
            out["nme_between"] = float(np.nanmean(means)) if (~np.isnan(means)).any() else float("nan")
        return {name: value for name, value in out.items() if "/" not in name} | out

    def resampler(self, names: Sequence[str] | None = None) -> Resampler:
        """For intervals: all numbers but ``rmse`` and ``nme_between``, which may lie above 1."""
        labelled = ~np.isnan(self._columns()[0])
        points, images = labelled.sum(0), int(labelled.any(1).sum())
        support = {name: Support(images) for name in ("auc", "nme")} | {name: Support(images, points.sum()) for name in ("pck05", "pck10")}
        for k, name in enumerate(self.classes):
            support[f"nme/{name}"] = Support(points[k])
            support |= {f"{kind}/{name}": Support(points[k], points[k]) for kind in ("pck05", "pck10")}
        return Resampler(len(labelled), self._values, len(self.classes), support)

    def _values(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """(B,) by name for (B, N) weights of the images."""
        pixels, diagonal, _ = self._columns()
        errors = pixels / diagonal[:, None]
        labelled, own = ~np.isnan(errors), _row_means(errors)
        scored, own = (~np.isnan(own)).astype(np.float64), np.nan_to_num(own)
        there = weights @ labelled.astype(np.float64)
        by_point = {"nme": ratio(weights @ np.nan_to_num(errors), there)}
        within = {"pck05": errors <= 0.05, "pck10": errors <= 0.1}  # a NaN is not
        by_point |= {name: ratio(weights @ right.astype(np.float64), there) for name, right in within.items()}
        out = {
            "auc": ratio(weights @ (scored * np.maximum(1 - own / LARGEST, 0)), weights @ scored),
            "nme": ratio(weights @ (scored * own), weights @ scored),
        }
        out |= {name: ratio(weights @ right.sum(1).astype(np.float64), there.sum(1)) for name, right in within.items()}
        return out | {f"{kind}/{name}": values[:, k] for k, name in enumerate(self.classes) for kind, values in by_point.items()}

    def _columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N, K) distances, (N,) diagonals, (N,) distances of the two points."""
        pixels = np.array([row[2] for row in self._rows], dtype=np.float64).reshape(len(self._rows), len(self.classes))
        diagonal, between = (np.array([row[i] for row in self._rows], dtype=np.float64) for i in (3, 4))
        return pixels, diagonal, between

    def tables(self) -> dict[str, Any]:
        """``images``: id, path and error of each image (None where nothing is labelled); ``error_curve``: ``error`` from 0 to 0.1 and the
        ``share`` of the images within it.
        """
        pixels, diagonal, _ = self._columns()
        errors = _row_means(pixels) / diagonal
        known = np.sort(errors[~np.isnan(errors)])
        at = np.linspace(0, LARGEST, 101)
        share = np.searchsorted(known, at, side="right") / len(known) if len(known) else np.zeros(0)
        images = [
            {"image_id": row[0], "path": row[1], "nme": None if np.isnan(error) else float(error)}
            for row, error in zip(self._rows, errors, strict=True)
        ]
        return {"classes": self.classes, "images": images, "error_curve": {"error": at[: len(share)].tolist(), "share": share.tolist()}}

    def state(self) -> list[Row]:
        """One row an image."""
        return self._rows

    def merge(self, states: Sequence[list[Row]]) -> None:
        """Replace the rows by the union of several processes'."""
        self._rows = [row for state in states for row in state]


def _row_means(values: np.ndarray) -> np.ndarray:
    """(N,) mean of the numbers of each row; NaN where it has none."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(1), known.sum(1))

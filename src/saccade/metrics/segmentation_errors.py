"""Where a segmentation is wrong: Boundary IoU, and the wrong pixels that lie near a true boundary against the rest.

Boundary IoU (Cheng et al. 2021, arXiv 2103.16562): of a class, the IoU of two bands: the true pixels of the class within d of the edge of
the true region, and the predicted ones within d of the edge of the predicted region. d is 2 % of the image's diagonal, rounded, at
least 1 pixel. As in the authors' code, distance is Chebyshev's (a square window) and the image's border is an edge too. Counts are
summed over the whole set, then divided, as ``iou`` is.

A wrong pixel is a boundary error when a pixel of another true class lies within d of it, else an area error; here the image's border is
no boundary. Pixels that the truth leaves out (-100) count neither way, are taken out of the prediction too, and their outline is a
boundary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from saccade.types.sample import IGNORE

RATIO = 0.02
"""d as a part of the image's diagonal: the paper's value."""


class BoundaryCounts:
    """Counts of the pixels near boundaries, by class; memory does not grow with the images.

    Attributes:
        counts: (5, K) int64: pixels in the true band, in the predicted band, in both; wrong pixels by true class, and those of them
            near a true boundary.
    """

    def __init__(self, classes: int, ratio: float = RATIO) -> None:
        self.ratio = ratio
        self.counts = np.zeros((5, classes), dtype=np.int64)

    def add(self, found: np.ndarray, there: np.ndarray) -> None:
        """Add an image: (H, W) labels that are in range, -100 in the truth where nothing is asked."""
        size = self.counts.shape[1]
        if not there.size:
            return
        d = max(1, round(self.ratio * float(np.hypot(*there.shape))))
        outside = there == IGNORE
        kind = np.uint8 if size < 256 else np.uint16  # what OpenCV's filters take; the label after the last is "left out"
        there, found = there.astype(kind), found.astype(kind)
        if outside.any():
            there[outside] = found[outside] = size
        near = near_boundary(there, d)
        true_band, found_band = _with_border(near, d), _with_border(near_boundary(found, d), d)
        wrong = there != found
        for row, which, labels in (
            (0, true_band, there),
            (1, found_band, found),
            (2, true_band & found_band & ~wrong, there),
            (3, wrong, there),
            (4, wrong & near, there),
        ):
            self.counts[row] += np.bincount(labels[which], minlength=size + 1)[:size]

    def tables(self, classes: Sequence[str]) -> dict[str, Any]:
        """For reports.

        ``boundary_iou`` by class (None: in neither truth nor prediction) and ``mean_boundary_iou`` over the classes that the truth has;
        ``wrong`` pixels, those ``near`` a true boundary, their ``share`` (None: nothing is wrong); ``by_class``: the same three by true
        class; ``ratio``: d as a part of the diagonal.
        """
        true, found, both, wrong, near = self.counts
        union = true + found - both
        iou = np.divide(both, union, out=np.full(len(union), np.nan), where=union > 0)
        here = true > 0
        return {
            "ratio": self.ratio,
            "boundary_iou": {name: None if np.isnan(v) else float(v) for name, v in zip(classes, iou, strict=True)},
            "mean_boundary_iou": float(iou[here].mean()) if here.any() else None,
            **_shares(int(wrong.sum()), int(near.sum())),
            "by_class": {name: _shares(int(w), int(n)) for name, w, n in zip(classes, wrong, near, strict=True)},
        }


def near_boundary(labels: np.ndarray, d: int) -> np.ndarray:
    """(H, W) bool: another label lies at most ``d`` rows and ``d`` columns away. ``labels`` is uint8 or uint16."""
    import cv2

    window = np.ones((2 * d + 1, 2 * d + 1), dtype=np.uint8)  # OpenCV's filters leave out what is beyond the image
    return cv2.erode(labels, window) != cv2.dilate(labels, window)


def _with_border(near: np.ndarray, d: int) -> np.ndarray:
    out = np.ones_like(near)
    out[d:-d, d:-d] = near[d:-d, d:-d]
    return out


def _shares(wrong: int, near: int) -> dict[str, Any]:
    return {"wrong": wrong, "near": near, "share": near / wrong if wrong else None}

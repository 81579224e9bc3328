"""Priors (anchor sizes) that fit a data set: k-means under 1 - IoU over its boxes (YOLO9000, arXiv 1612.08242, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from saccade.boxes.priors import kmeans_priors
from saccade.data.dataset import Dataset
from saccade.data.formats.files import image_hw
from saccade.types.errors import DataError, UsageError


def box_sizes(data: Dataset, size: int | tuple[int, int] | None = None, *, letterbox: bool = True) -> np.ndarray:
    """(N, 2) float64 width and height of all boxes that are no crowd, in pixels of the network's input.

    Args:
        data: data with boxes.
        size: of the input, a side or (height, width); None keeps original pixels.
        letterbox: images keep their aspect (scaled by the smaller of the two ratios); else each side is stretched on its own.

    Raises:
        UsageError: the data hold no box.
    """
    out = []
    for record in data.map_records(lambda r: r):
        if record.boxes is None or not len(record.boxes):
            continue
        boxes = np.asarray(record.boxes, dtype=np.float64)
        if record.iscrowd is not None:
            boxes = boxes[~np.asarray(record.iscrowd, dtype=bool)]
        sides = boxes[:, 2:] - boxes[:, :2]
        if size is not None:
            try:
                height, width = image_hw(data, record)
            except DataError:  # a broken image: inspect reports it
                continue
            target = (size, size) if isinstance(size, int) else size
            factors = np.array([target[1] / width, target[0] / height])
            sides = sides * (factors.min() if letterbox else factors)
        out.append(sides)
    sizes = np.concatenate(out) if out else np.zeros((0, 2))
    sizes = sizes[(sizes > 0).all(1)]
    if not len(sizes):
        raise UsageError(f"{data.index.root}: the data hold no boxes to fit priors to")
    return sizes


def fit_priors(
    data: Dataset,
    ks: Sequence[int] = tuple(range(1, 10)),
    *,
    size: int | tuple[int, int] | None = 416,
    letterbox: bool = True,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Priors for several numbers of clusters.

    Args:
        data: data with boxes.
        ks: numbers of priors; those above the number of different box sizes are left out.
        size, letterbox: see :func:`box_sizes`.
        seed: of k-means.

    Returns:
        One ``{"k", "mean_iou", "priors": [[w, h], ...]}`` each, smallest area first; ``mean_iou`` is the mean over boxes of the IoU
        with the best prior on a common centre, the figure of YOLO9000's table 1.
    """
    if not ks or min(ks) < 1:
        raise UsageError(f"the number of priors is at least 1, not {min(ks, default=0)}")
    sizes = box_sizes(data, size, letterbox=letterbox)
    different = len(np.unique(sizes, axis=0))
    rows = []
    for k in ks:
        if k <= different:
            priors, mean = kmeans_priors(sizes, k, seed)
            rows.append({"k": k, "mean_iou": round(mean, 4), "priors": priors.round(2).tolist()})
    if not rows:
        raise UsageError(f"{data.index.root}: {min(ks)} priors cannot be made of {different} different box sizes")
    return rows

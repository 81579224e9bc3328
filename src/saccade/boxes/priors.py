"""Priors from data: k-means over box sizes with the distance 1 - IoU (YOLO9000, arXiv 1612.08242, section 2, "Dimension Clusters").

With Euclidean distance large boxes make larger errors than small ones; 1 - IoU of two boxes on a common centre does not depend on the
size. scikit-learn's and SciPy's k-means are Euclidean only, hence the short loop here.
"""

from __future__ import annotations

import numpy as np


def size_iou(sizes: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """(N, k) IoU of boxes of (N, 2) and (k, 2) width and height that share their centre."""
    inter = np.minimum(sizes[:, None], priors[None]).prod(-1)
    return inter / (sizes.prod(-1)[:, None] + priors.prod(-1)[None] - inter)


def kmeans_priors(sizes: np.ndarray, k: int, seed: int = 0, *, restarts: int = 10, iterations: int = 100) -> tuple[np.ndarray, float]:
    """Cluster box sizes into k priors.

    Args:
        sizes: (N, 2) positive widths and heights, any unit.
        k: number of priors, at most the number of different sizes.
        seed: of the k-means++ starts; the best of ``restarts`` runs is kept.
        iterations: most Lloyd steps of a run.

    Returns:
        priors (k, 2) float64, smallest area first, and the mean over boxes of the IoU with their best prior.
    """
    sizes = np.asarray(sizes, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(sizes).all() or (sizes <= 0).any():
        raise ValueError("box sizes must be finite and positive")
    different = len(np.unique(sizes, axis=0))
    if not 1 <= k <= different:
        raise ValueError(f"{k} priors cannot be made of {different} different box sizes")
    generator = np.random.default_rng(seed)
    best, best_iou = sizes[:k], -1.0
    for _ in range(restarts):
        priors, chosen = _start(sizes, k, generator), None
        for _ in range(iterations):
            previous, chosen = chosen, size_iou(sizes, priors).argmax(1)
            if previous is not None and (chosen == previous).all():
                break
            counts = np.bincount(chosen, minlength=k)
            sums = np.stack([np.bincount(chosen, weights=sizes[:, axis], minlength=k) for axis in (0, 1)], axis=1)
            priors = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], priors)
        mean = float(size_iou(sizes, priors).max(1).mean())
        if mean > best_iou:
            best, best_iou = priors, mean
    return best[np.argsort(best.prod(-1), kind="stable")], best_iou


def _start(sizes: np.ndarray, k: int, generator: np.random.Generator) -> np.ndarray:
    """k-means++ (Arthur, Vassilvitskii 2007): each start is drawn with probability by its squared distance to the earlier ones."""
    starts = sizes[generator.integers(len(sizes))][None]
    while len(starts) < k:
        distance = (1 - size_iou(sizes, starts).max(1)).clip(min=0) ** 2
        total = distance.sum()  # 0 where the other sizes differ by rounding alone
        starts = np.concatenate([starts, sizes[generator.choice(len(sizes), p=distance / total if total else None)][None]])
    return starts

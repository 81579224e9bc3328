"""Soft Jaccard (IoU) loss (Rahman and Wang 2016, "Optimizing intersection-over-union in deep neural networks").

``1 - TP / (TP + FP + FN)`` a class, counts summed over the batch, mean over the classes present.
"""

from __future__ import annotations

from torch import Tensor

from saccade.losses.overlap import mean_over_present, soft_counts


def jaccard_loss(logits: Tensor, mask: Tensor, *, weights: Tensor | None = None, smooth: float = 1e-6) -> Tensor:
    """Soft Jaccard loss, a scalar in 0..1.

    Args:
        logits: (N, K, ...) before the softmax.
        mask: (N, ...) int64 labels, -100 ignored.
        weights: (K,) weight of each class in the mean.
        smooth: added to both sides of the fraction.
    """
    tp, fp, fn, present = soft_counts(logits, mask)
    return mean_over_present(1 - (tp + smooth) / (tp + fp + fn + smooth), present, weights)

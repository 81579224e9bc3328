"""Soft Dice loss (Milletari, Navab, Ahmadi: V-Net, 2016, arXiv 1606.04797; here with plain sums below, as in most later work).

``1 - 2 TP / (2 TP + FP + FN)`` a class, counts summed over the batch, mean over the classes present.
"""

from __future__ import annotations

from torch import Tensor

from saccade.losses.overlap import mean_over_present, soft_counts


def dice_loss(logits: Tensor, mask: Tensor, *, weights: Tensor | None = None, smooth: float = 1e-6) -> Tensor:
    """Soft Dice loss, a scalar in 0..1.

    Args:
        logits: (N, K, ...) before the softmax.
        mask: (N, ...) int64 labels, -100 ignored.
        weights: (K,) weight of each class in the mean.
        smooth: added to both sides of the fraction.
    """
    tp, fp, fn, present = soft_counts(logits, mask)
    return mean_over_present(1 - (2 * tp + smooth) / (2 * tp + fp + fn + smooth), present, weights)

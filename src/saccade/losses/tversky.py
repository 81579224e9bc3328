"""Tversky loss (Salehi, Erdogmus, Gholipour 2017, arXiv 1706.05721) and its focal form (Abraham and Khan 2018, arXiv 1810.07842).

``TI = TP / (TP + alpha FP + beta FN)``: alpha = beta = 0.5 is Dice, alpha = beta = 1 is Jaccard; beta > alpha prizes recall.
The focal form is ``(1 - TI)^gamma``; Abraham and Khan write the exponent as 1 / gamma, their 4/3 is 0.75 here.
"""

from __future__ import annotations

from torch import Tensor

from saccade.losses.overlap import mean_over_present, soft_counts


def tversky_loss(
    logits: Tensor,
    mask: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 1.0,
    weights: Tensor | None = None,
    smooth: float = 1e-6,
) -> Tensor:
    """Mean of ``(1 - TI)^gamma`` over the classes present, a scalar in 0..1.

    Args:
        logits: (N, K, ...) before the softmax.
        mask: (N, ...) int64 labels, -100 ignored.
        alpha: weight of false positives.
        beta: weight of false negatives.
        gamma: exponent; 1 is the plain Tversky loss.
        weights: (K,) weight of each class in the mean.
        smooth: added to both sides of the fraction.
    """
    if alpha < 0 or beta < 0 or alpha + beta == 0 or gamma <= 0:
        raise ValueError(f"alpha and beta must be at least 0 and not both 0, gamma above 0; got {alpha}, {beta}, {gamma}")
    tp, fp, fn, present = soft_counts(logits, mask)
    loss = 1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)
    if gamma != 1:
        loss = loss.clamp_min(1e-7) ** gamma  # below 1 the slope is infinite at a perfect overlap
    return mean_over_present(loss, present, weights)

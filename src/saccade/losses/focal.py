"""Focal loss (Lin, Goyal, Girshick, He, Dollar: Focal Loss for Dense Object Detection, 2017, arXiv 1708.02002).

``FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t)`` (equation 5): easy examples weigh less. gamma = 0 is the (alpha-balanced) cross entropy.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.types.sample import IGNORE

Reduction = Literal["none", "sum", "mean"]


def sigmoid_focal_loss(
    logits: Tensor, targets: Tensor, *, alpha: float | None = 0.25, gamma: float = 2.0, reduction: Reduction = "mean"
) -> Tensor:
    """Focal loss of independent yes/no decisions.

    Args:
        logits: any shape, before the sigmoid.
        targets: the same shape, 0..1.
        alpha: weight of the positives (1 - alpha of the negatives); None weighs both by 1.
        gamma: focusing, 0 to 5.
        reduction: "none" keeps the shape.
    """
    _check(gamma)
    p = logits.sigmoid()
    miss = p + targets - 2 * p * targets  # 1 - p_t
    loss = _power(miss, gamma) * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if alpha is not None:
        loss = (alpha * targets + (1 - alpha) * (1 - targets)) * loss
    return loss if reduction == "none" else getattr(loss, reduction)()


def softmax_focal_loss(
    logits: Tensor, labels: Tensor, *, alpha: float | Tensor | None = None, gamma: float = 2.0, reduction: Reduction = "mean"
) -> Tensor:
    """Focal loss of one choice among K classes.

    Args:
        logits: (N, K, ...) before the softmax; half precision is computed in float32.
        labels: (N, ...) int64, 0..K-1; -100 is left out exactly.
        alpha: a factor, or (K,) weights of the classes; None is 1.
        gamma: focusing, 0 to 5.
        reduction: "none" keeps the shape of ``labels`` (0 where ignored); "mean" divides by the number of labels that
            count (by the sum of their class weights when ``alpha`` is a tensor, as torch's cross entropy); 0 if there are none.
    """
    _check(gamma)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    valid = labels != IGNORE
    safe = labels.masked_fill(~valid, 0)
    log_p = logits.log_softmax(1).gather(1, safe.unsqueeze(1)).squeeze(1)
    weight = valid.to(log_p.dtype)
    if isinstance(alpha, Tensor):
        weight = weight * alpha.to(log_p)[safe]
    # -expm1(log p) is 1 - p without cancellation near p = 1.
    loss = torch.where(valid, -weight * _power(-torch.expm1(log_p), gamma) * log_p, log_p.new_zeros(()))
    if isinstance(alpha, (int, float)):
        loss = alpha * loss
    if reduction == "mean":
        return loss.sum() / weight.sum().clamp_min(torch.finfo(loss.dtype).tiny)
    return loss if reduction == "none" else loss.sum()


def _power(miss: Tensor, gamma: float) -> Tensor:
    # Between 0 and 1 the power's slope at 0 is infinite; 1e-12 keeps the gradient finite and the value unchanged.
    return torch.ones_like(miss) if gamma == 0 else miss.clamp_min(1e-12 if gamma < 1 else 0.0) ** gamma


def _check(gamma: float) -> None:
    if not 0 <= gamma <= 5:
        raise ValueError(f"gamma must be 0 to 5, not {gamma}")

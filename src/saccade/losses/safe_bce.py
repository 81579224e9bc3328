"""Binary cross entropy of probabilities that stays finite at the boundaries 0 and 1, value and gradient.

``-t log q(p) - (1 - t) log q(1 - p)`` with ``q(p) = eps + (1 - 2 eps) p``: between 0 and -log eps, and still falling where p is exactly
wrong. Clipping p to eps..1 - eps gives the same values to eps but no gradient there; torch's own function has values up to 100 and
slopes up to 1e12. Where there are logits, take ``F.binary_cross_entropy_with_logits``, which needs no eps.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def safe_binary_cross_entropy(
    probabilities: Tensor, targets: Tensor, *, eps: float = 1e-7, reduction: Literal["none", "sum", "mean"] = "mean"
) -> Tensor:
    """Boundary-safe binary cross entropy.

    Args:
        probabilities: any shape, 0..1 with both ends; half precision is computed in float32.
        targets: the same shape, 0..1.
        eps: above 0, below 0.5; the loss is at most -log eps (16.1).
        reduction: "none" keeps the shape; the mean of nothing is 0.

    Raises:
        ValueError: eps out of range, or shapes that differ.

    >>> loss = safe_binary_cross_entropy(torch.tensor([0.5, 1.0, 0.0]), torch.ones(3), eps=1e-3, reduction="none")
    >>> [round(value, 3) for value in loss.tolist()]
    [0.693, 0.001, 6.908]
    """
    if not 0 < eps < 0.5:
        raise ValueError(f"eps must be above 0 and below 0.5, not {eps}")
    if probabilities.shape != targets.shape:
        raise ValueError(f"probabilities {tuple(probabilities.shape)} and targets {tuple(targets.shape)} must have one shape")
    p = probabilities.float() if probabilities.dtype in (torch.float16, torch.bfloat16) else probabilities
    t = targets.to(p.dtype)
    loss = -t * (eps + (1 - 2 * eps) * p).log() - (1 - t) * (eps + (1 - 2 * eps) * (1 - p)).log()
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / max(loss.numel(), 1)

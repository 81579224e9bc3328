"""Contrastive loss of pairs (Hadsell, Chopra, LeCun: Dimensionality Reduction by Learning an Invariant Mapping, 2006, equation 4).

``Y D^2 + (1 - Y) max(m - D, 0)^2``: D the distance of a pair's vectors, Y = 1 where both show the same, m the margin. Two of a kind are
drawn together, others apart until their distance is the margin. The paper writes Y the other way around and halves both terms.

Of triplets, ``max(d(a, p) - d(a, n) + m, 0)`` (Schroff, Kalenichenko, Philbin: FaceNet, arXiv 1503.03832), is
``torch.nn.TripletMarginLoss``.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor


def contrastive_loss(distances: Tensor, same: Tensor, *, margin: float = 1.0, reduction: Literal["none", "sum", "mean"] = "mean") -> Tensor:
    """Contrastive loss.

    Args:
        distances: any shape, at least 0, such as ``torch.linalg.vector_norm(a - b, dim=-1)``, whose gradient at 0 is 0, or ``torch.cdist``.
        same: the same shape: 1 or True where the pair is of one kind.
        margin: above 0.
        reduction: "none" keeps the shape; the mean of no pair is 0.

    Raises:
        ValueError: a margin that is not above 0, or shapes that differ.

    >>> import torch
    >>> contrastive_loss(torch.tensor([0.5, 0.5, 2.0]), torch.tensor([1, 0, 0]), margin=1.5, reduction="none").tolist()
    [0.25, 1.0, 0.0]
    """
    if not margin > 0:
        raise ValueError(f"margin must be above 0, not {margin}")
    if distances.shape != same.shape:
        raise ValueError(f"distances {tuple(distances.shape)} and same {tuple(same.shape)} must have one shape")
    alike = same.to(distances.dtype)
    loss = alike * distances**2 + (1 - alike) * (margin - distances).clamp_min(0) ** 2
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / max(loss.numel(), 1)

"""Losses of semantic segmentation by name, and their sums: "ce", "dice+focal", "ce+dice", ..."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.losses.dice import dice_loss
from saccade.losses.focal import softmax_focal_loss
from saccade.losses.jaccard import jaccard_loss
from saccade.losses.tversky import tversky_loss
from saccade.types.errors import UsageError, suggest
from saccade.types.sample import IGNORE

TERMS = ("ce", "focal", "dice", "jaccard", "tversky", "focal_tversky")
"""Names that a spec may join by ``+``."""

SPECS = ("ce", "dice+focal", "ce+dice", "dice", "focal", "jaccard", "tversky", "focal_tversky", "ce+jaccard", "focal+tversky")
"""Common specs, for ``Model.loss_names``; any sum of :data:`TERMS` works."""


class SegmentationLoss(nn.Module):
    """Sum of named terms over the pixels that have a class. It has no parameters and adds nothing to a state dict.

    Args:
        terms: names out of :data:`TERMS`.
        class_weights: (K,) weights, or None.
        label_smoothing: of the cross entropy.
    """

    class_weights: Tensor | None

    def __init__(self, terms: tuple[str, ...], class_weights: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.terms = terms
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Each term by its name.

        Args:
            logits: (N, K, H, W) before the softmax.
            mask: (N, H, W) int64, 0..K-1, -100 where a pixel has no class: such pixels give no loss and no gradient,
                and a batch without any other pixel gives zeros.
        """
        mask = mask.as_subclass(Tensor)
        return {name: self._term(name, logits, mask) for name in self.terms}

    def _term(self, name: str, logits: Tensor, mask: Tensor) -> Tensor:
        weights = self.class_weights
        if name == "ce":
            return cross_entropy(logits, mask, weights=weights, label_smoothing=self.label_smoothing)
        if name == "focal":
            return softmax_focal_loss(logits, mask, alpha=weights)
        if name == "dice":
            return dice_loss(logits, mask, weights=weights)
        if name == "jaccard":
            return jaccard_loss(logits, mask, weights=weights)
        return tversky_loss(logits, mask, weights=weights, gamma=0.75 if name == "focal_tversky" else 1.0)

    def extra_repr(self) -> str:
        """The terms."""
        return "+".join(self.terms)


def cross_entropy(logits: Tensor, mask: Tensor, *, weights: Tensor | None = None, label_smoothing: float = 0.0) -> Tensor:
    """Torch's mean cross entropy, but 0 instead of NaN when all of ``mask`` is -100."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    weights = None if weights is None else weights.to(logits)
    total = F.cross_entropy(logits, mask, weight=weights, ignore_index=IGNORE, label_smoothing=label_smoothing, reduction="sum")
    valid = mask != IGNORE
    count = valid.sum() if weights is None else (weights[mask.masked_fill(~valid, 0)] * valid).sum()
    return total / count.to(total.dtype).clamp_min(torch.finfo(total.dtype).tiny)


def segmentation_loss(
    spec: str, num_classes: int, class_weights: Sequence[float] | Tensor | None = None, label_smoothing: float = 0.0
) -> SegmentationLoss:
    """The loss of a spec such as "ce", "dice+focal", "tversky": ``loss(logits, mask) -> {"dice": ..., "focal": ...}``.

    Args:
        spec: names out of :data:`TERMS` joined by ``+``.
        num_classes: K, the logits' channels.
        class_weights: (K,) weights of the classes in every term; None weighs all by 1.
        label_smoothing: 0..1, for the cross entropy ("ce"), the only term that has it.

    Raises:
        UsageError: unknown or repeated name, weights of another length, smoothing without "ce".
    """
    names = tuple(name.strip() for name in spec.split("+"))
    for name in names:
        if name not in TERMS:
            raise UsageError(f"no segmentation loss is called {name!r} (in {spec!r}){suggest(name, TERMS)}")
    if len(set(names)) != len(names):
        raise UsageError(f"the loss {spec!r} names a term twice")
    if not 0 <= label_smoothing < 1:
        raise UsageError(f"label_smoothing must be at least 0 and below 1, not {label_smoothing}")
    if label_smoothing and "ce" not in names:
        raise UsageError(f"label_smoothing needs the term 'ce', which the loss {spec!r} has not")
    weights = None
    if class_weights is not None:
        weights = torch.as_tensor(class_weights, dtype=torch.float32)
        if weights.shape != (num_classes,) or not bool(torch.isfinite(weights).all() & (weights >= 0).all()):
            raise UsageError(f"class_weights must be {num_classes} numbers of at least 0, not {weights.tolist()}")
    return SegmentationLoss(names, weights, label_smoothing)

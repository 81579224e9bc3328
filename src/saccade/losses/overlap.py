"""Soft counts of true positives, false positives and false negatives: what Dice, Jaccard and Tversky share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saccade.types.sample import IGNORE


class SoftCounts(NamedTuple):
    """(K,) sums over all valid pixels of a batch; with p the softmax and t the one-hot truth.

    ``tp`` = sum p t, ``fp`` = sum p (1 - t), ``fn`` = sum (1 - p) t; ``present``: bool, the class has a pixel in the truth.
    """

    tp: Tensor
    fp: Tensor
    fn: Tensor
    present: Tensor


def soft_counts(logits: Tensor, mask: Tensor) -> SoftCounts:
    """Soft counts by class over the whole batch.

    Args:
        logits: (N, K, ...) float scores before the softmax; half precision is summed in float32.
        mask: (N, ...) int64 labels 0..K-1; -100 is left out exactly (no value, no gradient).
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    classes, dims = logits.shape[1], (0, *range(2, logits.ndim))
    probability = logits.softmax(1)
    labels = torch.arange(classes, device=logits.device).view(1, classes, *(1,) * (logits.ndim - 2))
    zero = probability.new_zeros(())
    truth = mask.unsqueeze(1) == labels
    tp = torch.where(truth, probability, zero).sum(dims)
    total = torch.where((mask != IGNORE).unsqueeze(1), probability, zero).sum(dims)
    pixels = truth.sum(dims)
    # Differences of large float32 sums may fall a rounding below zero.
    return SoftCounts(tp, (total - tp).clamp_min(0), (pixels - tp).clamp_min(0), pixels > 0)


def mean_over_present(values: Tensor, present: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of (K,) class losses over the classes in the truth, weighted by (K,) ``weights``; 0 when there is none.

    A class absent from the batch has an overlap of 0 whatever the network says: it would add a constant without a gradient.
    """
    share = present.to(values.dtype)
    if weights is not None:
        share = share * weights.to(values)
    return (values * share).sum() / share.sum().clamp_min(torch.finfo(values.dtype).tiny)

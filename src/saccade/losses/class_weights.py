"""Weights of classes by their counts, against imbalance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def balanced(counts: Sequence[float] | Any) -> Tensor:
    """(K,) float32 weights n / (K n_k) of classes by their counts n_k, n their sum (King and Zeng 2001, as scikit-learn's "balanced").

    Their mean over the data is 1. A class that was never seen weighs 1.

    >>> balanced([30, 10]).tolist()
    [0.6666666865348816, 2.0]
    """
    values = torch.as_tensor(counts, dtype=torch.float64)
    weights = values.sum() / (len(values) * values)
    return torch.where(values > 0, weights, 1.0).float()

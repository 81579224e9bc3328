"""Wing loss (Feng, Kittler, Awais, Huber, Wu: Wing Loss for Robust Facial Landmark Localisation with CNNs, 2017, arXiv 1711.06753).

Equation 5: ``w ln(1 + |x| / epsilon)`` for ``|x| < w``, else ``|x| - C``, with ``C = w - w ln(1 + w / epsilon)`` so that both meet at w.
Small errors weigh as much as large ones: the gradient is w / (epsilon + |x|) near 0, where that of L2 vanishes and that of L1 is 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def wing_loss(errors: Tensor, *, width: float = 10.0, epsilon: float = 2.0) -> Tensor:
    """The loss of each error.

    Args:
        errors: any shape, signed, in pixels.
        width: w, where the logarithm ends. epsilon: how sharply it bends. The paper's table 1 has 10 and 2 among the best.
    """
    if width <= 0 or epsilon <= 0:
        raise ValueError(f"width and epsilon must be above 0, not {width} and {epsilon}")
    size = errors.abs()
    offset = width - width * math.log1p(width / epsilon)
    return torch.where(size < width, width * torch.log1p(size / epsilon), size - offset)

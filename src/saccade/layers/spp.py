"""Spatial pyramid pooling: a vector of fixed length from maps of any size.

He, Zhang, Ren, Sun: Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition, 2014, arXiv 1406.4729: figure 3 and
section 2.3. A level of n x n bins over maps of side a is max pooling with window ceil(a / n) and stride floor(a / n), where that gives
n bins (a = 13 with n = 3, 2, 1: windows 5, 7, 13 at strides 4, 6, 13). Where it does not (a = 10, n = 6: window 2 at stride 1 gives 9),
bin i spans floor(i a / n) to ceil((i + 1) a / n), as in the authors' later detection code; so it does for maps smaller than n.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pyramid_window(side: int, bins: int) -> tuple[int, int] | None:
    """(window, stride) of the paper for maps of ``side``, or None where they do not give ``bins`` windows.

    >>> pyramid_window(13, 6), pyramid_window(13, 3), pyramid_window(10, 6)
    ((3, 2), (5, 4), None)
    """
    window, stride = -(-side // bins), side // bins
    fits = stride > 0 and (side - window) // stride + 1 == bins
    return (window, stride) if fits else None


def pyramid_level(maps: Tensor, bins: int) -> Tensor:
    """(N, C, H, W) to (N, C, bins, bins); each side has its own rule. See the module's docstring."""
    rows, columns = (pyramid_window(side, bins) for side in maps.shape[-2:])
    if rows and columns:
        return F.max_pool2d(maps, (rows[0], columns[0]), (rows[1], columns[1]))
    if not rows and not columns:
        return F.adaptive_max_pool2d(maps, (bins, bins))
    if rows:  # the maximum is separable
        return F.adaptive_max_pool2d(F.max_pool2d(maps, (rows[0], 1), (rows[1], 1)), (bins, bins))
    assert columns is not None
    return F.adaptive_max_pool2d(F.max_pool2d(maps, (1, columns[0]), (1, columns[1])), (bins, bins))


class SpatialPyramidPooling(nn.Module):
    """(N, C, H, W) of any H, W to (N, C * sum of n^2): the levels one after the other, each by channel, row, column.

    Args:
        levels: n of each level.

    >>> SpatialPyramidPooling((4, 2, 1))(torch.zeros(2, 256, 13, 9)).shape[1] == 21 * 256
    True
    """

    def __init__(self, levels: Sequence[int] = (4, 2, 1)) -> None:
        super().__init__()
        if not levels or min(levels) < 1:
            raise ValueError(f"levels {tuple(levels)}: at least one, each from 1")
        self.levels = tuple(levels)

    @property
    def bins(self) -> int:
        """Values a map."""
        return sum(n * n for n in self.levels)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([pyramid_level(maps, n).flatten(1) for n in self.levels], 1)

    def extra_repr(self) -> str:
        """The levels."""
        return f"levels={self.levels}"

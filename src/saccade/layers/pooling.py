"""Pooling that torch and torchvision have not: sums, and PSPNet's pyramid.

The others are theirs: ``nn.MaxPool2d``, ``nn.AvgPool2d``, ``nn.AdaptiveAvgPool2d(1)`` (global), ``nn.MaxUnpool2d``,
``torchvision.ops.RoIPool``, ``RoIAlign``, ``PSRoIPool``; spatial pyramid pooling is :mod:`saccade.layers.spp`.
:mod:`saccade.explain.parts` lists them all.

Max pooling with indices, and its un-pooling, which puts each maximum back where it was (Zeiler, Fergus: arXiv 1311.2901, section 2.1):

>>> maps = torch.tensor([[[[1.0, 2, 3, 0], [4, 0, 1, 5]]]])
>>> maxima, where = nn.MaxPool2d(2, return_indices=True)(maps)
>>> maxima.tolist(), where.tolist()
([[[[4.0, 5.0]]]], [[[[4, 7]]]])
>>> nn.MaxUnpool2d(2)(maxima, where).tolist()
[[[[0.0, 0.0, 0.0, 0.0], [4.0, 0.0, 0.0, 5.0]]]]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SumPool2d(nn.AvgPool2d):
    """The sum of each window: (N, C, H, W) to (N, C, H', W'). Padding adds zeros, so the sum does not depend on it.

    >>> SumPool2d(2)(torch.tensor([[[[1.0, 2, 3, 4], [5, 6, 7, 8]]]])).tolist()
    [[[[14.0, 22.0]]]]
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, divisor_override=1)


class PyramidPooling(nn.Module):
    """PSPNet's pyramid: (N, C, H, W) to (N, ``out_channels``, H, W), the maps and what each level says of their surroundings.

    A level of n x n bins: their means, a 1x1 convolution to C // (number of levels) maps, normalisation, ReLU, bilinear up to H x W.
    Zhao, Shi, Qi, Wang, Jia: Pyramid Scene Parsing Network, arXiv 1612.01105, section 3.2 and figure 3.

    Args:
        in_channels: C, at least the number of levels.
        levels: bins a side of each level.
        norm: makes a normalisation for so many maps. Batch normalisation of the level of one bin needs two images to train.

    >>> PyramidPooling(2048).out_channels
    4096
    """

    def __init__(self, in_channels: int, levels: Sequence[int] = (1, 2, 3, 6), norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        if not levels or min(levels) < 1 or in_channels < len(levels):
            raise ValueError(f"levels {tuple(levels)} of {in_channels} maps: at least one, each from 1, no more than maps")
        reduced = in_channels // len(levels)
        self.out_channels = in_channels + reduced * len(levels)
        self.levels = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), nn.Conv2d(in_channels, reduced, 1, bias=False), norm(reduced), nn.ReLU())
            for bins in levels
        )

    def forward(self, maps: Tensor) -> Tensor:
        size = maps.shape[-2:]
        around = [F.interpolate(level(maps), size, mode="bilinear", align_corners=True) for level in self.levels]
        return torch.cat([maps, *around], 1)

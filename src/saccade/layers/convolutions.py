"""Convolutions: what they cost and cover, and the causal one, which torch has not.

The others are torch's own: ``nn.Conv2d`` with ``stride``, ``dilation`` or ``groups`` (depthwise: as many groups as maps), ``nn.Conv1d``,
``nn.Conv3d``, ``nn.ConvTranspose2d``; ``timm.layers.SeparableConv2d`` is a depthwise and a pointwise one. :mod:`saccade.explain.parts`
lists them all.

A transposed convolution puts its kernel, times each value, ``stride`` apart, adds where copies meet, and cuts ``padding`` off the border:

>>> import torch
>>> up = nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1, bias=False)
>>> _ = up.weight.data.copy_(torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 0, 0]]))
>>> for row in up(torch.arange(1.0, 10).view(1, 1, 3, 3))[0, 0].int().tolist():
...     print(row)
[1, 3, 2, 5, 3]
[0, 0, 0, 0, 0]
[4, 9, 5, 11, 6]
[0, 0, 0, 0, 0]
[7, 15, 8, 17, 9]
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def multiplications(in_maps: int, out_maps: int, kernel: int | Sequence[int], size: Sequence[int], *, groups: int = 1) -> int:
    """Multiplications of a convolution: a kernel's volume, for each map out and each position.

    Args:
        in_maps, out_maps: before and after. groups: into which both are divided; ``in_maps`` for a depthwise convolution.
        kernel: side, or one a side. size: of the output, one a side.

    256 maps of 8x8 from 12x12x3 by 5x5 (no padding):

    >>> multiplications(3, 256, 5, (8, 8))
    1228800

    14x14x512 to 64 maps by 3x3, at once and after a bottleneck of 32 maps:

    >>> multiplications(512, 64, 3, (14, 14))
    57802752
    >>> multiplications(512, 32, 1, (14, 14)) + multiplications(32, 64, 3, (14, 14))
    6823936
    """
    if in_maps % groups or out_maps % groups:
        raise ValueError(f"{groups} groups must divide {in_maps} and {out_maps} maps")
    window = kernel ** len(size) if isinstance(kernel, int) else math.prod(kernel)
    return math.prod(size) * window * (in_maps // groups) * out_maps


def separable_multiplications(in_maps: int, out_maps: int, kernel: int | Sequence[int], size: Sequence[int]) -> int:
    """Multiplications of a depthwise convolution and the pointwise one after it; arguments as of :func:`multiplications`.

    The share of the plain one's is 1 / out_maps + 1 / window (Howard et al.: MobileNets, arXiv 1704.04861, section 3.1).

    >>> separable_multiplications(3, 256, 5, (8, 8))
    53952
    """
    return multiplications(in_maps, in_maps, kernel, size, groups=in_maps) + multiplications(in_maps, out_maps, 1, size)


def dilated_extent(kernel: int, dilation: int) -> int:
    """Side of what a dilated kernel covers: dilation (kernel - 1) + 1 (Yu, Koltun: arXiv 1511.07122).

    >>> [dilated_extent(3, rate) for rate in (1, 2, 3)]
    [3, 5, 7]
    """
    return dilation * (kernel - 1) + 1


class CausalConv1d(nn.Conv1d):
    """A convolution over time that never sees what comes later: (N, C, L) to (N, out_channels, ceil(L / stride)).

    Output t is of the inputs up to t * stride: dilation (kernel - 1) zeros stand before the first one, none after the last
    (van den Oord et al.: WaveNet, arXiv 1609.03499, section 2.1).

    >>> import torch
    >>> sums = CausalConv1d(1, 1, 3, bias=False)
    >>> _ = nn.init.ones_(sums.weight)
    >>> sums(torch.tensor([[[1.0, 2, 3, 4]]])).tolist()
    [[[1.0, 3.0, 6.0, 9.0]]]
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation=dilation, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        before = self.dilation[0] * (self.kernel_size[0] - 1)
        return super().forward(F.pad(x, (before, 0)))

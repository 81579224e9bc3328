"""Blocks of papers that neither torchvision nor timm keeps, nor a file of ``models/``. :mod:`saccade.explain.parts` lists them all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.layers.conv_bn import ConvBN


class NaiveInception(nn.Module):
    """The inception module without reductions: (N, C, H, W) to (N, ``out_channels``, H, W).

    1x1, 3x3 and 5x5 convolutions and 3x3 max pooling side by side, each with ReLU; the pooled maps pass on as they are, so every module
    makes the maps more (Szegedy et al.: Going Deeper with Convolutions, arXiv 1409.4842, figure 2a). The form with 1x1 reductions,
    figure 2b, is ``saccade.models.classify.googlenet.Inception``.

    Args:
        in_channels: C. maps: of the 1x1, 3x3, 5x5 convolutions.

    >>> NaiveInception(192, (64, 128, 32)).out_channels
    416
    """

    def __init__(self, in_channels: int, maps: tuple[int, int, int]) -> None:
        super().__init__()
        self.out_channels = sum(maps) + in_channels
        self.convs = nn.ModuleList(nn.Conv2d(in_channels, out, side, padding=side // 2) for side, out in zip((1, 3, 5), maps, strict=True))
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*(conv(x).relu() for conv in self.convs), self.pool(x)], 1)


class PointwiseAttention(nn.Module):
    """YOLOv4's modified spatial attention: (N, C, H, W) to the same, each value times its own share of 0..1.

    ``x * sigmoid(conv(x))`` with a 1x1 convolution to as many maps, instead of CBAM's one map of shares from means and maxima over the
    channels, which is ``timm.layers.cbam.SpatialAttn`` (Bochkovskiy, Wang, Liao: YOLOv4, arXiv 2004.10934, figure 5).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x).sigmoid()


class JointPyramidUpsampling(nn.Module):
    """FastFCN's JPU: maps of strides 8, 16, 32 to maps of stride 8, in place of a backbone with dilated convolutions.

    A 3x3 convolution to ``width`` maps each; bilinear up to the first one's size and joined; separable 3x3 convolutions of dilation
    1, 2, 4, 8 side by side; joined: (N, 4 * ``width``, H, W). The convolution after it (figure 4c) belongs to the head.
    Wu, Zhang, Huang, Liang, Yu: FastFCN, arXiv 1903.11816, section 3.3 and figure 4.

    Args:
        in_channels: maps of each input, finest first.
        width: maps of each branch. dilations: of the branches.

    >>> jpu = JointPyramidUpsampling((8, 16, 32), width=4)
    >>> tuple(jpu([torch.zeros(2, 8, 12, 9), torch.zeros(2, 16, 6, 5), torch.zeros(2, 32, 3, 3)]).shape)
    (2, 16, 12, 9)
    """

    def __init__(self, in_channels: Sequence[int], width: int = 512, dilations: Sequence[int] = (1, 2, 4, 8)) -> None:
        super().__init__()
        joined = width * len(in_channels)
        self.out_channels = width * len(dilations)
        self.convs = nn.ModuleList(ConvBN(channels, width, 3) for channels in in_channels)
        self.branches = nn.ModuleList(_separable(joined, width, dilation) for dilation in dilations)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        finest, *others = (conv(x) for conv, x in zip(self.convs, maps, strict=True))
        larger = [F.interpolate(x, finest.shape[-2:], mode="bilinear", align_corners=True) for x in others]
        joined = torch.cat([finest, *larger], 1)
        return torch.cat([branch(joined) for branch in self.branches], 1)


def _separable(in_channels: int, out_channels: int, dilation: int) -> nn.Sequential:
    """Depthwise 3x3, normalisation, pointwise, normalisation, ReLU."""
    depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=False)
    return nn.Sequential(depthwise, nn.BatchNorm2d(in_channels), ConvBN(in_channels, out_channels, 1))

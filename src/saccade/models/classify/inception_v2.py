"""Inception v2 (2015).

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception Architecture for Computer Vision, arXiv 1512.00567 (2015).

What was new: large windows are factorised: a 5x5 into two 3x3, an nxn into 1xn and nx1; the grid shrinks by a strided convolution and a
pooling side by side, which neither loses detail nor costs a full-size layer. (The same paper's v3 adds training: RMSProp, label
smoothing, batch normalisation in the auxiliary head.)

Where what stands:

* section 3.1, figure 5 (two 3x3 for a 5x5): :class:`Inception5`, on 35x35,
* section 3.2, figure 6 (1xn and nx1, n = 7): :class:`Inception6`, on 17x17,
* figure 7 (wide: 1x3 and 3x1 side by side): :class:`Inception7`, on 8x8,
* section 5, figure 10 (the grid is halved): :class:`Reduction`,
* table 1 (the network): :class:`InceptionV2`; at 299x299: conv1 149x149x32, conv2 147x147x32, conv3 147x147x64, pool 73 -> conv4
  71x71x80, conv5 35x35x192, conv6 35x35x288 -> 3 modules, 17x17x768 -> 5 modules, 8x8x1280 -> 2 modules, 8x8x2048 -> average -> 1000.

Deviations. The maps inside the modules stand in a file that came with the paper's submission and is not public: these are such that
every sum is table 1's, most of them those of the published Inception v3. Of the table's 3 and 5 modules the last is taken to be the one
that halves the grid. There is no auxiliary head. Initial weights are He's. The recipe is ours, for hundreds to thousands of images, with
the paper's label smoothing of 0.1; the paper's: RMSProp with decay 0.9 and epsilon 1, rate 0.045 falling by 0.94 every two epochs,
gradients clipped at 2.

Pinned by tests: all sizes of table 1; that a 5x5 window costs 25/9 of a 3x3 and two 3x3 save 25/18; that 1xn and nx1 cost 2/n of nxn.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from saccade.layers.conv_bn import ConvBN
from saccade.models.bounds import check_within
from saccade.models.classify.base import unpublished
from saccade.models.classify.network import (
    PHOTOS_NORMALISED,
    Network,
    NetworkClassifier,
    check_width,
    dense_output,
    initialise,
    level,
    output_gain,
    preprocess_for,
    scaled,
)  # fmt: skip

MIDDLE = (128, 160, 160, 192)
"""Maps inside the factorised branches of the four modules on 17x17."""


def average_branch(in_chans: int, maps: int) -> nn.Sequential:
    """Average pooling 3x3 and a 1x1 projection."""
    return nn.Sequential(OrderedDict(pool=nn.AvgPool2d(3, 1, 1), project=ConvBN(in_chans, maps, 1)))


class Inception5(nn.Module):
    """Figure 5: (N, in_chans, H, W) to (N, w(288), H, W), ``w`` being the width's scaling."""

    def __init__(self, in_chans: int, width: float) -> None:
        super().__init__()
        c48, c64, c96 = (scaled(maps, width) for maps in (48, 64, 96))
        self.conv1x1 = ConvBN(in_chans, c64, 1)
        self.conv3x3 = nn.Sequential(ConvBN(in_chans, c48, 1), ConvBN(c48, c64, 3))
        self.double3x3 = nn.Sequential(ConvBN(in_chans, c64, 1), ConvBN(c64, c96, 3), ConvBN(c96, c96, 3))
        self.pool = average_branch(in_chans, c64)
        self.out_chans = 3 * c64 + c96

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


class Inception6(nn.Module):
    """Figure 6: (N, in_chans, H, W) to (N, w(768), H, W); ``hidden`` maps inside, windows 1x7 and 7x1."""

    def __init__(self, in_chans: int, hidden: int, width: float) -> None:
        super().__init__()
        c192, h = scaled(192, width), scaled(hidden, width)
        across, down = (1, 7), (7, 1)
        self.conv1x1 = ConvBN(in_chans, c192, 1)
        self.conv7x7 = nn.Sequential(ConvBN(in_chans, h, 1), ConvBN(h, h, across), ConvBN(h, c192, down))
        self.double7x7 = nn.Sequential(
            ConvBN(in_chans, h, 1), ConvBN(h, h, across), ConvBN(h, h, down), ConvBN(h, h, across), ConvBN(h, c192, down)
        )
        self.pool = average_branch(in_chans, c192)
        self.out_chans = 4 * c192

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


class SideBySide(nn.Module):
    """1x3 and 3x1 of the same maps: (N, in_chans, H, W) to (N, 2 maps, H, W)."""

    def __init__(self, in_chans: int, maps: int) -> None:
        super().__init__()
        self.across, self.down = ConvBN(in_chans, maps, (1, 3)), ConvBN(in_chans, maps, (3, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.across(x), self.down(x)], 1)


class Inception7(nn.Module):
    """Figure 7: (N, in_chans, H, W) to (N, w(2048), H, W)."""

    def __init__(self, in_chans: int, width: float) -> None:
        super().__init__()
        c192, c320, c384, c448 = (scaled(maps, width) for maps in (192, 320, 384, 448))
        self.conv1x1 = ConvBN(in_chans, c320, 1)
        self.conv3x3 = nn.Sequential(ConvBN(in_chans, c384, 1), SideBySide(c384, c384))
        self.double3x3 = nn.Sequential(ConvBN(in_chans, c448, 1), ConvBN(c448, c384, 3), SideBySide(c384, c384))
        self.pool = average_branch(in_chans, c192)
        self.out_chans = c320 + 4 * c384 + c192

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


class Reduction(nn.Module):
    """Figure 10: (N, in_chans, H, W) to (N, in_chans + maps + double, half of each side).

    Args:
        in_chans: of the input; pooled ones are passed through.
        reduce, maps: of the 1x1 and the strided 3x3.
        reduce_double, double: of the 1x1 and of the two 3x3, the last strided.
    """

    def __init__(self, in_chans: int, reduce: int, maps: int, reduce_double: int, double: int) -> None:
        super().__init__()
        self.conv3x3 = nn.Sequential(ConvBN(in_chans, reduce, 1), ConvBN(reduce, maps, 3, 2, padding=0))
        self.double3x3 = nn.Sequential(
            ConvBN(in_chans, reduce_double, 1), ConvBN(reduce_double, double, 3), ConvBN(double, double, 3, 2, padding=0)
        )
        self.pool = nn.MaxPool2d(3, 2)
        self.out_chans = in_chans + maps + double

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


class InceptionV2(Network):
    """Inception v2: see the module's docstring and :func:`inception_v2`."""

    output = "head.fc"
    input_size = (299, 299)

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, *, size: int = 299, width: float = 1.0) -> None:
        c32, c64, c80, c96, c192, c288, c320, c384 = (scaled(maps, width) for maps in (32, 64, 80, 96, 192, 288, 320, 384))
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=ConvBN(in_chans, c32, 3, 2, padding=0), conv2=ConvBN(c32, c32, 3, padding=0), conv3=ConvBN(c32, c64, 3),
            pool=nn.MaxPool2d(3, 2),
            conv4=ConvBN(c64, c80, 3, padding=0), conv5=ConvBN(c80, c192, 3, 2, padding=0), conv6=ConvBN(c192, c288, 3),
        )  # fmt: skip
        info = [level(c64, 2, "features.conv3"), level(c80, 4, "features.conv4")]
        maps = c288
        modules: list[tuple[str, nn.Module]] = []

        def add(name: str, module: Inception5 | Inception6 | Inception7 | Reduction) -> None:
            nonlocal maps
            modules.append((name, module))
            maps = module.out_chans

        for k in "ab":
            add(f"inception_3{k}", Inception5(maps, width))
        info.append(level(maps, 8, "features.inception_3b"))
        add("reduction_3c", Reduction(maps, c192, c384, c64, c96))
        for k, hidden in zip("abcd", MIDDLE, strict=True):
            add(f"inception_4{k}", Inception6(maps, hidden, width))
        info.append(level(maps, 16, "features.inception_4d"))
        add("reduction_4e", Reduction(maps, c192, c320, c192, c192))
        for k in "ab":
            add(f"inception_5{k}", Inception7(maps, width))
        info.append(level(maps, 32, "features.inception_5b"))
        super().__init__(num_classes, maps, info)
        self.input_size = (size, size)
        self.features = nn.Sequential(layers | dict(modules))
        self.head = nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=dense_output(maps, num_classes)))
        initialise(self)
        output_gain(self)


def inception_v2(
    num_classes: int = 1000, *, in_chans: Literal[1, 3] = 3, pretrained: bool = False, size: int = 299, width: float = 1.0
) -> NetworkClassifier:
    """Inception v2.

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are published for it; a UsageError.
        size: side of the input in pixels, from 75.
        width: factor on all maps.
    """
    unpublished("inception_v2", pretrained)
    check_within(75, 1024, size=size)
    check_width(width)
    network = InceptionV2(num_classes, in_chans, size=size, width=width)
    return NetworkClassifier(network, preprocess_for(network.input_size, in_chans))


NETWORKS = {"inception_v2": InceptionV2}

RECIPES = {"inception_v2": PHOTOS_NORMALISED.replace(label_smoothing=0.1)}

"""BN-Inception (2015).

Ioffe, Szegedy: Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift, arXiv 1502.03167 (2015).

What was new: every layer's inputs are normalised over the batch and then scaled and shifted by learned numbers, which lets rates be
many times higher and makes dropout and local response normalisation needless; shown on this form of GoogLeNet.

Where what stands:

* section 3 (batch normalisation): ``bn`` of every :class:`ConvBN <saccade.layers.conv_bn.ConvBN>`,
* appendix (the changed Inception: two 3x3 windows for the 5x5, average and maximum pooling, modules with stride 2 that have no 1x1 branch
  and pass the pooled maps through): :class:`Inception`,
* figure 5 (the network): :class:`BNInception`; at 224x224: conv1 112x112x64, pool1 56 -> conv2 56x56x192, pool2 28 -> 3a 256, 3b 320,
  3c 14x14x576 -> 4a..4d 576, 4e 7x7x1024 -> 5a, 5b 7x7x1024 -> average -> 1000,
* figure 5's note (the first convolution is separable, with a depth multiplier of 8): ``stem="separable"``.

Deviations. Figure 5 writes the sizes of 3c and 4e before their stride. It shows no auxiliary heads, and there are none. Initial weights
are He's. The recipe is ours, for hundreds to thousands of images; the paper's: SGD, no dropout, the rate of Inception (0.0015) times 5.

Pinned by tests: all sizes and the parameters of figure 5; that two 3x3 windows cost 18/25 of a 5x5.
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

TABLE: dict[str, tuple[int, int, int, int, int, str, int]] = {
    "3a": (64, 64, 64, 64, 96, "avg", 32), "3b": (64, 64, 96, 64, 96, "avg", 64), "3c": (0, 128, 160, 64, 96, "max", 0),
    "4a": (224, 64, 96, 96, 128, "avg", 128), "4b": (192, 96, 128, 96, 128, "avg", 128), "4c": (160, 128, 160, 128, 160, "avg", 96),
    "4d": (96, 128, 192, 160, 192, "avg", 96), "4e": (0, 128, 192, 192, 256, "max", 0),
    "5a": (352, 192, 320, 160, 224, "avg", 128), "5b": (352, 192, 320, 192, 224, "max", 128),
}  # fmt: skip
"""Figure 5: module -> maps of 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3; kind of pooling and maps of its projection.

No 1x1 branch and no projection: the module has stride 2.
"""


class Inception(nn.Module):
    """A module of figure 5: (N, in_chans, H, W) to (N, ``out_chans``, H, W), or half the size where the table has no 1x1 branch."""

    def __init__(self, in_chans: int, maps: tuple[int, int, int, int, int, str, int]) -> None:
        super().__init__()
        one, reduce3, three, reduce_double, double, pooling, projection = maps
        stride = 1 if one else 2
        self.out_chans = one + three + double + (projection or in_chans)
        if one:
            self.conv1x1 = ConvBN(in_chans, one, 1)
        self.conv3x3 = nn.Sequential(OrderedDict(reduce=ConvBN(in_chans, reduce3, 1), conv=ConvBN(reduce3, three, 3, stride)))
        self.double3x3 = nn.Sequential(
            OrderedDict(
                reduce=ConvBN(in_chans, reduce_double, 1),
                conv1=ConvBN(reduce_double, double, 3),
                conv2=ConvBN(double, double, 3, stride),
            )
        )
        pool: nn.Module = nn.AvgPool2d(3, stride, 1) if pooling == "avg" else nn.MaxPool2d(3, stride, 1)
        self.pool = nn.Sequential(OrderedDict(pool=pool, **({"project": ConvBN(in_chans, projection, 1)} if projection else {})))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


class BNInception(Network):
    """BN-Inception: see the module's docstring and :func:`bn_inception`."""

    output = "head.fc"

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, *, stem: str = "separable", size: int = 224, width: float = 1.0) -> None:
        c1, c2 = scaled(64, width), scaled(192, width)
        first: nn.Module = ConvBN(in_chans, c1, 7, 2)
        if stem == "separable":
            depthwise = nn.Conv2d(in_chans, 8 * in_chans, 7, stride=2, padding=3, groups=in_chans, bias=False)
            first = nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=ConvBN(8 * in_chans, c1, 1)))
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=first, pool1=nn.MaxPool2d(3, 2, 1), conv2_reduce=ConvBN(c1, c1, 1), conv2=ConvBN(c1, c2, 3), pool2=nn.MaxPool2d(3, 2, 1)
        )
        maps = c2
        info = [level(c1, 2, "features.conv1"), level(c2, 4, "features.conv2")]
        for name, row in TABLE.items():
            one, reduce3, three, reduce_double, double, pooling, projection = row
            channels = (scaled(c, width) if c else 0 for c in (one, reduce3, three, reduce_double, double, projection))
            one, reduce3, three, reduce_double, double, projection = channels
            module = Inception(maps, (one, reduce3, three, reduce_double, double, pooling, projection))
            layers[f"inception_{name}"], maps = module, module.out_chans
            if name in ("3b", "4d", "5b"):
                info.append(level(maps, {"3b": 8, "4d": 16, "5b": 32}[name], f"features.inception_{name}"))
        super().__init__(num_classes, maps, info)
        self.input_size = (size, size)
        self.features = nn.Sequential(layers)
        self.head = nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=dense_output(maps, num_classes)))
        initialise(self)
        output_gain(self)


def bn_inception(
    num_classes: int = 1000,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    stem: Literal["separable", "plain"] = "separable",
    size: int = 224,
    width: float = 1.0,
) -> NetworkClassifier:
    """BN-Inception.

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are published in a form that is read here; a UsageError.
        stem: the first convolution: separable as in the paper, or one plain 7x7.
        size: side of the input in pixels, from 32.
        width: factor on all maps.
    """
    unpublished("bn_inception", pretrained)
    check_within(32, 1024, size=size)
    check_width(width)
    network = BNInception(num_classes, in_chans, stem=stem, size=size, width=width)
    return NetworkClassifier(network, preprocess_for(network.input_size, in_chans))


NETWORKS = {"bn_inception": BNInception}

RECIPES = {"bn_inception": PHOTOS_NORMALISED}

"""Darknet-53 (2018).

Redmon, Farhadi: YOLOv3: An Incremental Improvement, arXiv 1804.02767.

What was new: Darknet-19's pairs of 1x1 and 3x3 convolutions with residual shortcuts, and strided convolutions instead of pooling.

Where what stands:

* table 1: :class:`Darknet53`; at 256x256: conv 256x256x32, conv/2 128x128x64 with 1 residual, conv/2 64x64x128 with 2, conv/2 32x32x256
  with 8, conv/2 16x16x512 with 8, conv/2 8x8x1024 with 4, average pooling, 1000 classes,
* the leaky slope 0.1, and no activation after an addition: Darknet's own description ``darknet53.cfg``.

Deviations. As in :mod:`darknet19 <saccade.models.classify.darknet19>`: the momentum of the batch normalisation, and the recipe. timm's
network of this name has another slope.

Pinned by tests: all sizes of the table; 52 convolutions and the output; 41,645,640 numbers in Darknet's file of weights; the layers of
``darknet53.cfg``.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from saccade.layers.conv_bn import ConvBN
from saccade.models.bounds import check_within
from saccade.models.classify.base import unpublished
from saccade.models.classify.network import (
    PHOTOS_NORMALISED,
    Network,
    NetworkClassifier,
    check_width,
    initialise,
    level,
    output_gain,
    pointwise_output,
    preprocess_for,
    scaled,
)  # fmt: skip

STAGES = {64: 1, 128: 2, 256: 8, 512: 8, 1024: 4}
"""Table 1: maps of a stage -> residual blocks."""


class Residual(nn.Module):
    """A 1x1 convolution to half of the maps, a 3x3 back, added to the input: (N, C, H, W) to the same."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.reduce = ConvBN(maps, maps // 2, 1, activation="leaky")
        self.conv = ConvBN(maps // 2, maps, 3, activation="leaky")

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.reduce(x))


class Darknet53(Network):
    """Darknet-53: see the module's docstring and :func:`darknet53`."""

    output = "head.output"
    input_size = (256, 256)

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, *, size: int = 256, width: float = 1.0) -> None:
        maps = scaled(32, width)
        layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=ConvBN(in_chans, maps, 3, activation="leaky"))
        info = [level(maps, 1, "features.conv1")]
        for stage, (channels, blocks) in enumerate(STAGES.items(), start=1):
            wider = scaled(channels, width)
            down = ConvBN(maps, wider, 3, 2, activation="leaky")
            layers[f"stage{stage}"] = nn.Sequential(down, *(Residual(wider) for _ in range(blocks)))
            maps = wider
            info.append(level(maps, 2**stage, f"features.stage{stage}"))
        super().__init__(num_classes, maps, info)
        self.input_size = (size, size)
        self.features = nn.Sequential(layers)
        self.head = nn.Sequential(
            OrderedDict(pool=nn.AdaptiveAvgPool2d(1), output=pointwise_output(maps, num_classes), flatten=nn.Flatten())
        )
        initialise(self)
        output_gain(self)


def darknet53(
    num_classes: int = 1000, *, in_chans: Literal[1, 3] = 3, pretrained: bool = False, size: int = 256, width: float = 1.0
) -> NetworkClassifier:
    """Darknet-53.

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are published in a form that is read here by name; a UsageError.
        size: side of the input in pixels, from 32; a multiple of 32 loses nothing at the borders.
        width: factor on all maps.
    """
    unpublished("darknet53", pretrained)
    check_within(32, 1024, size=size)
    check_width(width)
    network = Darknet53(num_classes, in_chans, size=size, width=width)
    return NetworkClassifier(network, preprocess_for(network.input_size, in_chans, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))


NETWORKS = {"darknet53": Darknet53}

RECIPES = {"darknet53": PHOTOS_NORMALISED}

"""CSPDarknet-53 (2020).

Wang, Liao, Wu, Chen, Hsieh, Yeh: CSPNet: A New Backbone that can Enhance Learning Capability of CNN, arXiv 1911.11929 (2019);
Bochkovskiy, Wang, Liao: YOLOv4: Optimal Speed and Accuracy of Object Detection, arXiv 2004.10934 (2020).

What was new: a stage's maps are split; one part goes through the residual blocks, the other around them, and both are joined at the end,
so that the blocks cost half and gradients are not computed twice. YOLOv4 takes Mish instead of the leaky ReLU.

Where what stands:

* CSPNet, figure 2 and section 3.2 (the cross-stage partial network with a transition before and after the joining): :class:`Stage`,
* Darknet-53's stages of 1, 2, 8, 8, 4 blocks: :class:`CSPDarknet53`; at 256x256: 256x256x32, 128x128x64, 64x64x128, 32x32x256,
  16x16x512, 8x8x1024,
* Mish (arXiv 1908.08681) after every convolution, the first stage's parts of full width: YOLOv4's own description ``yolov4.cfg``.

Deviations. As in :mod:`darknet19 <saccade.models.classify.darknet19>`: the momentum of the batch normalisation, and the recipe. The two
"parts" of the maps are made by two 1x1 convolutions of all of them, as YOLOv4 has it, not by cutting. timm's network of this name has no
Mish.

Pinned by tests: all sizes above; the layers of ``yolov4.cfg`` up to its neck, in order.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from saccade.layers.conv_bn import Activation, ConvBN
from saccade.models.bounds import check_within
from saccade.models.classify.base import unpublished
from saccade.models.classify.darknet53 import STAGES
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


class Residual(nn.Module):
    """A 1x1 and a 3x3 convolution, added to the input: (N, C, H, W) to the same; ``hidden`` maps in between."""

    def __init__(self, maps: int, hidden: int, activation: Activation = "mish") -> None:
        super().__init__()
        self.reduce = ConvBN(maps, hidden, 1, activation=activation)
        self.conv = ConvBN(hidden, maps, 3, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.reduce(x))


class Stage(nn.Module):
    """A cross-stage partial stage: (N, in_chans, H, W) to (N, maps, H/2, W/2). The children stand in the order of ``yolov4.cfg``.

    Args:
        in_chans, maps: before and after.
        blocks: residual blocks.
        first: whether it is the network's first stage, whose two parts are as wide as the whole.
        activation: after every convolution.
    """

    def __init__(self, in_chans: int, maps: int, blocks: int, first: bool, activation: Activation = "mish") -> None:
        super().__init__()
        part = maps if first else maps // 2
        self.down = ConvBN(in_chans, maps, 3, 2, activation=activation)
        self.around = ConvBN(maps, part, 1, activation=activation)
        self.enter = ConvBN(maps, part, 1, activation=activation)
        self.blocks = nn.Sequential(*(Residual(part, part // 2 if first else part, activation) for _ in range(blocks)))
        self.leave = ConvBN(part, part, 1, activation=activation)
        self.join = ConvBN(2 * part, maps, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return self.join(torch.cat([self.leave(self.blocks(self.enter(x))), self.around(x)], 1))


class CSPDarknet53(Network):
    """CSPDarknet-53: see the module's docstring and :func:`cspdarknet53`."""

    output = "head.output"
    input_size = (256, 256)

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, *, size: int = 256, width: float = 1.0) -> None:
        maps = scaled(32, width)
        layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=ConvBN(in_chans, maps, 3, activation="mish"))
        info = [level(maps, 1, "features.conv1")]
        for number, (channels, blocks) in enumerate(STAGES.items(), start=1):
            wider = scaled(channels, width)
            layers[f"stage{number}"] = Stage(maps, wider, blocks, first=number == 1)
            maps = wider
            info.append(level(maps, 2**number, f"features.stage{number}"))
        super().__init__(num_classes, maps, info)
        self.input_size = (size, size)
        self.features = nn.Sequential(layers)
        self.head = nn.Sequential(
            OrderedDict(pool=nn.AdaptiveAvgPool2d(1), output=pointwise_output(maps, num_classes), flatten=nn.Flatten())
        )
        initialise(self)
        output_gain(self)


def cspdarknet53(
    num_classes: int = 1000, *, in_chans: Literal[1, 3] = 3, pretrained: bool = False, size: int = 256, width: float = 1.0
) -> NetworkClassifier:
    """CSPDarknet-53.

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are published in a form that is read here by name; a UsageError.
        size: side of the input in pixels, from 32; a multiple of 32 loses nothing at the borders.
        width: factor on all maps.
    """
    unpublished("cspdarknet53", pretrained)
    check_within(32, 1024, size=size)
    check_width(width)
    network = CSPDarknet53(num_classes, in_chans, size=size, width=width)
    return NetworkClassifier(network, preprocess_for(network.input_size, in_chans, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))


NETWORKS = {"cspdarknet53": CSPDarknet53}

RECIPES = {"cspdarknet53": PHOTOS_NORMALISED}

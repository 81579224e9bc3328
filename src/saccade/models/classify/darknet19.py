"""Darknet-19 (2016).

Redmon, Farhadi: YOLO9000: Better, Faster, Stronger, arXiv 1612.08242.

What was new: a backbone made for a detector: 3x3 convolutions that double the maps after every pooling, 1x1 convolutions that halve
them in between, batch normalisation everywhere, and no dense layer: a 1x1 convolution to the classes, then global average pooling.

Where what stands:

* table 6: :class:`Darknet19`; at 224x224: conv1 224x224x32, pool1 112 -> conv2 64, pool2 56 -> conv3..conv5 128, pool3 28 -> conv6..conv8
  256, pool4 14 -> conv9..conv13 512, pool5 7 -> conv14..conv18 7x7x1024 -> conv19 7x7x1000 -> average,
* the leaky slope 0.1 and the order of the layers: Darknet's own description ``darknet19.cfg``.

Deviations. Darknet keeps 0.99 of the running mean and variance a step; 0.9 here, which is right after tens of steps instead of hundreds.
Its batch normalisation adds 1e-5 (in one of its programs 1e-6 outside of the root); 1e-5 here. The recipe is ours, for hundreds to
thousands of images; the paper's: SGD for 160 epochs, rate 0.1 falling with the fourth power, decay 5e-4, momentum 0.9, then 10 epochs at
448 pixels.

Pinned by tests: all sizes of the table; 20,856,776 numbers in Darknet's file of weights; the layers of ``darknet19.cfg``.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

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

STAGES = ((32,), (64,), (128, 64, 128), (256, 128, 256), (512, 256, 512, 256, 512), (1024, 512, 1024, 512, 1024))
"""Table 6: maps of the convolutions between two poolings; every other one is 3x3, the rest 1x1."""


class Darknet19(Network):
    """Darknet-19: see the module's docstring and :func:`darknet19`. Layers are numbered as in the table."""

    output = "head.conv19"

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, *, size: int = 224, width: float = 1.0) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        info, maps, number = [], in_chans, 0
        for stage, widths in enumerate(STAGES):
            if stage:
                layers[f"pool{stage}"] = nn.MaxPool2d(2)
            for k, channels in enumerate(widths):
                number += 1
                layers[f"conv{number}"] = ConvBN(maps, scaled(channels, width), 1 if k % 2 else 3, activation="leaky")
                maps = scaled(channels, width)
            info.append(level(maps, 2**stage, f"features.conv{number}"))
        super().__init__(num_classes, maps, info)
        self.input_size = (size, size)
        self.features = nn.Sequential(layers)
        self.head = nn.Sequential(
            OrderedDict(conv19=pointwise_output(maps, num_classes), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
        )
        initialise(self)
        output_gain(self)


def darknet19(
    num_classes: int = 1000, *, in_chans: Literal[1, 3] = 3, pretrained: bool = False, size: int = 224, width: float = 1.0
) -> NetworkClassifier:
    """Darknet-19.

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are published in a form that is read here by name; a UsageError.
        size: side of the input in pixels, from 32; a multiple of 32 loses nothing at the borders.
        width: factor on all maps.
    """
    unpublished("darknet19", pretrained)
    check_within(32, 1024, size=size)
    check_width(width)
    network = Darknet19(num_classes, in_chans, size=size, width=width)
    return NetworkClassifier(network, preprocess_for(network.input_size, in_chans, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))


NETWORKS = {"darknet19": Darknet19}

RECIPES = {"darknet19": PHOTOS_NORMALISED}

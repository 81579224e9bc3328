"""ZFNet (2013).

Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, arXiv 1311.2901.

What was new: looking at what AlexNet's layers respond to (deconvolutional network, occlusion), and mending what was seen: the first
layer's filters of 11x11 at stride 4 miss middle frequencies and alias, so they become 7x7 at stride 2, and the second layer strides.

Where what stands:

* figure 3 (the network): :class:`ZFNet`; 224x224x3 -> conv1 110x110x96 -> pool1 55x55x96 -> conv2 26x26x256 -> pool2 13x13x256 ->
  conv3, conv4 13x13x384 -> conv5 13x13x256 -> pool5 6x6x256 -> fc6, fc7 4096 -> fc8,
* figure 3 (overlapping pooling, 3x3 at stride 2): ``pool1``, ``pool2``, ``pool5``,
* figure 3 ("contrast normalized across feature maps" after the first two poolings): ``norm1``, ``norm2``,
* section 3 (dropout 0.5 on the dense layers; dense connections instead of AlexNet's two groups): ``drop6``, ``drop7``.

Deviations. The paper does not write the normalisation down; the usual reading, AlexNet's local response normalisation (k = 2, n = 5,
alpha = 1e-4, beta = 0.75), stands here. Paddings are not written down either: 1 before conv1 and pooling windows that may hang over
the border are what gives figure 3's sizes. Initial weights are He's (the paper's have deviation 0.01), and filters of the first layer
whose RMS exceeds 0.1 are not scaled back. The recipe is ours, for hundreds to thousands of images; the paper's: SGD, batch 128,
rate 0.01 lowered by hand, momentum 0.9, 70 epochs.

Pinned by tests: the sizes of figure 3; 62,357,608 parameters, counted by hand.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

from saccade.models.bounds import check_within
from saccade.models.classify.base import unpublished
from saccade.models.classify.network import (
    PHOTOS,
    Network,
    NetworkClassifier,
    check_width,
    dense_output,
    initialise,
    level,
    output_gain,
    preprocess_for,
    scaled,
    size_after,
)  # fmt: skip

MAPS = (96, 256, 384, 384, 256)
"""Maps of conv1 to conv5 (figure 3)."""


def zf_features(in_chans: int, maps: tuple[int, int, int, int, int], conv2_padding: int) -> OrderedDict[str, nn.Module]:
    """conv1 to relu5; ``conv2_padding`` tells figure 3 (0) from SPP-net's ZF-5 (1)."""
    c1, c2, c3, c4, c5 = maps

    def norm() -> nn.Module:
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)  # PyTorch divides alpha by n

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    return OrderedDict(
        conv1=nn.Conv2d(in_chans, c1, 7, stride=2, padding=1), relu1=nn.ReLU(), pool1=pool(), norm1=norm(),
        conv2=nn.Conv2d(c1, c2, 5, stride=2, padding=conv2_padding), relu2=nn.ReLU(), pool2=pool(), norm2=norm(),
        conv3=nn.Conv2d(c2, c3, 3, padding=1), relu3=nn.ReLU(),
        conv4=nn.Conv2d(c3, c4, 3, padding=1), relu4=nn.ReLU(),
        conv5=nn.Conv2d(c4, c5, 3, padding=1), relu5=nn.ReLU(),
    )  # fmt: skip


def zf_levels(maps: tuple[int, int, int, int, int]) -> list[dict[str, object]]:
    """``feature_info`` of :func:`zf_features`."""
    return [level(maps[0], 2, "features.relu1"), level(maps[1], 8, "features.relu2"), level(maps[4], 16, "features.relu5")]


def scaled_maps(width: float) -> tuple[int, int, int, int, int]:
    """:data:`MAPS` times ``model.width``."""
    c1, c2, c3, c4, c5 = (scaled(channels, width) for channels in MAPS)
    return c1, c2, c3, c4, c5


class ZFNet(Network):
    """ZFNet: see the module's docstring and :func:`zfnet`. Layers carry the paper's names."""

    output = "head.fc8"
    input_size = (224, 224)
    fixed = True

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, *, size: int = 224, width: float = 1.0, dropout: float = 0.5) -> None:
        maps = scaled_maps(width)
        super().__init__(num_classes, maps[-1], zf_levels(maps))
        self.input_size = (size, size)
        self.features = nn.Sequential(zf_features(in_chans, maps, conv2_padding=0))
        self.features.add_module("pool5", nn.MaxPool2d(3, 2, ceil_mode=True))
        depth, height, breadth = size_after(self.features, in_chans, self.input_size, "zfnet")
        dense = scaled(4096, width)
        self.head = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                drop6=nn.Dropout(dropout), fc6=nn.Linear(depth * height * breadth, dense), relu6=nn.ReLU(),
                drop7=nn.Dropout(dropout), fc7=nn.Linear(dense, dense), relu7=nn.ReLU(),
                fc8=dense_output(dense, num_classes),
            )
        )  # fmt: skip
        initialise(self)
        output_gain(self)


def zfnet(
    num_classes: int = 1000,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 224,
    width: float = 1.0,
    dropout: float = 0.5,
) -> NetworkClassifier:
    """ZFNet.

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are published; True is an error.
        size: side of the input in pixels, on which the first dense layer depends.
        width: factor on all maps and hidden dense units.
        dropout: before the first two dense layers.
    """
    unpublished("zfnet", pretrained)
    check_within(32, 1024, size=size)
    check_width(width)
    network = ZFNet(num_classes, in_chans, size=size, width=width, dropout=dropout)
    return NetworkClassifier(network, preprocess_for(network.input_size, in_chans))


NETWORKS = {"zfnet": ZFNet}

RECIPES = {"zfnet": PHOTOS}

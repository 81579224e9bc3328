"""Network in Network (2013).

Lin, Chen, Yan: Network In Network, arXiv 1312.4400.

What was new: a small network (two layers of 1x1 convolutions) slides over the maps in place of a linear filter, and the mean of one map
a class replaces the dense layers, which removes most parameters and the need for a fixed input size.

Where what stands:

* section 3.1, equation 2 (mlpconv: a convolution and two 1x1 convolutions, each with ReLU): :func:`mlpconv`,
* section 3.2 (global average pooling of one map a class): ``head.pool``,
* section 3.3, figure 2 (three mlpconv blocks, pooling between them): :class:`NIN` and :func:`nin`; maps 192, 160, 96 (5x5), then
  192, 192, 192 (5x5), then 192, 192, K (3x3), as in the authors' published definition; 32x32x3 -> 16x16x96 -> 8x8x192 -> 8x8xK -> K,
* section 4.1 (dropout 0.5 after the first two blocks' poolings): ``drop1``, ``drop2``,
* the authors' published ImageNet network, four blocks of 96, 256, 384, 1024 maps (11x11/4, 5x5, 3x3, 3x3), max pooling between them,
  dropout before the last: :class:`NINImageNet`, :func:`nin_imagenet`; 224x224x3 -> 54x54x96 -> 27 -> 27x27x256 -> 13 ->
  13x13x384 -> 6 -> 6x6x1024 -> 6x6xK.

Deviations. Equation 2 puts a ReLU after the last 1x1 convolution as well; scores that cannot fall below 0 leave a class with a dead map,
so it is off unless ``last_relu``. CIFAR-10's global contrast normalisation and whitening are replaced by mean and deviation. Initial
weights are He's (the authors': deviation 0.05 or 0.01). The recipe is ours.

Pinned by tests: the sizes above; 966,986 parameters (10 classes) and 7,595,176 (ImageNet form, 1000 classes), counted by hand.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import ClassVar, Literal

from torch import Tensor, nn

from saccade.models.bounds import check_within
from saccade.models.classify.base import unpublished
from saccade.models.classify.network import (
    PHOTOS,
    Network,
    NetworkClassifier,
    check_width,
    initialise,
    level,
    output_gain,
    pointwise_output,
    preprocess_for,
    scaled,
    size_after,
)  # fmt: skip
from saccade.types.recipe import Recipe

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def mlpconv(in_channels: int, maps: tuple[int, ...], kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """Equation 2: a convolution, then 1x1 convolutions, each followed by ReLU; ``maps`` has the channels of each layer."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=nn.Conv2d(in_channels, maps[0], kernel, stride, padding), relu0=nn.ReLU())
    for number, (before, after) in enumerate(pairwise(maps), 1):
        layers[f"mlp{number}"], layers[f"relu{number}"] = nn.Conv2d(before, after, 1), nn.ReLU()
    return nn.Sequential(layers)


class NIN(Network):
    """Network in Network: see the module's docstring and :func:`nin`. The last 1x1 convolution of the last block is ``head.mlp2``."""

    output = "head.mlp2"
    input_size = (32, 32)
    form: ClassVar[Literal["cifar", "imagenet"]] = "cifar"

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        *,
        size: int | None = None,
        width: float = 1.0,
        dropout: float = 0.5,
        last_relu: bool = False,
    ) -> None:
        def block(before: int, maps: tuple[int, ...], *geometry: int) -> nn.Sequential:
            return mlpconv(before, tuple(scaled(m, width) for m in maps), *geometry)

        def pool() -> nn.Module:
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        cifar = self.form == "cifar"
        channels = tuple(scaled(maps, width) for maps in ((96, 192, 192) if cifar else (96, 256, 384, 1024)))
        strides = (1, 2, 4) if cifar else (4, 8, 16, 32)
        if cifar:
            layers = OrderedDict(
                mlpconv1=block(in_chans, (192, 160, 96), 5, 1, 2), pool1=pool(), drop1=nn.Dropout(dropout),
                mlpconv2=block(channels[0], (192, 192, 192), 5, 1, 2), pool2=nn.AvgPool2d(3, 2, ceil_mode=True), drop2=nn.Dropout(dropout),
                mlpconv3=block(channels[1], (192, 192), 3, 1, 1),
            )  # fmt: skip
        else:
            layers = OrderedDict(
                mlpconv1=block(in_chans, (96, 96, 96), 11, 4), pool1=pool(),
                mlpconv2=block(channels[0], (256, 256, 256), 5, 1, 2), pool2=pool(),
                mlpconv3=block(channels[1], (384, 384, 384), 3, 1, 1), pool3=pool(), drop3=nn.Dropout(dropout),
                mlpconv4=block(channels[2], (1024, 1024), 3, 1, 1),
            )  # fmt: skip
        info = [level(maps, stride, f"features.mlpconv{k}") for k, (maps, stride) in enumerate(zip(channels, strides, strict=True), 1)]
        super().__init__(num_classes, channels[-1], info)
        self.input_size = (size, size) if size else self.input_size
        self.features = nn.Sequential(layers)
        size_after(self.features, in_chans, self.input_size, "nin" if cifar else "nin_imagenet")
        self.head = nn.Sequential(
            OrderedDict(
                mlp2=pointwise_output(channels[-1], num_classes),
                relu2=nn.ReLU() if last_relu else nn.Identity(),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
            )
        )
        initialise(self)
        output_gain(self)

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps (N, D, h, w) to logits (N, K); with ``pre_logits`` to their mean (N, D)."""
        return maps.mean((2, 3)) if pre_logits else super().forward_head(maps)


class NINImageNet(NIN):
    """:class:`NIN` in its ImageNet form; see :func:`nin_imagenet`."""

    input_size = (224, 224)
    form = "imagenet"


def nin(
    num_classes: int = 10,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 32,
    width: float = 1.0,
    dropout: float = 0.5,
    last_relu: bool = False,
) -> NetworkClassifier:
    """Network in Network for small images (CIFAR-10).

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are published in a form that loads here; True is an error.
        size: side that images are resized to; the network itself takes any.
        width: factor on all maps.
        dropout: after the first two poolings.
        last_relu: ReLU before the global pooling too, as equation 2 writes.
    """
    unpublished("nin", pretrained)
    check_within(8, 1024, size=size)
    check_width(width)
    network = NIN(num_classes, in_chans, size=size, width=width, dropout=dropout, last_relu=last_relu)
    return NetworkClassifier(network, preprocess_for(network.input_size, in_chans, crop=1, mean=CIFAR_MEAN, std=CIFAR_STD))


def nin_imagenet(
    num_classes: int = 1000,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 224,
    width: float = 1.0,
    dropout: float = 0.5,
    last_relu: bool = False,
) -> NetworkClassifier:
    """Network in Network for photos (the authors' ImageNet form).

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are published in a form that loads here; True is an error.
        size: side that images are cut to; the network itself takes any.
        width: factor on all maps.
        dropout: before the last block.
        last_relu: ReLU before the global pooling too, as equation 2 writes.
    """
    unpublished("nin_imagenet", pretrained)
    check_within(32, 1024, size=size)
    check_width(width)
    network = NINImageNet(num_classes, in_chans, size=size, width=width, dropout=dropout, last_relu=last_relu)
    return NetworkClassifier(network, preprocess_for(network.input_size, in_chans))


NETWORKS = {"nin": NIN, "nin_imagenet": NINImageNet}

RECIPES = {
    "nin": Recipe(
        epochs=40,
        batch_size=64,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.01,
        warmup=1.0,
        hflip=0.5,
        translate=0.125,
    ),
    "nin_imagenet": PHOTOS.replace(epochs=40, lr=5e-4),
}

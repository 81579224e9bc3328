"""MobileNet v1 (2017).

Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications, arXiv 1704.04861 (2017).

What was new: a network of depthwise separable convolutions alone, and two knobs for its cost: alpha thins all layers, rho shrinks the
image.

Where what stands:

* section 3.1, equation 5 (a depthwise convolution, then a pointwise one, each with batch normalisation and ReLU): :class:`Separable`,
* table 1 (the network): :class:`MobileNetV1`; at 224x224: conv1 112x112x32 -> 112x112x64 -> 56x56x128 twice -> 28x28x256 twice ->
  14x14x512 six times -> 7x7x1024 twice -> average -> 1000,
* section 3.3 (width multiplier alpha) and 3.4 (resolution multiplier rho): the options of :func:`mobilenet_v1`; :func:`separable_cost`
  is equation 7.

Deviations. Table 1 gives the last depthwise layer stride 2, which contradicts its own sizes; the stride is 1. The paper says ReLU; the
authors' program and the published weights have ReLU6, and so has this by default. Initial weights are He's. The recipe is ours, for
hundreds to thousands of images; the paper's: RMSProp, little augmentation and decay.

Pinned by tests: all sizes of the table; 4,231,976 parameters; timm's own outputs; the cost by equation 7 for any alpha and rho.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from saccade.layers.conv_bn import Activation, ConvBN
from saccade.models.bounds import check_within
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
from saccade.models.weights import load_state
from saccade.types.errors import UsageError

TABLE = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
"""Table 1: maps and stride of the separable layers."""

TIMM = "mobilenetv1_100"
STAGES = (1, 2, 2, 6, 2)
"""How timm groups the separable layers."""


def separable_cost(side: int, maps_in: int, maps_out: int, kernel: int = 3, *, alpha: float = 1.0, rho: float = 1.0) -> float:
    """Multiply-adds of a separable layer by equation 7: k*k*(a m)*(r f)^2 + (a m)*(a n)*(r f)^2.

    >>> separable_cost(14, 512, 512)
    52283392.0
    """
    thin_in, thin_out, area = alpha * maps_in, alpha * maps_out, (rho * side) ** 2
    return kernel * kernel * thin_in * area + thin_in * thin_out * area


class Separable(nn.Module):
    """A 3x3 convolution of each map by itself, then a 1x1 one: (N, in_chans, H, W) to (N, maps, H / stride, W / stride)."""

    def __init__(self, in_chans: int, maps: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.depthwise = ConvBN(in_chans, in_chans, 3, stride, groups=in_chans, activation=activation)
        self.pointwise = ConvBN(in_chans, maps, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


def timm_names() -> dict[str, str]:
    """Name of a layer in timm -> ours."""
    names = {"conv_stem": "features.conv1.conv", "bn1": "features.conv1.bn", "classifier": "head.fc"}
    places = [(stage, block) for stage, blocks in enumerate(STAGES) for block in range(blocks)]
    for number, (stage, block) in enumerate(places, start=2):
        theirs, ours = f"blocks.{stage}.{block}", f"features.conv{number}"
        names |= {f"{theirs}.conv_dw": f"{ours}.depthwise.conv", f"{theirs}.bn1": f"{ours}.depthwise.bn"}
        names |= {f"{theirs}.conv_pw": f"{ours}.pointwise.conv", f"{theirs}.bn2": f"{ours}.pointwise.bn"}
    return names


class MobileNetV1(Network):
    """MobileNet v1: see the module's docstring and :func:`mobilenet_v1`."""

    output = "head.fc"
    published_names = timm_names()

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, *, alpha: float = 1.0, size: int = 224, activation: Activation = "relu6"
    ) -> None:
        maps = scaled(32, alpha)
        layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=ConvBN(in_chans, maps, 3, 2, activation=activation))
        info, reduction = [], 2
        for number, (channels, stride) in enumerate(TABLE, start=2):
            if stride == 2:
                info.append(level(maps, reduction, f"features.conv{number - 1}"))
                reduction *= 2
            layers[f"conv{number}"] = Separable(maps, scaled(channels, alpha), stride, activation)
            maps = scaled(channels, alpha)
        info.append(level(maps, reduction, f"features.conv{len(TABLE) + 1}"))
        super().__init__(num_classes, maps, info)
        self.input_size = (size, size)
        self.features = nn.Sequential(layers)
        self.head = nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=dense_output(maps, num_classes)))
        initialise(self)
        output_gain(self)


def mobilenet_v1(
    num_classes: int = 1000,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    alpha: float = 1.0,
    rho: float = 1.0,
    activation: Literal["relu", "relu6"] = "relu6",
) -> NetworkClassifier:
    """MobileNet v1.

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: download timm's ImageNet weights, which are of alpha 1 with ReLU6.
        alpha: width multiplier; the paper's: 1, 0.75, 0.5, 0.25.
        rho: resolution multiplier: the input's side is 224 rho; the paper's sides: 224, 192, 160, 128.
        activation: the paper's text says "relu", the weights are of "relu6".
    """
    import timm

    check_width(alpha)
    size = round(224 * rho)
    check_within(32, 1024, size=size)
    network = MobileNetV1(num_classes, in_chans, alpha=alpha, size=size, activation=activation)
    config = timm.get_pretrained_cfg(TIMM)
    assert config is not None
    model = NetworkClassifier(network, preprocess_for((size, size), in_chans, crop=config.crop_pct, mean=config.mean, std=config.std))
    if pretrained:
        if (alpha, activation) != (1.0, "relu6"):
            raise UsageError("mobilenet_v1 has published weights for model.alpha=1 and model.activation=relu6 only")
        theirs = timm.create_model(TIMM, pretrained=True, num_classes=num_classes, in_chans=in_chans)
        load_state(model, theirs.state_dict(), f"timm {TIMM}")
    return model


NETWORKS = {"mobilenet_v1": MobileNetV1}

RECIPES = {"mobilenet_v1": PHOTOS_NORMALISED}

"""The networks of the line that timm keeps with published weights; :mod:`zoo <saccade.models.classify.zoo>` lists them.

* VGG (2014), arXiv 1409.1556: :func:`vgg`,
* Inception v3 (2015), arXiv 1512.00567; Inception v4 and Inception-ResNet v2 (2016), arXiv 1602.07261,
* ResNet (2015), arXiv 1512.03385; with pre-activation (2016), arXiv 1603.05027,
* DenseNet (2016), arXiv 1608.06993,
* Xception (2016), arXiv 1610.02357,
* MobileNet v2 (2018), arXiv 1801.04381: :func:`mobilenet_v2` with its width multiplier,
* EfficientNet (2019), arXiv 1905.11946: B0 to B7, whose sizes :func:`efficientnet_scaling` gives.

The layers, weights, input sizes, mean and deviation are timm's. Deviations that its networks have from the papers:

* ResNet: the stride of a bottleneck block stands in its 3x3 convolution, in the paper in the first 1x1,
* pre-activation: the first normalisation and ReLU come after the first pooling, in the paper right after the first convolution; blocks
  of two 3x3 convolutions with an identity shortcut shortcut the maps before the normalisation,
* Inception v3: without the auxiliary head,
* MobileNet v2: ReLU6 and channels rounded to multiples of 8, as in its authors' program; EfficientNet: the same rounding, and
  TensorFlow's padding, as the paper's own weights need it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from saccade.models.bounds import check_within
from saccade.models.classify.timm_model import RECIPES as TIMM_RECIPES
from saccade.models.classify.timm_model import TimmClassifier, from_timm, timm_classifier
from saccade.models.classify.zoo import ZOO
from saccade.types.errors import UsageError

__all__ = ["RECIPES", "Scaling", "efficientnet_scaling", "mobilenet_v2", "timm_classifier", "vgg"]

WIDTHS = {0.35: "mobilenetv2_035", 0.5: "mobilenetv2_050", 0.75: "mobilenetv2_075", 1.0: "mobilenetv2_100", 1.4: "mobilenetv2_140"}
"""alpha -> timm's network; weights are published for 0.35, 0.5, 1 and 1.4."""


class Scaling(NamedTuple):
    """Factors on the layers of a stage, on the channels and on the image's side."""

    depth: float
    width: float
    resolution: float


def efficientnet_scaling(phi: float, *, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15) -> Scaling:
    """Compound scaling of EfficientNet (arXiv 1905.11946, equation 3): depth alpha^phi, width beta^phi, resolution gamma^phi.

    A network's cost grows by (alpha beta^2 gamma^2)^phi, which is about 2^phi. B1 to B7 are rounded versions of this.

    >>> [round(factor, 3) for factor in efficientnet_scaling(1)]
    [1.2, 1.1, 1.15]
    """
    return Scaling(alpha**phi, beta**phi, gamma**phi)


def vgg(
    num_classes: int = 1000,
    *,
    architecture: str,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int | None = None,
    dense: int = 4096,
    dropout: float = 0.5,
) -> TimmClassifier:
    """VGG: 3x3 convolutions and 2x2 poolings, then three dense layers.

    Args:
        num_classes: of the output.
        architecture: timm's name.
        in_chans: 1 (grey) or 3.
        pretrained: download timm's weights.
        size: side of the input in pixels; None is 224. Smaller maps than 7x7 are stretched to it before the dense layers.
        dense: units of the first hidden dense layer; the second has 4096.
        dropout: after each of them.
    """
    check_within(1, 4096, dense=dense)
    return from_timm(
        architecture, num_classes, in_chans=in_chans, pretrained=pretrained, size=size, mlp_ratio=dense / 4096, drop_rate=dropout
    )


def mobilenet_v2(
    num_classes: int = 1000,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    alpha: float = 1.0,
    rho: float = 1.0,
    drop_rate: float = 0.0,
) -> TimmClassifier:
    """MobileNet v2: inverted residual blocks with linear bottlenecks.

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: download timm's weights.
        alpha: width multiplier: 0.35, 0.5, 0.75, 1 or 1.4, the paper's.
        rho: resolution multiplier: the input's side is 224 rho; the paper's sides: 224, 192, 160, 128, 96.
        drop_rate: dropout before the output.
    """
    if alpha not in WIDTHS:
        raise UsageError(f"model.alpha={alpha}: mobilenet_v2 has {', '.join(f'{width:g}' for width in WIDTHS)}")
    size = round(224 * rho)
    check_within(32, 1024, size=size)
    return from_timm(WIDTHS[alpha], num_classes, in_chans=in_chans, pretrained=pretrained, size=size, drop_rate=drop_rate)


RECIPES = {fields["name"]: TIMM_RECIPES["timm"] for fields in ZOO}

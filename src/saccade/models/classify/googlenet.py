"""GoogLeNet, Inception v1 (2014).

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich: Going Deeper with Convolutions, arXiv 1409.4842 (2014).

What was new: the Inception module, which looks at its input through 1x1, 3x3 and 5x5 windows and a pooling at once and lets 1x1
convolutions reduce the maps before the expensive windows; 22 layers with a twelfth of AlexNet's parameters; auxiliary heads.

Where what stands:

* figure 2b (module with reductions): :class:`Inception`,
* table 1 (the network): :class:`GoogLeNet`; at 224x224: conv1 112x112x64, pool1 56 -> conv2 56x56x192, pool2 28 -> 3a 256, 3b 480,
  pool3 14 -> 4a, 4b, 4c 512, 4d 528, 4e 832, pool4 7 -> 5a 832, 5b 7x7x1024 -> average 1x1x1024 -> dropout 0.4 -> 1000,
* figure 3 (local response normalisation after the first pooling and before the second): ``norm1``, ``norm2``,
* section 5 (auxiliary heads after 4a and 4d: average pooling 5x5 at stride 3, 128 1x1 convolutions, 1024 dense units, dropout 0.7;
  their losses count 0.3 and they are off at inference): :class:`AuxiliaryHead`, :class:`GoogLeNetClassifier`.

``form="batch_norm"`` is the network that torchvision has weights for: batch normalisation instead of local response normalisation, and
a 3x3 window where the paper has 5x5. Its weights expect mean and deviation 0.5, which ``preprocess`` states.

Deviations. The paper gives no numbers for the normalisation: they are AlexNet's (k = 2, n = 5, alpha = 1e-4, beta = 0.75). Poolings round
up, which gives the table's sizes. Initial weights are He's. The recipe is ours, for hundreds to thousands of images; the paper's: SGD,
momentum 0.9, the rate 4% lower every 8 epochs, averaged weights.

Pinned by tests: all sizes and the parameters of table 1; 6,998,552 without the auxiliary heads; 9 modules, 22 layers; torchvision's own
outputs of the other form.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from saccade.data.transforms.preprocess import IMAGENET_MEAN, IMAGENET_STD
from saccade.layers.conv_bn import ConvBN
from saccade.models.base import Images
from saccade.models.bounds import check_within
from saccade.models.classify.network import (
    PHOTOS,
    Network,
    NetworkClassifier,
    check_width,
    dense_output,
    initialise,
    level,
    load_published,
    output_gain,
    preprocess_for,
    scaled,
    size_after,
)  # fmt: skip
from saccade.types.errors import UsageError
from saccade.types.sample import Target

Unit = Callable[..., nn.Module]
"""``unit(in_chans, out_chans, kernel, stride=1)``: convolution, normalisation if any, ReLU; keeps the size at stride 1."""

TABLE = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip
"""Table 1: module -> maps of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection."""

AUXILIARY = ("4a", "4d")
AUXILIARY_WEIGHT = 0.3


def conv_relu(in_chans: int, out_chans: int, kernel: int, stride: int = 1) -> nn.Module:
    """The paper's unit: convolution with bias, ReLU."""
    conv = nn.Conv2d(in_chans, out_chans, kernel, stride=stride, padding=kernel // 2)
    return nn.Sequential(OrderedDict(conv=conv, relu=nn.ReLU()))


def conv_bn_relu(in_chans: int, out_chans: int, kernel: int, stride: int = 1) -> nn.Module:
    """The unit of torchvision: batch normalisation instead of the bias."""
    return ConvBN(in_chans, out_chans, kernel, stride, eps=0.001)


class Inception(nn.Module):
    """Figure 2b: (N, in_chans, H, W) to (N, sum of the four branches, H, W).

    Args:
        in_chans: maps of the input.
        maps: of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
        unit: see :data:`Unit`.
        large: side of the large window, 5 in the paper.
    """

    def __init__(self, in_chans: int, maps: tuple[int, ...], unit: Unit, large: int = 5) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, projection = maps
        self.conv1x1 = unit(in_chans, one, 1)
        self.conv3x3 = nn.Sequential(OrderedDict(reduce=unit(in_chans, reduce3, 1), conv=unit(reduce3, three, 3)))
        self.conv5x5 = nn.Sequential(OrderedDict(reduce=unit(in_chans, reduce5, 1), conv=unit(reduce5, five, large)))
        self.pool = nn.Sequential(OrderedDict(pool=nn.MaxPool2d(3, 1, 1, ceil_mode=True), project=unit(in_chans, projection, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv1x1(x), self.conv3x3(x), self.conv5x5(x), self.pool(x)], 1)


class AuxiliaryHead(nn.Sequential):
    """Section 5's small network on the maps of a module: (N, C, H, W) to logits (N, K)."""

    def __init__(self, in_chans: int, size: tuple[int, int], num_classes: int, unit: Unit, pool: nn.Module, width: float) -> None:
        maps, hidden = scaled(128, width), scaled(1024, width)
        super().__init__(
            OrderedDict(
                pool=pool, conv=unit(in_chans, maps, 1), flatten=nn.Flatten(),
                fc=nn.Linear(maps * size[0] * size[1], hidden), relu=nn.ReLU(), drop=nn.Dropout(0.7), output=nn.Linear(hidden, num_classes),
            )
        )  # fmt: skip


def torchvision_names() -> dict[str, str]:
    """Name of a layer in torchvision -> ours."""
    names = {"fc": "head.fc"}
    units = {"conv1": "conv1", "conv2": "conv2_reduce", "conv3": "conv2"}
    branches = {
        "branch1": "conv1x1", "branch2.0": "conv3x3.reduce", "branch2.1": "conv3x3.conv",
        "branch3.0": "conv5x5.reduce", "branch3.1": "conv5x5.conv", "branch4.1": "pool.project",
    }  # fmt: skip
    for module in TABLE:
        units |= {f"inception{module}.{theirs}": f"inception_{module}.{ours}" for theirs, ours in branches.items()}
    for kind in ("conv", "bn"):
        names |= {f"{theirs}.{kind}": f"features.{ours}.{kind}" for theirs, ours in units.items()}
        names |= {f"aux{k}.conv.{kind}": f"auxiliary_{module}.conv.{kind}" for k, module in enumerate(AUXILIARY, start=1)}
    for k, module in enumerate(AUXILIARY, start=1):
        names |= {f"aux{k}.fc1": f"auxiliary_{module}.fc", f"aux{k}.fc2": f"auxiliary_{module}.output"}
    return names


class GoogLeNet(Network):
    """GoogLeNet: see the module's docstring and :func:`googlenet`; the auxiliary heads only with ``auxiliary``."""

    output = "head.fc"
    published_names: ClassVar[dict[str, str]] = torchvision_names()

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        form: str = "paper",
        size: int = 224,
        width: float = 1.0,
        dropout: float = 0.4,
        auxiliary: bool = False,
    ) -> None:
        table = {name: tuple(scaled(maps, width) for maps in row) for name, row in TABLE.items()}
        depth = {name: row[0] + row[2] + row[4] + row[5] for name, row in table.items()}
        c1, c2 = scaled(64, width), scaled(192, width)
        info = [
            level(c1, 2, "features.conv1"), level(c2, 4, "features.conv2"), level(depth["3b"], 8, "features.inception_3b"),
            level(depth["4e"], 16, "features.inception_4e"), level(depth["5b"], 32, "features.inception_5b"),
        ]  # fmt: skip
        super().__init__(num_classes, depth["5b"], info)
        self.input_size = (size, size)
        paper = form == "paper"
        unit = conv_relu if paper else conv_bn_relu

        def norm(number: int) -> dict[str, nn.Module]:
            return {f"norm{number}": nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)} if paper else {}

        def pool(side: int = 3) -> nn.MaxPool2d:
            return nn.MaxPool2d(side, 2, ceil_mode=True)

        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=unit(in_chans, c1, 7, 2), pool1=pool(), **norm(1),
            conv2_reduce=unit(c1, c1, 1), conv2=unit(c1, c2, 3), **norm(2), pool2=pool(),
        )  # fmt: skip
        before, sources = c2, {}
        for name, row in table.items():
            if name == "4a":
                layers["pool3"] = pool()
            elif name == "5a":
                layers["pool4"] = pool(3 if paper else 2)
            layers[f"inception_{name}"] = Inception(before, row, unit, 5 if paper else 3)
            before = depth[name]
            if name in AUXILIARY:
                sources[name] = nn.Sequential(*layers.values())
        self.features = nn.Sequential(layers)
        self.head = nn.Sequential(
            OrderedDict(
                pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), drop=nn.Dropout(dropout), fc=dense_output(depth["5b"], num_classes)
            )
        )
        if auxiliary:
            self.other_outputs = tuple(f"auxiliary_{name}.output" for name in AUXILIARY)
            for name, source in sources.items():
                window: nn.Module = nn.AvgPool2d(5, 3) if paper else nn.AdaptiveAvgPool2d(4)
                maps, *sides = size_after(nn.Sequential(source, window), in_chans, self.input_size, "googlenet")
                self.add_module(f"auxiliary_{name}", AuxiliaryHead(maps, (sides[0], sides[1]), num_classes, unit, window, width))
        initialise(self)
        output_gain(self)

    def all_logits(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (N, K) of the auxiliary heads by module, and of the network under "" (built with ``auxiliary``)."""
        out, maps = {}, images
        for name, layer in self.features.named_children():
            maps = layer(maps)
            module = name.removeprefix("inception_")
            if module in AUXILIARY:
                out[module] = self.get_submodule(f"auxiliary_{module}")(maps)
        return out | {"": self.head(maps)}


class GoogLeNetClassifier(NetworkClassifier):
    """GoogLeNet with its three losses; ``raw`` leaves the auxiliary heads out and takes images of any size."""

    network: GoogLeNet

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """``ce`` of the network, and ``ce_4a`` and ``ce_4d`` of the auxiliary heads, which count 0.3 (section 5).

        Raises:
            UsageError: images of another size than the auxiliary heads were built for.
        """
        assert isinstance(images, Tensor)
        if tuple(images.shape[-2:]) != self.network.input_size:
            (height, width), given = self.network.input_size, images.shape[-2:]
            raise UsageError(
                f"googlenet trains on images of {height}x{width}, for which its auxiliary heads are built, not {given[0]}x{given[1]}: "
                f"build it with model.size"
            )
        logits = self.network.all_logits(images)
        losses = {"ce": self.cross_entropy(logits.pop(""), targets)}
        return losses | {f"ce_{name}": AUXILIARY_WEIGHT * self.cross_entropy(values, targets) for name, values in logits.items()}


def googlenet(
    num_classes: int = 1000,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    form: Literal["paper", "batch_norm"] = "paper",
    size: int = 224,
    width: float = 1.0,
    dropout: float | None = None,
) -> GoogLeNetClassifier:
    """GoogLeNet with its auxiliary heads.

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: download torchvision's ImageNet weights, which are of ``form="batch_norm"`` at 224 pixels.
        form: as published, or torchvision's (see the module's docstring).
        size: side of the input in pixels for training, on which the auxiliary heads depend; from 79 (32 with batch normalisation).
        width: factor on all maps and hidden dense units.
        dropout: before the output; None is the form's own: 0.4 (0.2 with batch normalisation). The auxiliary heads have 0.7.
    """
    check_within(32, 1024, size=size)
    check_width(width)
    paper = form == "paper"
    rate = (0.4 if paper else 0.2) if dropout is None else dropout
    network = GoogLeNet(num_classes, in_chans, form=form, size=size, width=width, dropout=rate, auxiliary=True)
    half = (0.5, 0.5, 0.5)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if paper else (half, half)
    model = GoogLeNetClassifier(network, preprocess_for(network.input_size, in_chans, mean=mean, std=std))
    if pretrained:
        if (form, size, width, in_chans) != ("batch_norm", 224, 1.0, 3):
            raise UsageError("googlenet has published weights for model.form=batch_norm at 224 pixels, full width and in_chans 3 only")
        from torchvision.models import GoogLeNet_Weights

        load_published(model, GoogLeNet_Weights.IMAGENET1K_V1)
    return model


NETWORKS = {"googlenet": GoogLeNet}

RECIPES = {"googlenet": PHOTOS}

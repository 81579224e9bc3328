"""AlexNet (2012).

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012.

What was new: a deep convolutional network on a million photos, on two GPUs: ReLU instead of tanh, dropout, overlapping pooling,
local response normalisation, augmentation by crops, flips and colour.

Where what stands:

* figure 2 (the network): :class:`AlexNet`; 227x227x3 -> conv1 55x55x96 -> pool1 27x27x96 -> conv2 27x27x256 -> pool2 13x13x256 ->
  conv3, conv4 13x13x384 -> conv5 13x13x256 -> pool5 6x6x256 -> fc6, fc7 4096 -> fc8,
* the two towers (section 3.2): convolutions in two groups; only conv3 and the dense layers see both,
* section 3.3 (local response normalisation, k = 2, n = 5, alpha = 1e-4, beta = 0.75, alpha times the *sum* over the n neighbours):
  ``norm1``, ``norm2``. PyTorch divides alpha by n, so it is given 5e-4,
* section 3.4 (overlapping pooling, 3x3 windows at stride 2): ``pool1``, ``pool2``, ``pool5``,
* section 4.2 (dropout 0.5 before the first two dense layers): ``drop6``, ``drop7``,
* section 5 (weights of deviation 0.01, biases 1 in conv2, conv4, conv5 and the dense layers): ``init="paper"``.

``form="one_tower"`` is the network of Krizhevsky's "One weird trick" (arXiv 1404.5997) as torchvision has it: one GPU, 64, 192, 384, 256,
256 maps, no normalisation, 224x224 padded by 2; torchvision's weights load into it.

Deviations. The paper says 224x224, which does not give 55; 227 does. Initial weights are He's unless ``init="paper"``, whose small
weights need ImageNet's length of training. The recipe is ours, for hundreds to thousands of images; the paper's: SGD, batch 128,
momentum 0.9, decay 5e-4, rate 0.01 divided by 10 three times, 90 epochs.

Pinned by tests: all sizes above; 60,965,224 parameters in two towers; 61,100,840 in one, and torchvision's own outputs.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar, Literal

from torch import nn

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

FORMS = {"two_towers": (96, 256, 384, 384, 256), "one_tower": (64, 192, 384, 256, 256)}
"""Maps of conv1 to conv5."""


class AlexNet(Network):
    """AlexNet: see the module's docstring and :func:`alexnet`. Layers carry the paper's names."""

    output = "head.fc8"
    input_size = (227, 227)
    fixed = True
    published_names: ClassVar[dict[str, str]] = {
        "features.0": "features.conv1", "features.3": "features.conv2", "features.6": "features.conv3", "features.8": "features.conv4",
        "features.10": "features.conv5", "classifier.1": "head.fc6", "classifier.4": "head.fc7", "classifier.6": "head.fc8",
    }  # fmt: skip

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        form: str = "two_towers",
        size: int = 227,
        width: float = 1.0,
        dropout: float = 0.5,
        init: str = "he",
    ) -> None:
        c1, c2, c3, c4, c5 = (scaled(maps, width) for maps in FORMS[form])
        two = form == "two_towers"
        groups = 2 if two else 1
        info = [level(c1, 4, "features.relu1"), level(c2, 8, "features.relu2"), level(c5, 16, "features.relu5")]
        super().__init__(num_classes, c5, info)
        self.form, self.input_size = form, (size, size)

        def norm(number: int) -> dict[str, nn.Module]:
            return {f"norm{number}": nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)} if two else {}

        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(in_chans, c1, 11, stride=4, padding=0 if two else 2), relu1=nn.ReLU(), **norm(1), pool1=nn.MaxPool2d(3, 2),
                conv2=nn.Conv2d(c1, c2, 5, padding=2, groups=groups), relu2=nn.ReLU(), **norm(2), pool2=nn.MaxPool2d(3, 2),
                conv3=nn.Conv2d(c2, c3, 3, padding=1), relu3=nn.ReLU(),
                conv4=nn.Conv2d(c3, c4, 3, padding=1, groups=groups), relu4=nn.ReLU(),
                conv5=nn.Conv2d(c4, c5, 3, padding=1, groups=groups), relu5=nn.ReLU(), pool5=nn.MaxPool2d(3, 2),
            )
        )  # fmt: skip
        depth, height, breadth = size_after(self.features, in_chans, self.input_size, "alexnet")
        dense = scaled(4096, width)
        self.head = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                drop6=nn.Dropout(dropout), fc6=nn.Linear(depth * height * breadth, dense), relu6=nn.ReLU(),
                drop7=nn.Dropout(dropout), fc7=nn.Linear(dense, dense), relu7=nn.ReLU(),
                fc8=dense_output(dense, num_classes),
            )
        )  # fmt: skip
        if init == "paper":
            initialise_as_published(self)
        else:
            initialise(self)
            output_gain(self)


def initialise_as_published(network: AlexNet) -> None:
    """Section 5: weights from N(0, 0.01^2); biases 1 in the second, fourth and fifth convolution and the hidden dense layers, else 0."""
    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, float(name.rpartition(".")[2] in ("conv2", "conv4", "conv5", "fc6", "fc7")))


def alexnet(
    num_classes: int = 1000,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    form: Literal["two_towers", "one_tower"] = "two_towers",
    size: int | None = None,
    width: float = 1.0,
    dropout: float = 0.5,
    init: Literal["he", "paper"] = "he",
) -> NetworkClassifier:
    """AlexNet.

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: download torchvision's ImageNet weights, which are of ``form="one_tower"`` at 224 pixels.
        form: the paper's two towers, or one (see the module's docstring).
        size: side of the input in pixels, from 67 (63 in one tower), on which the first dense layer depends; None is the form's own:
            227 (224 in one tower).
        width: factor on all maps and hidden dense units.
        dropout: before the first two dense layers.
        init: He's initial weights, or the paper's.
    """
    side = size or (227 if form == "two_towers" else 224)
    check_within(32, 1024, size=side)
    check_width(width)
    network = AlexNet(num_classes, in_chans, form=form, size=side, width=width, dropout=dropout, init=init)
    model = NetworkClassifier(network, preprocess_for(network.input_size, in_chans, crop=side / round(side * 256 / 224)))
    if pretrained:
        if (form, side, width, in_chans) != ("one_tower", 224, 1.0, 3):
            raise UsageError("alexnet has published weights for model.form=one_tower at its own size and width, and in_chans 3 only")
        from torchvision.models import AlexNet_Weights

        load_published(model, AlexNet_Weights.IMAGENET1K_V1)
    return model


NETWORKS = {"alexnet": AlexNet}

RECIPES = {"alexnet": PHOTOS}

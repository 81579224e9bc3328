"""The small network of the course (2017).

Chollet: Deep Learning with Python, Manning 2017, section 5.1, whose first network for MNIST this is, with 128 maps in the third layer.

What it shows: convolutions and poolings that shrink the maps while their number grows, flattened into a dense classifier.

Where what stands:

* ``padding="valid"``: 28x28x1 -> conv1 26x26x32 -> pool1 13x13x32 -> conv2 11x11x64 -> pool2 5x5x64 -> conv3 3x3x128 -> flatten 1152 ->
  dense1 64 -> dense2 10: :class:`CourseCNN`,
* ``padding="same"``: conv1 28x28x32 -> pool1 14 -> conv2 14x14x64 -> pool2 7 -> conv3 7x7x128 -> pool3 3x3x128 -> the same dense layers.

Both have 167,114 parameters: 320 + 18,496 + 73,856 in the convolutions, 73,792 + 650 in the dense layers, since both end in 3x3 maps.

Deviations. None in the network; the recipe (AdamW, small rotations and shifts) is ours, the book's is RMSprop for 5 epochs.

Pinned by tests: the sizes above; 167,114 parameters in both forms, counted by hand.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

from saccade.data.transforms.preprocess import Preprocess
from saccade.models.bounds import check_within
from saccade.models.classify.base import unpublished
from saccade.models.classify.network import (
    Network,
    NetworkClassifier,
    check_width,
    dense_output,
    initialise,
    level,
    output_gain,
    scaled,
    size_after,
)  # fmt: skip
from saccade.types.recipe import Recipe


class CourseCNN(Network):
    """The network: see the module's docstring and :func:`course_cnn`."""

    output = "head.dense2"
    input_size = (28, 28)
    fixed = True

    def __init__(
        self, num_classes: int = 10, in_chans: int = 1, *, size: int = 28, width: float = 1.0, padding: str = "valid", dropout: float = 0.0
    ) -> None:
        c1, c2, c3 = (scaled(channels, width) for channels in (32, 64, 128))
        info = [level(c1, 1, "features.relu1"), level(c2, 2, "features.relu2"), level(c3, 4, "features.relu3")]
        super().__init__(num_classes, c3, info)
        self.input_size = (size, size)
        pad = int(padding == "same")
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(in_chans, c1, 3, padding=pad), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(c1, c2, 3, padding=pad), relu2=nn.ReLU(), pool2=nn.MaxPool2d(2),
                conv3=nn.Conv2d(c2, c3, 3, padding=pad), relu3=nn.ReLU(),
            )
        )  # fmt: skip
        if pad:
            self.features.add_module("pool3", nn.MaxPool2d(2))
        depth, height, breadth = size_after(self.features, in_chans, self.input_size, "course_cnn")
        dense = scaled(64, width)
        self.head = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                dense1=nn.Linear(depth * height * breadth, dense), relu4=nn.ReLU(), drop=nn.Dropout(dropout),
                dense2=dense_output(dense, num_classes),
            )
        )  # fmt: skip
        initialise(self)
        output_gain(self)


def course_cnn(
    num_classes: int = 10,
    *,
    in_chans: Literal[1, 3] = 1,
    pretrained: bool = False,
    size: int = 28,
    width: float = 1.0,
    padding: Literal["valid", "same"] = "valid",
    dropout: float = 0.0,
    fit: Literal["pad", "stretch"] = "pad",
) -> NetworkClassifier:
    """Three convolutions and two dense layers on small images.

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are published; True is an error.
        size: side of the input in pixels, on which the first dense layer depends.
        width: factor on all maps and hidden dense units.
        padding: the form (see the module's docstring); both have as many parameters at 28 pixels.
        dropout: before the output.
        fit: "pad" keeps the aspect ratio and fills with black; "stretch" resizes both sides.
    """
    unpublished("course_cnn", pretrained)
    check_within(8, 256, size=size)
    check_width(width)
    network = CourseCNN(num_classes, in_chans, size=size, width=width, padding=padding, dropout=dropout)
    mode: Literal["letterbox", "stretch"] = "letterbox" if fit == "pad" else "stretch"
    return NetworkClassifier(network, Preprocess(mode=mode, size=network.input_size, channels=in_chans, mean=(0.1307,), std=(0.3081,)))


NETWORKS = {"course_cnn": CourseCNN}

RECIPES = {
    "course_cnn": Recipe(
        epochs=8,
        batch_size=64,
        optimizer="adamw",
        lr=2e-3,
        weight_decay=1e-2,
        warmup=0.5,
        rotate=10.0,
        scale=0.1,
        translate=0.05,
    )
}

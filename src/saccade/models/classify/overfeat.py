"""OverFeat (2013).

Sermanet, Eigen, Zhang, Mathieu, Fergus, LeCun: OverFeat: Integrated Recognition, Localization and Detection using Convolutional
Networks, arXiv 1312.6229.

What was new: the dense layers of a classifier are convolutions, so one pass over a large image gives the scores of all windows; offset
pooling makes the windows as dense as the maps; the same maps serve classification, localisation and detection.

Where what stands:

* table 1 (fast): :class:`OverFeat` with ``form="fast"``; 231x231x3 -> conv1 56x56x96 -> pool1 28 -> conv2 24x24x256 -> pool2 12 -> conv3
  12x12x512 -> conv4, conv5 12x12x1024 -> pool5 6 -> fc6 1x1x3072 -> fc7 4096 -> fc8,
* table 3 (accurate): ``form="accurate"``; 221x221x3 -> conv1 108x108x96 -> pool1 36 -> conv2 30x30x256 -> pool2 15 -> conv3, conv4
  15x15x512 -> conv5, conv6 15x15x1024 -> pool6 5 -> fc7 1x1x4096 -> fc8 4096 -> fc9,
* section 3.2 (no contrast normalisation, poolings that do not overlap, small strides in the first layers): the same class,
* section 3.3, figure 3 (offset max-pooling: the last pooling begins at each of p x p offsets, and the class maps are interleaved):
  :meth:`OverFeat.dense`,
* section 3.3 and table 5 (six scales and their mirror images; for each the maximum over positions, then the mean):
  :meth:`OverFeatClassifier.probabilities`, for ``evaluation="dense"``. Short sides 245, 281, 317, 389, 425, 461 of the accurate model give
  class maps of 3, 6, 9, 15, 18, 21 positions,
* section 3.5 (the classifier slides: no pixel of a convolution is computed twice): the dense layers ``fc*`` are convolutions.

Deviations. Table 5 gives the accurate model's scales; for the fast one, and for other sizes, they are as many of its own steps as lie
nearest to the same ratios. (Its row for 425x497 prints maps of width 35; 18x24 in its last column, which is right, needs 38.) The paper
does not say whether scores are maximised before or after the soft-max: here after. Convolutions 3 to 5 (6) pad, so a position of the
dense pass sees its neighbourhood where a crop sees zeros. Initial weights are He's (the paper's: deviation 0.01). The recipe is ours; the
paper's: SGD, batch 128, rate 0.05 halved after 30, 50, 60, 70, 80 epochs, momentum 0.6, decay 1e-5.

Pinned by tests: the sizes of tables 1, 3 and 5; 145,920,872 and 144,656,488 parameters, counted by hand (table 4 says 145 and 144
million); the dense pass against the network on every crop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.models.bounds import check_within
from saccade.models.classify.base import unpublished
from saccade.models.classify.network import (
    PHOTOS,
    Network,
    check_width,
    initialise,
    level,
    output_gain,
    pointwise_output,
    scaled,
    size_after,
)  # fmt: skip
from saccade.models.classify.views import ViewsClassifier, resize_short
from saccade.types.errors import UsageError

STEPS = (2, 5, 8, 14, 17, 20)
"""Scales of table 5 beyond 221 pixels, in steps of 12 pixels."""


class OverFeat(Network):
    """OverFeat's fast network: see the module's docstring. Layers carry the tables' numbers."""

    form: ClassVar[Literal["fast", "accurate"]] = "fast"
    output = "head.fc8"
    input_size = (231, 231)
    fixed = True
    stride = 16
    pooling = 2

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, *, size: int | None = None, width: float = 1.0, dropout: float = 0.5
    ) -> None:
        def conv(before: int, after: int, kernel: int, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(before, after, kernel, stride, padding=int(kernel == 3))

        fast = self.form == "fast"
        c1, c2, c3, c5 = (scaled(maps, width) for maps in (96, 256, 512, 1024))
        last, strides = ("relu5", (4, 8, 16)) if fast else ("relu6", (2, 6, 12))
        maps = zip((c1, c2, c5), strides, ("relu1", "relu2", last), strict=True)
        super().__init__(num_classes, c5, [level(channels, stride, f"features.{name}") for channels, stride, name in maps])
        self.input_size = (size, size) if size else self.input_size
        if fast:
            layers: OrderedDict[str, nn.Module] = OrderedDict(
                conv1=conv(in_chans, c1, 11, 4), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
                conv2=conv(c1, c2, 5), relu2=nn.ReLU(), pool2=nn.MaxPool2d(2),
                conv3=conv(c2, c3, 3), relu3=nn.ReLU(),
                conv4=conv(c3, c5, 3), relu4=nn.ReLU(),
                conv5=conv(c5, c5, 3), relu5=nn.ReLU(), pool5=nn.MaxPool2d(2),
            )  # fmt: skip
        else:
            layers = OrderedDict(
                conv1=conv(in_chans, c1, 7, 2), relu1=nn.ReLU(), pool1=nn.MaxPool2d(3),
                conv2=conv(c1, c2, 7), relu2=nn.ReLU(), pool2=nn.MaxPool2d(2),
                conv3=conv(c2, c3, 3), relu3=nn.ReLU(),
                conv4=conv(c3, c3, 3), relu4=nn.ReLU(),
                conv5=conv(c3, c5, 3), relu5=nn.ReLU(),
                conv6=conv(c5, c5, 3), relu6=nn.ReLU(), pool6=nn.MaxPool2d(3),
            )  # fmt: skip
        self.features = nn.Sequential(layers)
        window = size_after(self.features, in_chans, self.input_size, f"overfeat_{self.form}")[1:]
        first, (hidden, dense) = (6, (3072, 4096)) if fast else (7, (4096, 4096))
        hidden, dense = scaled(hidden, width), scaled(dense, width)
        self.head = nn.Sequential(
            OrderedDict(
                [
                    (f"drop{first}", nn.Dropout(dropout)),
                    (f"fc{first}", nn.Conv2d(c5, hidden, window)),
                    (f"relu{first}", nn.ReLU()),
                    (f"drop{first + 1}", nn.Dropout(dropout)),
                    (f"fc{first + 1}", nn.Conv2d(hidden, dense, 1)),
                    (f"relu{first + 1}", nn.ReLU()),
                    (f"fc{first + 2}", pointwise_output(dense, num_classes)),
                ]
            )
        )
        initialise(self)
        output_gain(self)

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps to logits (N, K); with ``pre_logits`` to what the output layer sees."""
        return super().forward_head(maps, pre_logits).flatten(1)

    def dense(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W), from the built size up, to class maps (N, K, h, w): a score every ``stride`` pixels (section 3.3).

        The last pooling, of windows p x p, begins at each offset (dy, dx) below p; position (p i + dy, p j + dx) of the class maps is
        position (i, j) at that offset. The maps are cut to the windows that all offsets have.
        """
        maps = self.features[:-1](images)  # type: ignore[index]
        p = self.pooling
        height, width = ((side - p + 1) // p * p for side in maps.shape[-2:])
        rows = []
        for dy in range(p):
            pooled = [F.max_pool2d(maps[..., dy : dy + height, dx : dx + width], p) for dx in range(p)]
            rows.append(torch.stack([self.head(m) for m in pooled], -1))  # (N, K, h, w, dx)
        return torch.stack(rows, 3).flatten(4).flatten(2, 3)  # (N, K, h, dy, w, dx)


class OverFeatAccurate(OverFeat):
    """OverFeat's accurate network (table 3)."""

    form = "accurate"
    output = "head.fc9"
    input_size = (221, 221)
    stride = 12
    pooling = 3


class OverFeatClassifier(ViewsClassifier):
    """OverFeat with its own evaluation, see :meth:`probabilities`."""

    network: OverFeat

    def probabilities(self, image: Tensor) -> Tensor:
        """Section 3.3: soft-max at each position, the maximum over positions, the mean over scales and mirror images; sums to 1."""
        seen = []
        for scale in self.scales:
            view = resize_short(image, scale)
            for mirrored in (view, view.flip(-1)):
                seen.append(self.network.dense(mirrored).float().softmax(1).amax((2, 3)))
        mean = torch.stack(seen).mean(0)
        return mean / mean.sum(1, keepdim=True)


def table_5(network: OverFeat) -> tuple[int, ...]:
    """Short sides of the six scales: table 5's for the accurate model at 221 pixels; else the nearest whole steps to its ratios."""
    side, stride = network.input_size[0], network.stride
    steps = [max(round(12 * count / 221 * side / stride), network.pooling - 1) for count in STEPS]
    return tuple(side + stride * count for count in steps)


def classifier(
    kind: type[OverFeat],
    num_classes: int,
    in_chans: int,
    evaluation: str,
    scales: Sequence[int] | None,
    size: int,
    width: float,
    dropout: float,
) -> OverFeatClassifier:
    """The classifier around a network of either form, its options checked."""
    check_within(32, 1024, size=size)
    check_width(width)
    least = size + kind.stride * (kind.pooling - 1)
    if scales is not None and (not scales or not least <= min(scales) <= max(scales) <= 2048):
        raise UsageError(f"model.scales={tuple(scales)}: short sides, each in {least}..2048")
    network = kind(num_classes, in_chans, size=size, width=width, dropout=dropout)
    return OverFeatClassifier(network, in_chans, evaluation, scales or table_5(network))


def overfeat_fast(
    num_classes: int = 1000,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 231,
    width: float = 1.0,
    dropout: float = 0.5,
    evaluation: Literal["crop", "dense"] = "crop",
    scales: tuple[int, ...] | None = None,
) -> OverFeatClassifier:
    """OverFeat, the fast model.

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are published in a form that loads here; True is an error.
        size: side of the input in pixels, on which the first dense layer depends.
        width: factor on all maps and hidden units.
        dropout: before the first two dense layers.
        evaluation: predict from the centre, or the paper's way from all positions at six scales and mirrored.
        scales: short sides of the image for ``evaluation="dense"``; None takes table 5's ratios.
    """
    unpublished("overfeat_fast", pretrained)
    return classifier(OverFeat, num_classes, in_chans, evaluation, scales, size, width, dropout)


def overfeat_accurate(
    num_classes: int = 1000,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 221,
    width: float = 1.0,
    dropout: float = 0.5,
    evaluation: Literal["crop", "dense"] = "crop",
    scales: tuple[int, ...] | None = None,
) -> OverFeatClassifier:
    """OverFeat, the accurate model.

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are published in a form that loads here; True is an error.
        size: side of the input in pixels, on which the first dense layer depends.
        width: factor on all maps and hidden units.
        dropout: before the first two dense layers.
        evaluation: predict from the centre, or the paper's way from all positions at six scales and mirrored.
        scales: short sides of the image for ``evaluation="dense"``; None is table 5's.
    """
    unpublished("overfeat_accurate", pretrained)
    return classifier(OverFeatAccurate, num_classes, in_chans, evaluation, scales, size, width, dropout)


NETWORKS = {"overfeat_fast": OverFeat, "overfeat_accurate": OverFeatAccurate}

RECIPES = dict.fromkeys(NETWORKS, PHOTOS)

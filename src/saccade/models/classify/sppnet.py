"""SPP-net, the classifier (2014).

He, Zhang, Ren, Sun: Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition, arXiv 1406.4729.

What was new: maximum pooling into a fixed number of bins at several levels stands between the convolutions and the dense layers, so that
images of any size and shape go in, the network trains at several sizes, and many windows share one pass of the convolutions.

Where what stands:

* table 1 (ZF-5, the base network here): 224x224x3 -> conv1, pool1 55x55x96 -> conv2 27x27x256 -> pool2 13x13x256 -> conv3, conv4
  13x13x384 -> conv5 13x13x256; at 180 pixels conv5 has 10x10: :func:`saccade.models.classify.zfnet.zf_features`,
* section 2.2 and figure 3 (the layer), section 3.1.2 (levels 6, 3, 2, 1: 50 bins): :class:`saccade.layers.spp.SpatialPyramidPooling`,
* section 2.3 (multi-size training: the 224 region resized to 180, one network with shared parameters): :meth:`SPPNetClassifier.losses`,
* section 3.1.4 (full-image view at a short side of 256): ``evaluation="full"``,
* section 3.1.5 and appendix A (multi-view testing on the maps of six scales, 96 views of a 4:3 photo): ``evaluation="views"``.
  Here :func:`view_places` gives the windows of a scale, :func:`map_span` takes them to the maps.

Deviations. The paper trains one epoch at 224 and the next at 180; here the sizes alternate from batch to batch, by a counter that is
saved with the weights. Appendix A writes a window's span on the maps for one-based positions; here it is zero-based, so that a window of
224 at the image's corner is the 13x13 maps of that size. Images longer than 2:1 are squeezed to it for "full" and "views". Initial
weights are He's. The recipe is ours, for hundreds to thousands of images; the paper's: rate 0.01 divided by 10 twice.

Pinned by tests: sizes above at 224 and 180; 12,800 values for any input; 77,037,672 parameters, counted by hand; 96 views.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.layers.spp import SpatialPyramidPooling
from saccade.models.base import Images
from saccade.models.bounds import check_within
from saccade.models.classify.base import unpublished
from saccade.models.classify.network import (
    PHOTOS,
    Network,
    check_width,
    dense_output,
    initialise,
    output_gain,
    scaled,
    size_after,
)  # fmt: skip
from saccade.models.classify.views import CROP, ViewsClassifier, resize_short
from saccade.models.classify.zfnet import scaled_maps, zf_features, zf_levels
from saccade.types.errors import UsageError
from saccade.types.sample import Target

STRIDE = 16
"""Pixels of the image between neighbours in the last maps."""

SCALES = (224, 256, 300, 360, 448, 560)
"""Short sides of the multi-scale test (section 3.1.5)."""


class SPPNet(Network):
    """ZF-5 with spatial pyramid pooling: see the module's docstring and :func:`sppnet`. Any size from about 32 pixels works."""

    output = "head.fc8"
    input_size = (224, 224)

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        size: int = 224,
        levels: Sequence[int] = (6, 3, 2, 1),
        width: float = 1.0,
        dropout: float = 0.5,
    ) -> None:
        maps = scaled_maps(width)
        super().__init__(num_classes, maps[-1], zf_levels(maps))
        self.input_size = (size, size)
        self.features = nn.Sequential(zf_features(in_chans, maps, conv2_padding=1))
        size_after(self.features, in_chans, self.input_size, "sppnet")
        dense, spp = scaled(4096, width), SpatialPyramidPooling(levels)
        self.head = nn.Sequential(
            OrderedDict(
                spp=spp,
                fc6=nn.Linear(maps[-1] * spp.bins, dense), relu6=nn.ReLU(), drop6=nn.Dropout(dropout),
                fc7=nn.Linear(dense, dense), relu7=nn.ReLU(), drop7=nn.Dropout(dropout),
                fc8=dense_output(dense, num_classes),
            )
        )  # fmt: skip
        initialise(self)
        output_gain(self)


class SPPNetClassifier(ViewsClassifier):
    """SPP-net with its training at two sizes and its test on many views.

    Attributes:
        sizes: sides that training alternates between. batches: training batches seen.
    """

    network: SPPNet
    batches: Tensor

    def __init__(self, network: SPPNet, in_chans: int, evaluation: str, scales: Sequence[int], sizes: Sequence[int]) -> None:
        super().__init__(network, in_chans, evaluation, scales)
        self.sizes = tuple(sizes)
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """Cross entropy; in training mode the batch is resized to the next of ``sizes`` (section 2.3)."""
        if not self.training or len(self.sizes) < 2:
            return super().losses(images, targets)
        batch = self.centres(images)
        side = self.sizes[int(self.batches) % len(self.sizes)]
        self.batches += 1
        if batch.shape[-2:] != (side, side):
            batch = F.interpolate(batch, size=(side, side), mode="bilinear", antialias=True)
        return {"ce": self.cross_entropy(self.network(batch), targets)}

    def probabilities(self, image: Tensor) -> Tensor:
        """The whole image at one scale ("full"), or the mean over windows, mirror images and scales, from shared maps ("views")."""
        if self.evaluation == "full":
            return self.network(resize_short(image, round(self.network.input_size[0] / CROP))).float().softmax(1)
        seen, side = [], self.network.input_size[0]
        for scale in self.scales:
            view = resize_short(image, scale)
            for mirrored in (view, view.flip(-1)):
                maps = self.network.forward_features(mirrored)
                for top, left in view_places(tuple(view.shape[-2:]), side):
                    rows, columns = map_span(top, side, maps.shape[-2]), map_span(left, side, maps.shape[-1])
                    seen.append(self.network.forward_head(maps[..., rows, columns]).float().softmax(1))
        return torch.stack(seen).mean(0)


def view_places(size: tuple[int, ...], side: int) -> list[tuple[int, int]]:
    """(top, left) of the centre, the corners and the middles of the edges of an image of (H, W), each once.

    >>> len(view_places((256, 341), 224)), view_places((224, 299), 224)
    (9, [(0, 0), (0, 37), (0, 75)])
    """
    tops, lefts = (sorted({0, (length - side) // 2, length - side}) for length in size)
    return [(top, left) for top in tops for left in lefts]


def map_span(start: int, side: int, length: int) -> slice:
    """Positions on maps of ``length`` of a window of the image: floor(start / 16) to ceil(end / 16) - 1 (appendix A); at least one.

    >>> map_span(0, 224, 13), map_span(20, 224, 16)
    (slice(0, 13, None), slice(1, 15, None))
    """
    first = min(start // STRIDE, length - 1)
    return slice(first, max(min(-(-(start + side) // STRIDE) - 1, length), first + 1))


def sppnet(
    num_classes: int = 1000,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 224,
    levels: tuple[int, ...] = (6, 3, 2, 1),
    multi_size: bool = True,
    width: float = 1.0,
    dropout: float = 0.5,
    evaluation: Literal["crop", "full", "views"] = "crop",
    scales: tuple[int, ...] | None = None,
) -> SPPNetClassifier:
    """SPP-net on ZF-5.

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are published in a form that loads here; True is an error.
        size: side that training cuts from an image, and of the views; ``raw`` itself takes any.
        levels: bins a side of each level of the pyramid.
        multi_size: train at ``size`` and at 180/224 of it in turn.
        width: factor on all maps and hidden dense units.
        dropout: after the first two dense layers.
        evaluation: predict from the centre; from the whole image ("full"); or from windows, mirrored, of several scales ("views").
        scales: short sides for "views"; None is the paper's 224, 256, 300, 360, 448, 560, in proportion to ``size``.
    """
    unpublished("sppnet", pretrained)
    check_within(32, 1024, size=size)
    check_width(width)
    if not levels or not 1 <= min(levels) <= max(levels) <= 32:
        raise UsageError(f"model.levels={tuple(levels)}: bins a side of each level, each in 1..32")
    if scales is not None and (not scales or not size <= min(scales) <= max(scales) <= 2048):
        raise UsageError(f"model.scales={tuple(scales)}: short sides, each in {size}..2048 (from model.size)")
    network = SPPNet(num_classes, in_chans, size=size, levels=levels, width=width, dropout=dropout)
    sizes = (size, round(size * 180 / 224)) if multi_size else (size,)
    return SPPNetClassifier(network, in_chans, evaluation, scales or [round(s * size / 224) for s in SCALES], sizes)


NETWORKS = {"sppnet": SPPNet}

RECIPES = {"sppnet": PHOTOS}

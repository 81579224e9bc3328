"""Landmarks by regression: a network that gives the coordinates of named points (2017).

Feng, Kittler, Awais, Huber, Wu: Wing Loss for Robust Facial Landmark Localisation with Convolutional Neural Networks, CVPR 2018,
arXiv 1711.06753, 2017.

What was new: a loss whose gradient grows as errors shrink, so that the many small errors are not drowned by the few large ones.

Where what stands:

* section 3, direct regression of (x_1, y_1, ..., x_K, y_K) from the whole image by a small network: :class:`LandmarkNet`,
* equation 5, the loss: :func:`saccade.losses.wing.wing_loss`; L2, L1 and smooth L1 (equations 2 to 4) by ``recipe.loss``.

Deviations. The paper's CNN-6 takes 64x64 faces; ours is a small plain network on 96x96, or any of timm (``model.backbone``). The paper's
pose-based data balancing (section 5) and the two-stage network (section 6) are not here. Images are stretched to the square input, as
they are: no face detector before it.

Mirroring needs to know which points are left and which right: ``recipe.hflip`` works where the data say it, or name points left_* and
right_* (or l_* and r_*).

Pinned by tests: the loss, number by number and at its joint; that a point without label has no gradient; pixels of the original image.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from saccade.data.transforms.preprocess import Preprocess, for_channels
from saccade.layers.grid_vector import GridVector, coordinate_head
from saccade.models.base import Images
from saccade.models.bounds import check_within
from saccade.models.classify.base import unpublished
from saccade.models.landmarks.base import LandmarkModel
from saccade.types.recipe import Recipe


class LandmarkNet(LandmarkModel):
    """A backbone, a dense layer, 2K coordinates: see the module's docstring and :func:`landmark_net`."""

    def __init__(self, num_classes: int, features: GridVector, hidden: int, preprocess: Preprocess, between: str) -> None:
        super().__init__(num_classes, preprocess, between)
        self.features = features
        self.points = coordinate_head(hidden, 2 * num_classes)

    def raw(self, images: Images) -> Tensor:
        """(N, C, size, size) to (N, K, 2): x and y as fractions of the image's width and height."""
        return self.points(self.features(images)).unflatten(1, (self.num_classes, 2)).float()


def landmark_net(
    num_classes: int = 68,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 96,
    width: int = 16,
    hidden: int = 256,
    dropout: float = 0.0,
    backbone: str | None = None,
    pretrained_backbone: bool = False,
    between: str = "",
) -> LandmarkNet:
    """Points of one object an image, by regression.

    Args:
        num_classes: K, how many points.
        in_chans: 1 or 3.
        pretrained: no weights are published; True is an error.
        size: side to which images are stretched, from 32.
        width: channels of the plain network's first stage. hidden: of the dense layer. dropout: before the output.
        backbone: a network of timm instead. pretrained_backbone: with its published weights.
        between: "NAME,NAME": two points; errors are told as shares of their distance too (of the outer corners of the eyes, say).
    """
    unpublished("landmark_net", pretrained)
    check_within(32, 4096, size=size)
    check_within(1, 4096, width=width, hidden=hidden)
    features = GridVector(in_chans, size, hidden, name=backbone, width=width, pretrained=pretrained_backbone, dropout=dropout)
    mean, std = for_channels(in_chans)
    preprocess = Preprocess(mode="stretch", size=(size, size), channels=in_chans, mean=mean, std=std)
    return LandmarkNet(num_classes, features, hidden, preprocess, between)


RECIPES = {
    "landmark_net": Recipe(
        epochs=100,
        batch_size=8,
        optimizer="adamw",
        lr=2e-3,
        weight_decay=0.01,
        warmup=1.0,
        rotate=15.0,
        scale=0.2,
        translate=0.1,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
    )
}

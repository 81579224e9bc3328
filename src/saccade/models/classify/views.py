"""Classifiers whose predictions may look at many views of an image, while training and ``raw`` see its centre (OverFeat, SPP-net)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.data.transforms.preprocess import Preprocess
from saccade.models.base import Images
from saccade.models.classify.network import Network, NetworkClassifier, preprocess_for
from saccade.types.geometry import Geometry
from saccade.types.prediction import Prediction

CROP = 0.875
"""224 of 256: the side of the centre that training sees, of the image's short side."""


class ViewsClassifier(NetworkClassifier):
    """A :class:`NetworkClassifier` with two ways to predict.

    With ``evaluation="crop"`` it is an ordinary classifier of the centre of an image. With any other, the preprocessing keeps the whole
    image at the largest of ``scales``; ``raw`` and the losses take its centre, and predictions come from :meth:`probabilities`.

    Attributes:
        evaluation: "crop", or the paper's. scales: short sides in pixels at which the whole image is looked at.
    """

    def __init__(self, network: Network, in_chans: int, evaluation: str, scales: Sequence[int]) -> None:
        super().__init__(network, preprocess_for(network.input_size, in_chans, crop=CROP))
        self.evaluation, self.scales = evaluation, tuple(scales)
        if evaluation != "crop":
            mean, std = self.preprocess.mean, self.preprocess.std
            largest = max(*scales, round(network.input_size[0] / CROP))
            self.preprocess = Preprocess(mode="shortest", size=(largest, 2 * largest), channels=in_chans, mean=mean, std=std)

    def raw(self, images: Images) -> Tensor:
        """(N, C, H, W), or a list of (C, H, W) where whole images are kept, to logits (N, K) of the centres."""
        return super().raw(self.centres(images))

    def centres(self, images: Images) -> Tensor:
        """(N, C, *input_size): the images as they are with ``evaluation="crop"``, else their centres."""
        if self.evaluation == "crop":
            assert isinstance(images, Tensor)
            return images
        height, width = self.network.input_size
        views = []
        for image in images:
            whole = resize_short(image[None], round(height / CROP))
            top, left = (whole.shape[-2] - height) // 2, (whole.shape[-1] - width) // 2
            views.append(whole[..., top : top + height, left : left + width])
        return torch.cat(views)

    def probabilities(self, image: Tensor) -> Tensor:
        """(1, C, H, W), a whole image, to class probabilities (1, K) by the paper's evaluation."""
        raise NotImplementedError

    def predict_view(self, images: Images, geometries: Sequence[Geometry], **settings: Any) -> list[Prediction]:
        """As every model's; by the paper's evaluation where it is chosen."""
        if self.evaluation == "crop":
            return super().predict_view(images, geometries, **settings)
        seen = torch.cat([self.probabilities(image[None].to(self.device)).float() for image in images])
        out = self.decode(seen.log(), geometries, **settings)  # its softmax undoes the logarithm
        for prediction, geometry in zip(out, geometries, strict=True):
            prediction.classes, prediction.size = self.classes, geometry.original
        return out


def resize_short(images: Tensor, side: int) -> Tensor:
    """(N, C, H, W) resized to a short side, the aspect ratio kept up to 2 (longer ones are squeezed to it)."""
    height, width = images.shape[-2:]
    factor = side / min(height, width)
    size = [min(max(round(length * factor), side), 2 * side) for length in (height, width)]
    if size == [height, width]:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True)
